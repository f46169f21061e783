"""Features are read from the cache for the same content, settings and tokenizer, and no others."""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flaxbert.config import DataConfig, ModelConfig
from flaxbert.data import feature_cache, tokenization
from flaxbert.pipeline import feature_key
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks.classification import Classification, ClassificationOptions
from flaxbert.tasks.question_answering import QuestionAnswering, QuestionAnsweringOptions
from flaxbert.tasks.questions import QuestionExample
from flaxbert.tasks.texts import TextExample

LABELS = ("negative", "positive")
EXAMPLES = [
    TextExample("A great film.", None, 1, None, "train.tsv:2"),
    TextExample("An awful film.", None, 0, None, "train.tsv:3"),
]
OPTIONS = ClassificationOptions(labels=LABELS)
TASK = Classification(DataConfig(max_length=16), OPTIONS, LABELS)


def key(tokenizer: Any, task: Any = TASK, examples: Any = EXAMPLES, labeled: bool = True) -> Any:
    return feature_key.feature_key(task, examples, tokenizer, labeled=labeled)


def changed(index: int, **fields: Any) -> list[TextExample]:
    examples = list(EXAMPLES)
    examples[index] = dataclasses.replace(examples[index], **fields)
    return examples


def with_data(**fields: Any) -> Classification:
    return dataclasses.replace(TASK, data=dataclasses.replace(TASK.data, **fields))


OTHERS: dict[str, dict[str, Any]] = {
    "a text": {"examples": changed(0, text="A great film!")},
    "a second text": {"examples": changed(0, pair="")},
    "a label": {"examples": changed(1, label=1)},
    "a label of another type": {"examples": changed(1, label=False)},
    "a weight": {"examples": changed(1, weight=2.0)},
    "a teacher": {"examples": changed(1, teacher=(0.5, 0.5))},
    "an origin": {"examples": changed(1, origin="train.tsv:4")},
    "the order": {"examples": EXAMPLES[::-1]},
    "an example more": {"examples": [*EXAMPLES, EXAMPLES[0]]},
    "no examples": {"examples": []},
    "without labels": {"labeled": False},
    "the length": {"task": with_data(max_length=17)},
    "the overlap": {"task": with_data(overlap=5)},
    "what is skipped": {"task": with_data(on_bad_row="skip")},
    "an option": {
        "task": dataclasses.replace(
            TASK, options=dataclasses.replace(OPTIONS, long_texts="head_tail")
        )
    },
    "the labels": {"task": dataclasses.replace(TASK, labels=("good", "bad"))},
    "a subclass": {"task": type("Other", (Classification,), {"__module__": __name__})(
        TASK.data, OPTIONS, LABELS
    )},
}  # fmt: skip


@pytest.mark.parametrize("change", OTHERS.values(), ids=list(OTHERS))
def test_another_content_or_setting_has_another_key(change: dict[str, Any], tokenizer: Any) -> None:
    first = key(tokenizer)
    assert len(first) == 64
    assert key(tokenizer, examples=[dataclasses.replace(e) for e in EXAMPLES]) == first
    assert key(tokenizer, **change) not in (first, None)


@pytest.mark.parametrize(
    "change",
    [
        {"train": "elsewhere.tsv"},
        {"eval": "dev.tsv"},
        {"row_length": 512},
        {"packing": False},
        {"feature_cache": None},
        {"separator": "tab"},
    ],
)
def test_keys_that_features_do_not_depend_on_change_nothing(
    change: dict[str, Any], tokenizer: Any
) -> None:
    assert key(tokenizer, with_data(**change)) == key(tokenizer)


def test_options_of_the_loss_change_nothing(tokenizer: Any) -> None:
    options = dataclasses.replace(OPTIONS, label_smoothing=0.1, balanced_class_weights=True)
    task = dataclasses.replace(TASK, options=options, class_weights=(1.0, 2.0))
    assert key(tokenizer, task) == key(tokenizer)


def test_another_tokenizer_has_another_key(checkpoint: Path, tmp_path: Path) -> None:
    first = key(tokenization.load_tokenizer(checkpoint))
    same = tokenization.load_tokenizer(checkpoint)
    same("a text", truncation=True, max_length=5)  # which the tokenizer remembers
    assert key(same) == first
    for name, change in {
        "vocab.txt": lambda text: text.replace("film", "movie"),
        "tokenizer_config.json": lambda text: text.replace("true", "false"),
    }.items():
        directory = shutil.copytree(checkpoint, tmp_path / name)
        file = directory / name
        file.write_text(change(file.read_text()))
        assert key(tokenization.load_tokenizer(directory)) != first


def test_other_code_has_another_key(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(tokenizer)
    monkeypatch.setattr(feature_key, "_package_code", lambda: "other")
    assert key(tokenizer) != first


def test_values_that_have_no_exact_text_are_not_cached(tokenizer: Any) -> None:
    assert key(tokenizer, examples=changed(0, label=np.arange(3))) is None
    assert key(tokenizer, examples=[*EXAMPLES, "no dataclass"]) is None
    options = dataclasses.replace(OPTIONS, positive=object())
    assert key(tokenizer, dataclasses.replace(TASK, options=options)) is None


# --- the pipeline ------------------------------------------------------------------------------

QUESTIONS = [
    QuestionExample("q1", "who?", "the old king", (("king", 8),), None, "squad.json: question q1"),
    # In windows of five tokens no one holds this answer.
    QuestionExample(
        "q2", "who?", "the old king visited a bridge by the river",
        (("old king visited a bridge by", 4),), None, "squad.json: question q2",
    ),
    QuestionExample("q3", "who is it? " * 4, "queen", (("q", 0),), None, "squad.json: question q3"),
]  # fmt: skip


@pytest.fixture
def pipeline(one_layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(feature_cache, "LEAST_TOKENS", 0)
    data = DataConfig(
        max_length=10, overlap=2, on_bad_row="skip", feature_cache=str(tmp_path / "cache")
    )
    options = QuestionAnsweringOptions(max_answer_length=1)
    return Pipeline.build("question_answering", ModelConfig(init=str(one_layer)), data, options)


def tokenize(pipeline: Pipeline) -> Any:
    return pipeline.tokenize(QUESTIONS, "squad.json", batch_size=2, labeled=True)


def test_a_second_run_tokenizes_nothing_and_logs_the_same(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flaxbert")
    first, logged = tokenize(pipeline), list(caplog.messages)
    assert any("1 malformed rows skipped" in message for message in logged)
    assert any("answers are complete in no window" in message for message in logged)
    caplog.clear()
    monkeypatch.setattr(QuestionAnswering, "featurize", None)
    second = tokenize(pipeline)
    assert caplog.messages == logged
    assert second.examples == first.examples == QUESTIONS[:2]
    assert second.malformed == first.malformed == 1
    one, other = first.batches.features, second.batches.features
    assert other.unreachable == one.unreachable
    assert other.counts("train") == one.counts("train")
    assert other.unreachable["answer in no window"].keys() == {1}
    assert second.fingerprint(()) == first.fingerprint(())
    rows = first.batches.padded_rows(0)
    for name, values in vars(first.batches.build(rows)).items():
        if isinstance(values, np.ndarray):
            assert np.array_equal(getattr(second.batches.build(rows), name), values)


def test_the_cache_can_be_switched_off(pipeline: Pipeline, tmp_path: Path) -> None:
    off = dataclasses.replace(pipeline.data, feature_cache=None)
    tokenize(dataclasses.replace(pipeline, data=off))
    assert not (tmp_path / "cache").exists()
    tokenize(pipeline)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_requests_of_programs_are_not_stored(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.featurize(QUESTIONS, "inputs", labeled=False)
    assert not (tmp_path / "cache").exists()

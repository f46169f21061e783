"""Hosts of a run share the tokenizing of a large data set; threads stand for two hosts."""

import copy
import dataclasses
import logging
from pathlib import Path
from typing import Any

import fake_hosts
import numpy as np
import pytest
from test_hosts import hosts  # noqa: F401 (a fixture)

from flaxbert.config import DataConfig
from flaxbert.data import encoding, feature_cache
from flaxbert.errors import DataError, HostsError
from flaxbert.pipeline import featurizing
from flaxbert.pipeline.featurizing import features_of
from flaxbert.runtime import multihost
from flaxbert.tasks.classification import Classification, ClassificationOptions
from flaxbert.tasks.question_answering import QuestionAnswering, QuestionAnsweringOptions
from flaxbert.tasks.questions import QuestionExample
from flaxbert.tasks.texts import TextExample

DATA = DataConfig(max_length=16, overlap=4)
LABELS = ("negative", "positive")
CLASSES = Classification(DATA, ClassificationOptions(labels=list(LABELS)), LABELS)
TEXTS = [
    TextExample("a great film " * (1 + n % 7), None, n % 2, None, f"train.tsv:{n}")
    for n in range(30)
]
QUESTIONS = QuestionAnswering(DATA, QuestionAnsweringOptions())
ANSWERED = [
    QuestionExample(
        id=str(n), question="who?", context="the old king " * (1 + n % 9),
        answers=(("old king", 4),), slice=None, origin=f"train.json:{n}",
    )
    for n in range(30)
]  # fmt: skip


class Run:
    """Two hosts, each with its tokenizer, and the number of texts that each tokenizes."""

    def __init__(self, tokenizer: Any, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tokenizers = [copy.deepcopy(tokenizer) for _ in range(2)]
        self._call, self.texts = call, [0, 0]
        self.fails: dict[int, Exception] = {}
        self.meeting, chunk = fake_hosts.Meeting(2), encoding._chunk

        def gather_array(values: np.ndarray) -> np.ndarray:
            return np.stack(self.meeting.gather(multihost.place()[0], values))

        def counted(encodings: Any, **settings: Any) -> Any:
            host = multihost.place()[0]
            self.texts[host] += len(encodings)
            if host in self.fails:
                raise self.fails[host]
            return chunk(encodings, **settings)

        monkeypatch.setattr(multihost, "gather_array", gather_array)
        monkeypatch.setattr(encoding, "_chunk", counted)

    def features(
        self,
        task: Any,
        examples: Any,
        *,
        caches: tuple[Path | None, Path | None] = (None, None),
        shared: str | None = "train.tsv",
    ) -> list[Any]:
        """Return the features of each host, or its exception."""
        self.texts[:] = [0, 0]
        given = examples if isinstance(examples, tuple) else (examples, examples)
        return self._call(
            lambda host: features_of(
                task, given[host], self._tokenizers[host], caches[host], labeled=True, shared=shared
            )
        )


@pytest.fixture
def run(hosts: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Run:  # noqa: F811
    monkeypatch.setattr(featurizing, "LEAST_TEXTS", 30)
    monkeypatch.setattr(encoding, "CHUNK", 4)
    monkeypatch.setattr(feature_cache, "LEAST_TOKENS", 0)
    return Run(tokenizer, hosts, monkeypatch)


@pytest.mark.parametrize(("task", "examples"), [(CLASSES, TEXTS), (QUESTIONS, ANSWERED)])
def test_both_hosts_have_the_features_of_one_and_tokenize_half(task, examples, run, tokenizer):
    alone = task.featurize(examples, copy.deepcopy(tokenizer), labeled=True)
    passes = sum(run.texts) // len(examples)
    for features in run.features(task, examples):
        assert features.fingerprint() == alone.fingerprint()
        for field in dataclasses.fields(features):
            if field.name in ("truncated", "unreachable", "dropped", "notes"):
                assert getattr(features, field.name) == getattr(alone, field.name)
    assert sorted(run.texts) == [14 * passes, 16 * passes]


def test_small_data_and_calls_of_one_host_are_not_shared(run):
    for settings in ({"examples": TEXTS[:29]}, {"examples": TEXTS, "shared": None}):
        first, second = run.features(CLASSES, **settings)
        assert first.fingerprint() == second.fingerprint()
        assert run.texts == [len(settings["examples"])] * 2
    assert run.meeting.calls == 0


def test_features_in_all_caches_are_loaded_and_those_in_one_are_shared_again(run, tmp_path):
    both = tmp_path / "a", tmp_path / "b"
    expected = [features.fingerprint() for features in run.features(CLASSES, TEXTS, caches=both)]
    assert run.texts == [16, 14]
    for caches, counts in ((both, [0, 0]), ((both[0], None), [16, 14]), ((None, None), [16, 14])):
        features = run.features(CLASSES, TEXTS, caches=caches)
        assert [part.fingerprint() for part in features] == expected
        assert run.texts == counts


def test_hosts_with_other_examples_tokenize_alone(run, caplog):
    moved = [dataclasses.replace(text, origin=f"other/{text.origin}") for text in TEXTS]
    with caplog.at_level(logging.INFO, "flaxbert"):
        first, second = run.features(CLASSES, (TEXTS, moved))
    assert first.fingerprint() == second.fingerprint()
    assert run.texts == [30, 30]
    assert caplog.text.count("train.tsv: each host tokenizes all texts") == 1


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_share_reaches_both_hosts_with_its_place(failing, run):
    run.fails[failing] = DataError("train.tsv:17: no text")
    results = run.features(CLASSES, TEXTS)
    assert str(results[failing]) == "train.tsv:17: no text"
    other = results[1 - failing]
    assert isinstance(other, HostsError)
    assert str(other) == f"host {failing} ({'ab'[failing]}) stopped: train.tsv:17: no text"
    assert other.exit_code == 2


def test_examples_that_are_too_long_are_the_same_error_on_both_hosts(run):
    long = dataclasses.replace(ANSWERED[7], question="who was the king? " * 9)
    results = run.features(QUESTIONS, [*ANSWERED[:7], long, *ANSWERED[8:]])
    assert [type(error) for error in results] == [DataError, DataError]
    assert str(results[0]) == str(results[1])
    assert str(results[0]).startswith("train.json:7: the question has")


def test_progress_is_logged_by_the_first_host(run, monkeypatch, caplog):
    monkeypatch.setattr(featurizing.Progress, "SECONDS_BETWEEN_LINES", -1.0)
    with caplog.at_level(logging.INFO, "flaxbert"):
        run.features(CLASSES, TEXTS * 5)
    lines = [line for line in caplog.messages if "tokenized" in line]
    assert lines == [
        f"train.tsv: {done} texts tokenized, on each of 2 hosts a share" for done in (128, 150)
    ]

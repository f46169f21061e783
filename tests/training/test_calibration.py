"""Thresholds: the examples they are fitted on, and where the fitted ones are stored and used."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from toy import make_config

import flaxbert
from flaxbert import Config, DataConfig
from flaxbert.commands import modes
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.errors import ConfigError
from flaxbert.pipeline.datasets import split_for_thresholds
from flaxbert.pipeline.evaluator import Evaluation, Evaluator
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained.mapping import LoadReport
from flaxbert.runtime import sharding
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import HasThresholds
from flaxbert.tasks.multi_label import MultiLabel
from flaxbert.tasks.multi_label import MultiLabelOptions as MultiLabelOptions
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.question_answering import QuestionAnsweringOptions as QuestionOptions
from flaxbert.tasks.question_answering import QuestionExample as Question
from flaxbert.tasks.texts import TextExample
from flaxbert.training import programs
from flaxbert.training.state import TrainState
from flaxbert.training.step import StepReport

# --- which examples are held out -----------------------------------------------------------------

LABELS = MultiLabelOptions(labels=("joy", "love"))


def texts(*names: str) -> list[TextExample]:
    return [TextExample(name, None, (0, 1), None, f"x:{n}") for n, name in enumerate(names)]


def split(examples: Sequence[Any], *, share: float, seed: int = 0) -> Any:
    task = MultiLabel.create(DataConfig(), LABELS, None, {})
    return split_for_thresholds(examples, task, task_name="multi_label", share=share, seed=seed)


TEXTS = texts(*(f"text {n}" for n in range(20)))


@pytest.mark.parametrize(
    ("share", "count"), [(0.1, 2), (0.25, 5), (0.5, 10), (0.001, 1), (0.06, 1), (0.09, 2)]
)
def test_share_counts_documents_and_holds_out_at_least_one(share: float, count: int) -> None:
    kept, held = split(TEXTS, share=share)
    assert len(held) == count
    assert len(kept) == 20 - count
    # Every example is on one side, and each side keeps the order.
    for part in (kept, held):
        assert part == [example for example in TEXTS if example in part]
    assert not {example.text for example in kept} & {example.text for example in held}


def test_without_a_share_all_examples_are_trained_on() -> None:
    assert split(TEXTS, share=0.0) == (TEXTS, [])


def test_split_is_a_pure_function_of_the_seed() -> None:
    parts = [split(TEXTS, share=0.25, seed=seed)[1] for seed in range(8)]
    np.random.seed(1)  # the global generator must not matter
    assert parts == [split(TEXTS, share=0.25, seed=seed)[1] for seed in range(8)]
    different = {tuple(example.text for example in part) for part in parts}
    assert len(different) > 1
    assert any(part != TEXTS[:5] for part in parts)  # not just the first or the last
    assert any(part != TEXTS[-5:] for part in parts)


def test_split_does_not_depend_on_labels() -> None:
    before = {example.text for example in split(TEXTS, share=0.25)[1]}
    others = [dataclasses.replace(example, label=(1, 0)) for example in TEXTS]
    assert {example.text for example in split(others, share=0.25)[1]} == before


def test_equal_texts_are_held_out_together() -> None:
    examples = texts(*(["good film"] * 6 + ["bad food"] * 3 + ["old book", "red car"]) * 2)
    for seed in range(10):
        kept, held = split(examples, share=0.5, seed=seed)
        documents = {example.text for example in held}
        assert len(documents) == 2  # half of the four, whatever their sizes
        assert not documents & {example.text for example in kept}
        assert len(kept) + len(held) == 22


def test_questions_on_one_context_are_held_out_together() -> None:
    options = QuestionOptions(unanswerable=True)
    task = QuestionAnswering.create(DataConfig(overlap=8), options, None, {})
    examples = [
        Question(f"q{n}", f"what {n}?", f"context {n % 5}", (), None, f"x:{n}") for n in range(25)
    ]
    kept, held = split_for_thresholds(
        examples, task, task_name="question_answering", share=0.4, seed=0
    )
    contexts = {example.context for example in held}
    assert len(contexts) == 2
    assert [example for example in examples if example.context in contexts] == held
    assert len(held) == 10
    assert not contexts & {example.context for example in kept}


def test_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    for examples in (texts("film"), texts("film", "film")):
        with pytest.raises(
            ConfigError, match=r"data\.threshold_split=0\.5 leaves nothing to train on"
        ):
            split(examples, share=0.5)


OPTIONS: dict[str, dict[str, Any]] = {"classification": {"labels": ("a", "b")}}


@pytest.mark.parametrize("name", ["classification", "multiple_choice", "regression"])
def test_task_without_thresholds_refuses_a_split(name: str) -> None:
    options = TASKS[name].options_type(**OPTIONS.get(name, {}))
    task = TASKS[name].create(DataConfig(), options, None, {})
    assert not isinstance(task, HasThresholds)
    with pytest.raises(ConfigError) as caught:
        split_for_thresholds(TEXTS, task, task_name=name, share=0.25, seed=0)
    for part in ("data.threshold_split=0.25", repr(name), "no thresholds to fit"):
        assert part in str(caught.value)
    # Without a share there is nothing to refuse.
    undivided = split_for_thresholds(TEXTS, task, task_name=name, share=0.0, seed=0)
    assert undivided == (TEXTS, [])


def test_answerable_questions_refuse_a_threshold_split() -> None:
    data = DataConfig(overlap=8, threshold_split=0.25)
    with pytest.raises(ConfigError, match=r"options\.unanswerable=true"):
        QuestionAnswering.create(data, QuestionOptions(), None, {})


# --- a run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    """Use one device, which compiles faster; the layout makes no difference here."""
    original = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda **_: original(jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def config(one_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """40 texts, of which 30 are trained on in 4 steps."""
    directory = tmp_path_factory.mktemp("calibration")
    config = make_config("multi_label", one_layer, directory, count=40, most_words=6)
    config.data.threshold_split = 0.25
    config.optim.learning_rate = 1e-2
    return config


@dataclasses.dataclass
class Run:
    workdir: Path
    trained: list[TextExample]
    """The examples of the training steps."""
    held_out: list[TextExample]


@pytest.fixture(scope="module")
def finished(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    workdir = tmp_path_factory.mktemp("finished")
    shuffled: list[list[TextExample]] = []
    in_order: list[list[TextExample]] = []
    original = Pipeline.tokenize

    def tokenize(self: Pipeline, examples: list[Any], source: str, **settings: Any) -> Any:
        (in_order if settings.get("seed") is None else shuffled).append(examples)
        return original(self, examples, source, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "tokenize", tokenize)
        flaxbert.train(config, workdir)
    (trained,) = shuffled
    held_out = next(part for part in in_order if len(part) < 40)
    return Run(workdir, trained, held_out)


def exported(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "export" / "config.json").read_text())


def thresholds(workdir: Path) -> dict[str, float]:
    return exported(workdir)["flaxbert"]["thresholds"]


def stored_thresholds(workdir: Path) -> dict[int, Any]:
    """Return {step: thresholds} of the checkpoints."""
    files = (workdir / "checkpoints").glob("*/metadata.json")
    return {int(p.parent.name): json.loads(p.read_text())["thresholds"] for p in files}


def lines(workdir: Path, name: str = "eval_predictions.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def test_held_out_examples_are_not_trained_on(finished: Run) -> None:
    assert len(finished.trained) == 30
    assert len(finished.held_out) == 10
    texts = [{example.text for example in part} for part in (finished.trained, finished.held_out)]
    assert not texts[0] & texts[1]


def probabilities(workdir: Path, examples: list[TextExample]) -> np.ndarray:
    """Return [N, C] from the exported model, without packing."""
    model, params = flaxbert.from_pretrained(str(workdir / "export"))
    tokenizer = load_tokenizer(workdir / "export")
    batch = tokenizer([example.text for example in examples], padding=True, return_tensors="np")
    logits = jax.jit(model)(params, dict(batch))["logits"][:, 0]
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def test_export_has_the_best_thresholds_for_the_held_out_texts(finished: Run) -> None:
    names = [exported(finished.workdir)["id2label"][key] for key in ("0", "1")]
    found = thresholds(finished.workdir)
    assert list(found) == names == ["opinion", "place"]
    values = probabilities(finished.workdir, finished.held_out)
    for label, name in enumerate(names):
        gold = np.array([example.label[label] for example in finished.held_out], bool)
        assert gold.any()
        p = np.sort(values[:, label])
        cuts = (p + np.concatenate([[0], p[:-1]])) / 2
        f1 = [2 * (gold & (values[:, label] >= t)).sum() / ((p >= t).sum() + gold.sum())
              for t in cuts]  # fmt: skip
        best = max(np.flatnonzero(np.array(f1) == max(f1)))
        assert found[name] == pytest.approx(cuts[best], abs=1e-5)
        assert found[name] != 0.5


def test_checkpoint_has_the_thresholds_of_the_export(finished: Run) -> None:
    assert stored_thresholds(finished.workdir) == {4: {"thresholds": thresholds(finished.workdir)}}


def test_evaluation_predicts_with_the_thresholds(finished: Run) -> None:
    least = thresholds(finished.workdir)
    records = lines(finished.workdir)
    assert len(records) == 40
    for record in records:
        assert record["labels"] == [n for n, p in record["probability"].items() if p >= least[n]]
    halves = [[n for n, p in r["probability"].items() if p >= 0.5] for r in records]
    assert any(r["labels"] != half for r, half in zip(records, halves, strict=True))


def f1_macro(records: list[dict[str, Any]], gold: list[list[str]]) -> float:
    found = []
    for name in ("opinion", "place"):
        pairs = [(name in r["labels"], name in g) for r, g in zip(records, gold, strict=True)]
        hits = sum(p and g for p, g in pairs)
        found.append(2 * hits / sum(p + g for p, g in pairs))
    return sum(found) / 2


def test_mode_eval_uses_the_exported_thresholds(
    finished: Run, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.workdir / "export", tmp_path / "export")
    shutil.copy(finished.workdir / "config.json", tmp_path)
    modes.evaluate(config, tmp_path)
    capsys.readouterr()
    records = lines(tmp_path, "eval_results_predictions.jsonl")
    # The test above shows that these differ from those at 0.5.
    assert [record["labels"] for record in records] == [
        record["labels"] for record in lines(finished.workdir)
    ]
    found, results = (
        json.loads(path.read_text())
        for path in (tmp_path / "eval_results.json", finished.workdir / "results.json")
    )
    for name in ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "accuracy"):
        assert found[name] == results[name]
    assert config.data.eval is not None
    gold = [row["labels"] for row in lines(Path(config.data.eval).parent, "eval.jsonl")]
    assert found["f1_macro"] == pytest.approx(f1_macro(records, gold))


# --- which parameters and which step the thresholds belong to ------------------------------------


@pytest.fixture
def counting(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run of 4 steps whose model is its number of steps, evaluated after the 2nd and the 4th.

    A correct label has the probability 3/4, a wrong one 1/4, both divided by that number, so every
    threshold is half of its inverse. The F1 falls with each step.
    """

    def bias(params: Any) -> Any:
        return params["head"]["classifier"]["bias"]

    def start_compiling(step: Any, now: TrainState, sizes: Any, make_batch: Any) -> Any:
        def count(now: TrainState, batch: Any) -> tuple[TrainState, Any]:
            head = now.params["head"] | {
                "classifier": now.params["head"]["classifier"] | {"bias": bias(now.params) + 1}
            }
            sums = jax.tree.map(lambda value: value + 1, now.sums)
            params = now.params | {"head": head}
            now = dataclasses.replace(now, step=now.step + 1, params=params, sums=sums)
            return now, StepReport(sums, now.skipped)

        return lambda: count

    def run(self: Evaluator, params: Any, task: Any = None, **_: Any) -> Evaluation:
        steps = float(bias(params)[0])
        records = [
            {
                "probability": {
                    name: (0.75 if given else 0.25) / steps
                    for name, given in zip(("opinion", "place"), example.label, strict=True)
                }
            }
            for example in self.data.examples
        ]
        return Evaluation(records, {"f1_macro": 1 / steps})

    def zeros(self: Pipeline, **_: Any) -> Any:
        params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.model.shapes)
        return params, LoadReport("zeros", ())

    monkeypatch.setattr(Pipeline, "read_params", zeros)
    monkeypatch.setattr(programs, "start_compiling", start_compiling)
    monkeypatch.setattr(Evaluator, "start_compiling", lambda self, params: lambda: None)
    monkeypatch.setattr(Evaluator, "run", run)
    config = copy.deepcopy(config)
    config.train.eval_every = 2
    config.train.save_every = 3
    return config


def after(steps: int) -> dict[str, Any]:
    """Return the thresholds of the model after so many steps."""
    return {name: pytest.approx(0.5 / steps) for name in ("opinion", "place")}


def test_checkpoint_has_the_last_thresholds_and_the_export_those_of_its_parameters(
    counting: Config, tmp_path: Path
) -> None:
    counting.train.keep_best = "f1_macro"
    results = flaxbert.train(counting, tmp_path)
    assert (results["step"], results["best_step"]) == (4, 2)
    assert thresholds(tmp_path) == after(2)
    # The 3rd step is saved without an evaluation.
    assert stored_thresholds(tmp_path) == {3: {"thresholds": after(2)}, 4: {"thresholds": after(4)}}


def test_resumed_run_saves_the_thresholds_of_the_uninterrupted_one(
    counting: Config, tmp_path: Path
) -> None:
    counting.train.max_steps = 2
    flaxbert.train(counting, tmp_path)
    assert stored_thresholds(tmp_path) == {2: {"thresholds": after(2)}}
    counting.train.max_steps = None
    flaxbert.train(counting, tmp_path)
    assert stored_thresholds(tmp_path) == {3: {"thresholds": after(2)}, 4: {"thresholds": after(4)}}

"""Steps that are not finite change nothing and are reported; so are runs that learn nothing."""

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from toy import LABELS, build_pipeline, make_config, read_dataset

import flaxbert
from flaxbert.data.batching import Batches
from flaxbert.errors import DivergedError
from flaxbert.metrics.chance import worse_than_chance
from flaxbert.pipeline.evaluator import Evaluator
from flaxbert.runtime import checkpoint, sharding
from flaxbert.training.monitors import LearningMonitor, falls
from flaxbert.types import TaskOutputs

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def config(one_layer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("diverging")
    config = make_config("classification", one_layer, directory, count=32)
    config.train.batch_size, config.train.epochs = 8, 2.0
    config.train.log_every, config.train.save_every = 2, 1
    return config


@pytest.fixture
def poisoned(monkeypatch) -> set[int]:
    """Steps (from 1) whose loss is to be NaN."""
    steps: set[int] = set()
    build = Batches.build

    def poison(self: Batches, rows, step=0):
        batch = build(self, rows, step)
        if step + 1 in steps and self.seed is not None:
            batch = dataclasses.replace(batch, weight=batch.weight * np.float32("nan"))
        return batch

    monkeypatch.setattr(Batches, "build", poison)
    return steps


def test_first_nonfinite_step_stops_the_run_and_names_its_examples(config, tmp_path, poisoned):
    poisoned.add(5)
    with pytest.raises(DivergedError) as caught:
        flaxbert.train(config, tmp_path)
    message = str(caught.value)
    assert message.startswith(
        "step 5: the loss or its gradient is not finite (learning rate 0.00057;"
    )
    assert "train.jsonl:" in message
    assert "--config.train.max_nonfinite_steps=10" in message
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints")
    assert kept.latest_step() == 4  # and not the step that was bad
    kept.close()
    assert [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()] \
        == [2, 4, 4]  # fmt: skip
    assert not (tmp_path / "results.json").exists()


def test_nonfinite_steps_are_skipped_and_counted_up_to_the_limit(
    config, tmp_path, poisoned, caplog
):
    config = copy.deepcopy(config)
    config.train.max_nonfinite_steps = 3
    poisoned.update({3, 5, 6})
    results = flaxbert.train(config, tmp_path)
    assert results["skipped_steps"] == 3
    assert results["step"] == 8
    assert all(math.isfinite(value) for value in results.values())
    logged = [r.getMessage() for r in caplog.records if "not finite" in r.getMessage()]
    assert [line.split(":")[0] for line in logged] == ["step 3", "step 5", "step 6"]
    assert logged[2].endswith("skipped, 3 of at most 3")
    assert "has vanished" not in caplog.text
    arrays = checkpoint.read_newest(tmp_path / "checkpoints")[2]
    assert all(np.isfinite(array).all() for array in arrays.values())
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 8]  # 5 and 6 have no loss
    for values in lines:
        assert all(math.isfinite(value) for value in values.values())
        assert "loss" not in values or 0 < values["lowest_grad_norm"] < values["grad_norm"]


def test_run_stops_after_max_nonfinite_steps_also_across_restarts(config, tmp_path, poisoned):
    config = copy.deepcopy(config)
    config.train.max_nonfinite_steps = 2
    poisoned.update({2, 3, 7})
    with pytest.raises(DivergedError, match=r"^step 7: .*--config.train.max_nonfinite_steps=12"):
        flaxbert.train(config, tmp_path)
    # Skips before a restart count too.
    config.train.max_nonfinite_steps = 3
    assert flaxbert.train(config, tmp_path)["skipped_steps"] == 3


@pytest.mark.slow  # two runs
def test_skipped_step_changes_neither_parameters_nor_optimizer_state(config, tmp_path, poisoned):
    config = copy.deepcopy(config)
    config.train.max_steps, config.train.eval_every = 3, 0
    config.train.max_nonfinite_steps = 1
    flaxbert.train(config, tmp_path / "short")
    poisoned.add(4)
    config.train.max_steps = 4
    flaxbert.train(config, tmp_path / "long")
    (_, _, short), (_, _, long) = (
        checkpoint.read_newest(tmp_path / name / "checkpoints") for name in ("short", "long")
    )
    changed = {name for name in short if short[name].tobytes() != long[name].tobytes()}
    assert {name.split("/")[0] for name in changed} == {"step", "skipped"} | (
        {"sums"} & {name.split("/")[0] for name in changed}
    )


@pytest.mark.slow  # the tests above check the same without a real cause
def test_far_too_high_learning_rate_raises_diverged_error(config, tmp_path):
    config = copy.deepcopy(config)
    config.optim.learning_rate, config.optim.clip_norm = 1e30, 0.0
    with pytest.raises(DivergedError, match="not finite"):
        flaxbert.train(config, tmp_path)


# --- runs that learn nothing --------------------------------------------------------------------


def line(loss: float, lowest: float = 0.1) -> dict[str, float]:
    return {"loss": loss, "grad_norm": 1.0, "lowest_grad_norm": lowest}


def warnings_of(losses: Sequence[float], caplog: Any, *, labels: int = 3) -> list[str]:
    """Return the warnings about a run of 90 steps, 9 of warm-up, with a line every 10 steps."""
    monitor = LearningMonitor(first_loss=None, after=27, labels=labels)
    for number, loss in enumerate(losses, start=1):
        monitor.check_line(10 * number, line(loss))
    return [record.getMessage() for record in caplog.records]


# Losses of the quick start's lines (MiniLM, 552 sentences, three labels), run with other options.
LEARNS = {
    # accuracies 0.41, 0.54, 0.69, 0.72, 0.71
    "learning rate 2e-5": [1.0992, 1.0976, 1.0932, 1.0859, 1.0816, 1.0697, 1.0638, 1.0533, 1.0470],
    "learning rate 1e-4": [1.0983, 1.0751, 0.9052, 0.7995, 0.6705],
    "learning rate 1e-3": [1.0762, 1.0426, 0.9477, 0.9877, 0.7933, 0.6938, 0.6449, 0.5890, 0.5151],
    # It learns its training examples by heart: what it is worth is the evaluation's to say.
    "shuffled labels": [1.0992, 1.1026, 1.0825, 1.0743, 1.0303, 0.9711, 0.9134, 0.8111, 0.7927],
}
STAGNATES = {
    "learning rate 1e-7": [1.0994, 1.1002, 1.1012, 1.0982, 1.1014, 1.0971, 1.1002, 1.1006, 1.1003],
}


@pytest.mark.parametrize("name", LEARNS)
def test_run_that_learns_gives_no_warning(name, caplog):
    assert warnings_of(LEARNS[name], caplog) == []


@pytest.mark.parametrize("name", STAGNATES)
def test_run_that_learns_nothing_gives_one_warning(name, caplog):
    (warning,) = warnings_of(STAGNATES[name], caplog)
    assert "the model has learned nothing so far" in warning
    assert "optim.learning_rate" in warning


def test_loss_without_trend_is_rarely_taken_for_a_falling_one():
    generator = np.random.default_rng(0)
    runs = generator.normal(1.0, 0.01, size=(200, 8))
    assert sum(map(falls, runs.tolist())) < 20
    slow = runs - 0.02 * np.arange(8)
    assert sum(map(falls, slow.tolist())) > 190


def test_loss_that_fell_and_rose_again_gives_no_warning(caplog):
    monitor = LearningMonitor(first_loss=0.69, after=30)
    for step, loss in [(10, 0.69), (20, 0.66), (25, 0.63), (30, 0.6), (40, 0.69), (50, 0.69)]:
        monitor.check_line(step, line(loss))
    assert not caplog.records


def test_loss_that_returns_to_guessing_gives_one_warning(caplog):
    monitor = LearningMonitor(first_loss=0.8, after=30, labels=2)
    flat = [0.695, 0.693, 0.696, 0.692, 0.694, 0.695]
    for step, loss in [
        *((20, 0.693), (30, 0.5), (40, 0.69), (50, 0.6)),
        *((60 + 10 * n, loss) for n, loss in enumerate(flat)),
    ]:
        monitor.check_line(step, line(loss))
    assert [r.getMessage()[:63] for r in caplog.records] == [
        "step 100: the training loss (0.6940) stays at that of guessing "
    ]


# --- worse than chance ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "predicted", "warned"),
    [
        ([0, 1] * 32, [1, 0] * 32, True),  # 64 of 64 wrong
        ([0, 1, 2] * 30, [1, 2, 0] * 30, True),  # each class one off
        ([0, 1] * 32, [0, 1] * 32, False),
        ([0, 1] * 32, [1, 1] * 32, False),  # the same answer for all has a warning of its own
        ([0] * 64, [1] * 64, False),
        ([0, 1] * 4, [1, 0] * 4, False),  # too few to decide
        ([0, 1] * 32, [1, 0, 0, 1] * 16, False),
        ([0] * 90 + [1] * 10, [0] * 80 + [1] * 20, False),
        ([], [], False),
    ],
)
def test_only_accuracies_far_below_chance_give_a_warning(gold, predicted, warned):
    warning = worse_than_chance(gold, predicted, ["bad", "good", "fair"])
    assert bool(warning) == warned
    if warned:
        assert "0 = bad, 1 = good" in warning
        assert "'bad' is predicted as 'good'" in warning


class Passes(list):
    """A list that counts how often it is read whole."""

    passes = 0

    def count(self, value: object) -> int:
        Passes.passes += 1
        return super().count(value)

    def __iter__(self):
        Passes.passes += 1
        return super().__iter__()


def test_labels_are_counted_in_one_pass_for_any_number_of_labels():
    labels = range(1000)
    shifted = [*labels[1:], 0]
    names = [f"c{label}" for label in labels]
    warning = worse_than_chance(Passes([*labels] * 40), Passes([*shifted] * 40), names)
    assert "accuracy 0.000 is far below chance (0.001" in warning
    assert "of 40 times" in warning
    assert Passes.passes < 10


def test_evaluation_of_a_model_with_mixed_up_labels_gives_one_warning(
    one_layer, tmp_path, caplog, monkeypatch
):
    config = make_config("classification", one_layer, tmp_path, count=64)
    pipeline = build_pipeline(config)
    evaluator = Evaluator(pipeline, read_dataset(config, pipeline, "eval"), step=lambda *_: None)
    wrong = [{"label": LABELS[1 - example.label]} for example in evaluator.data.examples]
    monkeypatch.setattr(type(pipeline.task), "decode", lambda *_: wrong)
    monkeypatch.setattr(evaluator, "_forward", lambda *_: (TaskOutputs(), {}))
    for _ in range(2):
        assert evaluator.run({}).metrics["accuracy"] == 0
    assert [r.getMessage()[:40] for r in caplog.records if r.levelname == "WARNING"] == [
        "evaluation: accuracy 0.000 is far below "
    ]


# --- other signs -------------------------------------------------------------------------------


@pytest.mark.parametrize("lowest", [1e-8, 0.0])
def test_vanished_gradients_give_one_warning(caplog, lowest):
    monitor = LearningMonitor(first_loss=None, after=30)
    for step in (10, 20):
        monitor.check_line(step, line(1.0 / step, lowest=lowest))
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "step 10: the gradient of the encoder's first layer has vanished "
        f"({lowest:.1e} of 1.0e+00): the encoder does not learn."
    )


@pytest.mark.parametrize(
    "predictions",
    [
        [{"label": "ham"}] * 3,
        [{"labels": []}] * 3,
        [{"answer": ""}] * 3,
        [{"tags": ["O"]}, {"tags": ["O", "O"]}, {"tags": ["O", "O", "O"]}],
    ],
)
def test_equal_predictions_give_one_warning_after_the_warmup(caplog, predictions):
    monitor = LearningMonitor(first_loss=None, after=30)
    (key,) = predictions[0]
    monitor.check_predictions(10, predictions, key)
    assert not caplog.records
    monitor.check_predictions(30, predictions, key)
    monitor.check_predictions(40, predictions, key, "more advice")
    assert [r.getMessage()[:35] for r in caplog.records] == ["step 30: all 3 predictions have the"]


@pytest.mark.parametrize(
    "predictions",
    [
        [{"label": "ham"}, {"label": "spam"}],
        [{"tags": ["O"]}, {"tags": ["O", "B-LOC"]}],
        [],
    ],
)
def test_other_predictions_give_no_warning(caplog, predictions):
    key = next(iter(predictions[0])) if predictions else "label"
    LearningMonitor(first_loss=None, after=0).check_predictions(10, predictions, key)
    assert not caplog.records


def test_tasks_without_answers_to_compare_give_no_warning(caplog):
    LearningMonitor(first_loss=None, after=0).check_predictions(10, [{"value": 1.0}] * 3, None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("task", "labels"),
    [("classification", len(LABELS)), pytest.param("multi_label", 0, marks=pytest.mark.slow)],
)
def test_guessing_is_recognized_where_one_of_several_labels_is_right(
    one_layer, tmp_path, monkeypatch, task, labels
):
    given = []
    create = LearningMonitor.__init__

    def recorded(self, **arguments):
        given.append(arguments["labels"])
        create(self, **arguments)

    monkeypatch.setattr(LearningMonitor, "__init__", recorded)
    config = make_config(task, one_layer, tmp_path, count=8)
    config.train.max_steps = 1
    flaxbert.train(config, tmp_path / "run")
    assert given == [labels]


def test_inactive_monitor_gives_no_warning(caplog):
    monitor = LearningMonitor(first_loss=1.0, after=0, active=False)
    monitor.check_line(10, line(1.0, lowest=0.0))
    monitor.check_predictions(10, [{"label": "ham"}] * 3, "label")
    assert not caplog.records


def test_nonfinite_predictions_raise_diverged_error(one_layer, tmp_path):
    # The best tag among NaN is the first: no output of the task shows it.
    config = make_config("token_classification", one_layer, tmp_path, count=8)
    pipeline = build_pipeline(config)
    evaluator = Evaluator(pipeline, read_dataset(config, pipeline, "eval", labeled=False))
    params = pipeline.load_params()
    table = params["encoder"]["embeddings"]["word"]["embedding"]
    king = pipeline.tokenizer.convert_tokens_to_ids("king")
    poisoned = np.where(np.arange(len(table))[:, None] == king, np.float32("nan"), table)
    params["encoder"]["embeddings"]["word"]["embedding"] = poisoned
    with pytest.raises(DivergedError, match=r"eval.conll:\d+: the model's outputs .* not finite"):
        evaluator.run(sharding.shard_params(params, pipeline.mesh))

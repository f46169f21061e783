"""Early stopping: when a run ends, what it exports, and that a resumed run counts on."""

import shutil
from pathlib import Path

import jax
import pytest
from test_preemption import StopAt
from toy import make_config

import flaxbert
from flaxbert.config import Config
from flaxbert.errors import Preempted
from flaxbert.pipeline.evaluator import Evaluation, Evaluator
from flaxbert.training.plan import Plan

SCORES = (0.1, 0.7, 0.6, 0.7, 0.9)
"""Of the evaluations after steps 2, 4, 6, 8 and 10; of equals the first is the best."""


@pytest.fixture
def config(one_layer: Path, one_device: None, tmp_path: Path) -> Config:
    config = make_config("classification", one_layer, tmp_path, count=32, most_words=8)
    config.train.epochs, config.train.eval_every, config.train.early_stopping = 3.0, 2, 2
    return config


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each set of weights the next score, whatever the model answers."""
    scores: dict[bytes, float] = {}

    def evaluate(self: Evaluator, params, task, *, preemption) -> Evaluation:
        weights = b"".join(leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(params)))
        if weights not in scores:
            scores[weights] = SCORES[len(scores)]
        return Evaluation([], {"accuracy": scores[weights]})

    monkeypatch.setattr(Evaluator, "run", evaluate)


def numbers(results) -> dict[str, float]:
    return {name: value for name, value in results.items() if not name.startswith("perf/")}


def exported(workdir: Path) -> bytes:
    return (workdir / "export" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("scripted")
def test_run_stops_with_the_best_weights_and_a_resumed_one_counts_on(config, tmp_path, caplog):
    caplog.set_level("INFO", "flaxbert")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    results = flaxbert.train(config, whole)
    assert (results["step"], results["best_step"], results["stopped_early"]) == (8, 4, 1.0)
    assert results["accuracy"] == 0.7
    why = "step 8: training ended before step 12, because 2 evaluations (train.early_stopping) gave"
    assert f"{why} no better value than accuracy 0.7000 of step 4" in caplog.text
    with pytest.raises(Preempted):
        flaxbert.train(config, stopped, preemption=StopAt(7))
    assert numbers(flaxbert.train(config, stopped)) == numbers(results)
    assert exported(stopped) == exported(whole)
    # A run that was killed after it stopped trains no further.
    shutil.rmtree(stopped / "export")
    assert numbers(flaxbert.train(config, stopped)) == numbers(results)
    assert exported(stopped) == exported(whole)


@pytest.mark.parametrize(
    ("step", "best", "stops"),
    [(8, 4, True), (6, 4, False), (10, 4, True), (12, 4, False)],  # 12 is the last step anyway
)
def test_patience_is_counted_in_evaluations(step, best, stops):
    plan = Plan(12, 12, 4, 1, log_every=1, eval_every=2, save_every=100, patience=2)
    assert plan.stops_early(step, best) is stops


def test_without_patience_no_run_stops_early():
    plan = Plan(12, 12, 4, 1, log_every=1, eval_every=2, save_every=100)
    assert not any(plan.stops_early(step, 0) for step in range(13))

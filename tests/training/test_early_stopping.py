"""Early stopping: when a run ends, what it exports, and that a resumed run counts on."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import pytest
from fake_tracker import FakeRun, replace_wandb
from test_preemption import StopAt
from toy import make_config

import flaxbert
from flaxbert.commands import convert
from flaxbert.config import Config
from flaxbert.errors import Preempted
from flaxbert.pipeline.evaluator import Evaluation, Evaluator
from flaxbert.runtime import checkpoint
from flaxbert.training.plan import Plan

SCORES = (0.1, 0.7, 0.6, 0.7, 0.9)
"""Of the evaluations after steps 2, 4, 6, 8 and 10; of equals the first is the best."""


@pytest.fixture
def config(one_layer: Path, one_device: None, tmp_path: Path) -> Config:
    config = make_config("classification", one_layer, tmp_path, count=32, most_words=8)
    config.train.epochs, config.train.eval_every, config.train.early_stopping = 3.0, 2, 2
    config.train.ema, config.optim.freeze = 0.9, ("encoder/embeddings",)
    return config


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, float]:
    """Give each set of weights the next score, whatever the model answers."""
    scores: dict[bytes, float] = {}

    def evaluate(self: Evaluator, params, task, *, preemption) -> Evaluation:
        weights = content(params)
        if weights not in scores:
            scores[weights] = SCORES[len(scores)]
        return Evaluation([], {"accuracy": scores[weights]})

    monkeypatch.setattr(Evaluator, "run", evaluate)
    monkeypatch.setattr(Evaluator, "start_compiling", lambda self, params: lambda: None)
    return scores


def content(params) -> bytes:
    return b"".join(leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(params)))


def check_tracked(runs: list[FakeRun], workdir: Path, results: Mapping[str, float]) -> None:
    """The trackers of a run that was stopped and resumed have all its lines once."""
    stopped, finished = runs
    assert (stopped.opening.resumed, finished.opening.resumed) == (None, stopped.id)
    assert stopped.opening.settings["model.dtype"] == "float32"  # as resolved
    assert stopped.calls[-1] == ("close", "stopped")
    assert finished.calls[-2:] == [("summarize", dict(results)), ("close", "finished")]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": n} | line for n, line in stopped.lines + finished.lines] == lines


def test_run_stops_with_the_best_weights_and_a_resumed_one_counts_on(
    config, tmp_path, caplog, scores, monkeypatch
):
    caplog.set_level("INFO", "flaxbert")
    workdir = tmp_path / "run"
    config.train.trackers = ("wandb",)
    tracked = replace_wandb(monkeypatch)
    with pytest.raises(Preempted):
        flaxbert.train(config, workdir, preemption=StopAt(7))
    results = flaxbert.train(config, workdir)
    check_tracked(tracked, workdir, results)
    assert (results["step"], results["best_step"], results["stopped_early"]) == (8, 4, 1.0)
    assert results["accuracy"] == scores[content(flaxbert.from_pretrained(str(workdir))[1])] == 0.7
    why = "step 8: training ended before step 12, because 2 evaluations (train.early_stopping) gave"
    assert f"{why} no better value than accuracy 0.7000 of step 4" in caplog.text

    # Evaluated were the averages of the trained parameters with the frozen ones.
    arrays = checkpoint.read_newest(workdir / "checkpoints")[2]
    averages = {n.partition("/average/")[2]: n for n in arrays if "/average/" in n}
    names = [name.removeprefix("params/") for name in arrays if name.startswith("params/")]
    assert {n for n in names if n not in averages} == {n for n in names if "/embeddings/" in n}
    last = b"".join(arrays[averages.get(name, f"params/{name}")].tobytes() for name in names)
    assert list(scores) == [*list(scores)[:3], last]
    convert.export_newest(workdir, tmp_path / "converted")
    assert content(flaxbert.from_pretrained(str(tmp_path / "converted"))[1]) == last


@pytest.mark.slow  # two more runs
def test_run_that_was_interrupted_after_it_stopped_trains_no_further(config, tmp_path, scores):
    with pytest.raises(Preempted, match="after step 8"):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(9))
    results = flaxbert.train(config, tmp_path / "run")
    assert (results["step"], results["best_step"], results["stopped_early"]) == (8, 4, 1.0)
    assert scores[content(flaxbert.from_pretrained(str(tmp_path / "run"))[1])] == 0.7
    assert len(scores) == 4


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


def test_a_checkpoint_is_complete_before_the_best_weights_are_written(
    config, tmp_path, scores, monkeypatch
):
    config.train.max_steps, config.train.save_every = 2, 1
    stores, overlapping = [], []
    save, write_checksums = checkpoint.Store.save, checkpoint.Store._write_checksums

    def slow(self):
        if self.name.name == "checkpoints":
            time.sleep(0.5)
        write_checksums(self)

    def recorded(self, *arguments):
        overlapping.append([s._manager.is_saving_in_progress() for s in stores if s is not self])
        stores.append(self)
        save(self, *arguments)

    monkeypatch.setattr(checkpoint.Store, "_write_checksums", slow)
    monkeypatch.setattr(checkpoint.Store, "save", recorded)
    flaxbert.train(config, tmp_path / "run")
    assert overlapping == [[], [False], [False]]

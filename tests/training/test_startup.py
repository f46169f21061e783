"""Nothing is compiled that does not run, nothing while training runs, and nothing twice."""

import copy
import gzip
import json
import logging
from pathlib import Path

import jax
import pytest
from conftest import ROOT, write_checkpoint
from toy import make_config

import flaxbert
from flaxbert.commands import config_file
from flaxbert.errors import ConfigError
from flaxbert.training import run
from flaxbert.training.monitors import FiniteGuard

pytestmark = pytest.mark.usefixtures("one_device")


def compiles(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "compiles.jsonl").read_text().splitlines()]


def steps_of_lines(workdir: Path) -> list[int]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def late(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if "while training was running" in message]


@pytest.fixture(scope="module")
def config(one_layer, tmp_path_factory):
    config = make_config("classification", one_layer, tmp_path_factory.mktemp("data"), count=32)
    config.train.batch_size, config.train.log_every = 8, 2
    return config


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny checkpoint with as many positions as the shipped configurations need."""
    directory = tmp_path_factory.mktemp("weights")
    return write_checkpoint(directory, num_hidden_layers=1, max_position_embeddings=160)


SHIPPED = ("quickstart.py",)
SLOW = ("examples.py:qa", "examples.py:ner", "examples.py:spam")


@pytest.mark.parametrize(
    "name", [*SHIPPED, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_shipped_run_compiles_nothing_late_and_its_rerun_nothing_at_all(
    name, weights, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(ROOT)
    config = config_file.load_config(f"configs/{name}")
    config.model.init = str(weights)
    config.train.max_steps, config.train.log_every, config.train.eval_every = 4, 2, 2
    for workdir in (tmp_path / "first", tmp_path / "rerun"):
        jax.clear_caches()  # as in another process
        flaxbert.train(config, workdir)
        assert late(caplog) == []
        programs = {entry["function"] for entry in compiles(workdir)}
        assert {"train_step", "predict_step"} <= programs
    assert all(entry["cached"] for entry in compiles(tmp_path / "rerun"))


def test_best_weights_and_thresholds_compile_nothing_late(one_layer, tmp_path, caplog):
    config = make_config("multi_label", one_layer, tmp_path, count=32)
    config.data.threshold_split = 0.3
    config.train.eval_every, config.train.keep_best = 1, "f1_macro"
    jax.clear_caches()
    flaxbert.train(config, tmp_path / "run")
    assert late(caplog) == []


def test_finished_run_compiles_no_training_step(config, tmp_path):
    flaxbert.train(config, tmp_path)
    assert "train_step" in {entry["function"] for entry in compiles(tmp_path)}
    jax.clear_caches()
    flaxbert.train(config, tmp_path)
    functions = {entry["function"] for entry in compiles(tmp_path)}
    assert "predict_step" in functions
    assert "train_step" not in functions


# --- lines are written when the device has computed them -----------------------------------------


def test_line_is_read_two_steps_later_unless_the_run_evaluates_saves_or_ends(
    config, tmp_path, monkeypatch
):
    config = copy.deepcopy(config)
    config.train.epochs, config.train.eval_every, config.train.save_every = 2.0, 0, 5
    events = []

    def spy(kind, method):
        def spied(self, step, values):
            events.append((kind, step))
            method(self, step, values)

        return spied

    monkeypatch.setattr(FiniteGuard, "add", spy("sent", FiniteGuard.add))
    monkeypatch.setattr(run.Run, "_write_line", spy("line", run.Run._write_line))
    flaxbert.train(config, tmp_path)
    # Step 5 is saved, so the line of step 4 comes before it; step 8 is the last.
    assert [step for kind, step in events if kind == "sent"] == list(range(1, 9))
    before = {step: events[events.index(("line", step)) - 1] for step in (2, 4, 6, 8)}
    assert before == {2: ("sent", 4), 4: ("sent", 5), 6: ("sent", 8), 8: ("line", 6)}
    assert steps_of_lines(tmp_path) == [2, 4, 6, 8, 8]


def test_error_in_training_keeps_the_lines_of_steps_that_were_computed(
    config, tmp_path, monkeypatch
):
    config = copy.deepcopy(config)
    config.train.epochs, config.train.eval_every, config.train.log_every = 2.0, 0, 1
    advance = run.Run.advance
    count = iter(range(1, 9))

    def fail(self):
        advance(self)
        if next(count) == 5:
            raise OSError("the disk is gone")

    monkeypatch.setattr(run.Run, "advance", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        flaxbert.train(config, tmp_path)
    assert steps_of_lines(tmp_path) == [1, 2, 3, 4, 5]


# --- profiles ------------------------------------------------------------------------------------


def test_profile_has_the_steps_of_its_range_and_their_parts(config, tmp_path, caplog):
    caplog.set_level(logging.INFO, "flaxbert")
    config = copy.deepcopy(config)
    config.train.eval_every = 0
    flaxbert.train(config, tmp_path, profile=range(2, 4))
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("profile: ")]
    (trace,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    assert str(trace) in line
    assert "https://ui.perfetto.dev" in line
    events = json.loads(gzip.decompress(trace.read_bytes()))
    events = events["traceEvents"] if isinstance(events, dict) else events
    steps = {e["args"]["step_num"] for e in events if e.get("name") == "train" and e.get("args")}
    assert {str(step) for step in steps} == {"2", "3"}


def test_profile_after_the_last_step_is_refused_before_weights_are_read(config, tmp_path):
    with pytest.raises(ConfigError, match=r"^--profile=5:9: the run ends after step 4\. Give ear"):
        flaxbert.train(config, tmp_path, profile=range(5, 9))
    assert not (tmp_path / "config.json").exists()


def test_profile_before_the_step_that_a_run_resumes_from_is_a_warning(config, tmp_path, caplog):
    flaxbert.train(config, tmp_path)
    flaxbert.train(config, tmp_path, profile=range(1, 3))
    assert "--profile=1:3: no profile, because the run resumes after step 4" in caplog.text
    assert not (tmp_path / "profile").exists()

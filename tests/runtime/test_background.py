"""Trackers in the background: whatever they do, the run has its lines and its time."""

import dataclasses
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_tracker import MODULE, replace_wandb
from toy import make_config

import flaxbert
from flaxbert.errors import ConfigError, Preempted
from flaxbert.runtime.trackers import background
from flaxbert.runtime.trackers.background import BackgroundTrackers


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"task": "toy", "train": {"epochs": 2.0}}')
    return tmp_path


def track(workdir: Path, *steps: int, resumed: bool = False, results: Any = None) -> None:
    with BackgroundTrackers(["wandb"], "project") as trackers:
        trackers.start(workdir, resumed=resumed)
        for step in steps:
            trackers.log(step, {"loss": step / 2, "eval/f1": float("nan")})
        if results is not None:
            trackers.summarize(results)


def test_lines_settings_and_results_arrive_in_order(workdir, monkeypatch):
    runs = replace_wandb(monkeypatch)
    track(workdir, 1, 2, results={"accuracy": 0.5, "loss": float("inf")})
    (run,) = runs
    assert run.opening.settings == {"task": "toy", "train.epochs": 2.0}
    assert (run.opening.project, run.opening.name) == ("project", workdir.name)
    assert run.calls == [
        ("open",),
        ("log", 1, {"loss": 0.5}),
        ("log", 2, {"loss": 1.0}),
        ("summarize", {"accuracy": 0.5}),
        ("close", "finished"),
    ]


def test_a_resumed_run_continues_and_repeats_no_step(workdir, monkeypatch):
    runs = replace_wandb(monkeypatch)
    track(workdir, 1, 2, 3)
    track(workdir, 2, 3, 4, resumed=True)  # the last checkpoint was of step 1
    assert runs[1].opening.resumed == "tracker's id"
    assert runs[1].lines == [(4, {"loss": 2.0})]
    track(workdir, 1)  # a new run in the same directory
    assert runs[2].opening.resumed is None
    assert runs[2].lines == [(1, {"loss": 0.5})]


def test_metrics_of_an_evaluation_are_not_taken_for_repeated(workdir, monkeypatch):
    runs = replace_wandb(monkeypatch)
    with BackgroundTrackers(["wandb"], None) as trackers:
        trackers.start(workdir, resumed=False)
        trackers.log(1, {"loss": 0.5})
        trackers.log(1, {"eval/loss": 0.4})
    assert runs[0].lines == [(1, {"loss": 0.5}), (1, {"eval/loss": 0.4})]


@pytest.mark.parametrize("call", ["open", "log", "summarize", "close"])
def test_a_tracker_that_fails_is_one_warning(workdir, monkeypatch, caplog, call):
    replace_wandb(monkeypatch, fails_at=call)
    track(workdir, *range(50), results={"accuracy": 0.5})
    (record,) = caplog.records
    assert "wandb failed, and training continues without it (OSError: " in record.getMessage()


def test_a_slow_tracker_drops_lines_and_says_how_many(workdir, monkeypatch, caplog):
    monkeypatch.setattr(background, "MOST_LINES", 10)
    release = threading.Event()
    runs = replace_wandb(monkeypatch, blocks_at="open", release=release)
    with BackgroundTrackers(["wandb"], None) as trackers:
        trackers.start(workdir, resumed=False)
        for step in range(15):
            trackers.log(step, {"loss": 1.0})
        release.set()
    first, last = (record.getMessage() for record in caplog.records)
    assert "slower than training" in first
    assert "wandb: 5 lines were not sent" in last
    assert [step for step, _ in runs[0].lines] == list(range(10))


@pytest.mark.parametrize("call", ["open", "log", "close"])
def test_a_tracker_that_blocks_forever_is_left(workdir, monkeypatch, caplog, call):
    monkeypatch.setattr(background, "FINISH_SECONDS", 0.05)
    release = threading.Event()
    replace_wandb(monkeypatch, blocks_at=call, release=release)
    track(workdir, 1, 2)
    release.set()
    assert "wandb has not finished within" in caplog.text


def test_a_tracker_that_was_left_sends_nothing_more(workdir, monkeypatch):
    monkeypatch.setattr(background, "FINISH_SECONDS", 0.05)
    release = threading.Event()
    runs = replace_wandb(monkeypatch, blocks_at="open", release=release)
    track(workdir, 1, 2)  # another process may continue the run now
    release.set()
    for thread in threading.enumerate():
        if thread.name == "tracker wandb":
            thread.join(10)
    assert [run.lines for run in runs] in ([], [[]])


def test_results_are_sent_even_if_lines_are_dropped(workdir, monkeypatch):
    monkeypatch.setattr(background, "MOST_LINES", 2)
    release = threading.Event()
    runs = replace_wandb(monkeypatch, blocks_at="open", release=release)
    with BackgroundTrackers(["wandb"], None) as trackers:
        trackers.start(workdir, resumed=False)
        for step in range(5):
            trackers.log(step, {"loss": 1.0})
        trackers.summarize({"accuracy": 0.5})
        release.set()
    assert ("summarize", {"accuracy": 0.5}) in runs[0].calls


@pytest.mark.parametrize(
    ("error", "status"),
    [(Preempted, "stopped"), (KeyboardInterrupt, "stopped"), (ValueError, "failed")],
)
def test_status_says_how_the_run_ended(workdir, monkeypatch, error, status):
    runs = replace_wandb(monkeypatch)

    def run() -> None:
        with BackgroundTrackers(["wandb"], None) as trackers:
            trackers.start(workdir, resumed=False)
            raise error

    with pytest.raises(error):
        run()
    assert runs[0].calls[-1] == ("close", status)


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ConfigError, match=r'pip install "flaxbert\[wandb\]"'):
        BackgroundTrackers(["wandb"], None)


def test_other_hosts_have_no_trackers(monkeypatch, workdir):
    monkeypatch.setattr(background.multihost, "is_lead_host", lambda: False)
    track(workdir, 1)
    assert not (workdir / "trackers").exists()


def without_clock(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("perf/")}


def lines_of(workdir: Path) -> list[dict[str, Any]]:
    text = (workdir / "metrics.jsonl").read_text()
    return [without_clock(json.loads(line)) for line in text.splitlines()]


@pytest.mark.slow  # trains twice
def test_training_is_the_same_with_a_tracker_that_blocks(
    one_device, one_layer, tmp_path, monkeypatch
):
    monkeypatch.setattr(background, "FINISH_SECONDS", 0.05)
    release = threading.Event()
    replace_wandb(monkeypatch, blocks_at="open", release=release)
    config = make_config("classification", one_layer, tmp_path, count=16, most_words=8)
    plain = flaxbert.train(config, tmp_path / "plain")
    config.train = dataclasses.replace(config.train, trackers=("wandb",))
    tracked = flaxbert.train(config, tmp_path / "tracked")
    release.set()
    assert without_clock(dict(plain)) == without_clock(dict(tracked))
    assert lines_of(tmp_path / "plain") == lines_of(tmp_path / "tracked")
    plain_weights, tracked_weights = (
        (tmp_path / name / "export/model.safetensors").read_bytes() for name in ("plain", "tracked")
    )
    assert plain_weights == tracked_weights

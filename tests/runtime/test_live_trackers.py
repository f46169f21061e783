"""The real trackers without a network: W&B offline, Trackio's database, an MLflow server."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flaxbert.errors import Preempted
from flaxbert.runtime.trackers import background
from flaxbert.runtime.trackers.background import BackgroundTrackers

pytestmark = [
    pytest.mark.slow,  # needs the trackers' packages
    pytest.mark.filterwarnings("ignore"),  # of those packages
]
ODD = "f1/naïve (β)"
"""A metric of a label whose name has characters that MLflow does not accept."""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(background, "FINISH_SECONDS", 120.0)
    monkeypatch.setattr(background, "STOP_SECONDS", 120.0)
    monkeypatch.setenv("HOME", str(tmp_path))  # no one's keys and settings
    monkeypatch.chdir(tmp_path)
    config = {"task": "toy", "train": {"epochs": 2.0, "trackers": ["x"], "project": None}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def stopped_and_resumed(workdir: Path, name: str) -> None:
    """Log steps 1 to 4, stop, resume from step 2, and finish after step 6."""

    def stop() -> None:
        with BackgroundTrackers([name], "toys") as trackers:
            trackers.start(workdir, resumed=False)
            for step in range(1, 5):
                trackers.log(step, {"loss": 1 / step, ODD: 0.5})
            raise Preempted

    with pytest.raises(Preempted):
        stop()
    with BackgroundTrackers([name], "toys") as trackers:
        trackers.start(workdir, resumed=True)
        for step in range(3, 7):
            trackers.log(step, {"loss": 1 / step, ODD: 0.5})
        trackers.summarize({"step": 6.0, "accuracy": 0.75})


def test_wandb_without_a_key_is_offline_and_resumes_its_run(workdir, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb", reason='needs pip install "flaxbert[wandb]"')
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)  # it could prompt
    caplog.set_level("INFO", "flaxbert")
    stopped_and_resumed(workdir, "wandb")
    assert "so the run is offline" in caplog.text
    assert "failed" not in caplog.text
    wandb.teardown()  # its process writes the last lines
    first, second = sorted((workdir / "trackers" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert first.name == second.name  # the id
    for words in (b"loss", b"train.epochs"):
        assert words in first.read_bytes()
    assert b"final/accuracy" in second.read_bytes()


def test_trackio_logs_each_step_once_to_its_database(workdir, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason='needs pip install "flaxbert[trackio]"')
    stopped_and_resumed(workdir, "trackio")
    assert caplog.records == []
    from trackio.sqlite_storage import SQLiteStorage

    name = json.loads((workdir / "trackers" / "trackio.json").read_text())["id"]
    logs = SQLiteStorage.get_logs("toys", name)
    assert [line["step"] for line in logs if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["final/accuracy"] for line in logs if "final/accuracy" in line] == [0.75]
    assert SQLiteStorage.get_run_config("toys", name)["train.epochs"] == 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server on this machine."""
    pytest.importorskip("mlflow", reason='needs pip install "flaxbert[mlflow]"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}",
               "--workers=1", store]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{address}/health"):
            assert process.poll() is None
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def test_mlflow_server_has_each_step_once_with_parameters(server, workdir, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    stopped_and_resumed(workdir, "mlflow")
    assert caplog.records == []
    from mlflow import MlflowClient

    client: Any = MlflowClient(server)
    experiment = client.get_experiment_by_name("toys")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["train.epochs"] == "2.0"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(n, 1 / n) for n in range(1, 7)]
    assert run.data.metrics["f1/naïve _β_"] == 0.5
    assert run.data.metrics["final/accuracy"] == 0.75


def test_mlflow_names_are_accepted_by_mlflow():
    pytest.importorskip("mlflow", reason='needs pip install "flaxbert[mlflow]"')
    from mlflow.utils.validation import _validate_metric_name

    from flaxbert.runtime.trackers.mlflow import metric_name

    for name in (
        "loss",
        "perf/x",
        "f1/a b",
        "f1/#@%",
        "f1/..",
        "f1/.",
        "f1/",
        "f1//a",
        "f1/http://x",
        "f1/" + "x" * 246 + "/y",
        "f1/日本",
        "f1/" + "x" * 999,
    ):
        _validate_metric_name(metric_name(name))

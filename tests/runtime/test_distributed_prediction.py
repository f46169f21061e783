"""One, two and four processes evaluate and predict alike, and a killed prediction continues."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, write_checkpoint
from test_multihost import free_port, reproducible
from test_storage import gcs  # noqa: F401 (a fixture)
from toy import make_config, write_lines, write_sentiment

from flaxbert.runtime import storage

pytestmark = pytest.mark.slow  # many processes, each of which starts JAX

# Predict for 16 rows at a time; the first process is killed instead of adding the given part.
SCRIPT = """
import os, signal, sys
import flaxbert.run as run
from flaxbert.pipeline import bulk
from flaxbert.runtime.parts import Parts
bulk.ROWS, stop, add = 16, int(sys.argv.pop(1)), Parts.add
def killed(self, number, *values):
    if number == stop:
        os.kill(os.getpid(), signal.SIGKILL)
    print("part", number, flush=True)
    add(self, number, *values)
Parts.add = killed
sys.exit(run.main())
"""


class Hosts:
    """Four devices in one, two or four processes."""

    def __init__(self, directory: Path):
        self.directory = directory
        checkpoint = write_checkpoint(directory / "checkpoint", num_hidden_layers=1)
        data = make_config("classification", checkpoint, directory, count=64).data
        config = directory / "config.py"
        config.write_text(
            "from flaxbert import Config\n"
            "from flaxbert.tasks.classification import ClassificationOptions\n\n"
            "def get_config():\n"
            "    return Config(task='classification', options=ClassificationOptions())\n"
        )
        shards = directory / "shards"
        shards.mkdir()
        for number in range(3):
            file = write_sentiment(shards / f"{number}.jsonl", 15, seed=number, most_words=12)
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            write_lines(file, [{"text": row["text"]} for row in rows])
        self.flags = [
            f"--config={config}",
            f"--config.model.init={checkpoint}",
            f"--config.data.train={data.train}",
            f"--config.data.eval={data.eval}",
            f"--config.data.predict={shards}/*.jsonl",
            "--config.data.max_length=32",
            "--config.train.batch_size=16",
            "--config.train.eval_batch_size=8",
            "--config.train.max_steps=2",
            "--config.optim.learning_rate=1e-3",
        ]

    def run(
        self, mode: str, workdir: Path, processes: int, stop: int = 99
    ) -> tuple[list[int], list[str]]:
        """Return the exit codes and the output of all processes."""
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(4 // processes),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONPATH": str(ROOT),
        }
        spec = f"127.0.0.1:{free_port()},{processes}"
        logs = [self.directory / f"{number}.log" for number in range(processes)]
        started = []
        for number, log in enumerate(logs):
            distributed = [f"--distributed={spec},{number}"] if processes > 1 else []
            flags = [*self.flags, f"--mode={mode}", f"--workdir={workdir}", *distributed]
            with log.open("w") as out:
                command = [sys.executable, "-c", SCRIPT, str(stop), *flags]
                started.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
                )
        try:
            codes = [process.wait(240) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        return codes, [log.read_text() for log in logs]

    def require(self, mode: str, workdir: Path, processes: int) -> str:
        """Return the output of the first process; check that all succeed."""
        codes, texts = self.run(mode, workdir, processes)
        assert codes == [0] * processes, texts
        return texts[0]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    """With a run of one process in `one`, which has evaluated and predicted."""
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    for mode in ("train", "eval", "predict"):
        hosts.require(mode, hosts.directory / "one", 1)
    return hosts


def results(workdir: Path, name: str) -> dict[str, float]:
    return reproducible(json.loads((workdir / name).read_text()))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_train_evaluate_and_predict_as_one_does(hosts, tmp_path, processes):
    one, workdir = hosts.directory / "one", tmp_path / "run"
    hosts.require("train", workdir, processes)
    expected = results(one, "results.json")
    assert results(workdir, "results.json") == pytest.approx(expected, rel=1e-5)
    # From here on, both have the same weights.
    shutil.copytree(one / "export", workdir / "export", dirs_exist_ok=True)
    hosts.require("eval", workdir, processes)
    # The order of a sum over devices depends on what connects them.
    expected = pytest.approx(results(one, "eval_results.json"), rel=1e-6)
    assert results(workdir, "eval_results.json") == expected
    hosts.require("predict", workdir, processes)
    predictions = [(path / "predictions.jsonl").read_bytes() for path in (one, workdir)]
    assert predictions[0] == predictions[1]
    assert predictions[0].count(b"\n") == 45  # each row once


def test_killed_prediction_continues(hosts, tmp_path):
    one, workdir = hosts.directory / "one", tmp_path / "run"
    shutil.copytree(one, workdir)
    expected = (workdir / "predictions.jsonl").read_bytes()
    (workdir / "predictions.jsonl").unlink()
    codes, texts = hosts.run("predict", workdir, 2, stop=2)
    assert codes == [-signal.SIGKILL, 75], texts
    assert "error: host 0" in texts[1].splitlines()[-1]
    assert "part 1\n" in texts[0]
    assert not (workdir / "predictions.jsonl").exists()
    text = hosts.require("predict", workdir, 2)
    assert "part 2\n" in text
    assert "part 1\n" not in text
    assert (workdir / "predictions.jsonl").read_bytes() == expected


def test_prediction_in_a_bucket_continues(hosts, gcs, monkeypatch):  # noqa: F811
    for name, value in gcs.environment().items():
        monkeypatch.setenv(name, value)
    run = hosts.directory / "one"
    expected = (run / "predictions.jsonl").read_bytes()
    workdir = storage.as_path("gs://bucket/run")
    for path in [run / "config.json", *(run / "export").iterdir()]:
        storage.upload(path, workdir / str(path.relative_to(run)))
    codes, texts = hosts.run("predict", workdir, 1, stop=2)
    assert codes == [-signal.SIGKILL], texts
    assert any(name.startswith(".predictions-") for name in storage.files(workdir))
    text = hosts.require("predict", workdir, 1)
    assert "part 2\n" in text
    assert "part 1\n" not in text
    assert storage.read(workdir / "predictions.jsonl") == expected
    assert not any(name.startswith(".predictions-") for name in storage.files(workdir))

"""Two real processes share the tokenizing, with the data and the results of one process."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, write_checkpoint
from test_multihost import TIMEOUT, free_port, reproducible
from toy import make_config

pytestmark = pytest.mark.slow  # many processes, each of which starts JAX

# Share small data in small chunks; print how many texts this process tokenizes. In its second chunk
# process 1 fails, or is killed.
SCRIPT = """
import atexit, os, signal, sys
import flaxbert.run as run
from flaxbert.data import encoding
from flaxbert.errors import DataError
from flaxbert.pipeline import featurizing
from flaxbert.runtime import multihost
featurizing.LEAST_TEXTS, encoding.CHUNK = 32, 4
action, chunk, counts = sys.argv.pop(1), encoding._chunk, []
def counted(encodings, **settings):
    counts.append(len(encodings))
    if multihost.place()[0] == 1 and len(counts) == 2:
        if action == "fail":
            raise DataError("train.jsonl:17: no text")
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    return chunk(encodings, **settings)
encoding._chunk = counted
atexit.register(lambda: print("tokenized", sum(counts), "texts", flush=True))
sys.exit(run.main())
"""


def start(workdir: Path, flags: list[str], processes: int, action: str) -> tuple[list, list[str]]:
    """Return the exit codes and the output of all processes of a run."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(2 // processes),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(ROOT),
    }
    spec, started = f"127.0.0.1:{free_port()},{processes}", []
    logs = [workdir.with_suffix(f".{number}") for number in range(processes)]
    for number, log in enumerate(logs):
        distributed = [f"--distributed={spec},{number}"] if processes > 1 else []
        command = [sys.executable, "-c", SCRIPT, action, f"--workdir={workdir}", *flags]
        with log.open("w") as out:
            started.append(
                subprocess.Popen(
                    [*command, *distributed], cwd=ROOT, env=environment, stdout=out, stderr=out
                )
            )
    try:
        codes = [process.wait(TIMEOUT) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return codes, [log.read_text() for log in logs]


def flags_of(task: str, directory: Path) -> list[str]:
    """Return the flags of a run on 64 examples, half of them to evaluate on."""
    checkpoint = write_checkpoint(directory / "checkpoint", num_hidden_layers=1)
    data = make_config(task, checkpoint, directory, count=64).data
    kind = {"classification": "Classification", "pretraining": "PreTraining"}[task]
    file = directory / "config.py"
    file.write_text(
        "from flaxbert import Config\n"
        f"from flaxbert.tasks.{task} import {kind}Options\n\n"
        "def get_config():\n"
        f"    return Config(task={task!r}, options={kind}Options())\n"
    )
    return [
        f"--config={file}",
        f"--config.model.init={checkpoint}",
        f"--config.data.train={data.train}",
        f"--config.data.eval={data.eval}",
        f"--config.data.feature_cache={directory / 'cache'}",
        "--config.data.max_length=32",
        "--config.train.batch_size=16",
        "--config.train.max_steps=2",
        "--config.train.save_every=2",
    ]


def tokenized(text: str) -> int:
    (count,) = re.findall(r"^tokenized (\d+) texts$", text, re.MULTILINE)
    return int(count)


def fingerprints(workdir: Path) -> dict[str, str]:
    """Return the hashes of the run's data, which cover each token."""
    (metadata,) = (workdir / "checkpoints").glob("2/metadata.json")
    return json.loads(metadata.read_text())["data"]


@pytest.mark.parametrize("task", ["classification", "pretraining"])
def test_two_processes_tokenize_half_and_have_the_data_of_one(task, tmp_path):
    flags = flags_of(task, tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    codes, (alone,) = start(one, flags, 1, "none")
    assert codes == [0], alone
    codes, texts = start(two, flags, 2, "none")
    assert codes == [0, 0], texts
    counts, total = [tokenized(text) for text in texts], tokenized(alone)
    assert sum(counts) == total > 100
    assert max(counts) <= total / 2 + 8  # two data sets, with a chunk that is not even
    assert fingerprints(one) == fingerprints(two)
    expected, actual = (
        reproducible(json.loads((workdir / "results.json").read_text())) for workdir in (one, two)
    )
    assert actual == pytest.approx(expected, rel=1e-5)


def test_error_in_one_share_ends_both_processes_with_its_place(tmp_path):
    codes, texts = start(tmp_path / "run", flags_of("classification", tmp_path), 2, "fail")
    assert codes == [2, 2], texts
    assert "error: train.jsonl:17: no text" in texts[1]
    assert re.search(r"error: host 1 .* stopped: train.jsonl:17: no text", texts[0])


def test_killed_process_is_named_by_the_other_one(tmp_path):
    codes, texts = start(tmp_path / "run", flags_of("classification", tmp_path), 2, "kill")
    assert codes == [75, -signal.SIGKILL], texts
    assert "error: host 1" in texts[0].splitlines()[-1]

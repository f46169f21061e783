"""Signals: unsaved state is saved first, and a resumed run is bit-identical."""

import copy
import itertools
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from toy import make_config

import flaxbert
from flaxbert.commands import convert, verify_resume
from flaxbert.errors import Preempted, WeightsError, WorkdirError
from flaxbert.runtime import checkpoint
from flaxbert.runtime.preemption import Preemption

# While the signal arrives, the process is in C code that Python cannot interrupt.
SCRIPT = """
import hashlib, os, signal, sys, time
from flaxbert.runtime.preemption import Preemption
preemption = Preemption()
preemption.listen()
def busy():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
if sys.argv[1] == "other":
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.5)  # the thread would have ended the process
    sys.exit(0)
if sys.argv[1] == "holding":
    with preemption.holding():
        assert not preemption.requested()
        print("ready", flush=True)
        while not preemption.requested():
            time.sleep(0.01)
        print("requested", flush=True)
        busy()
busy()
"""


def listener(how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, how]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signal_ends_the_process_at_once_if_there_is_nothing_to_save(number):
    process = listener("idle")
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert time.monotonic() - start < 10  # what it computes takes a minute
    assert errors == "stopped (there was nothing to save); run the same command again to continue\n"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no such signal")
def test_signals_that_another_library_handles_have_no_effect():
    command = [sys.executable, "-c", SCRIPT, "other"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_first_signal_lets_the_process_save_and_a_second_ends_it_at_once():
    process = listener("holding")
    process.send_signal(signal.SIGTERM)
    assert [process.stdout.readline() for _ in range(2)] == ["requested\n", "ready\n"]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert errors.splitlines() == [
        "stopping once this step is saved (a second signal stops at once)",
        "stopped (at once); run the same command again to continue",
    ]


def test_signals_have_their_effect_after_stderr_is_closed():
    process = listener("holding")
    process.stderr.close()  # as after a lost connection
    process.send_signal(signal.SIGTERM)
    assert [process.stdout.readline() for _ in range(2)] == ["requested\n", "ready\n"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    process.stdout.close()


def test_hangup_ignored_by_nohup_stays_ignored(monkeypatch):
    taken = []
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    monkeypatch.setattr(signal, "signal", lambda number, handler: taken.append(number))
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda number, **_: None)
    Preemption().listen()
    assert taken == [signal.SIGINT, signal.SIGTERM]


class StopAt(Preemption):
    """A preemption requested at the given check: a step, or a batch of an evaluation."""

    def __init__(self, when: int):
        super().__init__()
        self._count = itertools.count(1)
        self._when = when

    def requested(self) -> bool:
        return next(self._count) >= self._when


@pytest.fixture(scope="module")
def finished(one_layer, tmp_path_factory):
    """A configuration, and the workdir of an uninterrupted run of 6 steps, evaluated every 3."""
    directory = tmp_path_factory.mktemp("preempted")
    config = make_config("classification", one_layer, directory, count=64)
    config.train.max_steps, config.train.eval_every, config.train.batch_size = 6, 3, 16
    config.train.eval_batch_size = 16  # four batches
    config.train.epochs = 2.0
    config.train.log_every = 2
    config.train.keep_best = "accuracy"
    flaxbert.train(config, directory / "finished")
    return config, directory / "finished"


SLOW = [(1, 1), (4, 3), (8, 4), (10, 6)]


# Each step is a check, and each of the four batches of an evaluation: 1 2 3, then 4 to 7.
@pytest.mark.parametrize(
    ("when", "step"),
    [
        (3, 3),
        (7, 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_resumed_run_is_bit_identical(finished, tmp_path, when, step):
    config, uninterrupted = finished
    with pytest.raises(Preempted, match=f"saved after step {step} of 6; the same command"):
        flaxbert.train(config, tmp_path, preemption=StopAt(when))
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints")
    assert kept.latest_step() == step
    assert not kept.metadata(step).evaluated
    kept.close()
    flaxbert.train(config, tmp_path)
    assert list(verify_resume.differences(uninterrupted, tmp_path)) == []


def test_signal_during_the_last_save_stops_before_the_export(finished, tmp_path):
    config, uninterrupted = finished
    checks = 6 + 2 * 4  # steps, and batches of two evaluations
    with pytest.raises(Preempted, match="saved after step 6 of 6"):
        flaxbert.train(config, tmp_path, preemption=StopAt(checks + 1))
    assert not (tmp_path / "export").exists()
    flaxbert.train(config, tmp_path)
    assert list(verify_resume.differences(uninterrupted, tmp_path)) == []


def test_signals_are_held_back_until_the_last_checkpoint_is_written(
    finished, tmp_path, monkeypatch
):
    config, _ = finished
    preemption, held = Preemption(), []
    close = checkpoint.Store.close

    def recorded(self):
        held.append(preemption._holding)
        close(self)

    monkeypatch.setattr(checkpoint.Store, "close", recorded)
    flaxbert.train(config, tmp_path, preemption=preemption)
    assert held[0]


@pytest.mark.slow  # five processes
def test_verify_resume_kills_and_resumes_a_run(finished, tmp_path, capsys):
    config, _ = finished
    file = tmp_path / "config.py"
    file.write_text(
        "from flaxbert import Config\n"
        "from flaxbert.tasks.classification import ClassificationOptions\n\n"
        "def get_config():\n"
        "    return Config(task='classification', options=ClassificationOptions())\n"
    )
    flags = [
        f"--config={file}",
        f"--config.model.init={config.model.init}",
        f"--config.data.train={config.data.train}",
        f"--config.data.eval={config.data.eval}",
        "--config.data.max_length=32",
        f"--workdir={tmp_path / 'runs'}",
    ]
    assert verify_resume.main(flags) == 0
    printed = capsys.readouterr().out
    assert "kill 3 of 3" in printed
    assert "too late" not in printed
    assert printed.endswith("PASS: the two runs are bit-identical\n")
    log = (tmp_path / "runs" / "killed" / ".log").read_text()
    assert log.count("resuming") == 2


def test_verify_resume_needs_a_number_of_kills(capsys):
    assert verify_resume.main(["--config=x.py", "--workdir=y", "--kills=some"]) == 2


def test_latest_checkpoint_of_an_unfinished_run_is_converted(finished, tmp_path):
    config, uninterrupted = finished
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(8))
    with pytest.raises(WeightsError, match=r"not finished.*flaxbert convert"):
        flaxbert.from_pretrained(str(tmp_path / "run"))
    convert.convert(str(tmp_path / "run"), tmp_path / "model")
    assert convert.inspect(str(tmp_path / "run"))
    _, params = flaxbert.from_pretrained(str(tmp_path / "model"))
    _, _, arrays = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    kernel = params["head"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["params/head/classifier/kernel"])
    converted, exported = (
        json.loads((d / "config.json").read_text())["id2label"]
        for d in (tmp_path / "model", uninterrupted / "export")
    )
    assert converted == exported
    for kept in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.rmtree(kept / "default")
    with pytest.raises(WorkdirError, match="no intact checkpoint"):
        convert.convert(str(tmp_path / "run"), tmp_path / "other")


def test_outdated_export_of_a_resumed_run_is_reported(finished, tmp_path, caplog):
    config, uninterrupted = finished
    shutil.copytree(uninterrupted, tmp_path / "run")
    flaxbert.from_pretrained(str(tmp_path / "run"))
    assert "older" not in caplog.text
    longer = copy.deepcopy(config)
    longer.train.max_steps = 8
    with pytest.raises(Preempted):
        flaxbert.train(longer, tmp_path / "run", preemption=StopAt(1))
    flaxbert.from_pretrained(str(tmp_path / "run"))
    assert "its export is older than its checkpoint of step 7." in caplog.text
    convert.convert(str(tmp_path / "run"), tmp_path / "model")
    _, params = flaxbert.from_pretrained(str(tmp_path / "model"))
    _, _, arrays = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    kernel = params["head"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["params/head/classifier/kernel"])


def test_verify_resume_reports_every_difference(finished, tmp_path):
    # Without this, a mistake in `differences` would make every comparison pass.
    config, uninterrupted = finished
    other = copy.deepcopy(config)
    other.train.seed = 1
    flaxbert.train(other, tmp_path)
    report = "\n".join(verify_resume.differences(uninterrupted, tmp_path))
    for name in ("metrics.jsonl:1: loss", "results.json: loss", "eval_predictions.jsonl",
                 "export/model.safetensors", "checkpoints/6: "):  # fmt: skip
        assert name in report

"""What a person sees: speed, tables of predictions."""

import dataclasses
import logging
import os
import pty
import subprocess
import sys

import pytest
from conftest import ROOT

from flaxbert import run
from flaxbert.commands import tables
from flaxbert.errors import DataError
from flaxbert.runtime import progress
from flaxbert.runtime.progress import Clock


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: time[0])
    return time


def sums(examples: float, tokens: float, steps: float) -> dict[str, float]:
    return {"examples": examples, "tokens": tokens, "steps": steps}


def test_speed_is_what_was_done_over_the_time_it_took(now):
    clock = Clock({})
    now[0] = 2.0
    assert clock.lap(sums(20, 100, 4)) == {
        "perf/examples_per_s": 10.0,
        "perf/tokens_per_s": 50.0,
        "perf/step_seconds": 0.5,
    }


def test_an_evaluation_does_not_count(now):
    clock = Clock({})
    now[0] = 1.0
    clock.pause()
    now[0] = 9.0
    clock.resume()
    now[0] = 10.0
    assert clock.lap(sums(20, 100, 4))["perf/examples_per_s"] == 10.0


def test_what_a_resumed_run_carries_over_is_no_speed_of_its_own(now):
    clock = Clock(sums(15, 80, 3))
    now[0] = 1.0
    assert clock.lap(sums(20, 100, 4))["perf/examples_per_s"] == 5.0
    now[0] = 3.0
    assert clock.lap(sums(20, 100, 4))["perf/examples_per_s"] == 10.0
    assert clock.totals()["perf/train_seconds"] == 3.0


def test_a_run_without_a_step_has_no_speed():
    assert Clock({}).totals() == {}


@dataclasses.dataclass
class Shown:
    """As much of a setup as the table of predictions asks for."""

    @property
    def task(self) -> "Shown":
        return self

    def table_row(self, example: str, record: str) -> dict[str, str]:
        return {"text": example, "predicted": record}


def test_brackets_in_a_text_are_shown_and_harmless(capsys):
    texts = ["[/quote] what a nice film", "[bold]loud[/bold]"]
    tables.show_predictions(Shown(), texts, ["good", "bad"])  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert all(text in printed for text in texts)


def test_a_stream_outlives_its_reader():
    reading, writing = os.pipe()
    stream = progress.lasting(writing)
    print("heard", file=stream, flush=True)
    assert os.read(reading, 100) == b"heard\n"
    os.close(reading)
    print("not heard", file=stream, flush=True)  # EPIPE
    stream.close()
    os.close(writing)


# What people see is printed in several ways, and a run goes on without all of them.
SPEAKING = """
import logging, sys, time
from flaxbert.runtime import progress
from flaxbert import run
for number, name in ((1, "stdout"), (2, "stderr")):
    setattr(sys, name, progress.lasting(number))
run._log_to_stderr()
bar = progress.Progress("train", 3)
sys.stdin.readline()
for _ in range(3):
    bar.advance()
bar.close()
logging.getLogger("flaxbert").warning("a warning")
print("a result " * 10_000)
print("an error", file=sys.stderr)
sys.exit(7)
"""


def test_a_process_whose_terminal_is_gone_goes_on_to_its_end():
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAKING],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    assert os.read(ours, 1)  # the bar
    os.close(ours)
    process.stdout.close()
    process.stdin.write(b"go on\n")
    process.stdin.close()
    assert process.wait(60) == 7


def test_nothing_that_is_shown_is_longer_than_a_screen(capsys, caplog):
    words = "word " * 20_000
    tables.show_predictions(Shown(), [words] * 8, [words] * 8)  # type: ignore[arg-type]
    assert len(capsys.readouterr().out.splitlines()) < 100
    tables.show_metrics({f"f1_{words}{n}": 0.5 for n in range(300)}, "results.json")
    printed = capsys.readouterr().out
    assert "260 more in results.json" in " ".join(printed.split())
    assert len(printed) < 100_000
    assert len(str(DataError(f"a.conll:1: {words}"))) < 4100
    assert str(DataError(f"a.conll:1: {words}. Fix it.")).endswith(". Fix it.")
    run._log_to_stderr()
    logging.getLogger("flaxbert").info(words)
    assert len(capsys.readouterr().err) < 4100

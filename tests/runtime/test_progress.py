"""Terminal output: speed, tables of predictions, streams that outlive their reader."""

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
from flaxbert.runtime import progress, terminal
from flaxbert.runtime.progress import Clock


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: time[0])
    return time


def sums(examples: float, tokens: float, steps: float) -> dict[str, float]:
    return {"examples": examples, "tokens": tokens, "steps": steps}


def test_speed_is_work_per_second(now):
    clock = Clock({})
    now[0] = 2.0
    assert clock.lap(sums(20, 100, 4)) == {
        "perf/examples_per_s": 10.0,
        "perf/tokens_per_s": 50.0,
        "perf/step_seconds": 0.5,
    }


def test_paused_time_does_not_count(now):
    clock = Clock({})
    now[0] = 1.0
    clock.pause()
    now[0] = 9.0
    clock.resume()
    now[0] = 10.0
    assert clock.lap(sums(20, 100, 4))["perf/examples_per_s"] == 10.0


def test_carried_sums_do_not_count(now):
    clock = Clock(sums(15, 80, 3))
    now[0] = 1.0
    assert clock.lap(sums(20, 100, 4))["perf/examples_per_s"] == 5.0
    now[0] = 3.0
    assert clock.lap(sums(20, 100, 4))["perf/examples_per_s"] == 10.0
    assert clock.totals()["perf/train_seconds"] == 3.0


def test_no_lap_has_no_totals():
    assert Clock({}).totals() == {}


@dataclasses.dataclass
class Shown:
    """The part of a pipeline that the table of predictions uses."""

    @property
    def task(self) -> "Shown":
        return self

    def table_row(self, example: str, record: str) -> dict[str, str]:
        return {"text": example, "predicted": record}


def test_markup_in_a_text_is_shown_verbatim(capsys):
    texts = ["[/quote] what a nice film", "[bold]loud[/bold]"]
    tables.show_predictions(Shown(), texts, ["good", "bad"])  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert all(text in printed for text in texts)


def test_stream_ignores_a_closed_reader():
    reading, writing = os.pipe()
    stream = terminal.resilient_stream(writing)
    print("read", file=stream, flush=True)
    assert os.read(reading, 100) == b"read\n"
    os.close(reading)
    print("not read", file=stream, flush=True)  # EPIPE
    stream.close()
    os.close(writing)


# A process that prints in every way continues without its terminal.
PRINTING = """
import logging, sys, time
from flaxbert.runtime import progress, terminal
from flaxbert import run
for number, name in ((1, "stdout"), (2, "stderr")):
    setattr(sys, name, terminal.resilient_stream(number))
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


def test_process_finishes_after_its_terminal_closes():
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTING],
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


def test_output_is_never_longer_than_a_screen(capsys, caplog):
    words = "word " * 20_000
    tables.show_predictions(Shown(), [words] * 8, [words] * 8)  # type: ignore[arg-type]
    assert len(capsys.readouterr().out.splitlines()) < 100
    tables.show_metrics({f"f1_{words}{n}": 0.5 for n in range(300)}, "results.json")
    printed = capsys.readouterr().out
    assert "260 more in results.json" in " ".join(printed.split())
    tables.show_metrics({"f1": 0.5}, "part[a-c].tsv")
    assert "part[a-c].tsv" in capsys.readouterr().out
    assert len(printed) < 100_000
    assert len(str(DataError(f"a.conll:1: {words}"))) < 4100
    assert str(DataError(f"a.conll:1: {words}. Fix it.")).endswith(". Fix it.")
    run._log_to_stderr()
    logging.getLogger("flaxbert").info(words)
    assert len(capsys.readouterr().err) < 4100

"""Progress on the terminal or in a notebook, and the speed of training."""

import logging
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress

from flaxbert.messages.language import tr
from flaxbert.runtime import notebook
from flaxbert.runtime.notebook import clock_time

log = logging.getLogger("flaxbert")

WIDEST = 98
"""Characters in a line of `show`."""


def is_watched() -> bool:
    """Return whether a person sees the output now: on a terminal, or below a cell."""
    return notebook.available() or sys.stderr.isatty()


def show(text: str) -> None:
    """Show a paragraph to a person, above the progress bar if there is one."""
    if notebook.available():
        sys.stdout.write(f"{text}\n")  # notebooks show stderr in red
        return
    width = min(shutil.get_terminal_size().columns - 1, WIDEST)
    lines = textwrap.fill(text, max(width, 20), initial_indent="> ", subsequent_indent="  ")
    sys.stderr.write(f"{lines}\n")


class Progress:
    """A progress bar on a terminal or in a notebook, or a log line now and then elsewhere.

    Attributes:
      note: text next to the bar, which the caller may set.
    """

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, what: str, total: int, *, done: int = 0, active: bool = True):
        """Show the progress of an operation that begins now.

        Args:
          what: the operation, such as "train".
          total: the count at its end.
          done: the count at its start, when a run resumes.
          active: whether to show anything.
        """
        self._what, self._total, self._done, self._active = what, total, done, active
        self._done_at_start, self._start, self.note = done, time.monotonic(), ""
        self._last_line = self._start
        self._bar: _TerminalBar | notebook.Bar | None = None
        if active and notebook.available():
            self._bar = notebook.Bar(what, total, done)
        elif active and sys.stderr.isatty():
            self._bar = _TerminalBar(what, total, done)

    def advance(self, count: int = 1) -> None:
        """Add `count` to the count of what is done."""
        self._done += count
        now = time.monotonic()
        per_item = (now - self._start) / max(1, self._done - self._done_at_start)
        seconds = per_item * (self._total - self._done)
        if self._bar is not None:
            self._bar.update(self._done, self.note, seconds)
        elif self._active and now - self._last_line > self.SECONDS_BETWEEN_LINES:
            self._last_line = now
            eta = f"{tr('ETA')} {clock_time(seconds)}"
            log.info(f"{self._what} {self._done}/{self._total}  {self.note}  {eta}")

    def close(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.close()


class _TerminalBar:
    """A progress bar on a terminal."""

    def __init__(self, what: str, total: int, done: int):
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn(tr("ETA")),
            rich.progress.TimeRemainingColumn(),
            console=rich.console.Console(stderr=True),
        )
        self._task = self._bar.add_task(what, total=total, completed=done, note="")
        self._bar.start()

    def update(self, done: int, note: str, remaining: float) -> None:
        """Set what is done and the text; rich estimates by itself what remains."""
        self._bar.update(self._task, completed=done, note=note)

    def close(self) -> None:
        """Stop the bar."""
        self._bar.stop()


class Clock:
    """A clock of the training speed, without evaluations; its metrics are named `perf/...`."""

    def __init__(self, carried: Mapping[str, Any]) -> None:
        """Start the clock.

        Args:
          carried: the part of the first lap's sums that an earlier process computed.
        """
        self._carried = carried
        self._lap_start = time.perf_counter()
        self._paused_at = self._lap_start
        self._seconds = self._examples = self._tokens = self._steps = 0.0

    def lap(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Return the speed since the last lap, from its sums of examples, tokens and steps."""
        now = time.perf_counter()
        examples, tokens, steps = (
            float(sums[name]) - float(self._carried.get(name, 0.0))
            for name in ("examples", "tokens", "steps")
        )
        self._carried = {}
        seconds, self._lap_start = now - self._lap_start, now
        self._seconds += seconds
        self._examples += examples
        self._tokens += tokens
        self._steps += steps
        return _speed(seconds, examples, tokens, steps)

    def pause(self) -> None:
        """Stop the clock."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Start the clock again."""
        self._lap_start += time.perf_counter() - self._paused_at

    def totals(self) -> dict[str, float]:
        """Return the mean speed over all laps; empty if there was none."""
        if not self._steps:
            return {}
        speed = _speed(self._seconds, self._examples, self._tokens, self._steps)
        return {"perf/train_seconds": self._seconds, **speed}


def _speed(seconds: float, examples: float, tokens: float, steps: float) -> dict[str, float]:
    seconds = max(seconds, 1e-9)
    return {
        "perf/examples_per_s": examples / seconds,
        "perf/tokens_per_s": tokens / seconds,
        "perf/step_seconds": seconds / max(steps, 1.0),
    }


def note(line: Mapping[str, float]) -> str:
    """Return the text next to the progress bar for a line of metrics.jsonl."""
    return tr(
        "loss {loss:.4f}  {examples:.1f} examples/s  {tokens:.0f} tokens/s",
        loss=line["loss"],
        examples=line["perf/examples_per_s"],
        tokens=line["perf/tokens_per_s"],
    )


def summary(metrics: Mapping[str, float]) -> str:
    """Return the metrics of an evaluation as one line of text."""
    return "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not k.startswith("perf/"))

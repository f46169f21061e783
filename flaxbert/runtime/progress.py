"""What a person sees while a run works, and how fast it goes."""

import io
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress

log = logging.getLogger("flaxbert")


class _Lasting(io.FileIO):
    """A file descriptor that drops what cannot be written, as when its terminal is gone."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def lasting(number: int) -> io.TextIOWrapper:
    """Return stdout (1) or stderr (2) as a stream that outlives its reader: so does the run."""
    raw = io.BufferedWriter(_Lasting(number, "w", closefd=False))
    now = sys.__stderr__ if number == 2 else sys.__stdout__
    encoding = now.encoding if now is not None else "utf-8"
    return io.TextIOWrapper(
        raw,
        encoding,
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=number == 2,
    )


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere; nothing if not `active`."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, what: str, total: int, *, done: int = 0, active: bool = True):
        self._what, self._total, self._done, self._active = what, total, done, active
        self._first, self._start, self.note = done, time.monotonic(), ""
        self._last_line = self._start
        self._bar = None
        if active and sys.stderr.isatty():
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("ETA"),
                rich.progress.TimeRemainingColumn(),
                console=rich.console.Console(stderr=True),
            )
            self._task = self._bar.add_task(what, total=total, completed=done, note="")
            self._bar.start()

    def advance(self, count: int = 1) -> None:
        """Count `count` more as done; `self.note` stands beside the bar."""
        self._done += count
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=self.note)
        elif self._active and now - self._last_line > self.SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._start) / (self._done - self._first) * (self._total - self._done)
            eta = f"ETA {left // 60:.0f}:{left % 60:02.0f}"
            log.info(f"{self._what} {self._done}/{self._total}  {self.note}  {eta}")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()


class Clock:
    """Training speed, evaluations left out. All that it measures is named `perf/...`."""

    def __init__(self, carried: Mapping[str, Any]) -> None:
        """Start; `carried` are sums of the first lap that were reached before."""
        self._carried = carried
        self._lap_start = time.perf_counter()
        self._paused_at = self._lap_start
        self._seconds = self._examples = self._tokens = self._steps = 0.0

    def lap(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Speed since the last lap, from the sums of examples, tokens and steps."""
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
        """Stop counting."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Count again."""
        self._lap_start += time.perf_counter() - self._paused_at

    def totals(self) -> dict[str, float]:
        """Mean speed over all laps; nothing if there was none."""
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
    """A line of metrics.jsonl as the text beside the progress bar."""
    return (
        f"loss {line['loss']:.4f}  {line['perf/examples_per_s']:.1f} examples/s  "
        f"{line['perf/tokens_per_s']:.0f} tokens/s"
    )


def summary(metrics: Mapping[str, float]) -> str:
    """The metrics of an evaluation on one line."""
    return "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not k.startswith("perf/"))

"""Trackers: where a run logs its metrics."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from flaxbert.runtime.trackers.background import BackgroundTrackers
from flaxbert.runtime.trackers.jsonl import JsonlTracker
from flaxbert.runtime.trackers.tensorboard import TensorBoardTracker


class Tracker(Protocol):
    """One place where metrics are logged."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""

    def sync(self) -> None:
        """Return once everything logged so far is on disk."""

    def close(self) -> None:
        """Flush and close."""


class Trackers:
    """All trackers of a run, used as one.

    Attributes:
      first_loss: the loss that the run logged first; None for a new run.
      last_logged_step: the step of the last line about training; 0 for a new run.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        background: BackgroundTrackers | None = None,
        *,
        first_loss: float | None = None,
        last_logged_step: int = 0,
    ):
        self._trackers, self._background = trackers, background
        self.first_loss, self.last_logged_step = first_loss, last_logged_step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step with every tracker."""
        for tracker in self._trackers:
            tracker.log(step, metrics)
        if self._background is not None:
            self._background.log(step, metrics)

    def summarize(self, results: Mapping[str, float]) -> None:
        """Log the final results with the trackers in the background, also after `close`."""
        if self._background is not None:
            self._background.summarize(results)

    def sync(self) -> None:
        """Return once everything logged so far is on disk."""
        for tracker in self._trackers:
            tracker.sync()

    def close(self) -> None:
        """Flush and close every tracker, also if another one fails."""
        with contextlib.ExitStack() as stack:
            for tracker in reversed(self._trackers):  # the stack closes in reverse order
                stack.callback(tracker.close)


def open_trackers(
    workdir: Path,
    background: BackgroundTrackers | None = None,
    *,
    step: int,
    evaluated: bool = True,
    active: bool = True,
) -> Trackers:
    """Open metrics.jsonl and TensorBoard, cut back to the step that the run continues from.

    Args:
      workdir: receives metrics.jsonl and tensorboard/.
      background: other trackers, to start; the caller closes them.
      step: the last step of the run so far; later lines are removed.
      evaluated: whether the evaluation of that step is complete; if not, its line is removed too.
      active: whether this host logs; without it there are no trackers.
    """
    if not active:
        return Trackers([])
    jsonl = JsonlTracker(workdir / "metrics.jsonl", step=step, evaluated=evaluated)
    try:
        tensorboard = TensorBoardTracker(workdir / "tensorboard", first_step=step + 1)
    except BaseException:
        jsonl.close()
        raise
    if background is not None:
        background.start(workdir, resumed=step > 0)
    return Trackers(
        [jsonl, tensorboard],
        background,
        first_loss=jsonl.first_loss,
        last_logged_step=jsonl.last_logged_step,
    )

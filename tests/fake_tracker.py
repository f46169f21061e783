"""A tracker that keeps what it gets, in place of that of Weights & Biases."""

import dataclasses
import sys
import threading
import types
from typing import Any

import pytest

from flaxbert.runtime.trackers.background import Opening

MODULE = "flaxbert.runtime.trackers.wandb"


@dataclasses.dataclass
class FakeRun:
    """A tracker's run that keeps what it gets; single calls fail or wait."""

    opening: Opening
    id: str = "tracker's id"
    fails_at: str = ""
    blocks_at: str = ""
    calls: list[Any] = dataclasses.field(default_factory=list)
    release: threading.Event = dataclasses.field(default_factory=threading.Event)

    def _call(self, name: str, *values: Any) -> None:
        if name == self.blocks_at:
            self.release.wait(60)
        if name == self.fails_at:
            raise OSError(28, "No space left on device")
        self.calls.append((name, *values))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._call("log", step, dict(metrics))

    def summarize(self, results: dict[str, float]) -> None:
        self._call("summarize", dict(results))

    def close(self, status: str) -> None:
        self._call("close", status)

    @property
    def lines(self) -> list[tuple[int, dict[str, float]]]:
        """The logged lines."""
        return [call[1:] for call in self.calls if call[0] == "log"]


def replace_wandb(patch: pytest.MonkeyPatch, **fields: Any) -> list[FakeRun]:
    """Install the tracker, and return the list of its runs, which it extends.

    Args:
      patch: undoes it.
      fields: those of each run.
    """
    runs: list[FakeRun] = []

    def open_run(opening: Opening) -> FakeRun:
        runs.append(FakeRun(opening, **fields))
        runs[-1]._call("open")
        return runs[-1]

    module: Any = types.ModuleType(MODULE)
    module.open_run = open_run
    patch.setitem(sys.modules, MODULE, module)
    return runs

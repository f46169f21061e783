"""Trackers of other projects, such as Weights & Biases; each one logs in a thread of its own.

They may be slow, out of reach or broken, and none of this may stop or slow down a run. So training
only appends to a bounded queue: a full one drops lines, and the end of the run waits for a few
seconds only. metrics.jsonl always has all lines.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import queue
import threading
import time
import types
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from flaxbert.errors import ConfigError, Preempted
from flaxbert.runtime import multihost
from flaxbert.runtime.files import write_json
from flaxbert.runtime.workdir import flatten

log = logging.getLogger("flaxbert")

MOST_LINES = 1000
"""Lines that wait for a tracker; further ones are dropped."""

FINISH_SECONDS, STOP_SECONDS = 20.0, 5.0
"""Time that a finished run, and one that stops before its end, waits for all trackers."""

Status = Literal["finished", "stopped", "failed"]
"""How a process that trains ends. A stopped run continues later."""


@dataclasses.dataclass(frozen=True)
class Opening:
    """What a tracker needs to open a run."""

    project: str | None
    """The project or experiment; None for the default of the environment."""
    name: str
    """The name of the run: that of its workdir."""
    id: str
    """A unique id, for trackers that do not choose their own."""
    resumed: str | None
    """The id of the run to continue, as its `TrackedRun` gave it; None for a new one."""
    settings: Mapping[str, Any]
    """The configuration, {dotted key: value}."""
    directory: Path
    """Where the tracker may store files; it exists."""


class TrackedRun(Protocol):
    """A run of one tracker. Calls may block or raise any error."""

    id: str
    """What the tracker needs to continue this run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log finite metrics of a step; steps never decrease."""

    def summarize(self, results: Mapping[str, float]) -> None:
        """Log the finite final results."""

    def close(self, status: Status) -> None:
        """Send everything, and end the run."""


class BackgroundTrackers:
    """The trackers of `train.trackers`, each in a thread. Only the lead host has any."""

    def __init__(self, names: Sequence[str], project: str | None):
        """Import the trackers.

        Args:
          names: modules of this folder.
          project: see `Opening`.

        Raises:
          ConfigError: if one cannot be imported, on all hosts.
        """
        self._project, self._threads = project, list[_Thread]()
        with multihost.fail_together():
            active = names if multihost.is_lead_host() else ()
            self._modules = {name: _import(name) for name in active}

    def start(self, workdir: Path, *, resumed: bool) -> None:
        """Start to log; return before any tracker is ready.

        Args:
          workdir: holds config.json, and receives trackers/.
          resumed: whether the run continues from a checkpoint, and so the trackers' runs too.
        """
        for name, module in self._modules.items():
            self._threads.append(_Thread(name, module, self._project, workdir, resumed=resumed))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step, later."""
        for thread in self._threads:
            thread.add((step, metrics))

    def summarize(self, results: Mapping[str, float]) -> None:
        """Log the final results, later."""
        for thread in self._threads:
            thread.add((None, results))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send what waits, for a few seconds at most."""
        stopped = kind is not None and issubclass(kind, Preempted | KeyboardInterrupt)
        status: Status = "finished" if kind is None else "stopped" if stopped else "failed"
        seconds = FINISH_SECONDS if status == "finished" else STOP_SECONDS
        limit = time.monotonic() + seconds
        for thread in self._threads:
            thread.close(status)
        for thread in self._threads:
            thread.wait(limit, seconds)


Line = tuple[int | None, Mapping[str, float]]
"""A step with its metrics; None with the final results."""


class _Thread:
    """The thread of one tracker, with the lines that wait for it."""

    def __init__(
        self,
        name: str,
        module: types.ModuleType,
        project: str | None,
        workdir: Path,
        *,
        resumed: bool,
    ):
        self._name, self._module, self._project = name, module, project
        self._workdir, self._resumed = workdir, resumed
        self._lines: queue.SimpleQueue[Line | Status] = queue.SimpleQueue()
        self._dropped, self._failed, self._abandoned = 0, False, False
        # A daemon: a tracker that blocks must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def add(self, line: Line) -> None:
        """Append a line, or drop it if too many wait."""
        if self._failed:
            return
        # No other thread appends. The results, which have no step, are never dropped.
        if line[0] is None or self._lines.qsize() < MOST_LINES:
            self._lines.put(line)
            return
        if not self._dropped:
            log.warning(f"{self._name} is slower than training: some lines are not sent to it")
        self._dropped += 1

    def close(self, status: Status) -> None:
        """End the thread once all lines are sent."""
        self._lines.put(status)

    def wait(self, limit: float, seconds: float) -> None:
        """Wait for the end of the thread until `limit`, and report what was not sent."""
        self._thread.join(max(0.0, limit - time.monotonic()))
        if self._thread.is_alive():
            self._abandoned = True  # another process, or cell of a notebook, may continue the run
            log.warning(
                f"{self._name} has not finished within {seconds:.0f} seconds, and may lack lines; "
                "metrics.jsonl has all of them"
            )
        if self._dropped:
            log.warning(
                f"{self._name}: {self._dropped:,} lines were not sent, because it was slower than "
                "training; metrics.jsonl has all of them"
            )

    def _run(self) -> None:
        try:
            self._send_all()
        except BaseException as error:  # also SystemExit: nothing else can report it here
            self._failed = True
            log.warning(
                f"{self._name} failed, and training continues without it "
                f"({type(error).__name__}: {error}); metrics.jsonl has all lines"
            )

    def _send_all(self) -> None:
        directory = self._workdir / "trackers"
        directory.mkdir(exist_ok=True)
        file = directory / f"{self._name}.json"
        state = _State.read(file) if self._resumed else _State()
        settings = json.loads((self._workdir / "config.json").read_text(encoding="utf-8"))
        name, new_id = self._workdir.resolve().name, uuid.uuid4().hex[:12]
        run: TrackedRun = self._module.open_run(
            Opening(self._project, name, new_id, state.id, flatten(settings), directory)
        )
        if self._abandoned:  # another process, or cell of a notebook, may continue the run
            return
        state.id = run.id
        state.write(file)
        while not isinstance(item := self._lines.get(), str):
            if self._abandoned:
                return
            step, metrics = item
            finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
            if step is None:
                run.summarize(finite)
            elif fresh := state.take_new(step, finite):
                run.log(step, fresh)
                if not self._abandoned:
                    state.write(file)
        run.close(item)


@dataclasses.dataclass
class _State:
    """What a tracker's file in the workdir says, so that a resumed run logs nothing twice."""

    id: str | None = None
    """See `TrackedRun.id`."""
    steps: dict[str, int] = dataclasses.field(default_factory=dict)
    """The last step that was sent, by metric."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; a new tracker has none."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        return cls()

    def take_new(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics that were not sent for this step or a later one, and note them."""
        new = {key: value for key, value in metrics.items() if step > self.steps.get(key, -1)}
        self.steps |= dict.fromkeys(new, step)
        return new

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, dataclasses.asdict(self))


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(f"flaxbert.runtime.trackers.{name}")
    except Exception as error:  # a broken installation may raise anything
        raise ConfigError(
            f"train.trackers={name}: the package {name} cannot be imported "
            f'({type(error).__name__}: {error}). Install it with pip install "flaxbert[{name}]", '
            "or leave this tracker out."
        ) from None

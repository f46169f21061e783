"""The loader builds the batches of this host and places them on its devices in advance.

A background thread builds the next batches while the device computes. A batch is a pure function of
the step number, so the results do not depend on the timing of the thread.
"""

import queue
import threading
from types import TracebackType
from typing import Self

from flaxbert.data.batching import Batches
from flaxbert.runtime import sharding
from flaxbert.types import Batch

AHEAD = 2
"""Batches that are built before they are needed. Each holds device memory."""


class Loader:
    """The batches of a data set, on the devices, by step number.

    Use it as a context manager, or call `close`: both end the background thread.
    """

    def __init__(self, batches: Batches, mesh: sharding.Mesh, *, ahead: int = AHEAD):
        """Create a loader; it builds nothing before the first batch is asked for.

        Args:
          batches: the batches of the data set.
          mesh: the devices.
          ahead: batches to build in advance; 0 builds each one when it is asked for.
        """
        self.batches, self._mesh, self._ahead = batches, mesh, ahead
        self._prefetch: _Prefetch | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of step number `step` (from 0), placed on the devices.

        Consecutive steps are built in advance; any other step may be asked for at any time.

        Raises:
          Exception: the error that building the batch raised in the background thread.
        """
        if not self._ahead or step >= self.batches.steps:
            return self._make(step)
        if self._prefetch is None or self._prefetch.step != step:
            self.close()
            self._prefetch = _Prefetch(self, step, self._ahead)
        try:
            return self._prefetch.take()
        except BaseException:
            self.close()  # the thread has ended: the next call starts another
            raise

    def empty(self, rows: int) -> Batch:
        """Return a batch of `rows` empty rows, to compile a step for their number."""
        return self._place([[] for _ in range(rows)], 0)

    def close(self) -> None:
        """End the background thread."""
        if self._prefetch is not None:
            self._prefetch.close()
            self._prefetch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make(self, step: int) -> Batch:
        return self._place(self.batches.padded_rows(step), step)

    def _place(self, rows: list[list[int]], step: int) -> Batch:
        local = [rows[row] for row in sharding.local_rows(len(rows), self._mesh)]
        built = self.batches.build(local, step)
        placed: Batch = sharding.make_global_batch(built, len(rows), self._mesh)
        return placed


class _Prefetch:
    """A thread that makes the batches of consecutive steps, up to `ahead` of them in advance."""

    def __init__(self, loader: Loader, step: int, ahead: int):
        self.step = step
        """The step that `take` returns next."""
        self._loader, self._ended = loader, threading.Event()
        # A bounded `queue.Queue` is written in Python, and takes several times as long to return
        # a batch that is ready.
        self._ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Holds an item for each batch that may be made."""
        for _ in range(ahead):
            self._room.put(None)
        self._thread = threading.Thread(target=self._run, args=(step,), daemon=True)
        self._thread.start()

    def take(self) -> Batch:
        result = self._ready.get()
        if isinstance(result, BaseException):
            raise result
        self._room.put(None)
        self.step += 1
        return result

    def close(self) -> None:
        self._ended.set()
        self._room.put(None)
        self._thread.join()

    def _run(self, step: int) -> None:
        for following in range(step, self._loader.batches.steps):
            self._room.get()
            if self._ended.is_set():
                return
            try:
                self._ready.put(self._loader._make(following))
            except BaseException as error:  # `take` raises it
                self._ready.put(error)
                return

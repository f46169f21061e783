"""The queue of inputs: those of several requests are computed together by one thread."""

import collections
import concurrent.futures
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from flaxbert.errors import DataError

log = logging.getLogger("flaxbert")

Results = concurrent.futures.Future[list[Any]]


class QueueFullError(Exception):
    """There is no room for the inputs of a request."""


class ClosedError(Exception):
    """The server is shutting down, and takes no further inputs."""


class InputError(Exception):
    """An input cannot be computed.

    Attributes:
      index: its index in the request.
      reason: the error.
    """

    def __init__(self, index: int, reason: Exception):
        super().__init__(f"input {index}: {reason}")
        self.index, self.reason = index, reason


@dataclasses.dataclass(frozen=True, eq=False)
class _Call:
    """The inputs of one request, and the results so far."""

    key: Hashable
    results: list[Any]
    missing: set[int]
    future: Results


@dataclasses.dataclass(frozen=True, eq=False)
class _Item:
    """One input in the queue."""

    call: _Call
    index: int
    value: Any
    arrived: float


class Batcher:
    """Collects inputs into batches, which a thread computes in the order of their arrival.

    Only inputs with the same key share a batch. If a batch fails, its inputs are computed one by
    one, so that only the request with the bad input fails.
    """

    def __init__(
        self,
        compute: Callable[[Any, list[Any]], Sequence[Any]],
        *,
        size: int,
        wait: float,
        capacity: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        """Create a batcher, and start its thread.

        Args:
          compute: a function of a key and its inputs that returns a result for each.
          size: the largest number of inputs in a batch.
          wait: seconds that an input waits for others, unless the batch is full before.
          capacity: the largest number of inputs that wait.
          observe: called with the size of each batch and the seconds that it took.
        """
        self._compute, self._observe = compute, observe
        self._size, self._wait, self._capacity = size, wait, capacity
        self._queue: collections.deque[_Item] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of inputs in the queue."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, key: Hashable, inputs: Sequence[Any]) -> Results:
        """Add the inputs of a request to the queue.

        Returns:
          The future results, one for each input. Its exception is an InputError. If it is
          cancelled, inputs that still wait are left out.

        Raises:
          QueueFullError: if there is no room for all of them.
          ClosedError: after `close`.
        """
        now, future = time.monotonic(), Results()
        call = _Call(key, [None] * len(inputs), set(range(len(inputs))), future)
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._queue) + len(inputs) > self._capacity:
                self._drop_cancelled()
            if len(self._queue) + len(inputs) > self._capacity:
                raise QueueFullError
            self._queue.extend(_Item(call, n, value, now) for n, value in enumerate(inputs))
            self._changed.notify()
        return future

    def close(self, timeout: float | None = None) -> None:
        """Take no further inputs, and wait until those in the queue are computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _drop_cancelled(self) -> None:
        kept = [item for item in self._queue if not item.call.future.done()]
        self._queue.clear()
        self._queue.extend(kept)

    def _run(self) -> None:
        while batch := self._next():
            start = time.monotonic()
            self._answer(batch)
            self._observe(len(batch), time.monotonic() - start)

    def _next(self) -> list[_Item]:
        """Wait for a batch, and remove it from the queue; empty if there will be no other."""
        with self._changed:
            while True:
                if not self._queue:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                left = self._queue[0].arrived + self._wait - time.monotonic()
                if left > 0 and not self._closed and len(self._queue) < self._size:
                    self._changed.wait(left)
                elif batch := self._take():
                    return batch

    def _take(self) -> list[_Item]:
        """Remove the first inputs with the key of the first one; those given up are dropped."""
        key, batch, others = self._queue[0].call.key, list[_Item](), list[_Item]()
        while self._queue and len(batch) < self._size:
            item = self._queue.popleft()
            if not item.call.future.done():
                (batch if item.call.key == key else others).append(item)
        self._queue.extendleft(reversed(others))
        return batch

    def _answer(self, batch: list[_Item]) -> None:
        try:
            results = self._compute(batch[0].call.key, [item.value for item in batch])
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    if not item.call.future.done():
                        self._answer([item])
                return
            if not isinstance(error, DataError):
                log.exception("an input could not be computed")
            _settle(batch[0].call.future, InputError(batch[0].index, error))
            return
        for item, result in zip(batch, results, strict=True):
            call = item.call
            call.results[item.index] = result
            call.missing.discard(item.index)
            if not call.missing:
                _settle(call.future, call.results)


def _settle(future: Results, outcome: Any) -> None:
    """Set the outcome of a future, unless its request has been given up."""
    if future.done() or not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)

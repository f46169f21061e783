"""Blocks of training steps that several processes take in turn, and what they report."""

import dataclasses
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


@dataclasses.dataclass
class Work:
    """What some training steps computed."""

    steps: int = 0
    examples: int = 0
    """Features."""
    tokens: int = 0
    """Tokens without padding."""
    places: int = 0
    """Token places of the batch, with padding."""
    pairs: int = 0
    """Sum of the squared lengths of the sequences: pairs of tokens that attend to each other."""
    seconds: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """Return the sum of both."""
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


astuple = dataclasses.astuple


class Turns:
    """The end of a pipe in a process that trains: it takes steps only when it is asked to.

    Before each step call `begin`, after it `end`. The parent sends the number of steps of a block
    and receives its `Work`; it sends 0 to stop.
    """

    def __init__(self, connection: Connection, steps: int, wait: Callable[[], Any]):
        """Prepare for a run of `steps` steps; `wait` returns when the device is idle."""
        self._connection, self._remaining, self._wait = connection, steps, wait
        self._left, self._start, self._work = 0, 0.0, Work()

    def begin(self) -> bool:
        """Wait until a step may begin; return False if there shall be no further step."""
        if self._left == 0 and self._remaining > 0:
            self._left = min(self._connection.recv(), self._remaining)
            self._start, self._work = time.perf_counter(), Work()
        return self._left > 0

    def end(self, work: Work) -> None:
        """Count a step; at the end of a block report it."""
        self._work += work
        self._left -= 1
        self._remaining -= 1
        if self._left == 0:
            self._wait()
            self._work.seconds = time.perf_counter() - self._start
            self._connection.send((self._work, self._remaining))


def report_errors(connection: Connection, run: Callable[..., None], *arguments: Any) -> None:
    """Run a process's main function; send the traceback of an error to the parent."""
    try:
        run(connection, *arguments)
    except BaseException:
        connection.send(traceback.format_exc())
        raise

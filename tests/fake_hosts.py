"""Threads that stand for the processes of a run."""

import threading
from collections.abc import Callable
from typing import Any

SECONDS = 20  # a thread that waits for one that has ended must not block the suite


class Meeting:
    """An operation in which all threads take part, such as a collective one of devices."""

    def __init__(self, count: int) -> None:
        self._values: list[Any] = [None] * count
        self._barrier = threading.Barrier(count)
        self.calls = 0

    def gather(self, index: int, value: Any) -> list[Any]:
        """Return the values of all threads, in order."""
        self._values[index] = value
        self._barrier.wait(SECONDS)
        values = list(self._values)
        if self._barrier.wait(SECONDS) == 0:
            self.calls += 1
        return values


def run(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call a function of the number of a thread in each; return their results or exceptions."""
    results: list[Any] = [None] * count

    def call(number: int) -> None:
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return results

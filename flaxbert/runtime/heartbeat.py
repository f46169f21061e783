"""Heartbeats: find out which host of a run no longer answers.

Each host counts up a value in the store of JAX's coordination service, in a thread of its own. So a
host that reads or compiles for minutes still answers, and one whose process or machine has ended
does not. JAX itself would abort the other processes after 100 seconds, with a stack trace.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping

PERIOD_SECONDS = 2.0
"""Interval at which a host counts up its value and reads those of the others."""

LOST_SECONDS = 30.0
"""Time without a heartbeat after which a host is lost."""

Exchange = Callable[[int], Mapping[int, str]]
"""Publish this host's count, and return {host: its latest value}."""


class Heartbeats:
    """The latest heartbeat of each host, and when it was received.

    Time is counted only while this process runs. After a pause, such as that of a virtual machine
    that is moved, all others seem to have been silent.
    """

    def __init__(self, this: int, count: int, clock: Callable[[], float] = time.monotonic):
        """Start to count; all hosts have answered a moment ago.

        Args:
          this: the number of this host.
          count: the number of hosts.
          clock: returns seconds.
        """
        self._this, self._clock, self._lock = this, clock, threading.Lock()
        self._last, self._awake, self._exchanged = clock(), 0.0, 0.0
        others = [host for host in range(count) if host != this]
        self._received, self._counts = dict.fromkeys(others, 0.0), dict.fromkeys(others, 0)
        self.values: dict[int, str] = {}
        """{host: its latest value}."""

    def run(self, exchange: Exchange, failures: type[Exception], ended: threading.Event) -> None:
        """Exchange heartbeats until `ended` is set.

        Args:
          exchange: see `Exchange`. It waits if the first host, which serves the store, is gone.
          failures: raised by `exchange` if the store cannot be reached.
          ended: ends the loop.
        """
        for number in itertools.count():
            with contextlib.suppress(failures):  # `lost` counts the time since the last exchange
                self.receive(exchange(number))
            if ended.wait(PERIOD_SECONDS):
                return

    def receive(self, values: Mapping[int, str]) -> None:
        """Store the values of an exchange."""
        now = self._exchanged = self._now()
        for host, value in values.items():
            if host != self._this and self.values.get(host) != value:
                self._received[host] = now
                self._counts[host] += 1
            self.values[host] = value

    def lost(self) -> int | None:
        """Return the number of a host that is lost; None if all answer."""
        now = self._now()
        if self._this != 0 and now - self._exchanged >= LOST_SECONDS:
            return 0  # it serves the store
        silent = (host for host, last in self._received.items() if now - last >= LOST_SECONDS)
        return next(silent, None)

    def wait_for_all(self) -> None:
        """Return when all other hosts have answered since the call."""
        # The next value that arrives may be older than the call.
        needed = {host: count + 2 for host, count in self._counts.items()}
        while any(self._counts[host] < count for host, count in needed.items()):
            time.sleep(PERIOD_SECONDS / 10)

    def _now(self) -> float:
        with self._lock:
            now = self._clock()
            self._awake += min(now - self._last, 2 * PERIOD_SECONDS)
            self._last = now
            return self._awake

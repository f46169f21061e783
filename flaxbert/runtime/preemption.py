"""Stopping when told to: SIGTERM, SIGINT, SIGHUP, a maintenance notice, or another host's end.

Where there is something in memory that is not yet on disk (`holding`), a signal is taken note of,
and the loop asks at every step and every evaluation batch (`asked`). Everywhere else, as in reading
data or compiling, the process ends at once: Python's own handlers would wait until the compiler
returns, which takes minutes for a large model, so a thread listens instead.

Hosts end together and with one exit code. One that leaves before the run is done announces it, and
a thread of every other host looks for such a message (`sharding.announced`).
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flaxbert.errors import Preempted
from flaxbert.runtime import multihost

POLL_SECONDS = 0.5
"""Time between looks for another host's message."""

GRACE_SECONDS = 5.0
"""Where there is something to save, a host goes on for so long after another one has ended."""


class Preemption:
    """Asked nowhere, as long as nobody has called `listen`: a library leaves signals alone."""

    def __init__(self) -> None:
        self._noted = threading.Event()
        self._holding = self._left = False
        self._tell_jax: Callable[[int], None] | None = None
        self._asked = 0

    def listen(self) -> None:
        """Take over SIGTERM, SIGINT and SIGHUP; to be called in the main thread."""
        # C code writes the signal's number here the moment it comes, whatever Python is doing.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
            numbers.append(signal.SIGHUP)
        for number in numbers:
            signal.signal(number, _nothing)
        threading.Thread(target=self._obey, args=(reading,), daemon=True).start()

    def share(self) -> None:
        """Let all hosts know of a signal; to be called after JAX's distributed start.

        That has put JAX's own handler of SIGTERM in the place of ours. It is taken back, and JAX's
        is called when there is something to save: it tells the other hosts.
        """
        libc = ctypes.CDLL(None)
        libc.signal.restype = ctypes.c_void_p
        handler = libc.signal(signal.SIGTERM, None)  # Python does not know of it
        signal.signal(signal.SIGTERM, _nothing)
        self._tell_jax = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)
        if multihost.connected():
            threading.Thread(target=self._watch, daemon=True).start()

    def _obey(self, reading: int) -> None:
        while os.read(reading, 1):
            if self._noted.is_set() or not self._holding:
                again = self._noted.is_set()
                reason = "at once" if again else "nothing was to be saved"
                self.leaving()
                _say(f"stopped ({reason}); the same command continues")
                _end(Preempted.exit_code, "was told to stop", 1.0 if again else 2 * GRACE_SECONDS)
            self._noted.set()
            if self._tell_jax is not None:
                self._tell_jax(signal.SIGTERM)
            _say("stopping as soon as this step is saved (a second signal: at once)")

    def _watch(self) -> None:
        """End this process soon after another one."""
        while (ending := multihost.announced()) is None:
            time.sleep(POLL_SECONDS)
            if self._left:
                return
        limit = time.monotonic() + GRACE_SECONDS
        while self._holding and time.monotonic() < limit:
            time.sleep(POLL_SECONDS / 5)
        if self._left:  # by itself, with a message of its own
            return
        _say(f"error: {ending}" if ending.code != Preempted.exit_code else str(ending))
        _end(ending.code, ending.reason, 2 * GRACE_SECONDS)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Within, a signal waits until `asked` is asked."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def asked(self) -> bool:
        """Whether to save and stop now; every host gets the same answer at the same call.

        To be called by all hosts at every step, since it counts the calls.
        """
        self._asked += 1
        if self._tell_jax is not None:
            return multihost.preempted(self._asked)
        return self._noted.is_set()

    def leaving(self) -> None:
        """Stop looking for other hosts' messages: this one has come to an end of its own."""
        self._left = True

    def leave(self, code: int, reason: str) -> int:
        """Return the exit code once all hosts are done; end the process if one has failed.

        Args:
          code: of this host. All of them return here from a run that is done or saved (0, 75).
          reason: this host's error message.
        """
        if multihost.connected():
            if code not in (0, Preempted.exit_code):
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                _end(code, reason, 2 * GRACE_SECONDS)
            multihost.exchange("done")
            self.leaving()
        return code


def _end(code: int, reason: str, seconds: float) -> None:
    """End all hosts with one exit code, that of the first one to end."""
    if multihost.connected():
        ending = multihost.announce(multihost.Ending(code, multihost.this_host(), reason))
        multihost.await_ends(seconds)
        code = ending.code
    os._exit(code)


def _nothing(number: int, frame: Any) -> None:
    """The thread hears of it."""


def _say(message: str) -> None:
    # Not through logging, whose lock the interrupted thread may hold. Nobody may be there to read
    # it: a lost connection must not cost the signal.
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())

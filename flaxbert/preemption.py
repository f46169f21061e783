"""Stopping when told to: SIGTERM, SIGINT, and a maintenance notice that reaches one host of many.

Where there is something in memory that is not yet on disk (`holding`), a signal is taken note of,
and the loop asks at every step and every evaluation batch (`asked`). Everywhere else, as in reading
data or compiling, the process ends at once: Python's own handlers would wait until the compiler
returns, which takes minutes for a large model, so a thread listens instead.
"""

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flaxbert import sharding
from flaxbert.errors import Preempted


class Preemption:
    """Asked nowhere, as long as nobody has called `listen`: a library leaves signals alone."""

    def __init__(self) -> None:
        self._noted = threading.Event()
        self._holding = False
        self._tell_jax: Callable[[int], None] | None = None
        self._asked = 0

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT; to be called in the main thread."""
        # C code writes the signal's number here the moment it comes, whatever Python is doing.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _nothing)
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

    def _obey(self, reading: int) -> None:
        while os.read(reading, 1):
            if self._noted.is_set() or not self._holding:
                what = "at once" if self._noted.is_set() else "nothing was to be saved"
                _say(f"stopped ({what}); the same command continues")
                os._exit(Preempted.exit_code)
            self._noted.set()
            if self._tell_jax is not None:
                self._tell_jax(signal.SIGTERM)
            _say("stopping as soon as this step is saved (a second signal: at once)")

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
            return sharding.preempted(self._asked)
        return self._noted.is_set()


def _nothing(number: int, frame: Any) -> None:
    """The thread hears of it."""


def _say(message: str) -> None:
    # Not through logging, whose lock the interrupted thread may hold.
    os.write(2, f"{message}\n".encode())

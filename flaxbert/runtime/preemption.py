"""Stopping a run: after SIGTERM, SIGINT, SIGHUP, a maintenance notice, or another host's end.

While there is state in memory that is not on disk yet (`holding`), a signal is only recorded, and
the loop checks for it at every step and every evaluation batch (`requested`). At any other time,
such as while reading data or compiling, the process ends at once. Python's own signal handlers
would run only when the compiler returns, which takes minutes for a large model, so a thread handles
the signals.

Hosts end together and with one exit code. A host that ends before the run is finished announces it,
and a thread of every other host polls for that message (`multihost.announced`). A host whose
process is killed, or whose machine fails, announces nothing: the others end when its heartbeats
stop.
"""

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from flaxbert.errors import HostsError, Preempted, exit_code
from flaxbert.runtime import multihost
from flaxbert.runtime.heartbeat import LOST_SECONDS, Heartbeats

log = logging.getLogger("flaxbert")

POLL_SECONDS = 0.5
"""Interval at which a host polls for another host's ending."""

GRACE_SECONDS = 5.0
"""Time that a host with state to save continues after another host has ended."""


class Preemption:
    """A request to stop the run. It ignores signals until `listen` is called.

    Training from Python does not call `listen`: a library leaves the program's signals alone. In a
    notebook it calls `interrupts`.
    """

    def __init__(self) -> None:
        self._signaled = threading.Event()
        self._holding = self._stopped_watching = self._listening = False
        self._jax_handler: Callable[[int], None] | None = None
        self._heartbeats: Heartbeats | None = None
        self._checks = 0

    def listen(self) -> None:
        """Take over the signals that stop a run; call it in the main thread."""
        self._listening = True
        # C code writes the signal's number here at once, whatever Python is doing.
        reading, self._writing = socket.socketpair()  # Windows cannot make a pipe non-blocking
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        numbers = _stop_signals()
        for number in numbers:
            signal.signal(number, _leave_to_thread)
        threading.Thread(target=self._handle_signals, args=(reading, numbers), daemon=True).start()

    @contextlib.contextmanager
    def interrupts(self) -> Iterator[None]:
        """Stop the run at an interrupt within the block, as the stop button of a notebook sends it.

        The state is saved first. If there is none to save, and at a second interrupt,
        KeyboardInterrupt is raised at once, as without this. It does nothing after `listen`, and
        outside the main thread, which alone may handle signals.
        """
        if self._listening or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            if before is not None:  # None stands for a handler that is not Python's
                signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: Any) -> None:
        again = self._signaled.is_set()
        if again or not self._holding:
            reason = "at once" if again else "there was nothing to save"
            log.info(f"stopped ({reason}); run this cell again to continue")
            raise KeyboardInterrupt
        self._signaled.set()
        log.info("stopping once this step is saved (a second interrupt stops at once)")

    def share(self) -> None:
        """Pass signals on to all hosts; call it after JAX's distributed start.

        That start has replaced our handler of SIGTERM with JAX's own. This restores ours, which
        calls JAX's when there is state to save: JAX's handler notifies the other hosts.
        """
        libc = ctypes.CDLL(None)
        libc.signal.restype = ctypes.c_void_p
        handler = libc.signal(signal.SIGTERM, None)  # Python's signal module does not return it
        signal.signal(signal.SIGTERM, _leave_to_thread)
        self._jax_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)
        if multihost.connected():
            self._heartbeats = Heartbeats(*multihost.place())
            exchange = multihost.exchange_heartbeats, jax.errors.JaxRuntimeError, threading.Event()
            threading.Thread(target=self._heartbeats.run, args=exchange, daemon=True).start()
            for target in (self._watch_hosts, self._watch_heartbeats):
                threading.Thread(target=target, daemon=True).start()
            # JAX aborts a process whose connection to the first host breaks, before any thread of
            # ours runs. Python's own handler would only run later, in the main thread.
            self._abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._explain_abort)
            libc.signal(signal.SIGABRT, self._abort_handler)

    def _handle_signals(self, reading: socket.socket, numbers: Sequence[int]) -> None:
        while received := reading.recv(1):
            if received[0] not in numbers:  # a signal that another library handles
                continue
            if self._signaled.is_set() or not self._holding:
                again = self._signaled.is_set()
                reason = "at once" if again else "there was nothing to save"
                self.stop_watching()
                _print_error(f"stopped ({reason}); run the same command again to continue")
                seconds = 1.0 if again else 2 * GRACE_SECONDS
                _exit_all_hosts(Preempted.exit_code, "received a signal to stop", seconds)
            self._signaled.set()
            if self._jax_handler is not None:
                self._jax_handler(signal.SIGTERM)
            _print_error("stopping once this step is saved (a second signal stops at once)")

    def _watch_hosts(self) -> None:
        """End this process soon after another host has ended."""
        while (ending := multihost.announced()) is None:
            time.sleep(POLL_SECONDS)
            if self._stopped_watching:
                return
        limit = time.monotonic() + GRACE_SECONDS
        while self._holding and time.monotonic() < limit:
            time.sleep(POLL_SECONDS / 5)
        if self._stopped_watching:  # this host has ended meanwhile, with its own message
            return
        _print_error(f"error: {ending}" if ending.code != Preempted.exit_code else str(ending))
        _exit_all_hosts(ending.code, ending.reason, 2 * GRACE_SECONDS)

    def _watch_heartbeats(self) -> None:
        """End this process soon after the heartbeats of another host have stopped."""
        assert self._heartbeats is not None
        while (host := self._heartbeats.lost()) is None:  # sends no message: it might wait
            time.sleep(POLL_SECONDS)
            if self._stopped_watching:
                return
        self._end_without(host, f"has not answered for {LOST_SECONDS:.0f} s")

    def _explain_abort(self, number: int) -> None:
        """End this process if it is aborted because the first host is gone; else return."""
        if not multihost.lead_host_answers():
            self._end_without(0, "has ended")

    def _end_without(self, host: int, what: str) -> None:
        """End this process, and with it all others, because a host is lost."""
        assert self._heartbeats is not None
        name = self._heartbeats.values.get(host, f"- host {host}").partition(" ")[2]
        message = (
            f"{name} {what}: its process was killed, its machine has failed, or the network "
            "between the hosts is down. Its own log may say why. Start the same command on all "
            "hosts again to resume."
        )
        self.stop_watching()  # `_watch_hosts` would report our own announcement
        _print_error(f"error: {message} [{HostsError.__name__}]")
        if host == 0:  # no message can be sent without it
            os._exit(Preempted.exit_code)
        _exit_all_hosts(Preempted.exit_code, message, 2 * GRACE_SECONDS)

    def await_hosts(self, error: Exception) -> None:
        """Wait until all other hosts have answered, if the loss of one may have caused an error.

        If one of them is lost, this process ends meanwhile, with the message about that host. A
        collective operation fails at once when one of its hosts is gone, but its error only says
        that a connection was closed.
        """
        expected = exit_code(error) != 1 and error.__cause__ is None
        if self._heartbeats is not None and not expected:
            self._heartbeats.wait_for_all()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold signals back within the block, until `requested` is called."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def requested(self) -> bool:
        """Return whether to save and stop now; the same on every host at the same call.

        All hosts must call it at every step, since it counts the calls.
        """
        self._checks += 1
        if self._jax_handler is not None:
            return multihost.preempted(self._checks)
        return self._signaled.is_set()

    def stop_watching(self) -> None:
        """Ignore the endings of other hosts from now on, because this host ends by itself."""
        self._stopped_watching = True

    def finish(self, code: int, reason: str) -> int:
        """Return the exit code once all hosts are done; end the process if this host has failed.

        Args:
          code: this host's exit code. On 0 (done) and 75 (saved), all hosts get here and return.
          reason: this host's error message.
        """
        if multihost.connected():
            if code not in (0, Preempted.exit_code):
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                _exit_all_hosts(code, reason, 2 * GRACE_SECONDS)
            multihost.all_gather("done")
            self.stop_watching()
        return code


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a run, of those that the operating system has."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break
        numbers.append(signal.SIGBREAK)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # nohup ignores it
    return numbers


def _exit_all_hosts(code: int, reason: str, seconds: float) -> None:
    """End this process, and with it all hosts, with the exit code of the first to end."""
    if multihost.connected():
        ending = multihost.announce(multihost.Ending(code, multihost.this_host(), reason))
        multihost.wait_to_exit(seconds)
        code = ending.code
    os._exit(code)


def _leave_to_thread(number: int, frame: Any) -> None:
    """Do nothing: the thread reads the signal's number from the socket."""


def _print_error(message: str) -> None:
    # Logging would need a lock that the interrupted thread may hold. After a lost connection,
    # stderr cannot be written; the signal must have its effect all the same.
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())

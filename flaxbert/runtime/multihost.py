"""Several hosts: start, exchange values, compare them, and end together.

Hosts exchange strings through the key-value store of JAX's coordination service, which the lead
host serves. It works before a device is used, from any thread, and while a device waits for a host
that has stopped. Arrays that are too large for it are exchanged through the devices; see
exchange.py.
"""

import collections
import contextlib
import contextvars
import dataclasses
import hashlib
import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its client has no public name
from jax.experimental import multihost_utils

from flaxbert.errors import ConfigError, HostsError, describe, exit_code, some
from flaxbert.runtime import clusters

PREFIX = "flaxbert"
"""Prefix of all keys in the coordination service's store."""

START_SECONDS = 280
"""Time that a host waits for the others to start. After 300 seconds JAX would abort the process."""

MAX_DIFFERENCES = 8
"""Number of differences between hosts that a message lists."""

WAIT_MILLISECONDS = 5000
"""Time after which a host that waits for a message looks whether another host has failed."""


_starting = threading.Event()
"""Set while JAX connects the hosts. A message sent meanwhile would abort the process."""


def start(spec: str, seconds: float = START_SECONDS) -> None:
    """Connect to the other hosts; call it before anything asks JAX for devices.

    The process ends with exit code 2 if they have not started after `seconds`.

    Args:
      spec: "auto", or HOST:PORT,COUNT,INDEX.
      seconds: how long to wait.

    Raises:
      ConfigError: if `spec` is malformed, or JAX finds no cluster; always on Windows.
    """
    if os.name == "nt":  # hosts stop together after a signal, which needs the C library's handlers
        raise ConfigError(
            "--distributed: runs on several hosts need Linux or macOS. On one host, leave the flag "
            "out; all its devices are used."
        )
    parts = spec.split(",")
    explicit = len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal()
    if spec != "auto" and not explicit:
        raise ConfigError(
            f"--distributed={spec!r}: expected 'auto' or HOST:PORT,COUNT,INDEX, such as "
            "10.0.0.2:1234,4,0"
        )
    timer = threading.Timer(seconds, _give_up, [seconds])
    timer.daemon = True
    timer.start()
    _starting.set()
    try:
        if explicit:
            jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))
        else:
            jax.distributed.initialize()
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):  # a cluster, but no connection
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(
            f"--distributed={spec}: JAX finds no cluster here ({reason}). "
            f"{clusters.advice({} if explicit else os.environ)}"
        ) from None
    finally:
        _starting.clear()
        timer.cancel()


def _give_up(seconds: float) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"error: the other hosts have not started after {seconds:.0f} s\n".encode())
    os._exit(HostsError.exit_code)


def is_multihost() -> bool:
    """Return whether the run has several processes."""
    return jax.process_count() > 1


def is_lead_host() -> bool:
    """Return whether this process is the first one: it alone logs and writes files."""
    return jax.process_index() == 0


def connected() -> bool:
    """Return whether messages can be exchanged with other hosts; initializes no device."""
    return _client() is not None and _state().num_processes > 1 and not _starting.is_set()


def check_started() -> None:
    """Check that the hosts of a slice can reach each other.

    Raises:
      ConfigError: if JAX sees other processes, but its coordination service was not started.
    """
    if is_multihost() and not jax.distributed.is_initialized():
        raise ConfigError(
            f"JAX sees {jax.process_count()} hosts, but they are not connected. Add "
            "--distributed=auto to the command on every host; in Python, call "
            "jax.distributed.initialize() before anything else uses JAX."
        )


_numbers = itertools.count()


def all_gather(value: str) -> list[str]:
    """Return the values of all hosts, in order; all must call it at the same points of a run."""
    if not connected():
        return [value]
    number = next(_numbers)
    _publish(number, value)
    return _collect(number)


def send_from_host0(value: str) -> Callable[[], str]:
    """Send the first host's value; all hosts must call it at the same points of a run.

    Returns:
      A function that returns the value, and waits for it if it has not arrived. Called later, it
      does not wait.
    """
    if not connected():
        return lambda: value
    number = next(_numbers)
    if _state().process_id == 0:
        _publish(number, value)
    return lambda: _wait_for(f"{PREFIX}/{number}/0")


def _publish(number: int, value: str) -> None:
    _client().key_value_set(f"{PREFIX}/{number}/{_state().process_id}", value)


def _collect(number: int) -> list[str]:
    return [_wait_for(f"{PREFIX}/{number}/{host}") for host in range(_state().num_processes)]


def gather_array(values: np.ndarray) -> np.ndarray:
    """Return the arrays [n] of all hosts as [hosts, n]; all must call it at the same points.

    It is a collective operation of the devices: they wait for all hosts.
    """
    return np.asarray(multihost_utils.process_allgather(values))


def _wait_for(key: str) -> str:
    """Return the value of a key, when it is there.

    Raises:
      HostsError: if another host has failed meanwhile, in a block that encloses this exchange.
    """
    while True:
        try:
            return str(_client().blocking_key_value_get(key, WAIT_MILLISECONDS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        for number in _enclosing.get():
            raise_failure(_published(number))


def _state() -> Any:
    # jax.process_index() would initialize the devices, and threads call this at any time.
    return distributed.global_state


def _client() -> Any:
    return _state().client


def this_host() -> str:
    """Return the name of this process for messages: `host 3 (machine name)`."""
    return f"host {_state().process_id} ({socket.gethostname()})"


def agree(values: Mapping[str, Any]) -> None:
    """Check that `values` are equal on all hosts.

    Raises:
      HostsError: on every host, with the values that differ and the hosts that have them.
    """
    if not connected():
        return
    local = {name: _shortened(value) for name, value in values.items()}
    received = [json.loads(text) for text in all_gather(json.dumps([this_host(), local]))]
    if lines := differences(dict(received)):
        raise HostsError(
            "the hosts of this run differ:\n  " + "\n  ".join(lines) + "\nStart the same command "
            "on all hosts, with the same files and packages."
        )


def _shortened(value: Any) -> str:
    """Return a value as short text that is equal only for equal values, for messages."""
    text = repr(value)
    if len(text) <= 60:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return digest if re.fullmatch("'[0-9a-f]{64}'", text) else f"{text[:45]}... ({digest})"


def differences(hosts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for each value that is not equal on all hosts.

    Args:
      hosts: {host: {name of a value: the value}}.
    """
    names = list(dict.fromkeys(name for values in hosts.values() for name in values))
    lines = []
    for name in names:
        hosts_of = collections.defaultdict(list)
        for host, values in hosts.items():
            hosts_of[values.get(name, "absent")].append(host)
        if len(hosts_of) > 1:
            parts = [f"{value} on {some(group, 3)}" for value, group in hosts_of.items()]
            lines.append(f"{name}: {some(parts, 4)}")
    rest = len(lines) - MAX_DIFFERENCES
    return lines if rest <= 0 else [*lines[:MAX_DIFFERENCES], f"and {rest} more"]


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Wait at the end of the block for all hosts; if the block fails on one, raise on all.

    Without it, the other hosts would wait forever for the failed one at their next exchange.

    Raises:
      HostsError: on the hosts that did not fail, with the message and exit code of one that did.
    """
    if not connected():
        yield
        return
    number = next(_numbers)
    token = _enclosing.set((*_enclosing.get(), number))
    try:
        yield
    except BaseException as error:
        _publish(number, failure(error))
        raise
    finally:
        _enclosing.reset(token)
    _publish(number, "")
    raise_failure(_collect(number))


_enclosing = contextvars.ContextVar[tuple[int, ...]]("enclosing", default=())
"""The numbers of the blocks of `fail_together` that this thread is in."""


def failure(error: BaseException) -> str:
    """Return the message to the other hosts that this one has failed."""
    return json.dumps(dataclasses.astuple(Ending(exit_code(error), this_host(), describe(error))))


def raise_failure(messages: Iterable[str]) -> None:
    """Raise the first failure among the messages of the hosts, if there is one.

    Args:
      messages: results of `failure`, "" for a host that has not failed.

    Raises:
      HostsError: with the message and exit code of the host that failed.
    """
    for text in filter(None, messages):
        ending = Ending(*json.loads(text))
        raise HostsError(str(ending), ending.code)


def _published(number: int) -> Iterator[str]:
    """Yield the messages of an exchange that have arrived so far."""
    for host in range(_state().num_processes):
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # there is no such key yet
            yield str(_client().key_value_try_get(f"{PREFIX}/{number}/{host}"))


@dataclasses.dataclass(frozen=True)
class Ending:
    """A host's announcement that it ends before the run is finished."""

    code: int
    """The exit code, which all hosts use."""
    host: str
    """The host's name (`this_host`)."""
    reason: str
    """Its error message."""

    def __str__(self) -> str:
        return f"{self.host} stopped: {self.reason}"


def announce(ending: Ending) -> Ending:
    """Announce that this host ends; return the first announced ending, which all hosts use."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another host was first, or none is left
        _client().key_value_set(f"{PREFIX}/announced", json.dumps(dataclasses.astuple(ending)))
    return announced() or ending


def announced() -> Ending | None:
    """Return the first announced ending; None if no host has ended."""
    if _client() is None:  # JAX's distributed system is shut down
        return None
    try:
        text = _client().key_value_try_get(f"{PREFIX}/announced")
    except jax.errors.JaxRuntimeError:  # there is no such key yet
        return None
    return Ending(*json.loads(text))


def place() -> tuple[int, int]:
    """Return the number of this process, and the number of processes; initializes no device."""
    return _state().process_id, _state().num_processes


def exchange_heartbeats(number: int) -> dict[int, str]:
    """Publish this host's `number`, and return the latest values of all hosts with their names.

    Raises:
      JaxRuntimeError: if the first host cannot be reached.
    """
    client, folder = _client(), f"{PREFIX}/alive/"
    if client is None:  # JAX's distributed system is shut down
        return {}
    own = f"{number} {this_host()}"
    client.key_value_set(f"{folder}{_state().process_id}", own, allow_overwrite=True)
    return {int(key.rpartition("/")[2]): value for key, value in client.key_value_dir_get(folder)}


def lead_host_answers(seconds: float = 5.0) -> bool:
    """Return whether the first host, which serves the messages, accepts a connection."""
    address, _, port = str(_state().coordinator_address).rpartition(":")
    try:
        socket.create_connection((address.strip("[]"), int(port)), seconds).close()
    except OSError:
        return False
    return True


def wait_to_exit(seconds: float) -> None:
    """Return when this process may end without harm to the other hosts, or after `seconds`.

    A collective operation fails when one of its hosts is gone, so each host waits until all have
    called this. The lead host ends last: it serves the messages, and JAX aborts the others without
    it.
    """
    limit = time.monotonic() + seconds
    this, count = _state().process_id, _state().num_processes

    def meet(stage: str, hosts: Iterable[int]) -> None:
        _client().key_value_set(f"{PREFIX}/{stage}/{this}", "", allow_overwrite=True)
        for host in hosts:
            milliseconds = max(1, round(1000 * (limit - time.monotonic())))
            _client().blocking_key_value_get(f"{PREFIX}/{stage}/{host}", milliseconds)

    with contextlib.suppress(jax.errors.JaxRuntimeError):
        meet("ending", range(count))
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        meet("ended", range(1, count) if this == 0 else ())
    if this == 0:
        time.sleep(0.5)


def preempted(count: int) -> bool:
    """Return whether a host has received SIGTERM and all hosts should stop at this `count`.

    Each host calls it with 1, 2, 3, ...; see JAX's `reached_preemption_sync_point`.
    """
    return bool(multihost_utils.reached_preemption_sync_point(count))

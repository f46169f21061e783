"""Several hosts: start, exchange values, compare them, and end together."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its client has no public name
from jax.experimental import multihost_utils

from flaxbert.errors import ConfigError, HostsError, describe, exit_code, some

PREFIX = "flaxbert"
"""Of our keys in the coordination service's store."""

START_SECONDS = 280
"""A host waits so long for the others to start. At 300 JAX aborts the process."""

SHOWN = 8
"""Differences between hosts that a message lists."""


_starting = threading.Event()
"""Set while JAX connects the hosts: a message sent then would abort the process."""


def start(spec: str, seconds: float = START_SECONDS) -> None:
    """Connect to the other hosts; to be called before anything asks JAX for devices.

    The process ends with exit code 2 if they have not started after `seconds`.

    Args:
      spec: "auto", or HOST:PORT,COUNT,INDEX.
      seconds: how long to wait.

    Raises:
      ConfigError: if `spec` is neither, or JAX finds no cluster.
    """
    parts = spec.split(",")
    given = len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal()
    if spec != "auto" and not given:
        raise ConfigError(
            f"--distributed={spec!r}: 'auto', or HOST:PORT,COUNT,INDEX such as 10.0.0.2:1234,4,0"
        )
    timer = threading.Timer(seconds, _give_up, [seconds])
    timer.daemon = True
    timer.start()
    _starting.set()
    try:
        if given:
            jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))
        else:
            jax.distributed.initialize()
    except ValueError as error:
        raise ConfigError(
            f"--distributed={spec}: JAX finds no cluster here ({error}). On one host leave the "
            "flag out; on others give HOST:PORT,COUNT,INDEX."
        ) from None
    finally:
        _starting.clear()
        timer.cancel()


def _give_up(seconds: float) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"error: the other hosts have not started after {seconds:.0f} s\n".encode())
    os._exit(HostsError.exit_code)


def is_multihost() -> bool:
    """Whether other processes take part."""
    return jax.process_count() > 1


def connected() -> bool:
    """Whether messages can be exchanged with other hosts; asks no device."""
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


def broadcast_from_host0(value: int) -> int:
    """The first host's value, on every host."""
    if not is_multihost():
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))


_numbers = itertools.count()


def exchange(value: str) -> list[str]:
    """Return the value of every host, in their order; all call it at the same points of a run."""
    if not connected():
        return [value]
    number = next(_numbers)
    _publish(number, value)
    return _collect(number)


def _publish(number: int, value: str) -> None:
    _client().key_value_set(f"{PREFIX}/{number}/{_state().process_id}", value)


def _collect(number: int) -> list[str]:
    return [_wait_for(f"{PREFIX}/{number}/{host}") for host in range(_state().num_processes)]


def _wait_for(key: str) -> str:
    while True:
        try:
            return str(_client().blocking_key_value_get(key, 10_000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _state() -> Any:
    # Not jax.process_index(), which initializes the devices: threads call this at any time.
    return distributed.global_state


def _client() -> Any:
    return _state().client


def this_host() -> str:
    """Return a name of this process for messages: `host 3 (its machine)`."""
    return f"host {_state().process_id} ({socket.gethostname()})"


def agree(values: Mapping[str, Any]) -> None:
    """Check that `values` are the same on all hosts.

    Raises:
      HostsError: on every host, with what differs and on which host.
    """
    if not connected():
        return
    own = {name: _shortened(value) for name, value in values.items()}
    received = [json.loads(text) for text in exchange(json.dumps([this_host(), own]))]
    if lines := differences(dict(received)):
        raise HostsError(
            "the hosts of this run differ:\n  " + "\n  ".join(lines) + "\nStart the same command "
            "on all of them, with the same files and packages."
        )


def _shortened(value: Any) -> str:
    """Return a value as text, for comparison and messages; long ones begin the same and differ."""
    text = repr(value)
    if len(text) <= 60:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return digest if re.fullmatch("'[0-9a-f]{64}'", text) else f"{text[:45]}... ({digest})"


def differences(hosts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Describe in a line each what is not the same on all hosts.

    Args:
      hosts: by a host's name, the value of each thing that is compared.
    """
    names = list(dict.fromkeys(name for values in hosts.values() for name in values))
    lines = []
    for name in names:
        who = collections.defaultdict(list)
        for host, values in hosts.items():
            who[values.get(name, "absent")].append(host)
        if len(who) > 1:
            parts = [f"{value} on {some(group, 3)}" for value, group in who.items()]
            lines.append(f"{name}: {some(parts, 4)}")
    rest = len(lines) - SHOWN
    return lines if rest <= 0 else [*lines[:SHOWN], f"and {rest} more"]


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """All hosts leave it when all have come to its end; if one of them fails within, all do.

    Without it the others would wait for the one that has failed, wherever they need it next.

    Raises:
      HostsError: on the hosts that did not fail, with the message and exit code of one that did.
    """
    if not connected():
        yield
        return
    number = next(_numbers)
    try:
        yield
    except BaseException as error:
        ending = Ending(exit_code(error), this_host(), describe(error))
        _publish(number, json.dumps(dataclasses.astuple(ending)))
        raise
    _publish(number, "")
    for text in _collect(number):
        if text:
            ending = Ending(*json.loads(text))
            raise HostsError(str(ending), ending.code)


@dataclasses.dataclass(frozen=True)
class Ending:
    """That a host ends before the run does."""

    code: int
    """Exit code, for all hosts."""
    host: str
    reason: str

    def __str__(self) -> str:
        return f"{self.host} stopped: {self.reason}"


def announce(ending: Ending) -> Ending:
    """Announce that this host ends; return the ending that all hosts use, the first announced."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # not the first; or nobody is there
        _client().key_value_set(f"{PREFIX}/announced", json.dumps(dataclasses.astuple(ending)))
    return announced() or ending


def announced() -> Ending | None:
    """Return what the first host to end has said, if one has."""
    if _client() is None:  # shut down
        return None
    try:
        text = _client().key_value_try_get(f"{PREFIX}/announced")
    except jax.errors.JaxRuntimeError:  # none there
        return None
    return Ending(*json.loads(text))


def await_ends(seconds: float) -> None:
    """Return when all hosts have called this and this process may end, or after `seconds`.

    An operation that several hosts take part in fails when one of them is gone, so each waits for
    all. The first host serves their messages, and JAX aborts the others without it: it is the last.
    """
    limit = time.monotonic() + seconds
    own, count = _state().process_id, _state().num_processes

    def meet(what: str, hosts: Iterable[int]) -> None:
        _client().key_value_set(f"{PREFIX}/{what}/{own}", "", allow_overwrite=True)
        for host in hosts:
            left = max(1, round(1000 * (limit - time.monotonic())))
            _client().blocking_key_value_get(f"{PREFIX}/{what}/{host}", left)

    with contextlib.suppress(jax.errors.JaxRuntimeError):
        meet("ending", range(count))
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        meet("ended", range(1, count) if own == 0 else ())
    if own == 0:
        time.sleep(0.5)


def preempted(count: int) -> bool:
    """Whether some host was told to stop (SIGTERM), and all have come to the same `count`.

    Each host calls it with 1, 2, 3, ...; see `reached_preemption_sync_point`.
    """
    return bool(multihost_utils.reached_preemption_sync_point(count))

"""The lock of a workdir in a bucket: a lease, which expires when its run is killed."""

import contextlib
import dataclasses
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaxbert.errors import WorkdirError
from flaxbert.runtime import multihost, storage

log = logging.getLogger("flaxbert")

SECONDS = 60.0
"""A lease expires if it was not renewed for so long."""

RENEWALS = 4
"""Renewals in that time."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """The content of a lease."""

    token: str
    """A unique name of the run that holds it."""
    host: str
    renewal: int
    """The number of renewals. If it stands still, the run was killed; clocks need not agree."""
    released: bool = False


class Lease:
    """The lease of one run, renewed by a thread.

    Leases have numbers: .lock-1, .lock-2 and so on. A run takes the next number with a request that
    fails if the object exists, so only one can have it; it never overwrites that of another run.
    .lock holds a number that was taken, so nothing depends on listings, and older leases are
    deleted only after it is written.
    """

    def __init__(self, workdir: Path, number: int, holder: Holder):
        self._workdir, self._number, self._holder = workdir, number, holder
        self._renewed = time.monotonic()
        self._lost = ""
        self._renewing, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Check that no other run has taken the workdir.

        Raises:
          WorkdirError: if one has, or if the lease has expired.
        """
        if not self._lost and time.monotonic() - self._renewed > SECONDS:
            self._renew()  # of a machine that slept, or that did not reach the store
        if self._lost:
            raise WorkdirError(
                f"{self._workdir}: this run lost its lock ({self._lost}), so it stops writing. "
                "What was saved is intact. Run the same command again, unless another run "
                "continues it."
            )

    def release(self) -> None:
        """End the lease, so that the next run need not wait."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            released = dataclasses.replace(self._holder, released=True)
            with contextlib.suppress(WorkdirError):  # it will expire
                storage.write(_file(self._workdir, self._number), _encode(released))

    def _renew_until_end(self) -> None:
        while not self._lost and not self._ended.wait(SECONDS / RENEWALS):
            with contextlib.suppress(WorkdirError):  # the next renewal may succeed
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            self._renew_once()

    def _renew_once(self) -> None:
        successor = _read(_file(self._workdir, self._number + 1))
        present = _read(_file(self._workdir, self._number))
        if successor is not None:
            self._lost = f"it was not renewed for {SECONDS:.0f} s, and {successor.host} took it"
        elif present is None or present.token != self._holder.token:
            self._lost = "its file was deleted"
        else:
            renewed = dataclasses.replace(self._holder, renewal=self._holder.renewal + 1)
            storage.write(_file(self._workdir, self._number), _encode(renewed))
            self._holder, self._renewed = renewed, time.monotonic()


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[Lease]:
    """Take the lease of a workdir in a bucket, and release it at the end.

    Raises:
      WorkdirError: if another run holds it.
    """
    holder = Holder(uuid.uuid4().hex, f"{multihost.this_host()}, process {os.getpid()}", 0)
    first = number = int(storage.read(workdir / ".lock") or 0)
    while True:
        _wait_for_end(workdir, number)
        if storage.create(_file(workdir, number + 1), _encode(holder)):
            break
        number += 1  # another run was faster
    number += 1
    storage.write(workdir / ".lock", str(number).encode())
    lease = Lease(workdir, number, holder)
    try:
        for older in range(max(1, first), number):
            storage.delete(_file(workdir, older))
        yield lease
    finally:
        lease.release()


def _wait_for_end(workdir: Path, number: int) -> None:
    """Return once a lease has ended.

    Raises:
      WorkdirError: if it is renewed, so its run is working.
    """
    begun = _read(_file(workdir, number))
    if begun is None or begun.released:
        return
    log.info(
        f"{workdir}: locked by {begun.host}. Waiting up to {SECONDS:.0f} s, because that run may "
        "have been killed"
    )
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        time.sleep(SECONDS / RENEWALS / 5)
        now = _read(_file(workdir, number))
        if now is None or now.released:
            return
        if now != begun:
            raise WorkdirError(
                f"{workdir}: another run is working in it, on {begun.host}. Wait until it ends, or "
                "choose another --workdir. If both are hosts of one run, add --distributed=auto."
            )
    log.info(f"{workdir}: that run was killed; continuing")


def _file(workdir: Path, number: int) -> Path:
    return workdir / f".lock-{number}"


def _encode(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder)).encode()


def _read(url: Path) -> Holder | None:
    content = storage.read(url)
    try:
        fields: dict[str, Any] | None = None if content is None else json.loads(content)
        return None if fields is None else Holder(**fields)
    except (ValueError, TypeError):
        raise WorkdirError(
            f"{url}: is not the lock of a run ({content!r:.80}). Delete it, if no run is working "
            "in this workdir."
        ) from None

"""Exchanges of large messages between hosts, through their devices.

The first host serves the store that small messages use (multihost.py). It would have to send all
data to every host. Devices exchange over all their connections at once, but each operation needs
every host. So a host that fails takes part once more, to send its error.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator

import numpy as np

from flaxbert.errors import HostsError
from flaxbert.runtime import multihost

BYTES = 4 * 2**20
"""Bytes that all hosts together send in one operation, which bounds the memory of the devices."""

HEADER = struct.Struct("<qqq")
"""The number of the host, the kind of its message (below), and the number of bytes."""

DATA, DONE, FAILED = range(3)


class Exchange:
    """An exchange of messages between all hosts, which may have any length."""

    def __init__(
        self, index: int, count: int, gather_array: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Begin an exchange; all hosts must do so.

        Args:
          index: the number of this host.
          count: the number of hosts.
          gather_array: see `multihost.gather_array`.
        """
        self._index, self._count, self._gather_array = index, count, gather_array
        self._integers = max(BYTES // count, HEADER.size + 4) // 4
        self._broken = False  # whether all hosts have an error, or none can be reached

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all hosts, in order; call it in a block of `fail_together`.

        Raises:
          HostsError: if another host has failed, with its message and exit code, or if it has
            ended its block already.
        """
        return self._checked(DATA, message)

    @contextlib.contextmanager
    def fail_together(self) -> Iterator[None]:
        """Wait at the end of the block for all hosts; if the block fails on one, raise on all.

        It is `multihost.fail_together` for a block in which hosts exchange messages.

        Raises:
          HostsError: on the hosts that did not fail, with the message and exit code of one that
            did.
        """
        try:
            yield
        except BaseException as error:
            if not self._broken:
                with contextlib.suppress(Exception):  # a lost host must not hide this error
                    self._exchange(FAILED, multihost.failure(error).encode())
            raise
        self._checked(DONE, b"")

    def _checked(self, kind: int, message: bytes) -> list[bytes]:
        """Exchange messages of one kind, and raise for any other kind."""
        self._broken = True  # until it has succeeded
        received = self._exchange(kind, message)
        multihost.raise_failure(text.decode() for state, text in received if state == FAILED)
        if any(state != kind for state, _ in received):
            raise HostsError(
                "the hosts of this run tokenize different numbers of texts, although their "
                "examples are equal. The features of a task must depend on nothing else."
            )
        self._broken = False
        return [text for _, text in received]

    def _exchange(self, kind: int, message: bytes) -> list[tuple[int, bytes]]:
        """Return the kind and the message of each host, in order."""
        sent = HEADER.pack(self._index, kind, len(message)) + message
        received = [bytearray() for _ in range(self._count)]
        place, longest = 0, 1
        while place < longest:
            piece = np.zeros(self._integers, np.int32)
            some = np.frombuffer(sent[place : place + piece.nbytes], np.uint8)
            piece.view(np.uint8)[: len(some)] = some
            for text, values in zip(received, self._gather_array(piece), strict=True):
                text += values.tobytes()
            place += piece.nbytes
            longest = HEADER.size + max(HEADER.unpack_from(text)[2] for text in received)
        messages = dict[int, tuple[int, bytes]]()
        for text in received:  # by the numbers of the hosts, whatever the order of the devices
            host, state, length = HEADER.unpack_from(text)
            messages[host] = state, bytes(text[HEADER.size : HEADER.size + length])
        return [messages[host] for host in range(self._count)]

"""Work that processes share: each makes some chunks of arrays, and all receive all of them.

Tasks, which may be a program's own, tokenize in several places. So the other processes are no
argument of these: `among` sets them for a block, in the thread that runs it.
"""

import contextlib
import contextvars
import dataclasses
import json
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np

ROUND = 32
"""Chunks that all processes together make between two exchanges, and at least one each. It bounds
the memory."""

Chunk = dict[str, np.ndarray]
"""Arrays of one dimension by name."""

HEADER = struct.Struct("<q")
"""The length of the description at the start of a message."""


@dataclasses.dataclass(frozen=True)
class Peers:
    """The processes that share work; all do the same at the same points."""

    index: int
    """The number of this process."""
    count: int
    """The number of processes."""
    gather: Callable[[bytes], Sequence[bytes]]
    """Sends a message to all, and returns the messages of all processes, in order."""
    report: Callable[[int], object]
    """Called with the number of items that were received, after each exchange."""


_peers = contextvars.ContextVar[Peers | None]("peers", default=None)


@contextlib.contextmanager
def among(peers: Peers) -> Iterator[None]:
    """Share the chunks that this thread makes in the block; all processes must enter it."""
    token = _peers.set(peers)
    try:
        yield
    finally:
        _peers.reset(token)


def whole_rounds(items: int, size: int) -> int:
    """Return a number of items, increased to whole rounds of chunks of `size` items.

    What makes the items of `chunks` block by block keeps all processes busy with it.
    """
    peers = _peers.get()
    if peers is None:
        return items
    round_items = size * _chunks_of_round(peers)
    return -(-items // round_items) * round_items


def chunks(items: int, size: int, make: Callable[[slice], Chunk]) -> Iterator[tuple[int, Chunk]]:
    """Yield the first item and the arrays of each chunk, in order.

    Within `among`, a process makes each n-th chunk of n processes, and receives the others.

    Args:
      items: the number of items; 0 gives one chunk without any.
      size: items of a chunk.
      make: returns the arrays of the items in a slice.
    """
    starts, peers = range(0, max(1, items), size), _peers.get()
    if peers is None:
        for first in starts:
            yield first, make(slice(first, first + size))
        return
    step = _chunks_of_round(peers)
    for begin in range(0, len(starts), step):
        here = starts[begin : begin + step]
        made = [make(slice(first, first + size)) for first in here[peers.index :: peers.count]]
        received = [_unpacked(message) for message in peers.gather(_packed(made))]
        for number, first in enumerate(here):
            yield first, next(received[number % peers.count])
        peers.report(min(here[-1] + size, items) - here[0])


def _chunks_of_round(peers: Peers) -> int:
    """Return how many chunks the processes make between two exchanges, as many each."""
    return peers.count * max(1, ROUND // peers.count)


def _packed(made: Sequence[Chunk]) -> bytes:
    """Return chunks as a message."""
    arrays = [[[name, a.dtype.str, len(a)] for name, a in chunk.items()] for chunk in made]
    description = json.dumps(arrays).encode()
    contents = (values.tobytes() for chunk in made for values in chunk.values())
    return b"".join([HEADER.pack(len(description)), description, *contents])


def _unpacked(message: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a message; their arrays are read-only."""
    place = HEADER.size + HEADER.unpack_from(message)[0]
    for arrays in json.loads(message[HEADER.size : place]):
        chunk = Chunk()
        for name, dtype, length in arrays:
            chunk[name] = np.frombuffer(message, dtype, length, place)
            place += chunk[name].nbytes
        yield chunk

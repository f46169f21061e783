"""Packing: several short sequences share one row, so that the device computes little padding.

Krell et al., "Efficient Sequence Packing without Cross-contamination" (2021), arXiv:2107.02027,
pack a whole corpus; here each optimizer step packs its own features, so that packing never changes
which examples share a step.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

PackedRow = list[int]
"""The sequences of one row, in order."""


@dataclasses.dataclass(frozen=True)
class ShapeCosts:
    """What decides between batch shapes, in token positions: 1 is a position without attention."""

    program: float = 0.0
    """The cost of one more batch shape, which is a program to compile."""
    attention: float = 0.0
    """The cost of attention at a position, for each position of its row."""
    tile: int = 8
    """Row lengths that are chosen are multiples of this."""

    def of_rows(self, rows: float, row_length: int) -> float:
        """Return the cost of computing rows."""
        return rows * row_length * (1 + self.attention * row_length)


def pack(lengths: Sequence[int], row_length: int, segments: int) -> list[int]:
    """Place each item in the row with the least room that holds it (best fit).

    Items are placed in the order given. Longest first (best-fit decreasing) needs the fewest rows,
    at most 11/9 of the optimum plus 1 if there is no limit to the items of a row.

    Rows are looked up by their room, in constant time: the rooms that occur are the bits of an
    integer, and rows of equal room a linked list.

    Args:
      lengths: tokens of each item, none above `row_length`.
      row_length: capacity of a row in tokens (T).
      segments: capacity of a row in items; 1 means no packing.

    Returns:
      The number of each item's row, from 0 in the order in which rows are opened. Deterministic.
    """
    rooms = 0  # bit n is set if some row has room for n tokens
    newest = [-1] * (row_length + 1)  # newest[n]: the last row that came to have room n, or -1
    before: list[int] = []  # of each row: the one before it with the same room, or -1
    left: list[int] = []  # of each row: how many more items it may hold
    rows: list[int] = []
    for length in lengths:
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = newest[room]
            newest[room] = before[row]
            if newest[room] < 0:
                rooms ^= 1 << room
        else:
            row, room = len(before), row_length
            before.append(-1)
            left.append(segments)
        rows.append(row)
        left[row] -= 1
        if left[row]:
            room -= length
            before[row], newest[room] = newest[room], row
            rooms |= 1 << room
    return rows


def choose_bucket_sizes(
    needed: Sequence[int] | np.ndarray, multiple: int, limit: int, program_cost: float = 0.0
) -> list[int]:
    """Choose at most `limit` bucket sizes (R) that minimize the rows computed without need.

    Every step runs in the smallest bucket that holds its rows; each bucket is one compiled
    program. Exact, by dynamic programming over the sorted distinct needs.

    Args:
      needed: rows that each step needs.
      multiple: bucket sizes are multiples of this (data parallelism x micro-batches).
      limit: largest number of buckets.
      program_cost: cost of compiling one program, in rows computed.

    Returns:
      The bucket sizes, ascending; the last holds the largest need.
    """
    rounded = np.maximum(1, -(-np.asarray(needed) // multiple)) * multiple
    sizes, counts = np.unique(rounded, return_counts=True)
    distinct = len(sizes)
    # best[j][i]: fewest rows for the i lowest needs in j buckets, the largest being sizes[i-1].
    best = np.full((limit + 1, distinct + 1), np.inf)
    best[0, 0] = 0
    cut = np.zeros((limit + 1, distinct + 1), int)
    below = np.concatenate([[0], np.cumsum(counts)])
    for j in range(1, limit + 1):
        for i in range(1, distinct + 1):
            cost = best[j - 1, :i] + sizes[i - 1] * (below[i] - below[:i])
            cut[j, i] = int(np.argmin(cost))
            best[j, i] = cost[cut[j, i]]
    j, i = int(np.argmin(best[:, distinct] + program_cost * np.arange(limit + 1))), distinct
    chosen: list[int] = []
    while i > 0:
        chosen.append(int(sizes[i - 1]))
        j, i = j - 1, cut[j, i]
    return chosen[::-1]

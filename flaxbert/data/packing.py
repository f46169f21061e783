"""Packing: several short sequences share one row, so that the device computes little padding.

Krell et al., "Efficient Sequence Packing without Cross-contamination" (2021), arXiv:2107.02027,
pack a whole corpus; here each optimizer step packs its own features, so that packing never changes
which examples share a step.
"""

from collections.abc import Sequence

import numpy as np

PackedRow = list[int]
"""The sequences of one row, in order."""


def pack(lengths: Sequence[int], row_length: int, segments: int) -> list[PackedRow]:
    """Place items in rows, longest first, each in the first row with room (first-fit decreasing).

    Args:
      lengths: tokens of each item, none above `row_length`.
      row_length: capacity of a row in tokens (T).
      segments: capacity of a row in items (K); 1 means no packing.

    Returns:
      Rows of indices into `lengths`. Deterministic: equal lengths keep their order.
    """
    rows: list[PackedRow] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        need = lengths[item]
        for row, free in enumerate(room):
            if need <= free and len(rows[row]) < segments:
                rows[row].append(item)
                room[row] -= need
                break
        else:
            rows.append([item])
            room.append(row_length - need)
    return rows


def choose_bucket_sizes(
    needed: Sequence[int], multiple: int, limit: int, compile_cost: float = 0.0
) -> list[int]:
    """Choose at most `limit` bucket sizes (R) that minimize the rows computed without need.

    Every step runs in the smallest bucket that holds its rows; each bucket is one compiled
    program. Exact, by dynamic programming over the sorted distinct needs.

    Args:
      needed: rows that each step needs.
      multiple: bucket sizes are multiples of this (data parallelism x micro-batches).
      limit: largest number of buckets.
      compile_cost: cost of compiling one program, in rows computed.

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
    j, i = int(np.argmin(best[:, distinct] + compile_cost * np.arange(limit + 1))), distinct
    chosen: list[int] = []
    while i > 0:
        chosen.append(int(sizes[i - 1]))
        j, i = j - 1, cut[j, i]
    return chosen[::-1]

"""Rates of computation and the memory of a process, measured in the same way for every library."""

import os
import time
from collections.abc import Callable
from typing import Any


def threads() -> int:
    """Return the number of cores that this process may use, on which JAX computes."""
    return len(os.sched_getaffinity(0))


def peak_rss() -> int:
    """Return the largest memory of this process so far, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def best_rate(multiply: Callable[[], Any], size: int, times: int = 8) -> float:
    """Return the most operations per second of a product of square matrices.

    Args:
      multiply: computes the product and waits for it.
      size: rows of each matrix.
      times: number of products to time.
    """
    multiply()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def matrix_operations(
    *, layers: int, hidden_size: int, intermediate_size: int, tokens: int, pairs: int
) -> int:
    """Return the floating-point operations of an encoder's matrix products in a training step.

    The backward pass has twice the operations of the forward pass. Embeddings and output layers do
    not count.

    Args:
      layers: number of layers.
      hidden_size: D.
      intermediate_size: F.
      tokens: tokens without padding.
      pairs: sum of the squared lengths of the sequences.
    """
    weights = 4 * hidden_size**2 + 2 * hidden_size * intermediate_size
    return 3 * layers * (2 * weights * tokens + 4 * hidden_size * pairs)

"""Ahead-of-time compilation of a step for every batch size."""

import concurrent.futures
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from flaxbert.runtime import ledger, memory

_compilers = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "compile")
"""Threads that compile. XLA does not hold Python's lock, so several programs compile at once."""


class Step:
    """A compiled step: a function of its first argument and a batch.

    It selects the program by the batch's number of rows, and never compiles.

    Attributes:
      programs: {number of rows: compiled program}.
    """

    def __init__(self, programs: Mapping[int, Any]):
        self.programs = programs

    def __call__(self, first: Any, batch: Any) -> Any:
        """Run the program for the batch."""
        return self.programs[_shape(batch)[0]](first, batch)

    @property
    def usage(self) -> memory.Usage | None:
        """The memory of the program with the most rows; None if the compiler counts nothing."""
        return memory.Usage.of(self.programs[max(self.programs)])


def start_compiling(
    step: Any,
    first: Any,
    bucket_sizes: Sequence[int],
    make_batch: Callable[[int], Any],
    compiled: Mapping[int, Any] | None = None,
) -> Callable[[], Step]:
    """Trace a jitted step for every bucket size, and start to compile the programs in threads.

    Tracing holds Python's lock, and follows settings of the caller's thread such as
    `jax.default_matmul_precision`; so it is done here, one size after another.

    Args:
      step: a jitted function of `first` and a batch.
      first: its first argument, the training state or the parameters, or their shapes.
      bucket_sizes: the numbers of rows that batches will have.
      make_batch: makes an empty batch of that many rows. A batch is any pytree of arrays whose
        first axis is the row.
      compiled: {number of rows: program} of the step that are compiled already.

    Returns:
      A function that waits until all are compiled, and returns the step. It raises
      `memory.TooLargeError` if the largest program needs more memory than a device has.
    """
    programs = dict(compiled or {})

    def start(rows: int) -> concurrent.futures.Future[Any]:
        batch = make_batch(rows)
        shape = " x ".join(map(str, _shape(batch)))
        return _compilers.submit(_compile, step.lower(first, batch), shape)

    pending = {rows: start(rows) for rows in bucket_sizes if rows not in programs}

    def finish() -> Step:
        for rows, compiling in pending.items():
            programs[rows] = compiling.result()
        ready = Step({rows: programs[rows] for rows in bucket_sizes})
        memory.check(ready.usage, max(bucket_sizes))
        return ready

    return finish


def _compile(lowered: Any, shape: str) -> Any:
    with ledger.shape(shape):
        return lowered.compile()


def _shape(batch: Any) -> tuple[int, ...]:
    """Return the shape of a batch's first array, whose first axis is the row."""
    shape: tuple[int, ...] = jax.tree.leaves(batch)[0].shape
    return shape

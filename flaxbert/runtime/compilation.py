"""Ahead-of-time compilation of a step for every batch size."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from flaxbert.runtime import memory


def compile_buckets(
    step: Any, first: Any, bucket_sizes: Sequence[int], make_batch: Callable[[int], Any]
) -> Callable[[Any, Any], Any]:
    """Compile a jitted step for every bucket size before the first batch.

    Args:
      step: a jitted function of `first` and a batch.
      first: its first argument, the training state or the parameters.
      bucket_sizes: the numbers of rows that batches will have.
      make_batch: makes an empty batch of that many rows. A batch is any pytree of arrays whose
        first axis is the row.

    Returns:
      The step. It selects the program by the batch's number of rows and never compiles again.
    """
    programs = {rows: step.lower(first, make_batch(rows)).compile() for rows in bucket_sizes}
    memory.log_usage(programs[max(bucket_sizes)], max(bucket_sizes))
    return lambda first, batch: programs[_rows(batch)](first, batch)


def _rows(batch: Any) -> int:
    rows: int = jax.tree.leaves(batch)[0].shape[0]
    return rows

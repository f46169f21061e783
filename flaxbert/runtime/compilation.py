"""Ahead-of-time compilation of a step for every batch size."""

from collections.abc import Callable, Sequence
from typing import Any

from flaxbert.runtime import memory
from flaxbert.types import DeviceBatch


def compile_buckets(
    step: Any, first: Any, heights: Sequence[int], make_batch: Callable[[int], Any]
) -> Callable[[Any, DeviceBatch], Any]:
    """Compile a jitted step for every batch height before it is needed.

    Args:
      step: from `make_train_step` or `make_predict_step`.
      first: its first argument, the state or the parameters.
      heights: the batch heights (R) that will occur.
      make_batch: an empty batch of a height.

    Returns:
      The step, which picks its program by the batch's height and never compiles again.
    """
    programs = {rows: step.lower(first, make_batch(rows)).compile() for rows in heights}
    memory.report(programs[max(heights)], max(heights))
    return lambda first, batch: programs[batch.input_ids.shape[0]](first, batch)

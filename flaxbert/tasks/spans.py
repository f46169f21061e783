"""Spans of tokens: the device chooses candidates, and the host combines them (data/spans.py)."""

from jax import Array
from jax import numpy as jnp
from jax.lax import top_k


def candidates(
    logits: Array, allowed: Array, segment_ids: Array, cls_position: Array, count: int
) -> tuple[Array, Array]:
    """Return the `count` best positions of each segment, so that few scores leave the device.

    Args:
      logits: [R, T].
      allowed: [R, T] booleans: places that may be chosen.
      segment_ids: [R, T].
      cls_position: [R, K], where each segment begins.
      count: the number of candidates (n).

    Returns:
      Scores and places [R, K, n], best first (of equals the first one); places count from the start
      of the segment. If a segment has fewer places, the others score below `IMPOSSIBLE`.
    """
    numbers = jnp.arange(1, cls_position.shape[1] + 1)
    inside = (segment_ids[:, None, :] == numbers[:, None]) & allowed[:, None, :]  # [R, K, T]
    masked = jnp.where(inside, logits[:, None, :], jnp.finfo(logits.dtype).min)
    scores, places = top_k(masked, min(count, logits.shape[1]))
    return scores, places - cls_position[..., None]

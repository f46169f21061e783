"""Losses of packed batches. Shape letters: see models/bert.py.

Each gives (sum, weight): whoever adds batches, devices or hosts adds both and divides once.
"""

import jax
import jax.numpy as jnp
from jax import Array


def weighted_sum(losses: Array, weight: Array) -> tuple[Array, Array]:
    """Sum of [R, K] losses over filled slots; what an empty one holds is of no account."""
    return jnp.sum(jnp.where(weight > 0, losses * weight, 0.0)), jnp.sum(weight)


def cross_entropy(logits: Array, label: Array) -> Array:
    """-log softmax(logits)[label]: logits [..., C], label [...] -> [...]."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probs, label[..., None], axis=-1)[..., 0]


def position_cross_entropy(logits: Array, target: Array, segment_ids: Array) -> Array:
    """Cross-entropy over the places of each segment.

    Args:
      logits: [R, T], a score for every place of a row.
      target: [R, K], the right place of each segment, counted from the row's start.
      segment_ids: [R, T].

    Returns:
      [R, K]; finite but meaningless for slots without a segment.
    """
    lowest = jnp.finfo(jnp.float32).min
    slots = jnp.arange(1, target.shape[1] + 1)
    own = segment_ids[:, None, :] == slots[:, None]  # [R, K, T]
    masked = jnp.where(own, logits[:, None, :], lowest)
    log_total = jax.nn.logsumexp(masked, axis=-1)  # an empty slot: log of T times exp(lowest)
    return log_total - jnp.take_along_axis(logits, target, axis=1)

"""Losses of packed batches. Shape letters: see models/layers.py.

A step adds sums of losses and sums of weights over parts, devices and hosts, and divides once.
"""

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.types import Batch, WeightedSum


def weighted_sum(losses: Array, weight: Array) -> WeightedSum:
    """Return the sum of weighted losses; a loss whose weight is 0 does not count."""
    return WeightedSum(jnp.sum(jnp.where(weight > 0, losses * weight, 0.0)), jnp.sum(weight))


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


def binary_cross_entropy(logits: Array, label: Array) -> Array:
    """-log of the sigmoid's probability of each label: logits and label (0 or 1) [...] -> [...]."""
    return jax.nn.softplus(jnp.where(label > 0, -logits, logits))


def group_sum(values: Array, batch: Batch) -> Array:
    """Add up `values` [R, K, ...] over the slots of one feature; each slot receives its sum.

    `batch.group` [R, K] is equal for the sequences of a feature, wherever they lie in the batch:
    only what is added crosses rows. Empty slots add nothing.
    """
    group = _groups(batch)
    sums = jax.ops.segment_sum(values.reshape(len(group), -1), group, len(group))
    return sums[batch.group.reshape(-1)].reshape(values.shape)


def _groups(batch: Batch) -> Array:
    """Return the group of each slot, [R * K]; empty ones have a number out of range.

    Segment operations drop these. Were they in a group, the zeros of thousands of empty slots would
    be added to one place, one after the other.
    """
    group, filled = batch.group.reshape(-1), batch.weight.reshape(-1) > 0
    return jnp.where(filled, group, len(group))


def group_log_softmax(scores: Array, batch: Batch) -> Array:
    """Log of the softmax over the slots of one feature: scores [R, K] -> [R, K].

    Finite but meaningless for empty slots.
    """
    group, filled = batch.group.reshape(-1), batch.weight.reshape(-1) > 0
    flat = scores.reshape(-1)
    # The largest score is taken off for safety alone: no gradient need pass through it.
    top = jax.lax.stop_gradient(jax.ops.segment_max(flat, _groups(batch), len(group)))[group]
    shifted = jnp.where(filled, flat - top, 0.0).reshape(scores.shape)
    return shifted - jnp.log(jnp.maximum(group_sum(jnp.exp(shifted), batch), 1e-30))


def pool(logits: Array, batch: Batch) -> Array:
    """Mean of `logits` [R, K, C] over the sequences of a feature, at each of its slots.

    Where every feature is one sequence (no `group` in the batch) that is the logits themselves.
    """
    if batch.group is None:
        return logits
    return group_sum(logits * batch.weight[..., None], batch)

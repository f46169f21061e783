"""Losses of packed batches. Shape letters: see models/layers.py.

A step adds sums of losses and of weights over micro-batches, devices and hosts, and divides once.
"""

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.types import Batch, WeightedSum


def weighted_sum(losses: Array, weight: Array) -> WeightedSum:
    """Return the sum of weighted losses; a loss whose weight is 0 does not count."""
    return WeightedSum(jnp.sum(jnp.where(weight > 0, losses * weight, 0.0)), jnp.sum(weight))


def cross_entropy(logits: Array, label: Array) -> Array:
    """Return -log softmax(logits)[label]: logits [..., C], label [...] -> [...]."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probs, label[..., None], axis=-1)[..., 0]


def position_cross_entropy(logits: Array, target: Array, segment_ids: Array) -> Array:
    """Return the cross-entropy over the tokens of each segment.

    Args:
      logits: [R, T], a score for every token.
      target: [R, K], the target token of each segment, counted from the start of the row.
      segment_ids: [R, T].

    Returns:
      [R, K]; finite but meaningless where a row has no segment.
    """
    lowest = jnp.finfo(jnp.float32).min
    numbers = jnp.arange(1, target.shape[1] + 1)
    inside = segment_ids[:, None, :] == numbers[:, None]  # [R, K, T]
    masked = jnp.where(inside, logits[:, None, :], lowest)
    log_total = jax.nn.logsumexp(masked, axis=-1)  # without a segment: log of T times exp(lowest)
    return log_total - jnp.take_along_axis(logits, target, axis=1)


def binary_cross_entropy(logits: Array, label: Array) -> Array:
    """Return -log of the probability of each label: logits and label (0 or 1) [...] -> [...]."""
    return jax.nn.softplus(jnp.where(label > 0, -logits, logits))


def group_sum(values: Array, batch: Batch) -> Array:
    """Return, for each sequence, the sum of `values` [R, K, ...] over its feature.

    `batch.group` [R, K] is equal for the sequences of a feature, wherever they are in the batch:
    only the sums cross rows. Unused places add nothing.
    """
    group = _groups(batch)
    sums = jax.ops.segment_sum(values.reshape(len(group), -1), group, len(group))
    return sums[batch.group.reshape(-1)].reshape(values.shape)


def _groups(batch: Batch) -> Array:
    """Return the group of each sequence, [R * K]; unused places have a number out of range.

    Segment operations drop these. In a group, thousands of zeros would be added to one place, one
    after the other.
    """
    group, filled = batch.group.reshape(-1), batch.weight.reshape(-1) > 0
    return jnp.where(filled, group, len(group))


def group_log_softmax(scores: Array, batch: Batch) -> Array:
    """Return the log of the softmax over the sequences of a feature: scores [R, K] -> [R, K].

    It is finite but meaningless in unused places.
    """
    group, filled = batch.group.reshape(-1), batch.weight.reshape(-1) > 0
    flat = scores.reshape(-1)
    # Subtracting the largest score only avoids overflow: it needs no gradient.
    top = jax.lax.stop_gradient(jax.ops.segment_max(flat, _groups(batch), len(group)))[group]
    shifted = jnp.where(filled, flat - top, 0.0).reshape(scores.shape)
    return shifted - jnp.log(jnp.maximum(group_sum(jnp.exp(shifted), batch), 1e-30))


def pool(logits: Array, batch: Batch) -> Array:
    """Return, for each sequence, the mean of `logits` [R, K, C] over the sequences of its feature.

    If every feature is one sequence (the batch has no `group`), these are the logits themselves.
    """
    if batch.group is None:
        return logits
    return group_sum(logits * batch.weight[..., None], batch)

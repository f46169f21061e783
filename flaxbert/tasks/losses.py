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


def class_loss(
    logits: Array, target: Array, *, smoothing: float = 0.0, gamma: float = 0.0
) -> Array:
    """Return the cross-entropy against a label or a distribution, smoothed and focused.

    It is the sum over classes of -q (1 - p)^gamma log p, where p are the probabilities. q mixes the
    target with a uniform distribution (label smoothing: Szegedy et al. 2016, arXiv:1512.00567,
    section 7). The focal factor (1 - p)^gamma is that of Lin et al. 2017, arXiv:1708.02002.

    Args:
      logits: [..., C].
      target: labels [...], or probabilities of the classes [..., C], such as those of a teacher
        (Hinton et al. 2015, arXiv:1503.02531, at temperature 1).
      smoothing: the share of the uniform distribution.
      gamma: the exponent; 0 gives the cross-entropy.

    Returns:
      [...].
    """
    is_label = target.ndim < logits.ndim
    if is_label and not smoothing and not gamma:
        return cross_entropy(logits, target)
    classes = logits.shape[-1]
    log_probs = jax.nn.log_softmax(logits)
    wanted = jax.nn.one_hot(target, classes) if is_label else target
    if smoothing:
        wanted = (1 - smoothing) * wanted + smoothing / classes
    if gamma:
        # At probability 1 a power below 1 has no gradient.
        wanted *= jnp.maximum(-jnp.expm1(log_probs), 1e-30) ** gamma
    return -jnp.sum(wanted * log_probs, axis=-1)


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


def binary_cross_entropy(logits: Array, label: Array, *, gamma: float = 0.0) -> Array:
    """Return -log of the probability of each label: logits and label (0 or 1) [...] -> [...].

    With an exponent `gamma` it is the focal loss; see `class_loss`.
    """
    wrong = jnp.where(label > 0, -logits, logits)  # the logit of the other value
    losses = jax.nn.softplus(wrong)
    return jnp.exp(-gamma * jax.nn.softplus(-wrong)) * losses if gamma else losses


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

"""Scaled dot-product attention within the segments of packed rows. Shape letters: layers.py.

Callers pass segment ids and a window, not a mask, so that a fused kernel can take the place of
`attend` without any change to the encoders.
"""

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.models.dropout import DropoutKeys, drop_probs


def attend(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    window: int | None = None,
    rate: float = 0.0,
    keys: DropoutKeys | None = None,
) -> Array:
    """Return scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

    A token attends to the tokens of its own segment. Padding (segment 0) attends to padding, so
    that no softmax is empty and no output is NaN.

    Args:
      q: queries [R, T, N, H].
      k: keys [R, S, N, H].
      v: values [R, S, N, H].
      segment_ids: [R, T], 0 for padding.
      window: tokens further away than this are not attended to; None: all of the segment are.
      rate: dropout rate of the attention probabilities.
      keys: dropout keys of the queries' tokens [R, T]; None means no dropout.

    Returns:
      [R, T, N * H].
    """
    # Scores and softmax are float32 whatever the compute dtype: bfloat16 has 8 bits of precision.
    scores = jnp.einsum("rtnh,rsnh->rnts", q, k, preferred_element_type=jnp.float32)
    mask = attention_mask(segment_ids, window)
    scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    probs = drop_probs(jax.nn.softmax(scores, axis=-1).astype(q.dtype), rate, keys)
    context = jnp.einsum("rnts,rsnh->rtnh", probs, v)
    return context.reshape(*context.shape[:2], -1)


def attention_mask(segment_ids: Array, window: int | None = None) -> Array:
    """Return the mask [R, 1, T, S] that is True where a token may attend; see `attend`."""
    mask = segment_ids[:, :, None] == segment_ids[:, None, :]
    if window is not None:
        # Segments are contiguous, so a distance in the row is a distance in the segment.
        index = jnp.arange(segment_ids.shape[1])
        mask &= jnp.abs(index[:, None] - index[None, :]) <= window
    return mask[:, None]

"""Attention: which tokens attend to which, and finite outputs for padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close

from flaxbert.models.attention import attend, attention_mask

# Two segments of 4 and 3 tokens, and 2 tokens of padding.
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]])


def random_qkv(seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return queries, keys and values [R, T, N, H] for `SEGMENTS`."""
    shape = (*SEGMENTS.shape, 2, 5)
    q, k, v = (jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(seed), 3))
    return q, k, v


@pytest.mark.parametrize("window", [None, 0, 1, 2])
def test_mask_allows_the_window_within_the_segment(window: int | None) -> None:
    mask = attention_mask(jnp.asarray(SEGMENTS), window)
    assert mask.shape == (1, 1, 9, 9)
    for i in range(9):
        for j in range(9):
            near = window is None or abs(i - j) <= window
            assert mask[0, 0, i, j] == (SEGMENTS[0, i] == SEGMENTS[0, j] and near)


@pytest.mark.parametrize("window", [None, 1])
def test_packed_segments_equal_segments_on_their_own(window: int | None) -> None:
    q, k, v = random_qkv()
    packed = attend(q, k, v, jnp.asarray(SEGMENTS), window=window)
    for segment in (1, 2):
        members = SEGMENTS[0] == segment
        ones = jnp.ones((1, members.sum()), jnp.int32)
        alone = attend(q[:, members], k[:, members], v[:, members], ones, window=window)
        assert_close(packed[:, members], alone)


def test_attention_equals_jax() -> None:
    q, k, v = random_qkv(1)
    mask = attention_mask(jnp.asarray(SEGMENTS), 1)
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask)
    assert_close(attend(q, k, v, jnp.asarray(SEGMENTS), window=1), expected.reshape(1, 9, -1))


def test_rows_of_padding_give_finite_outputs() -> None:
    q, k, v = random_qkv()
    assert np.all(np.isfinite(attend(q, k, v, jnp.zeros_like(SEGMENTS))))

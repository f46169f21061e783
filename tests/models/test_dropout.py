"""Dropout bits are uniform and independent, and a function of a token's sequence and position."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from flax import nnx

from flaxbert.models.attention import attend
from flaxbert.models.bert import Layer
from flaxbert.models.dropout import (
    DropoutKeys,
    at_places,
    drop_probs,
    dropout,
    dropout_key,
    fold_in,
    token_keys,
)
from flaxbert.models.families import read_config

ROWS, LENGTH, WIDTH, RATE = 8, 128, 512, 0.1
SITES, STEPS = 30, 30


def keys_of(seed: int = 0, step: int = 0, first_sequence: int = 0) -> DropoutKeys:
    """Return the keys of `ROWS` rows of one sequence each."""
    index = first_sequence + jnp.arange(ROWS)[:, None]
    ones = jnp.ones((ROWS, LENGTH), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), ones.shape)
    keys = token_keys(dropout_key(seed, step), index, ones, positions)
    assert keys is not None
    return keys


@jax.jit
def dropped(keys: DropoutKeys) -> jax.Array:
    """Return 1 where dropout zeroes a unit, [R, T, D]."""
    return dropout(jnp.ones((ROWS, LENGTH, WIDTH)), RATE, keys) == 0


def deviations(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two masks, in standard deviations of independent ones."""
    centered = (first - RATE) * (second - RATE)
    return float(centered.mean() / (RATE * (1 - RATE)) * np.sqrt(centered.size))


@pytest.fixture(scope="module")
def sites() -> np.ndarray:
    """Return the masks of the first places of one step, [sites, R, T, D]."""
    return np.stack([np.asarray(dropped(fold_in(keys_of(), site))) for site in range(SITES)])


def test_units_are_scaled_alike_in_bfloat16_and_float32():
    x = jax.random.uniform(jax.random.key(0), (ROWS, LENGTH, WIDTH), minval=1.0, maxval=2.0)
    x = x.astype(jnp.bfloat16)
    y = dropout(x, RATE, keys_of()).astype(jnp.float32)
    factors = np.asarray(y / x.astype(jnp.float32))[np.asarray(y) > 0]
    # Each has the rounding error of its unit. A rounded factor would be 0.0016 too low on average.
    assert factors.mean() * (1 - RATE) == pytest.approx(1, abs=2e-4)


def test_rate_is_exact_within_chance(sites):
    # 30 masks of 524,288 units: a mean has a standard deviation of 0.0004.
    means = sites.mean(axis=(1, 2, 3))
    spread = np.sqrt(RATE * (1 - RATE) / sites[0].size)
    assert np.abs(means - RATE).max() < 4 * spread
    assert abs(means.mean() - RATE) < 4 * spread / np.sqrt(SITES)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_numbers_of_dropped_units_are_binomial(sites, axis):
    """Sums over an axis vary as those of independent units do: rows, tokens and units alike."""
    counts = sites.sum(axis=axis)
    binomial = sites.shape[axis] * RATE * (1 - RATE)
    # The variance of n values has a relative standard deviation of about sqrt(2 / n).
    tolerance = 6 * np.sqrt(2 / counts.size)
    assert counts.var() / binomial == pytest.approx(1, abs=max(tolerance, 0.01))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 7])
def test_neighbors_are_independent(sites, axis, distance):
    mask = sites[0]
    near = mask.take(range(distance, mask.shape[axis]), axis)
    far = mask.take(range(mask.shape[axis] - distance), axis)
    assert abs(deviations(near, far)) < 4.5


@pytest.mark.parametrize("distance", [16, 32, 64, 128, 256])
def test_units_at_powers_of_two_are_independent(sites, distance):
    assert abs(deviations(sites[0][..., distance:], sites[0][..., :-distance])) < 4.5


def assert_independent(masks: list[np.ndarray]) -> None:
    """Assert that the correlations of all pairs have mean 0 and deviation 1."""
    pairs = [deviations(a, b) for a, b in itertools.combinations(masks, 2)]
    assert np.abs(pairs).max() < 5
    assert abs(np.mean(pairs)) < 4.5 / np.sqrt(len(pairs))
    assert 0.85 < np.std(pairs) < 1.15


def test_places_in_the_model_are_independent(sites):
    assert_independent(list(sites))


def test_steps_seeds_and_sequences_are_independent():
    masks = [np.asarray(dropped(keys_of(step=step))) for step in range(STEPS)]
    masks += [np.asarray(dropped(keys_of(seed=seed))) for seed in (1, 2, -1, 2**40)]
    assert_independent([*masks, np.asarray(dropped(keys_of(first_sequence=ROWS)))])


def test_heads_queries_and_keys_are_independent():
    ones = jnp.ones((2, 12, LENGTH, LENGTH))
    keys = jax.tree.map(lambda x: x[:2], keys_of())
    mask = np.asarray(drop_probs(ones, RATE, keys) == 0)
    assert abs(mask.mean() - RATE) < 4 * np.sqrt(RATE * (1 - RATE) / mask.size)
    for axis in range(4):
        near = mask.take(range(1, mask.shape[axis]), axis)
        far = mask.take(range(mask.shape[axis] - 1), axis)
        assert abs(deviations(near, far)) < 4.5
    assert abs(deviations(mask, mask.swapaxes(2, 3))) < 6  # the diagonal is shared


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 0.5, 0.9])
def test_kept_elements_are_scaled(rate):
    x = jnp.full((ROWS, LENGTH, WIDTH), 3.0)
    y = np.asarray(dropout(x, rate, keys_of()))
    expected = {0.0, 3 * np.float32(1 / (1 - rate))} if rate else {3.0}
    assert set(np.unique(y)) == expected
    assert (y == 0).mean() == pytest.approx(rate, abs=4 * np.sqrt(0.25 / y.size))


def test_without_keys_nothing_is_dropped():
    x = jnp.ones((2, 3, 4))
    assert dropout(x, 0.5, None) is x
    assert drop_probs(x, 0.5, None) is x
    assert fold_in(None, 1) is None
    assert at_places(None, jnp.zeros((2, 1), jnp.int32)) is None


def test_the_backward_pass_uses_the_mask_of_the_forward_pass():
    keys = keys_of()
    y, back = jax.vjp(lambda x: dropout(x, 0.3, keys), jnp.ones((ROWS, LENGTH, WIDTH)))
    (grad,) = back(jnp.ones_like(y))
    np.testing.assert_array_equal(grad, y)


def test_neither_bits_nor_masks_are_stored():
    """Only the keys, [R, T], go from the forward to the backward pass, apart from values."""
    keys = keys_of()
    probs = jnp.ones((ROWS, 4, LENGTH, LENGTH))
    for call, x in ((dropout, jnp.ones((ROWS, LENGTH, WIDTH))), (drop_probs, probs)):
        _, back = jax.vjp(lambda x, call=call: call(x, RATE, keys), x)
        saved = [leaf for leaf in jax.tree.leaves(back) if leaf.ndim > 0]
        assert saved
        assert max(leaf.size for leaf in saved) <= ROWS * LENGTH * 4


def test_threefry_is_not_used():
    program = jax.jit(lambda x: dropout(x, RATE, keys_of())).lower(jnp.ones((ROWS, LENGTH, WIDTH)))
    assert not re.search("threefry|rng_bit_generator", program.as_text())


def test_packed_attention_drops_what_unpacked_attention_drops():
    """Two sequences in one row attend as each does in a row of its own, with dropout."""
    lengths, heads, width = (40, 88), 3, 8
    key = dropout_key(3, 4)
    q, k, v = (
        jax.random.normal(key, (1, LENGTH, heads, width))
        for key in jax.random.split(jax.random.key(0), 3)
    )
    ids = jnp.repeat(jnp.array([1, 2]), jnp.array(lengths))[None]
    positions = jnp.concatenate([jnp.arange(length) for length in lengths])[None]
    index = jnp.array([[17, 5]])

    @jax.jit
    def dropped(q, k, v, index, ids, positions):
        return attend(q, k, v, ids, rate=0.3, keys=token_keys(key, index, ids, positions))

    packed = dropped(q, k, v, index, ids, positions)
    start = 0
    for number, length in enumerate(lengths):
        here = slice(start, start + length)
        ones = jnp.ones((1, length), jnp.int32)
        place = index[:, number : number + 1]
        alone = dropped(q[:, here], k[:, here], v[:, here], place, ones, positions[:, here])
        np.testing.assert_allclose(packed[:, here], alone, rtol=1e-5, atol=1e-6)
        start += length
    assert not np.allclose(packed, jax.jit(attend)(q, k, v, ids), atol=1e-2)


def test_the_feed_forward_layer_of_a_pre_norm_layer_has_dropout():
    config = read_config({"model_type": "xlm-roberta-xl", **zoo.ROBERTA}).with_dropout(0.5)
    layer = Layer(config, nnx.Rngs(0))
    kernel = layer.attention.output.kernel
    kernel[...] = jnp.zeros_like(kernel[...])  # so that attention adds nothing
    x = jax.random.normal(jax.random.key(0), (ROWS, LENGTH, config.hidden_size))
    ids = jnp.ones((ROWS, LENGTH), jnp.int32)
    added = jax.jit(lambda x: layer(x, ids, keys_of()) - x)(x)
    assert float(jnp.mean(added == 0)) == pytest.approx(0.5, abs=0.02)

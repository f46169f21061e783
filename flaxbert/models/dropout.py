"""Dropout as a pure function of (seed, step, sequence, position, place in the model, unit).

The random bits are a counter-based hash (Salmon et al. 2011, "Parallel Random Numbers: As Easy as
1, 2, 3"), computed where they are used, in the forward and again in the backward pass, so neither
bits nor masks are stored. They depend on a token's sequence and its position in that sequence, not
on its row. So the result is the same with and without packing, on any number of devices, with any
number of micro-batches, and with or without rematerialization. Shape letters: layers.py.

Two 32-bit words per token, mixed thoroughly, are the key of the hash; each element then costs two
multiplications. The mixing function is lowbias32 of Wellons, "Prospecting for Hash Functions"
(2018), the finalizer with the least known bias of its size.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

GOLDEN = 0x9E3779B9
"""2^32 divided by the golden ratio: multiples of it differ in their high bits."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DropoutKeys:
    """The dropout keys of tokens, or of sequences, at one place in the model."""

    first: Array
    """[R, T], or [R, K] for sequences: first uint32 word of each key."""
    second: Array
    """[R, T] or [R, K]: second uint32 word."""
    positions: Array
    """[R, T] or [R, K] int32: the token's position in its sequence."""


def dropout_key(seed: int, step: Array | int) -> Array:
    """Return the key of a step, two uint32 words [2]; `seed` may be any integer."""
    first, second = jnp.uint32(GOLDEN), jnp.uint32(0)
    for word in (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, step):
        first, second = absorb(first, second, jnp.asarray(word, jnp.uint32))
    return jnp.stack([first, second])


def token_keys(
    key: Array | None, sequence_index: Array, segment_ids: Array, position_ids: Array
) -> DropoutKeys | None:
    """Return the keys of all tokens; None without a key.

    Args:
      key: [2], from `dropout_key`; None means no dropout.
      sequence_index: [R, K] index of each sequence in its data set.
      segment_ids: [R, T], k for the tokens of the row's k-th sequence, 0 for padding, whose keys
        are arbitrary.
      position_ids: [R, T], from 0 in each sequence.
    """
    if key is None:
        return None
    sequence = jnp.take_along_axis(sequence_index, jnp.maximum(segment_ids - 1, 0), axis=1)
    first, second = key[0], key[1]
    for word in (sequence, position_ids):
        first, second = absorb(first, second, word.astype(jnp.uint32))
    return DropoutKeys(first, second, position_ids)


def fold_in(keys: DropoutKeys | None, number: int) -> DropoutKeys | None:
    """Return the keys of a part of the model, by its number in the whole; None stays None."""
    if keys is None:
        return None
    words = absorb(keys.first, keys.second, jnp.uint32(number))
    return DropoutKeys(*_once(words), keys.positions)


def at_places(keys: DropoutKeys | None, places: Array) -> DropoutKeys | None:
    """Return the keys [R, K] of the tokens at places [R, K] of their rows; None stays None."""
    taken: DropoutKeys | None = jax.tree.map(lambda x: jnp.take_along_axis(x, places, axis=1), keys)
    return taken


def dropout(x: Array, rate: float, keys: DropoutKeys | None) -> Array:
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate).

    Args:
      x: [R, T, ...] with the keys of tokens, [R, K, ...] with those of sequences; the last axis
        counts the units.
      rate: from 0 to below 1.
      keys: the keys of this place; None means no dropout.
    """
    if keys is None or rate == 0.0:
        return x
    units = jnp.arange(x.shape[-1], dtype=jnp.uint32)
    return _drop(x, rate, keys.first[..., None], keys.second[..., None], units)


def drop_probs(probs: Array, rate: float, keys: DropoutKeys | None) -> Array:
    """Apply dropout to attention probabilities [R, N, T, S], of which S counts the units.

    A probability's bits depend on the positions of both tokens in their sequence, and on the head.
    """
    if keys is None or rate == 0.0:
        return probs
    first, second = _once(head_words(keys, probs.shape[1]))
    units = keys.positions[:, None, None].astype(jnp.uint32)  # [R, 1, 1, S]
    return _drop(probs, rate, first[..., None], second[..., None], units)


def head_words(keys: DropoutKeys, heads: int) -> tuple[Array, Array]:
    """Return the two words of the keys [R, T] for each of `heads` heads, [R, N, T]."""
    numbers = jnp.arange(heads, dtype=jnp.uint32)[:, None]
    return absorb(keys.first[:, None], keys.second[:, None], numbers)


def threshold(rate: float) -> int:
    """Return the number below which 32 random bits mean that an element is zeroed."""
    return round(rate * 2**32)


def random_bits(first: Array, second: Array, unit: Array) -> Array:
    """Return 32 random bits for each unit of a key; the arguments are uint32 and broadcast.

    Of the result, the low 16 bits are less random than the high ones, which decide a comparison.
    """
    x = (unit * jnp.uint32(GOLDEN)) ^ first
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x += second
    return (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)


def absorb(first: Array, second: Array, word: Array) -> tuple[Array, Array]:
    """Mix another word into a key of two; all are uint32 and broadcast."""
    first = _mix(first ^ (word * jnp.uint32(GOLDEN))) + second
    return first, _mix(second + (first ^ jnp.uint32(0x85EBCA6B)))


def _once(words: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the words of keys, which XLA otherwise fuses, and computes again for each unit."""
    computed: tuple[Array, Array] = jax.lax.optimization_barrier(words)
    return computed


def _mix(x: Array) -> Array:
    """Return lowbias32 of x, a bijection of 32 bits."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _drop(x: Array, rate: float, first: Array, second: Array, units: Array) -> Array:
    keep = random_bits(first, second, units) >= jnp.uint32(threshold(rate))
    # In bfloat16, the factor itself would be rounded, and all units scaled by the same error.
    scaled = (x.astype(jnp.float32) * (1.0 / (1.0 - rate))).astype(x.dtype)
    return jnp.where(keep, scaled, jnp.zeros_like(x))


def _drop_forward(
    x: Array, rate: float, first: Array, second: Array, units: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _drop(x, rate, first, second, units), (first, second, units)


def _drop_backward(
    rate: float, keys: tuple[Array, Array, Array], grad: Array
) -> tuple[Array, None, None, None]:
    return _drop(grad, rate, *keys), None, None, None


_drop.defvjp(_drop_forward, _drop_backward)

"""Cross-entropy over a large vocabulary, computed in chunks of words. Shape letters: layers.py.

Scores of all words are [R, P, V] in float32: for XLM-R's 250,002 words and 2,500 positions 2.5 GB,
of which a step stores several. Here a device stores the scores of one chunk. The backward pass
computes them again from the log-sum-exp of each position, an idea of Wijmans et al., "Cut Your
Losses in Large-Vocabulary Language Models" (2024, arXiv:2411.09009); their kernel is not used, and
no gradient is left out. So there are four products with the table instead of three.

The words are divided, not the positions. A chunk's gradient is then a part of the table's gradient
that is computed once, instead of a whole table that is added to for every chunk, and rows that are
divided over devices stay where they are.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.models.layers import matmul

SCORES_BYTES = 2**29
"""The scores of a device are computed in chunks if they have more bytes.

Batches of BERT stay below: 2,500 positions and 30,522 words have 0.3 GB. Computing scores again
only pays where it saves much memory.
"""

CHUNK_BYTES = 2**27
"""Most bytes of a chunk's scores; a step stores a few arrays of this size."""


def chunk_size(positions: Array, words: int) -> int:
    """Return how many of `words` words are scored at once: all if their scores are small.

    Args:
      positions: [R, P], the positions that are scored.
      words: V.
    """
    mesh: Any = jax.typeof(positions).sharding.mesh  # the devices, as in `attention.attend`
    scores = 4 * words * math.ceil(positions.size / max(1, mesh.size))
    return words if scores <= SCORES_BYTES else math.ceil(words / math.ceil(scores / CHUNK_BYTES))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    x: Array, table: Array, bias: Array | None, label: Array, size: int
) -> tuple[Array, Array]:
    """Return the cross-entropy of the scores x table^T + bias, and whether the label's is the best.

    Operands of products have `x.dtype`, sums are float32. Only the cross-entropy has gradients.

    Args:
      x: [R, P, E].
      table: [V, E].
      bias: [V] or None.
      label: [R, P]; the cross-entropy of a label that is not a word is infinite.
      size: number of words that are scored at once.

    Returns:
      float32 [R, P] and bool [R, P]. The best of equal scores is that of the first word.
    """
    return _forward(x, table, bias, label, size)[0]


def _forward(
    x: Array, table: Array, bias: Array | None, label: Array, size: int
) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
    """Return the results of `cross_entropy`, and what the backward pass needs."""

    def add(number: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        highest, total, best, of_label = sums
        start, words = _chunk(number, size, len(table))
        scores = _scores(words, x, *_rows((table, bias), start, size))
        top = jnp.max(scores, axis=-1)
        best = jnp.where(top > highest, start + jnp.argmax(scores, axis=-1), best)
        top = jnp.maximum(highest, top)
        total *= jnp.exp(highest - top)
        total += jnp.sum(jnp.exp(scores - top[..., None]), axis=-1)
        place = label - start
        score = jnp.take_along_axis(scores, jnp.clip(place, 0, size - 1)[..., None], axis=-1)
        score = jnp.where((place >= 0) & (place < size), score[..., 0], -jnp.inf)
        return top, total, best, jnp.maximum(of_label, score)

    lowest = jnp.full(label.shape, -jnp.inf, jnp.float32)
    nothing = lowest, jnp.zeros_like(lowest), jnp.zeros_like(label), lowest
    highest, total, best, of_label = jax.lax.fori_loop(0, _count(table, size), add, nothing)
    log_total = highest + jnp.log(total)
    return (log_total - of_label, best == label), (x, table, bias, label, log_total)


def _backward(
    size: int, saved: tuple[Any, ...], grads: tuple[Array, Any]
) -> tuple[Array, Array, Array | None, None]:
    x, table, bias, label, log_total = saved
    grad = grads[0][..., None]

    def add(number: Array, sums: tuple[Array, Any]) -> tuple[Array, Any]:
        x_grad, weight_grads = sums
        start, words = _chunk(number, size, len(table))
        rows = _rows((table, bias), start, size)
        scores, pull_back = jax.vjp(functools.partial(_scores, words), x, *rows)
        share = jnp.exp(scores - log_total[..., None])
        x_part, *rows_grads = pull_back(grad * (share - (words == label[..., None])))
        rows_grads = jax.tree.map(jnp.add, _rows(weight_grads, start, size), tuple(rows_grads))
        weight_grads = jax.tree.map(
            lambda whole, rows: jax.lax.dynamic_update_slice_in_dim(whole, rows, start, 0),
            weight_grads,
            rows_grads,
        )
        return x_grad + x_part, weight_grads

    nothing = jnp.zeros(x.shape, jnp.float32), jax.tree.map(jnp.zeros_like, (table, bias))
    x_grad, weight_grads = jax.lax.fori_loop(0, _count(table, size), add, nothing)
    return x_grad.astype(x.dtype), *weight_grads, None


cross_entropy.defvjp(_forward, _backward)


def _count(table: Array, size: int) -> int:
    return math.ceil(len(table) / size)


def _chunk(number: Array, size: int, count: int) -> tuple[Array, Array]:
    """Return the first word of a chunk, and its words [size].

    All chunks have one size, so the last may begin with words of the one before; these are -1.
    """
    start = jnp.minimum(number * size, count - size)
    words = start + jnp.arange(size)
    return start, jnp.where(words < number * size, -1, words)


def _rows(weights: Any, start: Array, size: int) -> Any:
    """Return `size` rows of every array of a tree."""
    return jax.tree.map(lambda w: jax.lax.dynamic_slice_in_dim(w, start, size), weights)


def _scores(words: Array, x: Array, rows: Array, bias: Array | None) -> Array:
    """Return the scores of a chunk's words, -inf for those of another chunk."""
    offset = jnp.where(words < 0, -jnp.inf, 0.0 if bias is None else bias)
    return matmul(x, rows, jnp.float32, True) + offset

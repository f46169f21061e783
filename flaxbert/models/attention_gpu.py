"""Attention on packed rows as kernels for GPUs, which store no scores and draw their own dropout.

The kernels are those of FlashAttention (Dao et al. 2022, arXiv:2205.14135; Dao 2023, 2307.08691),
written in Pallas and compiled by Triton: the scores of a tile of queries and keys exist only in
registers, and the backward pass computes them again from the inputs and one number per query. They
read and write [R, T, N, H], as the dense layers do, so nothing is transposed in memory. Shape
letters: layers.py.

An instance of a kernel handles a row, a head and a block of tokens: its own tokens, which are the
rows of its tiles. It goes over the blocks that these tokens attend to, the columns. The backward
pass is one kernel for the gradient of queries and one for those of keys and values. A single one
would have to add to memory that other instances write too, in an order that changes from run to
run.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from flaxbert.models.attention_tpu import bounds
from flaxbert.models.attention_tpu_kernels import LAST, LOG2_E, MASKED, MATMUL, dot
from flaxbert.models.dropout import DropoutKeys, head_words, random_bits, threshold


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fixed when the kernels are compiled."""

    width: int
    """H."""
    block: int
    """Queries of a tile, and its keys."""
    rate: float
    scale: float
    """Factor of the scores (Vaswani et al. 2017, section 3.2.1)."""
    interpret: bool

    @property
    def exponent(self) -> float:
        """The scale of the scores, for exponents to base 2."""
        return self.scale * LOG2_E

    @property
    def kept(self) -> float:
        """Share of the probabilities that dropout keeps."""
        return 1.0 - self.rate


def gpu_attention(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    window: int | None = None,
    rate: float = 0.0,
    keys: DropoutKeys | None = None,
    scale: float | None = None,
    interpret: bool = False,
) -> Array:
    """Return the same as `attention.attend`, with the same dropout mask: [R, T, N * H].

    Args:
      q: queries [R, T, N, H]; T is a multiple of 64, and H a power of two from 16.
      k: keys [R, T, N, H].
      v: values [R, T, N, H].
      segment_ids: [R, T], 0 for padding; the tokens of a segment are contiguous.
      window: tokens further away than this are not attended to; None: all of the segment are.
      rate: dropout rate of the attention probabilities.
      keys: dropout keys of the tokens [R, T]; None means no dropout.
      scale: factor of the scores; None: H^-0.5.
      interpret: whether the kernels run on any device, slowly, for tests.
    """
    rows, length, heads, width = q.shape
    tokens: Tokens = bounds(segment_ids, window)
    if keys is None:
        rate = 0.0
    elif rate:
        # In a kernel, threads that share a token would each compute its words.
        tokens += (*head_words(keys, heads), keys.positions.astype(jnp.uint32))
    # In float32, larger tiles need more registers than a thread has.
    block = 32 if q.dtype == jnp.float32 else 64
    scale = scale or width**-0.5
    plan = Plan(width=width, block=block, rate=rate, scale=scale, interpret=interpret)
    return _attention(q, k, v, tokens, plan).reshape(rows, length, heads * width)


# --- calls -------------------------------------------------------------------------------------

Tokens = tuple[Array, ...]
"""Integers: the bounds of what a token attends to [R, T]; with dropout, also the two words of its
key [R, N, T], and its position in its sequence [R, T]."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(q: Array, k: Array, v: Array, tokens: Tokens, plan: Plan) -> Array:
    """Return attention [R, T, N, H]."""
    return _forward(q, k, v, tokens, plan)[0]


def _forward(
    q: Array, k: Array, v: Array, tokens: Tokens, plan: Plan
) -> tuple[Array, tuple[Any, ...]]:
    rows, length, heads, _ = q.shape
    statistics = jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)
    out, lse = _call(attention_forward, plan, tokens, (q, k, v), (_like(q), statistics))
    return out, (q, k, v, tokens, out, lse)


def _backward(plan: Plan, saved: tuple[Any, ...], grad: Array) -> tuple[Array | None, ...]:
    q, k, v, tokens, out, lse = saved
    # The sum over keys of probability times its gradient, for each query.
    mean = plan.kept * jnp.sum(grad.astype(jnp.float32) * out, axis=-1).swapaxes(1, 2)
    inputs = (q, k, v, grad, lse, mean)
    (dq,) = _call(attention_backward_queries, plan, tokens, inputs, (_like(q),))
    dk, dv = _call(attention_backward_keys, plan, tokens, inputs, (_like(k), _like(v)))
    return dq, dk, dv, None


_attention.defvjp(_forward, _backward)


def _like(x: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _call(
    kernel: Callable[..., None],
    plan: Plan,
    tokens: Tokens,
    inputs: tuple[Array, ...],
    shapes: tuple[jax.ShapeDtypeStruct, ...],
) -> Any:
    """Run a kernel for each block of tokens, row and head."""
    rows, length, heads, width = inputs[0].shape

    def spec(x: Any) -> pl.BlockSpec:
        """Describe the part of an array that an instance sees: a whole row, of one head."""
        if x.ndim == 2:
            return pl.BlockSpec((None, length), lambda i, r, n: (r, 0))
        if x.ndim == 3:
            return pl.BlockSpec((None, None, length), lambda i, r, n: (r, n, 0))
        return pl.BlockSpec((None, length, None, width), lambda i, r, n: (r, 0, n, 0))

    def run(*refs: Any) -> None:
        kernel(_Tiles.of_instance(plan, *refs[: len(tokens)]), *refs[len(tokens) :])

    run.__name__ = kernel.__name__  # the name of the kernel in a profile
    return pl.pallas_call(
        run,
        out_shape=shapes,
        grid=(length // plan.block, rows, heads),
        in_specs=[spec(x) for x in (*tokens, *inputs)],
        out_specs=tuple(map(spec, shapes)),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=plan.interpret,
    )(*tokens, *inputs)


# --- kernels -----------------------------------------------------------------------------------
#
# Arguments that end in _ref are references to a row in the GPU's memory. Logarithms and exponents
# are to base 2, and include the scale of the scores.


def attention_forward(
    tiles: "_Tiles", q_ref: Any, k_ref: Any, v_ref: Any, out_ref: Any, lse_ref: Any
) -> None:
    """Compute the attention of a block of queries, and the logarithms of their softmax sums."""
    plan = tiles.plan
    queries = tiles.own
    q = q_ref[queries, :]
    words = [word[:, None] for word in tiles.words(queries)]

    def add(j: Any, carry: Any) -> Any:
        highest, total, context = carry
        keys = tiles.at(j)
        scores = jnp.where(tiles.mask(j), dot(q, k_ref[keys, :], LAST), MASKED)
        top = jnp.maximum(highest, jnp.max(scores, axis=1))
        probs = jnp.exp2((scores - top[:, None]) * plan.exponent)
        decay = jnp.exp2((highest - top) * plan.exponent)
        total = total * decay + jnp.sum(probs, axis=1)
        if plan.rate:
            probs = jnp.where(tiles.keep(words, tiles.units(keys)[None, :]), probs, 0.0)
        values = dot(probs.astype(q.dtype), v_ref[keys, :], MATMUL)
        return top, total, context * decay[:, None] + values

    highest = jnp.full(plan.block, MASKED, jnp.float32)
    context = jnp.zeros((plan.block, plan.width), jnp.float32)
    top, total, context = tiles.over_columns(add, (highest, jnp.zeros_like(highest), context))
    lse_ref[queries] = top * plan.exponent + jnp.log2(total)
    out = context * (1.0 / (plan.kept * total))[:, None]
    out_ref[queries, :] = out.astype(out_ref.dtype)


def attention_backward_queries(
    tiles: "_Tiles",
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    grad_ref: Any,
    lse_ref: Any,
    mean_ref: Any,
    dq_ref: Any,
) -> None:
    """Compute the gradient of a block of queries from that of the attention."""
    plan = tiles.plan
    queries = tiles.own
    q, grad = q_ref[queries, :], grad_ref[queries, :]
    lse, mean = lse_ref[queries][:, None], mean_ref[queries][:, None]
    words = [word[:, None] for word in tiles.words(queries)]

    def add(j: Any, dq: Any) -> Any:
        keys = tiles.at(j)
        k = k_ref[keys, :]
        probs = tiles.probs(j, dot(q, k, LAST), lse)
        dprobs = dot(grad, v_ref[keys, :], LAST)
        if plan.rate:
            dprobs = jnp.where(tiles.keep(words, tiles.units(keys)[None, :]), dprobs, 0.0)
        dscores = (probs * (dprobs - mean)).astype(k.dtype)
        return dq + dot(dscores, k, MATMUL)

    dq = tiles.over_columns(add, jnp.zeros((plan.block, plan.width), jnp.float32))
    dq_ref[queries, :] = (dq * (plan.scale / plan.kept)).astype(dq_ref.dtype)


def attention_backward_keys(
    tiles: "_Tiles",
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    grad_ref: Any,
    lse_ref: Any,
    mean_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
) -> None:
    """Compute the gradients of a block of keys and their values from that of the attention."""
    plan = tiles.plan
    keys = tiles.own
    k, v = k_ref[keys, :], v_ref[keys, :]
    units = tiles.units(keys)[:, None] if plan.rate else None

    def add(j: Any, carry: Any) -> Any:
        dk, dv = carry
        queries = tiles.at(j)
        q, grad = q_ref[queries, :], grad_ref[queries, :]
        probs = tiles.probs(j, dot(k, q, LAST), lse_ref[queries][None, :])
        dropped, dprobs = probs, dot(v, grad, LAST)
        if plan.rate:
            keep = tiles.keep([word[None, :] for word in tiles.words(queries)], units)
            dropped, dprobs = jnp.where(keep, probs, 0.0), jnp.where(keep, dprobs, 0.0)
        dscores = (probs * (dprobs - mean_ref[queries][None, :])).astype(q.dtype)
        return dk + dot(dscores, q, MATMUL), dv + dot(dropped.astype(q.dtype), grad, MATMUL)

    zeros = jnp.zeros((plan.block, plan.width), jnp.float32)
    dk, dv = tiles.over_columns(add, (zeros, zeros))
    dk_ref[keys, :] = (dk * (plan.scale / plan.kept)).astype(dk_ref.dtype)
    dv_ref[keys, :] = (dv * (1.0 / plan.kept)).astype(dv_ref.dtype)


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """The tiles of an instance: its own tokens, and in turn each block that they attend to.

    Attention is symmetric, so the queries that attend to a key are those that it attends to.
    """

    plan: Plan
    own: Any
    """Indices of the own tokens."""
    start: Array
    """[rows] of the tiles: the first token that each attends to."""
    end: Array
    """[rows] of the tiles: the one after the last."""
    word_refs: tuple[Any, ...]
    """The two words of the queries' dropout keys; empty without dropout."""
    units_ref: Any
    """Positions of the tokens in their sequences."""

    @classmethod
    def of_instance(cls, plan: Plan, start_ref: Any, end_ref: Any, *dropout_refs: Any) -> "_Tiles":
        """Return the tiles of the instance that runs."""
        own = pl.ds(pl.program_id(0) * plan.block, plan.block)
        *word_refs, units_ref = dropout_refs or (None,)
        return cls(plan, own, start_ref[own], end_ref[own], tuple(word_refs), units_ref)

    def at(self, j: Any) -> Any:
        """Return the indices of the tokens of block j."""
        return pl.ds(j * self.plan.block, self.plan.block)

    def over_columns(self, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Call `carry = body(j, carry)` for the blocks j that the own tokens attend to."""
        first = lax.div(jnp.min(self.start), self.plan.block)
        last = lax.div(jnp.max(self.end) - 1, self.plan.block)
        return lax.fori_loop(first, last + 1, body, carry)

    def mask(self, j: Any) -> Array:
        """Return whether the own tokens attend to those of block j, [rows, columns]."""
        index = (j * self.plan.block + jnp.arange(self.plan.block, dtype=jnp.int32))[None, :]
        return (index >= self.start[:, None]) & (index < self.end[:, None])

    def probs(self, j: Any, products: Array, lse: Array) -> Array:
        """Return the probabilities of a tile, from the products of queries and keys."""
        return jnp.where(self.mask(j), jnp.exp2(products * self.plan.exponent - lse), 0.0)

    def words(self, queries: Any) -> list[Array]:
        """Return the two words of the queries' dropout keys; nothing without dropout."""
        return [ref[queries] for ref in self.word_refs]

    def units(self, keys: Any) -> Any:
        """Return the positions of keys in their sequences."""
        return self.units_ref[keys]

    def keep(self, words: list[Array], units: Any) -> Array:
        """Return which probabilities of a tile dropout keeps; words and units broadcast to it."""
        first, second = words
        return random_bits(first, second, units) >= jnp.uint32(threshold(self.plan.rate))

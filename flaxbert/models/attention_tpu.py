"""Attention on packed rows as a kernel for TPUs, which stores no scores and draws its own dropout.

The kernel is that of FlashAttention (Dao et al. 2022, arXiv:2205.14135; Dao 2023, 2307.08691): the
scores of a tile of keys and queries exist only in the chip's fast memory, and the backward pass
computes them again from the inputs and one number per query. It reads and writes [R, T, N * H], as
the dense layers do, so nothing is transposed in memory. Shape letters: layers.py.

An instance of the kernel handles a row and a group of heads that fills the 128 lanes of registers;
the lanes of other heads are zeroed where one head is needed. Tiles are [keys, queries], so that
the statistics of queries are rows, as in memory, and softmax reduces the cheaper of the two axes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flaxbert.models.dropout import DropoutKeys, absorb, random_bits, threshold

LANES = 128
"""Elements of a register along its longer axis; T is a multiple of it."""
MASKED = -1e30
"""Score of a key that is not attended to; finite, so that no difference of two scores is NaN."""
LOG2_E = 1.4426950408889634
MEBIBYTE = 2**20

# Rows of the integers that the kernel reads for each token, [R, 8, T].
START, END, FIRST, SECOND, POSITION = range(5)

# Products, by the axes of both operands that are summed over.
MATMUL, LAST, FIRST_AXES = ((axes, ((), ())) for axes in (((1,), (0,)), ((1,), (1,)), ((0,), (0,))))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fixed when the kernel is compiled."""

    width: int
    """H."""
    heads: int
    """Heads of a group."""
    block: int
    """Keys of a tile, and its queries."""
    reach: int
    """The most tokens that a token attends to."""
    rate: float
    scale: float
    """Factor of the scores (Vaswani et al. 2017, section 3.2.1)."""
    interpret: bool

    @property
    def lanes(self) -> int:
        """Width of a group of heads."""
        return self.heads * self.width

    @property
    def kept(self) -> float:
        """Share of the probabilities that dropout keeps."""
        return 1.0 - self.rate

    def part(self, head: int) -> slice:
        """Return the lanes of a head in its group."""
        return slice(head * self.width, (head + 1) * self.width)


def tpu_attention(
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
      q: queries [R, T, N, H]; T is a multiple of 128 and H of 8.
      k: keys [R, T, N, H].
      v: values [R, T, N, H].
      segment_ids: [R, T], 0 for padding; the tokens of a segment are contiguous.
      window: tokens further away than this are not attended to; None: all of the segment are.
      rate: dropout rate of the attention probabilities.
      keys: dropout keys of the tokens [R, T]; None means no dropout.
      scale: factor of the scores; None: H^-0.5.
      interpret: whether the kernel runs on any device, slowly, for tests.
    """
    rows, length, heads, width = q.shape
    plan = Plan(
        width=width,
        heads=heads_of_a_group(heads, width),
        block=block_length(length, window),
        reach=length if window is None else min(length, 2 * window + 1),
        rate=0.0 if keys is None else rate,
        scale=scale or width**-0.5,
        interpret=interpret,
    )
    start, end = bounds(segment_ids, window)
    tokens = [start, end, keys.first, keys.second, keys.positions] if keys else [start, end]
    tokens += [start] * (8 - len(tokens))  # the height of a register
    blocks = (rows, length // plan.block, plan.block)
    first = jnp.min(start.reshape(blocks), axis=-1) // plan.block
    last = (jnp.max(end.reshape(blocks), axis=-1) - 1) // plan.block
    return _attention(
        *(x.reshape(rows, length, heads * width) for x in (q, k, v)),
        jnp.stack([lax.bitcast_convert_type(x, jnp.int32) for x in tokens], axis=1),
        first.reshape(-1),
        last.reshape(-1),
        plan,
    )


def heads_of_a_group(heads: int, width: int) -> int:
    """Return the least number of heads that fill registers; all of them if no number does."""
    counts = range(1, heads)
    return next((n for n in counts if heads % n == 0 and n * width % LANES == 0), heads)


def block_length(length: int, window: int | None) -> int:
    """Return the length of a tile: the whole row up to 512 tokens, else one that divides it.

    Half of that if most keys of a larger tile were outside the window.
    """
    most = 256 if window is not None and window <= LANES and length > 512 else 512
    return next(n for n in range(most, 0, -LANES) if length % n == 0)


def bounds(segment_ids: Array, window: int | None) -> tuple[Array, Array]:
    """Return the index [R, T] of the first token attended to, and the one after the last."""
    index = jnp.broadcast_to(jnp.arange(segment_ids.shape[1], dtype=jnp.int32), segment_ids.shape)
    differs = segment_ids[:, 1:] != segment_ids[:, :-1]
    is_first = jnp.pad(differs, ((0, 0), (1, 0)), constant_values=True)
    is_last = jnp.pad(differs, ((0, 0), (0, 1)), constant_values=True)
    start = lax.cummax(jnp.where(is_first, index, 0), axis=1)
    end = lax.cummin(jnp.where(is_last, index, index.shape[1]), axis=1, reverse=True) + 1
    if window is not None:
        start, end = jnp.maximum(start, index - window), jnp.minimum(end, index + window + 1)
    return start, end


# --- calls -------------------------------------------------------------------------------------

Saved = tuple[Array, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attention(
    q: Array, k: Array, v: Array, tokens: Array, first: Array, last: Array, plan: Plan
) -> Array:
    """Return attention [R, T, D] of inputs [R, T, D].

    `tokens` are integers [R, 8, T]; `first` and `last` are the blocks that each block attends to,
    [R * blocks].
    """
    return _forward(q, k, v, tokens, first, last, plan)[0]


def _forward(
    q: Array, k: Array, v: Array, tokens: Array, first: Array, last: Array, plan: Plan
) -> tuple[Array, Saved]:
    rows, length, depth = q.shape
    statistics = (rows, depth // plan.lanes, plan.heads, length)
    shapes = [
        jax.ShapeDtypeStruct(q.shape, q.dtype),
        jax.ShapeDtypeStruct(statistics, jnp.float32),
    ]
    out, lse = _call(_forward_kernel, plan, shapes, first, last, tokens, q, k, v)
    return out, (q, k, v, tokens, first, last, out, lse)


def _backward(plan: Plan, saved: Saved, grad: Array) -> tuple[Array | None, ...]:
    q, k, v, tokens, first, last, out, lse = saved
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    sums = [pltpu.VMEM((q.shape[1], plan.lanes), jnp.float32)] * 2
    inputs = (tokens, q, k, v, out, grad, lse)
    dq, dk, dv = _call(_backward_kernel, plan, shapes, first, last, *inputs, scratch=sums)
    return dq, dk, dv, None, None, None


_attention.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None],
    plan: Plan,
    shapes: list[jax.ShapeDtypeStruct],
    first: Array,
    last: Array,
    tokens: Array,
    *inputs: Array,
    scratch: list[Any] | None = None,
) -> Any:
    """Run a kernel for every row and group of heads; `shapes` are those of its results."""
    rows, length, depth = inputs[0].shape

    def spec(x: Any) -> pl.BlockSpec:
        if x.ndim == 4:
            return pl.BlockSpec((1, 1, *x.shape[2:]), lambda r, g, *_: (r, g, 0, 0))
        return pl.BlockSpec((1, length, plan.lanes), lambda r, g, *_: (r, 0, g))

    def run(first_ref: Any, last_ref: Any, tokens_ref: Any, *refs: Any) -> None:
        row, group = pl.program_id(0), pl.program_id(1)
        kernel(_Tiles(first_ref, last_ref, tokens_ref, row, group, plan), *refs)

    products = 2 if scratch is None else 5
    scores = rows * length * plan.reach * (depth // plan.width)
    streamed: list[Any] = [tokens, *inputs, *shapes]
    blocks = [x for x in streamed[1:] if x.ndim == 3]
    held = length * plan.lanes * (sum(2 * x.dtype.itemsize for x in blocks) + 8)
    return pl.pallas_call(
        run,
        out_shape=shapes,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, depth // plan.lanes),
            in_specs=[
                pl.BlockSpec((1, 8, length), lambda r, g, *_: (r, 0, 0)),
                *map(spec, inputs),
            ],
            out_specs=list(map(spec, shapes)),
            scratch_shapes=scratch or [],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"),
            vmem_limit_bytes=16 * MEBIBYTE + held,
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * scores * plan.width,
            transcendentals=scores,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in streamed),
        ),
        interpret=plan.interpret,
        name="attention_forward" if scratch is None else "attention_backward",
    )(first, last, tokens, *inputs)


# --- kernels -----------------------------------------------------------------------------------
#
# Arguments that end in _ref are references to blocks in fast memory. Logarithms and exponents are
# to base 2, and include the scale of the scores.


def _forward_kernel(tiles: "_Tiles", *refs: Any) -> None:
    """Compute the attention of all queries of a row, and the logarithms of their softmax sums."""
    q_ref, k_ref, v_ref, out_ref, lse_ref = refs
    plan = tiles.plan
    exponent = plan.scale * LOG2_E

    def attend(i: Any) -> None:
        queries = tiles.at(i)
        q = _by_head(q_ref[0, queries, :], plan)
        hashes = tiles.hashes(queries)

        def add(j: Any, carry: Any) -> Any:
            keys = tiles.at(j)
            k, v = k_ref[0, keys, :], v_ref[0, keys, :]
            mask, units = tiles.mask(queries, j), tiles.units(keys)
            new = []
            for head, (highest, total, context) in enumerate(carry):
                scores = jnp.where(mask, dot(k, q[head], LAST), MASKED)
                top = jnp.maximum(highest, jnp.max(scores, axis=0, keepdims=True))
                probs = jnp.exp2((scores - top) * exponent)
                decay = jnp.exp2((highest - top) * exponent)
                total = total * decay + jnp.sum(probs, axis=0, keepdims=True)
                if plan.rate:
                    probs = jnp.where(tiles.keep(hashes[head], units), probs, 0.0)
                values = dot(v, probs.astype(v.dtype), FIRST_AXES)[plan.part(head)]
                new.append((top, total, context * decay + values))
            return tuple(new)

        highest = jnp.full((1, plan.block), MASKED, jnp.float32)
        context = jnp.zeros((plan.width, plan.block), jnp.float32)
        start = (highest, jnp.zeros_like(highest), context)
        contexts = []
        for head, (top, total, context) in enumerate(
            tiles.over_keys(i, add, (start,) * plan.heads)
        ):
            contexts.append(context * (1.0 / (plan.kept * total)))
            lse_ref[0, 0, head : head + 1, queries] = top * exponent + jnp.log2(total)
        out_ref[0, queries, :] = jnp.concatenate(contexts).T.astype(out_ref.dtype)

    tiles.for_all_blocks(attend)


def _backward_kernel(tiles: "_Tiles", *refs: Any) -> None:
    """Compute the gradients of queries, keys and values from that of the attention."""
    q_ref, k_ref, v_ref, out_ref, grad_ref, lse_ref, dq_ref, dk_ref, dv_ref, dk_sum, dv_sum = refs
    plan = tiles.plan
    exponent = plan.scale * LOG2_E

    def clear(j: Any) -> None:
        for total in (dk_sum, dv_sum):
            total[tiles.at(j), :] = jnp.zeros((plan.block, plan.lanes), jnp.float32)

    def differentiate(i: Any) -> None:
        queries = tiles.at(i)
        q = _by_head(q_ref[0, queries, :], plan)
        grad = _by_head(grad_ref[0, queries, :], plan)
        products = grad_ref[0, queries, :].astype(jnp.float32) * out_ref[0, queries, :]
        products = products.T
        # The sum over keys of probability times its gradient, for each head.
        means = [
            plan.kept * jnp.sum(products[plan.part(head)], axis=0, keepdims=True)
            for head in range(plan.heads)
        ]
        hashes = tiles.hashes(queries)

        def add(j: Any, dq: Any) -> Any:
            keys = tiles.at(j)
            k, v = k_ref[0, keys, :], v_ref[0, keys, :]
            mask, units = tiles.mask(queries, j), tiles.units(keys)
            dk, dv = dk_sum[keys, :], dv_sum[keys, :]
            new = []
            for head in range(plan.heads):
                lse = lse_ref[0, 0, head : head + 1, queries]
                scores = dot(k, q[head], LAST) * exponent
                probs = jnp.where(mask, jnp.exp2(scores - lse), 0.0)
                dropped, dprobs = probs, dot(v, grad[head], LAST)
                if plan.rate:
                    keep = tiles.keep(hashes[head], units)
                    dropped, dprobs = jnp.where(keep, probs, 0.0), jnp.where(keep, dprobs, 0.0)
                dscores = (probs * (dprobs - means[head])).astype(k.dtype)
                dv += dot(dropped.astype(k.dtype), grad[head], MATMUL)
                dk += dot(dscores, q[head], MATMUL)
                new.append(dq[head] + dot(k, dscores, FIRST_AXES)[plan.part(head)])
            dk_sum[keys, :] = dk
            dv_sum[keys, :] = dv
            return tuple(new)

        start = jnp.zeros((plan.width, plan.block), jnp.float32)
        dq = jnp.concatenate(tiles.over_keys(i, add, (start,) * plan.heads)).T
        dq_ref[0, queries, :] = (dq * (plan.scale / plan.kept)).astype(dq_ref.dtype)

    def write(j: Any) -> None:
        keys = tiles.at(j)
        dk_ref[0, keys, :] = (dk_sum[keys, :] * (plan.scale / plan.kept)).astype(dk_ref.dtype)
        dv_ref[0, keys, :] = (dv_sum[keys, :] * (1.0 / plan.kept)).astype(dv_ref.dtype)

    for pass_over_the_row in (clear, differentiate, write):
        tiles.for_all_blocks(pass_over_the_row)


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """The tiles [keys, queries] of a row and a group of heads, in a kernel."""

    first_ref: Any
    last_ref: Any
    tokens_ref: Any
    row: Any
    group: Any
    plan: Plan

    @property
    def blocks(self) -> int:
        """Number of blocks of the row."""
        blocks: int = self.tokens_ref.shape[2] // self.plan.block
        return blocks

    def at(self, index: Any) -> Any:
        """Return the indices of a block of tokens."""
        return pl.ds(pl.multiple_of(index * self.plan.block, self.plan.block), self.plan.block)

    def for_all_blocks(self, body: Callable[[Any], None]) -> None:
        """Call `body` with the index of each block."""
        if self.blocks == 1:
            body(0)
        else:
            lax.fori_loop(0, self.blocks, lambda i, _: body(i), None)

    def over_keys(self, i: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Call `carry = body(j, carry)` for the blocks j of keys that block i attends to."""
        if self.blocks == 1:
            return body(0, carry)
        index = self.row * self.blocks + i
        return lax.fori_loop(self.first_ref[index], self.last_ref[index] + 1, body, carry)

    def integers(self, name: int, queries: Any) -> Any:
        """Return one of the integers of the queries, [1, queries]."""
        return self.tokens_ref[0, name : name + 1, queries]

    def mask(self, queries: Any, j: Any) -> Array:
        """Return whether queries attend to the keys of block j, [keys, queries]."""
        index = lax.broadcasted_iota(jnp.int32, (self.plan.block,) * 2, 0) + j * self.plan.block
        return (index >= self.integers(START, queries)) & (index < self.integers(END, queries))

    def hashes(self, queries: Any) -> list[tuple[Array, Array]]:
        """Return the two words of each head's dropout keys, [1, queries]."""
        if not self.plan.rate:
            return []
        first, second = (_unsigned(self.integers(name, queries)) for name in (FIRST, SECOND))
        heads = [self.group * self.plan.heads + head for head in range(self.plan.heads)]
        return [absorb(first, second, head.astype(jnp.uint32)) for head in heads]

    def units(self, keys: Any) -> Any:
        """Return the positions of keys in their sequences, [keys, 1]."""
        if not self.plan.rate:
            return None
        return _unsigned(self.tokens_ref[0, :, keys].T)[:, POSITION : POSITION + 1]

    def keep(self, hashes: tuple[Array, Array], units: Array) -> Array:
        """Return which probabilities of a head dropout keeps, [keys, queries]."""
        return random_bits(*hashes, units) >= jnp.uint32(threshold(self.plan.rate))


def _by_head(x: Array, plan: Plan) -> list[Array]:
    """Return for each head a copy of [T, lanes] in which the lanes of the others are zero."""
    lane = lax.broadcasted_iota(jnp.int32, x.shape, 1)
    parts = [plan.part(head) for head in range(plan.heads)]
    return [
        jnp.where((lane >= part.start) & (lane < part.stop), x, jnp.zeros_like(x)) for part in parts
    ]


def dot(a: Array, b: Array, dimensions: Any) -> Array:
    """Return the product of two tiles, with float32 sums."""
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _unsigned(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.uint32)

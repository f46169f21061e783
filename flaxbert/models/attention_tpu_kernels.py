"""The kernels of attention_tpu.py, which run for a row and a group of heads on a TPU.

A group fills the 128 lanes of registers; the lanes of other heads are zeroed where one head is
needed. Tiles are [keys, queries], so that the statistics of queries are rows, as in memory, and
softmax reduces the cheaper of the two axes. Shape letters: layers.py.

Arguments that end in _ref are references to blocks in fast memory. Logarithms and exponents are to
base 2, and include the scale of the scores.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from flaxbert.models.dropout import absorb, random_bits, threshold

LANES = 128
"""Elements of a register along its longer axis; T is a multiple of it."""
MASKED = -1e30
"""Score of a key that is not attended to; finite, so that no difference of two scores is NaN."""
LOG2_E = 1.4426950408889634

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


def attention_forward(tiles: "Tiles", *refs: Any) -> None:
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


def attention_backward(tiles: "Tiles", *refs: Any) -> None:
    """Compute the gradients of queries, keys and values, and their sums over the row."""
    q_ref, k_ref, v_ref, out_ref, grad_ref, lse_ref, *results, dk_sum, dv_sum = refs
    dq_ref, dk_ref, dv_ref, sums_ref = results
    plan = tiles.plan
    exponent = plan.scale * LOG2_E

    sums_ref[...] = jnp.zeros_like(sums_ref)

    def store(ref: Any, number: int, tokens: Any, x: Array) -> None:
        ref[0, tokens, :] = x.astype(ref.dtype)
        sums_ref[0, 0, number : number + 1, :] += jnp.sum(x, axis=0, keepdims=True)

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
        store(dq_ref, 0, queries, dq * (plan.scale / plan.kept))

    def write(j: Any) -> None:
        keys = tiles.at(j)
        store(dk_ref, 1, keys, dk_sum[keys, :] * (plan.scale / plan.kept))
        store(dv_ref, 2, keys, dv_sum[keys, :] * (1.0 / plan.kept))

    for pass_over_the_row in (clear, differentiate, write):
        tiles.for_all_blocks(pass_over_the_row)


@dataclasses.dataclass(frozen=True)
class Tiles:
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

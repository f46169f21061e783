"""Attention on packed rows as a kernel for TPUs, which stores no scores and draws its own dropout.

The kernel is that of FlashAttention (Dao et al. 2022, arXiv:2205.14135; Dao 2023, 2307.08691): the
scores of a tile of queries and keys exist only in fast memory, and the backward pass computes them
again from the inputs and one number per query. It reads and writes queries, keys and values as the
dense layers do, [R, T, N * H], so nothing is transposed in memory. Shape letters: layers.py.

One program instance handles a row and a group of heads that fills the 128 lanes of a register. A
head is selected by zeroing the lanes of the others. Tiles are transposed, with keys along sublanes
and queries along lanes, so that the statistics of queries are rows and softmax reduces sublanes.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flaxbert.models.dropout import DropoutKeys, absorb, random_bits, threshold

LANES = 128
"""Elements of a register along its longer axis; lengths are multiples of it."""
MASKED = -1e30
"""Score of a key outside the segment or window; finite, so that no difference of two is NaN."""
LOG2_E = 1.4426950408889634
VMEM_BYTES = 100 * 2**20

QUERY, KEY = (((1,), (1,)), ((), ())), (((1,), (0,)), ((), ()))
TRANSPOSED = ((0,), (0,)), ((), ())

# Rows of the integers that the kernel reads for each token, [R, 8, T].
START, END, FIRST, SECOND, POSITION = range(5)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static sizes of a kernel."""

    heads: int
    """Heads of a group."""
    width: int
    """H."""
    queries: int
    """Queries of a tile."""
    keys: int
    """Keys of a tile."""
    rate: float
    interpret: bool

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return self.width**-0.5


def tpu_attention(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    window: int | None = None,
    rate: float = 0.0,
    keys: DropoutKeys | None = None,
    interpret: bool = False,
) -> Array:
    """Return the attention of `attention.attend`, with the same dropout mask, as [R, T, N * H].

    Args:
      q: queries [R, T, N, H]; T is a multiple of 128 and H of 8.
      k: keys [R, T, N, H].
      v: values [R, T, N, H].
      segment_ids: [R, T]; the tokens of a segment are contiguous.
      window: tokens further away than this are not attended to.
      rate: dropout rate of the probabilities.
      keys: dropout keys of the tokens; None means no dropout.
      interpret: whether to run on any device, slowly, for tests.
    """
    rows, length, heads, width = q.shape
    flat = (rows, length, heads * width)
    plan = Plan(
        heads=group_of_heads(heads, width),
        width=width,
        queries=LANES,
        keys=key_block(length, window),
        rate=rate if keys is not None else 0.0,
        interpret=interpret,
    )
    start, end = reach(segment_ids, window)
    tokens = [start, end]
    if plan.rate:
        tokens += [keys.first, keys.second, keys.positions]
    tokens += [start] * (8 - len(tokens))
    tokens = jnp.stack([lax.bitcast_convert_type(x, jnp.int32) for x in tokens], axis=1)
    blocks = (rows, length // plan.queries, plan.queries)
    first = jnp.min(start.reshape(blocks), axis=-1).reshape(-1) // plan.keys
    last = (jnp.max(end.reshape(blocks), axis=-1).reshape(-1) - 1) // plan.keys
    return _attention(
        q.reshape(flat), k.reshape(flat), v.reshape(flat), tokens, first, last, plan
    )


def group_of_heads(heads: int, width: int) -> int:
    """Return the least number of heads that fill registers; all of them if no number does."""
    groups = [n for n in range(1, heads) if heads % n == 0 and n * width % LANES == 0]
    return min(groups, default=heads)


def key_block(length: int, window: int | None) -> int:
    """Return the number of keys of a tile."""
    most = 512 if window is None or length <= 512 else 256
    return max(n for n in range(LANES, most + 1, LANES) if length % n == 0)


def reach(segment_ids: Array, window: int | None) -> tuple[Array, Array]:
    """Return for each token the first index [R, T] it attends to, and the one after the last."""
    index = jnp.broadcast_to(jnp.arange(segment_ids.shape[1], dtype=jnp.int32), segment_ids.shape)
    differs = segment_ids[:, 1:] != segment_ids[:, :-1]
    begins = jnp.pad(differs, ((0, 0), (1, 0)), constant_values=True)
    ends = jnp.pad(differs, ((0, 0), (0, 1)), constant_values=True)
    start = lax.cummax(jnp.where(begins, index, 0), axis=1)
    end = lax.cummin(jnp.where(ends, index + 1, index.shape[1]), axis=1, reverse=True)
    if window is not None:
        start, end = jnp.maximum(start, index - window), jnp.minimum(end, index + window + 1)
    return start, end


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attention(q, k, v, tokens, first, last, plan):
    return _forward(q, k, v, tokens, first, last, plan)[0]


def _forward(q, k, v, tokens, first, last, plan):
    rows, length, depth = q.shape
    lanes = plan.heads * plan.width
    groups = depth // lanes
    block = pl.BlockSpec((1, length, lanes), lambda r, g, *_: (r, 0, g))
    per_token = pl.BlockSpec((1, 8, length), lambda r, g, *_: (r, 0, 0))
    per_head = pl.BlockSpec((1, 1, plan.heads, length), lambda r, g, *_: (r, g, 0, 0))
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, plan=plan),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, groups, plan.heads, length), jnp.float32),
        ],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, groups),
            in_specs=[block, block, block, per_token],
            out_specs=[block, per_head],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=plan.interpret,
        name="attention_forward",
    )(first, last, q, k, v, tokens)
    return out, (q, k, v, tokens, first, last, out, lse)


def _backward(plan, saved, grad):
    q, k, v, tokens, first, last, out, lse = saved
    rows, length, depth = q.shape
    lanes = plan.heads * plan.width
    groups = depth // lanes
    block = pl.BlockSpec((1, length, lanes), lambda r, g, *_: (r, 0, g))
    per_token = pl.BlockSpec((1, 8, length), lambda r, g, *_: (r, 0, 0))
    per_head = pl.BlockSpec((1, 1, plan.heads, length), lambda r, g, *_: (r, g, 0, 0))
    grads = pl.pallas_call(
        functools.partial(_backward_kernel, plan=plan),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, groups),
            in_specs=[block, block, block, block, block, per_head, per_token],
            out_specs=[block, block, block],
            scratch_shapes=[pltpu.VMEM((length, lanes), jnp.float32)] * 2,
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=plan.interpret,
        name="attention_backward",
    )(first, last, q, k, v, out, grad, lse, tokens)
    return (*grads, None, None, None)


_attention.defvjp(_forward, _backward)


def _forward_kernel(
    first_ref, last_ref, q_ref, k_ref, v_ref, tokens_ref, out_ref, lse_ref, *, plan
):
    row, group, length = pl.program_id(0), pl.program_id(1), q_ref.shape[1]
    exponent = plan.scale * LOG2_E

    def strip(i, _):
        queries = pl.ds(pl.multiple_of(i * plan.queries, plan.queries), plan.queries)
        q = _select_heads(q_ref[0, queries, :], plan)
        hashes = _query_hashes(tokens_ref, queries, group, plan)

        def tile(j, carry):
            keys = pl.ds(pl.multiple_of(j * plan.keys, plan.keys), plan.keys)
            k, v = k_ref[0, keys, :], v_ref[0, keys, :]
            mask = _mask(tokens_ref, queries, j, plan)
            units = _units(tokens_ref, keys, plan)
            new = []
            for h, (top, total, context) in enumerate(carry):
                scores = jnp.where(mask, _dot(k, q[h], QUERY), MASKED)
                above = jnp.maximum(top, jnp.max(scores, axis=0, keepdims=True))
                probs = jnp.exp2((scores - above) * exponent)
                decay = jnp.exp2((top - above) * exponent)
                total = total * decay + jnp.sum(probs, axis=0, keepdims=True)
                if plan.rate:
                    probs = jnp.where(_keep(hashes[h], units, plan), probs, 0.0)
                part = _dot(v, probs.astype(v.dtype), TRANSPOSED)
                part = part[h * plan.width : (h + 1) * plan.width]
                new.append((above, total, context * decay + part))
            return tuple(new)

        zero = jnp.zeros((1, plan.queries), jnp.float32)
        context = jnp.zeros((plan.width, plan.queries), jnp.float32)
        carry = ((zero + MASKED, zero, context),) * plan.heads
        carry = _loop(first_ref, last_ref, row, i, length, plan, tile, carry)
        outs = []
        for h, (top, total, context) in enumerate(carry):
            outs.append(context * (1.0 / ((1.0 - plan.rate) * total)))
            lse_ref[0, 0, h : h + 1, queries] = top * exponent + jnp.log2(total)
        out_ref[0, queries, :] = jnp.concatenate(outs).T.astype(out_ref.dtype)
        return 0

    lax.fori_loop(0, length // plan.queries, strip, 0)


def _backward_kernel(
    first_ref,
    last_ref,
    q_ref,
    k_ref,
    v_ref,
    out_ref,
    grad_ref,
    lse_ref,
    tokens_ref,
    dq_ref,
    dk_ref,
    dv_ref,
    dk_sum,
    dv_sum,
    *,
    plan,
):
    row, group, length = pl.program_id(0), pl.program_id(1), q_ref.shape[1]
    exponent = plan.scale * LOG2_E
    kept = 1.0 - plan.rate
    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)

    def strip(i, _):
        queries = pl.ds(pl.multiple_of(i * plan.queries, plan.queries), plan.queries)
        q = _select_heads(q_ref[0, queries, :], plan)
        grad = grad_ref[0, queries, :]
        products = (grad.astype(jnp.float32) * out_ref[0, queries, :].astype(jnp.float32)).T
        grad = _select_heads(grad, plan)
        hashes = _query_hashes(tokens_ref, queries, group, plan)
        deltas = [
            kept * jnp.sum(products[h * plan.width : (h + 1) * plan.width], axis=0, keepdims=True)
            for h in range(plan.heads)
        ]

        def tile(j, dq):
            keys = pl.ds(pl.multiple_of(j * plan.keys, plan.keys), plan.keys)
            k, v = k_ref[0, keys, :], v_ref[0, keys, :]
            mask = _mask(tokens_ref, queries, j, plan)
            units = _units(tokens_ref, keys, plan)
            dk, dv = dk_sum[keys, :], dv_sum[keys, :]
            new = []
            for h in range(plan.heads):
                scores = _dot(k, q[h], QUERY)
                lse = lse_ref[0, 0, h : h + 1, queries]
                probs = jnp.where(mask, jnp.exp2(scores * exponent - lse), 0.0)
                dprobs, dropped = _dot(v, grad[h], QUERY), probs
                if plan.rate:
                    keep = _keep(hashes[h], units, plan)
                    dprobs, dropped = jnp.where(keep, dprobs, 0.0), jnp.where(keep, probs, 0.0)
                dscores = (probs * (dprobs - deltas[h])).astype(q[h].dtype)
                dv += _dot(dropped.astype(q[h].dtype), grad[h], KEY)
                dk += _dot(dscores, q[h], KEY)
                part = _dot(k, dscores, TRANSPOSED)
                new.append(dq[h] + part[h * plan.width : (h + 1) * plan.width])
            dk_sum[keys, :] = dk
            dv_sum[keys, :] = dv
            return tuple(new)

        dq = (jnp.zeros((plan.width, plan.queries), jnp.float32),) * plan.heads
        dq = _loop(first_ref, last_ref, row, i, length, plan, tile, dq)
        dq_ref[0, queries, :] = (jnp.concatenate(dq).T * (plan.scale / kept)).astype(dq_ref.dtype)
        return 0

    lax.fori_loop(0, length // plan.queries, strip, 0)
    dk_ref[0] = (dk_sum[...] * (plan.scale / kept)).astype(dk_ref.dtype)
    dv_ref[0] = (dv_sum[...] * (1.0 / kept)).astype(dv_ref.dtype)


def _dot(a, b, dims):
    return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _select_heads(x, plan):
    """Return for each head [queries, lanes] with the lanes of the other heads zeroed."""
    lane = lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return [jnp.where((lane >= h * plan.width) & (lane < (h + 1) * plan.width), x, jnp.zeros_like(x)) for h in range(plan.heads)]


def _mask(tokens_ref, queries, j, plan):
    """Return whether queries may attend to keys, [keys, queries]."""
    index = lax.broadcasted_iota(jnp.int32, (plan.keys, plan.queries), 0) + j * plan.keys
    start, end = (tokens_ref[0, n : n + 1, queries] for n in (START, END))
    return (index >= start) & (index < end)


def _query_hashes(tokens_ref, queries, group, plan):
    """Return the dropout key of each head, two of [1, queries]."""
    if not plan.rate:
        return []
    first, second = (
        lax.bitcast_convert_type(tokens_ref[0, n : n + 1, queries], jnp.uint32)
        for n in (FIRST, SECOND)
    )
    head = (group * plan.heads).astype(jnp.uint32)
    return [absorb(first, second, head + jnp.uint32(h)) for h in range(plan.heads)]


def _units(tokens_ref, keys, plan):
    """Return the positions of keys, [keys, 1]."""
    if not plan.rate:
        return None
    return lax.bitcast_convert_type(tokens_ref[0, :, keys].T, jnp.uint32)[:, POSITION : POSITION + 1]


def _keep(hashes, units, plan):
    return random_bits(*hashes, units) >= jnp.uint32(threshold(plan.rate))


def _loop(first_ref, last_ref, row, i, length, plan, tile, carry):
    if length == plan.keys:
        return tile(0, carry)
    index = row * (length // plan.queries) + i
    return lax.fori_loop(first_ref[index], last_ref[index] + 1, tile, carry)

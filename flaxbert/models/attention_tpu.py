"""Attention on packed rows as a kernel for TPUs, which stores no scores and draws its own dropout.

The kernel is that of FlashAttention (Dao et al. 2022, arXiv:2205.14135; Dao 2023, 2307.08691): the
scores of a tile of keys and queries exist only in the chip's fast memory, and the backward pass
computes them again from the inputs and one number per query. It reads and writes [R, T, N * H], as
the dense layers do, so nothing is transposed in memory. Shape letters: layers.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flaxbert.models.attention_tpu_kernels import (
    LANES,
    Plan,
    Tiles,
    attention_backward,
    attention_forward,
)
from flaxbert.models.dropout import DropoutKeys
from flaxbert.models.layers import add_bias

MEBIBYTE = 2**20


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
    biases: Array | None = None,
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
      biases: [3, N, H], added to queries, keys and values; None: no biases. The kernel sums their
        gradients, because XLA would read those of queries, keys and values again for that.
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
    q, k, v = (x.reshape(rows, length, heads * width) for x in (q, k, v))
    biases = None if biases is None else biases.reshape(3, heads * width)
    integers = jnp.stack([lax.bitcast_convert_type(x, jnp.int32) for x in tokens], axis=1)
    places = integers, first.reshape(-1), last.reshape(-1)
    return _attention((q, k, v, biases), places, plan)


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

Inputs = tuple[Array, Array, Array, Array | None]
"""Queries, keys and values [R, T, D], and the biases [3, D] that are added to them."""
Places = tuple[Array, Array, Array]
"""Integers of the tokens [R, 8, T]; the first and the last block that each block attends to,
[R * blocks]."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attention(inputs: Inputs, places: Places, plan: Plan) -> Array:
    """Return attention [R, T, D]."""
    return _forward(inputs, places, plan)[0]


def _forward(inputs: Inputs, places: Places, plan: Plan) -> tuple[Array, tuple[Any, ...]]:
    q, k, v, biases = inputs
    rows, length, depth = q.shape
    statistics = (rows, depth // plan.lanes, plan.heads, length)
    shapes = [
        jax.ShapeDtypeStruct(q.shape, q.dtype),
        jax.ShapeDtypeStruct(statistics, jnp.float32),
    ]
    if biases is not None:
        q, k, v = map(add_bias, (q, k, v), biases)
    q, k, v = (_in_hbm(x, plan) for x in (q, k, v))
    out, lse = _call(attention_forward, plan, shapes, places, q, k, v)
    return out, ((q, k, v, biases), places, out, lse)


def _backward(plan: Plan, saved: tuple[Any, ...], grad: Array) -> tuple[Inputs, None]:
    (q, k, v, biases), places, out, lse = saved
    rows, length, depth = q.shape
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    shapes += [jax.ShapeDtypeStruct((rows, depth // plan.lanes, 8, plan.lanes), jnp.float32)]
    scratch = [pltpu.VMEM((length, plan.lanes), jnp.float32)] * 2
    stored = (_in_hbm(x, plan) for x in (q, k, v, out))
    dq, dk, dv, sums = _call(
        attention_backward, plan, shapes, places, *stored, grad, lse, scratch=scratch
    )
    if biases is None:
        return (dq, dk, dv, None), None
    sums = jnp.sum(sums, axis=0)[:, :3].swapaxes(0, 1)  # [3, groups, lanes]
    return (dq, dk, dv, sums.reshape(biases.shape).astype(biases.dtype)), None


_attention.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None],
    plan: Plan,
    shapes: list[jax.ShapeDtypeStruct],
    places: Places,
    *inputs: Array,
    scratch: list[Any] | None = None,
) -> Any:
    """Run a kernel for every row and group of heads; `shapes` are those of its results."""
    tokens, first, last = places
    rows, length, depth = inputs[0].shape

    def spec(x: Any) -> pl.BlockSpec:
        if x.ndim == 4:
            return pl.BlockSpec((1, 1, *x.shape[2:]), lambda r, g, *_: (r, g, 0, 0))
        return pl.BlockSpec((1, length, plan.lanes), lambda r, g, *_: (r, 0, g))

    def run(first_ref: Any, last_ref: Any, tokens_ref: Any, *refs: Any) -> None:
        row, group = pl.program_id(0), pl.program_id(1)
        kernel(Tiles(first_ref, last_ref, tokens_ref, row, group, plan), *refs)

    products = 2 if scratch is None else 5
    scores = rows * length * plan.reach * (depth // plan.width)
    streamed: list[Any] = [tokens, *inputs, *shapes]
    blocks = [x for x in streamed[1:] if x.ndim == 3]
    held = length * plan.lanes * (sum(2 * x.dtype.itemsize for x in blocks) + 8)
    return pl.pallas_call(
        run,
        out_shape=[_in_hbm(x, plan) for x in shapes] if scratch is None else shapes,
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
        name=kernel.__name__,
    )(first, last, tokens, *inputs)


def _in_hbm(x: Any, plan: Plan) -> Any:
    """Return an array [R, T, D] that the backward pass needs, or its shape, in HBM, not in VMEM.

    The kernel reads and writes HBM while it computes, so VMEM would not make it faster. But XLA
    would use it, and then copy the array to HBM, and back for the backward pass.
    """
    if plan.interpret or x.ndim != 3:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return pltpu.HBM(x.shape, x.dtype)
    return pltpu.with_memory_space_constraint(x, pltpu.HBM)

"""Scaled dot-product attention within the segments of packed rows. Shape letters: layers.py.

Callers pass segment ids and a window, not a mask, so that `attend` can choose how it is computed.
"""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.models.attention_gpu import gpu_attention
from flaxbert.models.attention_tpu import LANES, heads_of_a_group, tpu_attention
from flaxbert.models.dropout import DropoutKeys, drop_probs

log = logging.getLogger("flaxbert")

SHORTEST = 256
"""Shortest rows for which a kernel is used. For GPUs it is an estimate, not yet measured on one."""
SMALL_CHIPS, LONGEST = ("TPU v2", "TPU v3", "TPU v4"), 2048
"""Chips whose fast memory has 16 MiB, and the longest rows for which the kernel fits it."""
GPUS = (
    *("A10", "A30", "A40", "A100", "A800", "H100", "H200", "H800", "H20", "B200", "L4", "L20"),
    *("GeForce RTX 30", "GeForce RTX 40", "RTX A", "RTX 6000 Ada"),
)
"""Parts of the names of GPUs of compute capability 8.0 to 10.0, for which the kernels compile. The
type of a mesh has only the name."""
MOST_HEADS = 4
"""The most heads that share a group of the TPU kernel, which computes each on the width of all."""
GPU_WIDTHS = (32, 64, 128)
"""Head widths for which the kernels' tiles fit into the memory of all these GPUs."""


def attend(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    window: int | None = None,
    rate: float = 0.0,
    keys: DropoutKeys | None = None,
    way: str = "auto",
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
      way: `plain`, `kernel` for a kernel where there is one that fits, or `auto`, which is
        `kernel` on TPUs and `plain` on GPUs. Training replaces `auto` (attention_trial.py).

    Returns:
      [R, T, N * H].
    """
    # In a jitted function, the type of an array has the mesh of the function's sharded arguments,
    # which may be one of devices that this machine does not have.
    mesh: Any = jax.typeof(q).sharding.mesh
    device = mesh.abstract_device or jax.devices()[0]
    way = choose(way, device.device_kind, *q.shape[1:])
    if way == "plain":
        return plain_attention(q, k, v, segment_ids, window=window, rate=rate, keys=keys)
    kernel = functools.partial(kernel_attention, way, window=window, rate=rate)

    def attend_rows(q: Array, k: Array, v: Array, ids: Array, keys: DropoutKeys | None) -> Array:
        return kernel(q, k, v, ids, keys=keys)

    if not mesh.empty:
        # The compiler cannot divide a kernel, so each device calls it with its own rows.
        rows = jax.P(mesh.axis_names)
        attend_rows = jax.shard_map(
            attend_rows, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False
        )
    return attend_rows(q, k, v, segment_ids, keys)


@functools.cache
def choose(way: str, kind: str, length: int, heads: int, width: int) -> str:
    """Return how attention is computed: `plain`, or `tpu` or `gpu` for the kernels of a module.

    Args:
      way: what is asked for, as in `attend`.
      kind: kind of device, such as cpu, TPU v5 lite or NVIDIA H100 80GB HBM3.
      length: T.
      heads: N.
      width: H.
    """
    if way == "plain":
        return way
    if kind.startswith("TPU"):
        chosen, width = "tpu", kernel_width("tpu", heads, width)
        fits = length % LANES == 0 and width % 8 == 0
        fits &= heads_of_a_group(heads, width) <= MOST_HEADS
        fits &= not (kind in SMALL_CHIPS and length > LONGEST)
    elif way == "kernel" and any(name in kind for name in GPUS):
        chosen = "gpu"
        fits = length % 64 == 0 and kernel_width("gpu", heads, width) in GPU_WIDTHS
    else:
        return "plain"
    if not fits or length < SHORTEST:
        chosen = "plain"
    name = "plain attention" if chosen == "plain" else f"the {chosen.upper()} kernel"
    log.info("attention in rows of %d tokens: %s", length, name)
    return chosen


def kernel_width(kernel: str, heads: int, width: int) -> int:
    """Return the width H to which a kernel's heads are padded: mostly their own, but XLM-R XL's 80.

    Args:
      kernel: `tpu` or `gpu`.
      heads: N.
      width: H of the model.
    """
    between = LANES // 2 < width < LANES
    if kernel == "tpu":
        between &= heads_of_a_group(heads, width) > MOST_HEADS
    return LANES if between else width


def kernel_attention(
    kernel: str, q: Array, k: Array, v: Array, segment_ids: Array, **settings: Any
) -> Array:
    """Return attention by a kernel, whose heads are padded with zeros if their width needs it.

    Args:
      kernel: `tpu` or `gpu`.
      q: queries [R, T, N, H].
      k: keys [R, S, N, H].
      v: values [R, S, N, H].
      segment_ids: [R, T], 0 for padding.
      **settings: further arguments of the kernel.

    Returns:
      [R, T, N * H].
    """
    attention = tpu_attention if kernel == "tpu" else gpu_attention
    rows, length, heads, width = q.shape
    wide = kernel_width(kernel, heads, width)
    if wide == width:
        return attention(q, k, v, segment_ids, **settings)
    q, k, v = (jnp.pad(x, ((0, 0),) * 3 + ((0, wide - width),)) for x in (q, k, v))
    context = attention(q, k, v, segment_ids, scale=width**-0.5, **settings)
    return context.reshape(rows, length, heads, wide)[..., :width].reshape(rows, length, -1)


def plain_attention(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    window: int | None = None,
    rate: float = 0.0,
    keys: DropoutKeys | None = None,
) -> Array:
    """Return attention, for any device; see `attend`. Probabilities [R, N, T, S] are in memory."""
    context = _plain(q, k, v, segment_ids, keys, window, rate)
    return context.reshape(*context.shape[:2], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _plain(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    keys: DropoutKeys | None,
    window: int | None,
    rate: float,
) -> Array:
    return _plain_forward(q, k, v, segment_ids, keys, window, rate)[0]


def _plain_forward(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    keys: DropoutKeys | None,
    window: int | None,
    rate: float,
) -> tuple[Array, tuple[Any, ...]]:
    """Return the context [R, T, N, H], and what the backward pass needs.

    As in FlashAttention (Dao et al. 2022, arXiv:2205.14135, appendix B.2), the context is divided
    by the sum of the exponentials, and not each of them; and the backward pass sums over H where
    that of a softmax would sum over S.
    """
    # Scores and softmax are float32 whatever the compute dtype: bfloat16 has 8 bits of precision.
    scores = jnp.einsum("rtnh,rsnh->rnts", q, k, preferred_element_type=jnp.float32)
    mask = attention_mask(segment_ids, window)
    scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    exponentials = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    inverse = 1.0 / jnp.sum(exponentials, axis=-1).swapaxes(1, 2)[..., None]  # [R, T, N, 1]
    exponentials = exponentials.astype(q.dtype)
    context = jnp.einsum("rnts,rsnh->rtnh", drop_probs(exponentials, rate, keys), v)
    context = (context * inverse).astype(q.dtype)
    return context, (q, k, v, keys, exponentials, inverse, context)


def _plain_backward(
    window: int | None, rate: float, saved: tuple[Any, ...], grad: Array
) -> tuple[Array | None, ...]:
    q, k, v, keys, exponentials, inverse, context = saved
    grad = grad * inverse  # [R, T, N, H] float32
    mean = jnp.sum(grad * context, axis=-1).swapaxes(1, 2)[..., None]  # [R, N, T, 1]
    grad = grad.astype(q.dtype)
    v_grad = jnp.einsum("rnts,rtnh->rsnh", drop_probs(exponentials, rate, keys), grad)
    probs_grad = jnp.einsum("rtnh,rsnh->rnts", grad, v, preferred_element_type=jnp.float32)
    scores_grad = exponentials * (drop_probs(probs_grad, rate, keys) - mean)
    scores_grad = (scores_grad * q.shape[-1] ** -0.5).astype(q.dtype)
    q_grad = jnp.einsum("rnts,rsnh->rtnh", scores_grad, k)
    k_grad = jnp.einsum("rnts,rtnh->rsnh", scores_grad, q)
    return q_grad, k_grad, v_grad, None, None


_plain.defvjp(_plain_forward, _plain_backward)


def attention_mask(segment_ids: Array, window: int | None = None) -> Array:
    """Return the mask [R, 1, T, S] that is True where a token may attend; see `attend`."""
    mask = segment_ids[:, :, None] == segment_ids[:, None, :]
    if window is not None:
        # Segments are contiguous, so a distance in the row is a distance in the segment.
        index = jnp.arange(segment_ids.shape[1])
        mask &= jnp.abs(index[:, None] - index[None, :]) <= window
    return mask[:, None]

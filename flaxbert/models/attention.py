"""Scaled dot-product attention within the segments of packed rows. Shape letters: layers.py.

Callers pass segment ids and a window, not a mask, so that `attend` can choose how it is computed.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.models.attention_gpu import gpu_attention
from flaxbert.models.attention_tpu import heads_of_a_group, tpu_attention
from flaxbert.models.attention_tpu_kernels import LANES
from flaxbert.models.dropout import DropoutKeys, drop_probs
from flaxbert.models.layers import add_bias

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
    biases: Array | None = None,
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
      biases: [3, N, H], added to queries, keys and values; None: they have no biases, or theirs
        have been added.
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
        return plain_attention(
            q, k, v, segment_ids, biases=biases, window=window, rate=rate, keys=keys
        )

    def attend_rows(
        q: Array,
        k: Array,
        v: Array,
        ids: Array,
        keys: DropoutKeys | None,
        biases: Array | None,
    ) -> Array:
        settings: dict[str, Any] = {"window": window, "rate": rate, "keys": keys}
        return kernel_attention(way, q, k, v, ids, biases=biases, **settings)

    if not mesh.empty:
        # The compiler cannot divide a kernel, so each device calls it with its own rows.
        rows = jax.P(mesh.axis_names)
        attend_rows = jax.shard_map(
            attend_rows,
            mesh=mesh,
            in_specs=(*(rows,) * 5, jax.P()),
            out_specs=rows,
            check_vma=False,
        )
    return attend_rows(q, k, v, segment_ids, keys, biases)


def _add_bias(x: Array, bias: Array) -> Array:
    """Add a bias [N, H] to [R, T, N, H], in the shape that the dense layer wrote."""
    return add_bias(x.reshape(*x.shape[:2], -1), bias.reshape(-1)).reshape(x.shape)


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
    """Return the width that a kernel computes heads in: their own, or 128.

    The kernels for GPUs need a power of two. That for TPUs would compute eight of XLM-R XL's heads
    of 80 on the width of all eight; each padded to 128 fills the registers alone.

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
    kernel: str,
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    biases: Array | None = None,
    **settings: Any,
) -> Array:
    """Return attention by a kernel, whose heads are padded with zeros if their width needs it.

    Args:
      kernel: `tpu` or `gpu`.
      q: queries [R, T, N, H].
      k: keys [R, S, N, H].
      v: values [R, S, N, H].
      segment_ids: [R, T], 0 for padding.
      biases: [3, N, H], or None, as in `attend`.
      **settings: further arguments of the kernel.

    Returns:
      [R, T, N * H].
    """
    attention: Callable[..., Array] = tpu_attention if kernel == "tpu" else gpu_attention
    rows, length, heads, width = q.shape
    wide = kernel_width(kernel, heads, width)

    def pad(x: Array) -> Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, wide - width),))

    if biases is not None and kernel == "gpu":
        q, k, v = map(_add_bias, (q, k, v), biases)
    elif biases is not None:
        settings["biases"] = pad(biases)
    context = attention(*map(pad, (q, k, v)), segment_ids, scale=width**-0.5, **settings)
    if wide == width:
        return context
    return context.reshape(rows, length, heads, wide)[..., :width].reshape(rows, length, -1)


def plain_attention(
    q: Array,
    k: Array,
    v: Array,
    segment_ids: Array,
    *,
    biases: Array | None = None,
    window: int | None = None,
    rate: float = 0.0,
    keys: DropoutKeys | None = None,
) -> Array:
    """Return attention, for any device; see `attend`. Probabilities [R, N, T, S] are in memory."""
    if biases is not None:
        q, k, v = map(_add_bias, (q, k, v), biases)
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
    # XLA multiplies matrices of this order in half the time of those that it would choose on CPUs.
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))  # [R, N, T, H]
    # Scores and softmax are float32 whatever the compute dtype: bfloat16 has 8 bits of precision.
    scores = jnp.einsum("rnth,rnsh->rnts", q, k, preferred_element_type=jnp.float32)
    mask = attention_mask(segment_ids, window)
    scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    exponentials = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    inverse = 1.0 / jnp.sum(exponentials, axis=-1, keepdims=True)  # [R, N, T, 1]
    exponentials = exponentials.astype(q.dtype)
    context = jnp.einsum("rnts,rnsh->rnth", drop_probs(exponentials, rate, keys), v)
    context = (context * inverse).astype(q.dtype).swapaxes(1, 2)
    return context, (q, k, v, keys, exponentials, inverse, context)


def _plain_backward(
    window: int | None, rate: float, saved: tuple[Any, ...], grad: Array
) -> tuple[Array | None, ...]:
    q, k, v, keys, exponentials, inverse, context = saved
    products = grad.astype(jnp.float32) * context
    mean = jnp.sum(products, axis=-1).swapaxes(1, 2)[..., None] * inverse  # [R, N, T, 1]
    grad = (grad.swapaxes(1, 2) * inverse).astype(q.dtype)  # [R, N, T, H]
    v_grad = jnp.einsum("rnth,rnts->rnhs", grad, drop_probs(exponentials, rate, keys))
    probs_grad = jnp.einsum("rnth,rnsh->rnts", grad, v, preferred_element_type=jnp.float32)
    scores_grad = exponentials * (drop_probs(probs_grad, rate, keys) - mean)
    scores_grad = (scores_grad * q.shape[-1] ** -0.5).astype(q.dtype)
    q_grad = jnp.einsum("rnts,rnsh->rnth", scores_grad, k)
    k_grad = jnp.einsum("rnth,rnts->rnhs", q, scores_grad)
    k_grad, v_grad = (x.transpose(0, 3, 1, 2) for x in (k_grad, v_grad))
    return q_grad.swapaxes(1, 2), k_grad, v_grad, None, None


_plain.defvjp(_plain_forward, _plain_backward)


def attention_mask(segment_ids: Array, window: int | None = None) -> Array:
    """Return the mask [R, 1, T, S] that is True where a token may attend; see `attend`."""
    mask = segment_ids[:, :, None] == segment_ids[:, None, :]
    if window is not None:
        # Segments are contiguous, so a distance in the row is a distance in the segment.
        index = jnp.arange(segment_ids.shape[1])
        mask &= jnp.abs(index[:, None] - index[None, :]) <= window
    return mask[:, None]

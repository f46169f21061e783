"""Try plain attention and the kernel on the device of a run, once at its start.

A kernel that is right and fast on one chip may be neither on another one, or with another release
of the compiler. So its values are compared with those of plain attention, and then both are timed.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.models.attention import choose, kernel_attention, plain_attention
from flaxbert.models.dropout import DropoutKeys, dropout_key, token_keys
from flaxbert.models.layers import EncoderConfig

Way = Callable[..., Array]
"""A function with the signature of `attention.plain_attention`."""

CHECKED, TIMED = 2**24, 2**28
"""Most attention probabilities of a row that is compared, N T T, and of the rows that are timed,
R N T T. Plain attention needs several float32 arrays of this size."""
EXACT = 1e-4
"""Difference from plain attention that is allowed whatever the dtype, as a share of the largest
value."""
ROUNDS, PASSES = 5, 10


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a layer's attention on one device."""

    rows: int
    length: int
    heads: int
    width: int
    dtype: str
    rate: float
    window: int | None

    def within(self, limit: int) -> "Shape | None":
        """Return the shape with so many rows that the probabilities are within `limit`.

        Returns:
          None if those of one row are too many.
        """
        rows = min(self.rows, limit // (self.heads * self.length**2))
        return dataclasses.replace(self, rows=rows) if rows else None


@dataclasses.dataclass(frozen=True)
class Trial:
    """The result of a trial."""

    way: str
    """`plain` or `kernel`, as in `attention.attend`."""
    reason: str
    """Why, for the log."""
    failed: bool = False
    """Whether the kernel does not work on this device."""


def try_kernel(
    config: EncoderConfig, rows: int, length: int, device: Any, kernel: Way | None = None
) -> Trial | None:
    """Compare the kernel with plain attention on a device, and time both.

    Args:
      config: heads, dropout rate, dtype and windows of the layers.
      rows: rows of the largest batch on the device.
      length: tokens of a row.
      device: a device of this process.
      kernel: used instead of the device's.

    Returns:
      None if there is no kernel for this device and these sizes.
    """
    heads = config.num_attention_heads
    width = config.hidden_size // heads
    if kernel is None:
        name = choose("kernel", device.device_kind, length, heads, width)
        if name == "plain":
            return None
        kernel = functools.partial(kernel_attention, name)
    shape = Shape(rows, length, heads, width, config.dtype, config.attention_rate, None)
    layers = {
        dataclasses.replace(shape, window=window): count
        for window, count in collections.Counter(config.windows).items()
    }
    with jax.default_device(device):
        try:
            return compare(layers, kernel)
        except Exception as error:  # the compiler and the driver raise errors of many classes
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Trial("plain", f"the kernel does not run here ({line[:200]})", failed=True)


def compare(layers: Mapping[Shape, int], kernel: Way) -> Trial:
    """Compare and time a kernel on the default device.

    Args:
      layers: {shape of a layer's attention: number of such layers}.
      kernel: the way to try.
    """
    for shape in layers:
        error, allowed = difference(checked(shape), kernel)
        if not error <= allowed:  # NaN
            reason = f"the kernel's values differ by {error:.1e}, and {allowed:.1e} is allowed"
            return Trial("plain", reason, failed=True)
    timed = {shape.within(TIMED): count for shape, count in layers.items()}
    if None in timed:
        return Trial("kernel", "the probabilities of plain attention need too much memory")
    ways = {"plain": plain_attention, "kernel": kernel}
    total = dict.fromkeys(ways, 0.0)
    for case, count in timed.items():
        assert case is not None
        for way, seconds in times(case, ways).items():
            total[way] += count * float(np.median(seconds))
    own, plain = 1000 * total["kernel"], 1000 * total["plain"]
    reason = f"the kernel takes {own:.2f} ms of a step, plain attention {plain:.2f} ms"
    return Trial("kernel" if own <= plain else "plain", reason)


def checked(shape: Shape) -> Shape:
    """Return the shape to compare values in: two rows, shorter ones if they are long."""
    longest = 512 * max(1, int((CHECKED / shape.heads) ** 0.5) // 512)
    return dataclasses.replace(shape, rows=2, length=min(shape.length, longest))


def difference(shape: Shape, kernel: Way) -> tuple[float, float]:
    """Return how far output and gradients of a kernel are from plain attention in float32.

    Args:
      shape: sizes, dtype, dropout rate and window.
      kernel: the way to check.

    Returns:
      The largest difference as a share of the array's largest value; and what is allowed: twice
      the difference of plain attention in the same dtype, and at least `EXACT`.
    """
    ids = packed_rows(shape)
    keys = keys_of(ids) if shape.rate else None
    inputs = [x.astype(shape.dtype) for x in random_inputs(shape)]
    with jax.default_matmul_precision("float32"):
        wide = [x.astype(jnp.float32) for x in inputs]
        exact = both_passes(plain_attention, shape)(*wide, ids, keys)

    def error(way: Way) -> float:
        shares = []
        for array, expected in zip(both_passes(way, shape)(*inputs, ids, keys), exact, strict=True):
            x, y = np.asarray(array, np.float32), np.asarray(expected)
            shares.append(np.max(np.abs(x - y)) / np.max(np.abs(y)))  # NumPy's maximum keeps NaN
        return float(np.max(shares))

    return error(kernel), max(EXACT, 2 * error(plain_attention))


def times(shape: Shape, ways: Mapping[str, Way], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the seconds of both passes of each way, a mean for each round; ways take turns."""
    ids = jnp.ones((shape.rows, shape.length), jnp.int32)
    keys = keys_of(ids) if shape.rate else None
    inputs = [x.astype(shape.dtype) for x in random_inputs(shape)]
    runs = {name: both_passes(way, shape) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in runs.values():
        jax.block_until_ready(run(*inputs, ids, keys))  # compiles
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(PASSES):
                outputs = run(*inputs, ids, keys)
            jax.block_until_ready(outputs)
            seconds[name].append((time.perf_counter() - start) / PASSES)
    return seconds


def both_passes(way: Way, shape: Shape) -> Callable[..., list[Array]]:
    """Return a compiled function of q, k, v, their biases [3, N, H], the output's gradient, segment
    ids and dropout keys.

    It returns the output [R, T, N * H], and the gradients of q, k and v [R, T, N, H] and of biases.
    """

    @jax.jit
    def run(q: Any, k: Any, v: Any, biases: Any, grad: Any, ids: Any, keys: Any) -> list[Array]:
        def attend(q: Array, k: Array, v: Array, biases: Array) -> Array:
            settings = {"window": shape.window, "rate": shape.rate, "keys": keys}
            return way(q, k, v, segment_ids=ids, biases=biases, **settings)

        out, backward = jax.vjp(attend, q, k, v, biases)
        return [out, *backward(grad)]

    return run


def random_inputs(shape: Shape) -> list[Array]:
    """Return queries, keys, values, their biases and a gradient of the output, in float32."""
    rows, length, heads, width = shape.rows, shape.length, shape.heads, shape.width
    shapes: list[tuple[int, ...]] = [(rows, length, heads, width)] * 3
    shapes += [(3, heads, width), (rows, length, heads * width)]
    return [jax.random.normal(jax.random.key(n), sizes) for n, sizes in enumerate(shapes)]


def packed_rows(shape: Shape) -> Array:
    """Return segment ids [R, T] of rows that hold two segments and padding."""
    tokens = np.arange(shape.length)[None]
    first = shape.length * (3 + np.arange(shape.rows)[:, None] % 3) // 8
    ids = np.where(tokens < first, 1, 2) * (tokens < shape.length - shape.length // 16)
    return jnp.asarray(ids, jnp.int32)


def keys_of(ids: Array) -> DropoutKeys | None:
    """Return dropout keys for rows whose positions do not restart in their segments."""
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    return token_keys(dropout_key(0, 0), jnp.arange(ids.size).reshape(ids.shape), ids, positions)

"""Check and time the ways to compute attention on one NVIDIA GPU: plain, and the kernels.

    python benchmarks/attention_ways.py [--json=FILE] [--tokens=12288]
    JAX_PLATFORMS=cpu python benchmarks/attention_ways.py --smoke

`gpu.py` runs the same as a part of it. --smoke interprets the kernels on a CPU, with tiny sizes, to
check the script itself; its times mean nothing.

First, parity: output and gradients of the kernels against plain attention on the same device, for
packed rows with padding and dropout, with and without a window. In float32 at full precision no
value may differ by more than 1e-4 of the largest of its array. If a single dropout bit differed,
some would differ by far more. In bfloat16 the kernels are compared with plain attention in float32,
and their error may be twice that of plain attention in bfloat16.

Then the forward and backward pass of one layer's attention of BERT-base in bfloat16, dropout 0.1,
in rows without padding, and of ModernBERT's local attention in rows of 8,192 tokens. Blocks of
passes alternate, A B A B. Columns: milliseconds of both passes, median over blocks, by way, and
the time of the kernels divided by that of plain attention, median over pairs of blocks.

The command fails if a parity check fails.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxbert.models.attention import plain_attention
from flaxbert.models.attention_gpu import gpu_attention
from flaxbert.models.dropout import DropoutKeys, dropout_key, token_keys

CASES = [(128, None), (256, None), (384, None), (512, None), (1024, None), (8192, 64)]
"""Tokens of a row, and the window."""
HEADS, WIDTH, RATE = 12, 64, 0.1
ROUNDS, PASSES = 7, 10

Way = Callable[..., jax.Array]
WAYS: dict[str, Way] = {"plain": plain_attention, "kernels": gpu_attention}


def main() -> None:
    """Print the parity checks and the times; exit with 1 if a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tokens", type=int, default=12_288)
    parser.add_argument("--smoke", action="store_true")
    flags = parser.parse_args()
    checks = parity(smoke=flags.smoke)
    times = measure(flags.tokens, smoke=flags.smoke)
    if flags.json:
        device = jax.devices()[0].device_kind
        result = {"jax_device": device, "parity": checks, "attention": times}
        flags.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if all(check["passed"] for check in checks) else "parity failed")


def parity(*, smoke: bool) -> list[dict[str, Any]]:
    """Compare the kernels with plain attention; return and print the results."""
    shape = (2, 64, 1, 32) if smoke else (4, 384, HEADS, WIDTH)
    ids = jnp.asarray([[1] * (n := shape[1] * (3 + row) // 8) + [2] * (shape[1] - n - 5) + [0] * 5
                       for row in range(shape[0])])  # fmt: skip
    checks = []
    for window in (None, 10):
        passes = {name: both_passes(way, window, smoke=smoke) for name, way in WAYS.items()}
        outputs = {}
        for dtype in ("float32", "bfloat16"):
            inputs = [x.astype(dtype) for x in random_inputs(*shape)]
            with jax.default_matmul_precision("float32" if dtype == "float32" else "default"):
                for name, run in passes.items():
                    outputs[name, dtype] = run(*inputs, ids, keys_of(ids))
        expected = outputs["plain", "float32"]
        errors = {
            key: max(
                float(jnp.max(jnp.abs(x.astype(jnp.float32) - y)) / jnp.max(jnp.abs(y)))
                for x, y in zip(output, expected, strict=True)
            )
            for key, output in outputs.items()
        }
        for dtype, allowed in (("float32", 1e-4), ("bfloat16", 2 * errors["plain", "bfloat16"])):
            error = errors["kernels", dtype]
            check = {"check": f"{dtype} attention, window {window}", "error": error}
            checks.append(check | {"allowed": allowed, "passed": error <= allowed})
    for check in checks:
        print("parity: {check}: error {error:.2e}, allowed {allowed:.2e}".format(**check), end="")
        print("" if check["passed"] else "  FAILED", flush=True)
    return checks


def measure(tokens: int, *, smoke: bool) -> list[dict[str, Any]]:
    """Time both passes of attention, and print a line for each case; return the figures."""
    print("".join(f"{head:>15}" for head in ("rows x length", "window", *WAYS, "vs plain")))
    records = []
    for length, window in [(64, None)] if smoke else CASES:
        rows = max(1, (64 if smoke else tokens) // length)
        ids = jnp.ones((rows, length), jnp.int32)
        shape = (rows, length, 1, 32) if smoke else (rows, length, HEADS, WIDTH)
        inputs = [x.astype(jnp.bfloat16) for x in random_inputs(*shape)]
        arguments = (*inputs, ids, keys_of(ids))
        passes = {name: both_passes(way, window, smoke=smoke) for name, way in WAYS.items()}
        times: dict[str, list[float]] = {name: [] for name in passes}
        for run in passes.values():
            jax.block_until_ready(run(*arguments))
        for _ in range(1 if smoke else ROUNDS):
            for name, run in passes.items():
                start = time.perf_counter()
                for _ in range(PASSES):
                    outputs = run(*arguments)
                jax.block_until_ready(outputs)
                times[name].append((time.perf_counter() - start) / PASSES)
        ratio = float(np.median(np.divide(times["kernels"], times["plain"])))
        record = {"rows": rows, "length": length, "window": window, "vs_plain": ratio}
        records.append(record | {"blocks": times})
        cells = [f"{rows} x {length}", str(window)]
        cells += [f"{1000 * np.median(seconds):.3f}" for seconds in times.values()]
        print("".join(f"{cell:>15}" for cell in [*cells, f"{ratio:.2f}"]), flush=True)
    return records


def random_inputs(rows: int, length: int, heads: int, width: int) -> list[jax.Array]:
    """Return queries, keys, values and a gradient of the output, in float32."""
    shapes = [(rows, length, heads, width)] * 3 + [(rows, length, heads * width)]
    return [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes)]


def keys_of(ids: jax.Array) -> DropoutKeys | None:
    """Return dropout keys for rows whose positions do not restart in their segments."""
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    return token_keys(dropout_key(0, 0), jnp.arange(ids.size).reshape(ids.shape), ids, positions)


def both_passes(way: Way, window: int | None, *, smoke: bool) -> Callable[..., list[jax.Array]]:
    """Return a compiled function that computes attention and its gradients."""
    if smoke and way is gpu_attention:
        way = functools.partial(gpu_attention, interpret=True)

    @jax.jit
    def run(q: Any, k: Any, v: Any, grad: Any, ids: Any, keys: Any) -> list[jax.Array]:
        attend = functools.partial(way, segment_ids=ids, window=window, rate=RATE, keys=keys)
        out, backward = jax.vjp(attend, q, k, v)
        return [out, *backward(grad)]

    return run


if __name__ == "__main__":
    main()

"""Check and time the ways to compute attention on one GPU or TPU: plain, and the kernels.

    python benchmarks/attention_ways.py [--json=FILE] [--tokens=12288]
    JAX_PLATFORMS=cpu python benchmarks/attention_ways.py --smoke

`gpu.py` runs the same as a part of it. --smoke interprets the kernels on a CPU, with tiny sizes, to
check the script itself; its times mean nothing.

First, parity: output and gradients of the kernels against plain attention on the same device, for
packed rows with padding and dropout, with and without a window. In float32 at full precision no
value may differ by more than 1e-4 of the largest of its array. If a single dropout bit differed,
some would differ by far more. In bfloat16 the kernels are compared with plain attention in float32,
and their error may be twice that of plain attention in bfloat16. Training makes the second check
too, at its start (flaxbert/models/attention_trial.py).

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
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxbert.models.attention import kernel_attention, plain_attention
from flaxbert.models.attention_trial import ROUNDS, Shape, Way, difference, times

CASES = [(128, None), (256, None), (384, None), (512, None), (1024, None), (8192, 64)]
"""Tokens of a row, and the window."""
HEADS, WIDTH, RATE = 12, 64, 0.1


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
        flags.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(check["passed"] for check in checks) else "parity failed")


def kernel_of(*, smoke: bool) -> Way:
    """Return the kernel for the first device; with `smoke` the GPU's, interpreted."""
    if smoke:
        return functools.partial(kernel_attention, "gpu", interpret=True)
    kernel = "tpu" if jax.devices()[0].platform == "tpu" else "gpu"
    return functools.partial(kernel_attention, kernel)


def parity(*, smoke: bool) -> list[dict[str, Any]]:
    """Compare the kernels with plain attention; return and print the results."""
    kernel, sizes = kernel_of(smoke=smoke), (2, 64, 1, 32) if smoke else (3, 384, HEADS, WIDTH)
    checks = []
    for window in (None, 10):
        for dtype in ("float32", "bfloat16"):
            with jax.default_matmul_precision("float32" if dtype == "float32" else "default"):
                error, allowed = difference(Shape(*sizes, dtype, RATE, window), kernel)
            check = {"check": f"{dtype} attention, window {window}", "error": error}
            checks.append(check | {"allowed": allowed, "passed": error <= allowed})
    for check in checks:
        print("parity: {check}: error {error:.2e}, allowed {allowed:.2e}".format(**check), end="")
        print("" if check["passed"] else "  FAILED", flush=True)
    return checks


def measure(tokens: int, *, smoke: bool) -> list[dict[str, Any]]:
    """Time both passes of attention, and print a line for each case; return the figures."""
    ways = {"plain": plain_attention, "kernels": kernel_of(smoke=smoke)}
    print("".join(f"{head:>15}" for head in ("rows x length", "window", *ways, "vs plain")))
    records = []
    for length, window in [(64, None)] if smoke else CASES:
        rows = max(1, (64 if smoke else tokens) // length)
        heads, width = (1, 32) if smoke else (HEADS, WIDTH)
        shape = Shape(rows, length, heads, width, "bfloat16", RATE, window)
        blocks = times(shape, ways, rounds=1 if smoke else ROUNDS)
        ratio = float(np.median(np.divide(blocks["kernels"], blocks["plain"])))
        record = {"rows": rows, "length": length, "window": window, "vs_plain": ratio}
        records.append(record | {"blocks": blocks})
        cells = [f"{rows} x {length}", str(window)]
        cells += [f"{1000 * np.median(seconds):.3f}" for seconds in blocks.values()]
        print("".join(f"{cell:>15}" for cell in [*cells, f"{ratio:.2f}"]), flush=True)
    return records


if __name__ == "__main__":
    main()

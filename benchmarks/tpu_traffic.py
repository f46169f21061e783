"""Compare the memory traffic of the training step on TPUs with an ideal, without a TPU.

    python benchmarks/tpu_traffic.py [--models=base,large] [--lengths=128,384,512] \
        [--slices=v5e:2x4,v6e:2x4] [--json=FILE] [--programs=DIR]

Needs the libtpu that belongs to the version of jax (pip install -e '.[tpu]'; JAX may not be able to
read the programs of another one), and JAX_PLATFORMS=cpu in the environment. The TPU compiler
compiles the step ahead of time: BERT-base or -large with the output layer of question answering,
bfloat16, dropout 0.1, AdamW. A chip holds 12,288 tokens: 96 rows of 128, 32 of 384 or 24 of 512. A
program takes one to several minutes. Nothing runs, so no time is measured.

The ideal of a chip's traffic is

    3 * 52 * h * L * tokens + 28 * parameters    bytes,

where h is the hidden size and L the number of layers. In the forward pass a layer reads and writes
at least 26 h numbers for each token, 52 h bytes in bfloat16: 4 h for query, key and value, 4 h in
attention, 2 h for its output, 3 h for each LayerNorm, 10 h in the feed-forward layer. The backward
pass moves twice as much. AdamW reads gradient, parameter and two moments, and writes the last three
(28 bytes for each parameter).

Columns:

    bytes     bytes accessed per chip, as the compiler counts them, in GB; accesses to VMEM count.
              For kernels the compiler takes the estimate of their author; operands and results are
              counted instead if they are more. A copy between HBM and VMEM moves an array once,
              but counts three or four times: where it starts, ends, and where slices are joined
    / ideal   the same, divided by the ideal
    moved     bytes of the arrays that instructions outside of fusions read and write, in HBM and in
              VMEM, in GB; a copy counts once on each side
    / ideal   the same, divided by the ideal
    HBM       bytes of the arrays in HBM that instructions outside of fusions read and write, in GB
    / ideal   the same, divided by the ideal
    TFLOP     floating-point operations of a step per chip, as the compiler counts them
    memory    peak memory of a chip, in GB
    compile   seconds of compilation
    reduced   bytes of all-reduces, divided by four bytes for each parameter
    scores    arrays with a number for each head and pair of tokens that the program stores

The command fails if there is a collective other than an all-reduce, or if the all-reduces move more
than the gradients. --json writes all figures, and for each part of the step its traffic and number
of instructions, and the largest arrays. --programs writes the optimized HLO texts.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import targets

from flaxbert.config import DataConfig
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.planning import hlo
from flaxbert.runtime.memory import needed_bytes
from flaxbert.tasks.question_answering import QuestionAnswering

MODELS = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
TOKENS = 12_288
SEGMENTS = 8
LARGEST = 40
SCALARS = 1024
"""Bytes that the sums of losses and counts may add to the all-reduces."""

COLUMNS = {
    "slice": ("slice", "{}"),
    "model": ("model", "{}"),
    "rows x length": ("shape", "{}"),
    "bytes": ("bytes_accessed", "{:.1f}"),
    "/ ideal": ("bytes_over_ideal", "{:.2f}"),
    "moved": ("moved_bytes", "{:.1f}"),
    "/ ideal ": ("moved_over_ideal", "{:.2f}"),
    "HBM": ("hbm_bytes", "{:.1f}"),
    "/ ideal  ": ("hbm_over_ideal", "{:.2f}"),
    "TFLOP": ("flops", "{:.2f}"),
    "memory": ("peak_memory", "{:.2f}"),
    "compile": ("compile_seconds", "{:.0f}"),
    "reduced": ("reduced_over_parameters", "{:.3f}"),
    "scores": ("score_arrays", "{}"),
}
UNITS = {
    "bytes_accessed": 1e9,
    "moved_bytes": 1e9,
    "hbm_bytes": 1e9,
    "flops": 1e12,
    "peak_memory": 1e9,
}


def main() -> None:
    """Print a line for each program; exit with 1 if one communicates more than its gradients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="base,large")
    parser.add_argument("--lengths", default="128,384,512")
    parser.add_argument("--slices", default="v5e:2x4,v6e:2x4")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--programs", type=Path)
    flags = parser.parse_args()
    libtpu = importlib.metadata.version("libtpu")
    print(f"jax {jax.__version__}, libtpu {libtpu}, {TOKENS} tokens a chip")
    print("  ".join(f"{name:>14}" if n == 2 else f"{name:>8}" for n, name in enumerate(COLUMNS)))
    records = []
    for slice_name in flags.slices.split(","):
        for model in flags.models.split(","):
            for length in map(int, flags.lengths.split(",")):
                records.append(measure(slice_name, model, length, flags.programs))
                print(line(records[-1]), flush=True)
                if flags.json:
                    flags.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    problems = [
        f"{r['slice']} {r['model']} {r['shape']}: {problem}"
        for r in records
        for problem in check(r)
    ]
    sys.exit("\n".join(problems) or 0)


def measure(slice_name: str, name: str, length: int, programs: Path | None) -> dict[str, Any]:
    """Compile a step and return its figures.

    Args:
      slice_name: a TPU slice, such as v5e:2x4.
      name: key of MODELS.
      length: T; a chip has TOKENS / T rows.
      programs: directory for the HLO text; None writes none.
    """
    sizes = MODELS[name]
    config = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512, **sizes}
    config |= {"intermediate_size": 4 * sizes["hidden_size"], "type_vocab_size": 2}
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    task = QuestionAnswering(DataConfig(), QuestionAnswering.options_type())
    devices, rows = targets.tpu_devices(slice_name), TOKENS // length
    start = time.perf_counter()
    compiled = targets.compile_step(
        task,
        config,
        devices,
        by_segment=("start", "end"),
        rows=rows * len(devices),
        length=length,
        segments=SEGMENTS,
    )
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    if programs:
        programs.mkdir(parents=True, exist_ok=True)
        (programs / f"{slice_name.replace(':', '-')}-{name}-{length}.hlo").write_text(
            text, encoding="utf-8"
        )
    shapes = Model.create(read_config(config), task.make_head).shapes
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    costs = compiled.cost_analysis()
    accessed = costs["bytes accessed"] + hlo.uncounted_kernel_bytes(text)
    ideal = ideal_bytes(sizes["hidden_size"], sizes["num_hidden_layers"], TOKENS, parameters)
    parts = hlo.traffic(text)
    hbm = sum(part.hbm for part in parts.values())
    moved = hbm + sum(part.vmem for part in parts.values())
    collectives = hlo.collectives(text)
    return {
        "slice": slice_name,
        "libtpu": importlib.metadata.version("libtpu"),
        "model": name,
        "shape": f"{rows} x {length}",
        "bytes_accessed": accessed,
        "ideal_bytes": ideal,
        "bytes_over_ideal": accessed / ideal,
        "moved_bytes": moved,
        "moved_over_ideal": moved / ideal,
        "hbm_bytes": hbm,
        "hbm_over_ideal": hbm / ideal,
        "flops": costs["flops"],
        "peak_memory": needed_bytes(compiled),
        "compile_seconds": seconds,
        "parameters": parameters,
        "collectives": {k: {"count": n, "bytes": b} for k, (n, b) in collectives.items()},
        "reduced_over_parameters": collectives.get("all-reduce", (0, 0))[1] / (4 * parameters),
        "score_arrays": len(hlo.score_arrays(text, sizes["num_attention_heads"], length)),
        "parts": {name: vars(part) for name, part in parts.items()},
        "largest_arrays": [
            {
                "array": str(array),
                "bytes": array.nbytes,
                "memory": "VMEM" if array.on_chip else "HBM",
                "instruction": instruction.name,
                "operation": instruction.op_name,
            }
            for array, instruction in hlo.stored_arrays(text)[:LARGEST]
        ],
    }


def ideal_bytes(hidden_size: int, layers: int, tokens: int, parameters: int) -> int:
    """Return the ideal traffic of a chip; the docstring of this file derives it."""
    return 3 * 52 * hidden_size * layers * tokens + 28 * parameters


def line(record: dict[str, Any]) -> str:
    """Return a record as a line of the table."""
    cells = []
    for number, (key, form) in enumerate(COLUMNS.values()):
        value = record[key] / UNITS[key] if key in UNITS else record[key]
        cells.append(form.format(value).rjust(14 if number == 2 else 8))
    return "  ".join(cells)


def check(record: dict[str, Any]) -> list[str]:
    """Return what the devices exchange besides gradients."""
    problems = []
    if others := sorted(set(record["collectives"]) - {"all-reduce"}):
        problems.append(f"collectives besides all-reduce: {', '.join(others)}")
    reduced = record["collectives"].get("all-reduce", {"bytes": 0})["bytes"]
    if reduced > 4 * record["parameters"] + SCALARS:
        problems.append(f"all-reduces of {reduced} bytes, more than the gradients have")
    return problems


if __name__ == "__main__":
    main()

"""Compare training with what a user would pick instead, on the same data, in one run.

    python benchmarks/compare.py --config=configs/quickstart.py [--config.KEY=VALUE ...]
    python benchmarks/compare.py --config=configs/quickstart.py --equal-shapes=32x128 --rounds=5

Needs the extra `compare` (pip install -e '.[compare]'). Every side is a process of its own. The
sides fine-tune the same checkpoint on the same features, with AdamW, the same learning rates,
clipping and dropout, and as many steps. Blocks of steps alternate, A B A B, so that a noisy machine
slows down all sides. While one side computes, the others wait. The sides are

    flaxbert    this library, with its packing
    trainer     the Trainer of transformers (PyTorch), padded to the longest sequence of the batch
    grouped     the same, with batches of sequences of similar length (group_by_length)
    max_length  the same, all sequences padded to data.max_length
    keras       KerasHub on JAX, padded to data.max_length; for classification of texts, without
                an evaluation. Needs keras-hub (pip install keras-hub)

By default the run goes to its end, and the weights of every side are evaluated on data.eval by
flaxbert. With --rounds=N it stops after N blocks of every side, without an evaluation.

With --equal-shapes=ROWSxLENGTH all batches have ROWS sequences of LENGTH tokens, cut from the
tokens of the data set. No token is padding, and nothing is evaluated.

Flags: --sides=flaxbert,trainer, --block=STEPS of a block (10), --rounds=N (0: to the end),
--equal-shapes=ROWSxLENGTH, --json=FILE. The number of threads of every side is the number of cores
of this process; `taskset` changes it.

Columns:

    s/step      median over blocks of the seconds of a step
    vs flaxbert median over blocks of (seconds of a step / flaxbert's in the same round)
    examples/s  features of all blocks over their time
    tokens/s    the same for tokens, without padding
    peak share  operations of the matrix products that the tokens need, over time and the best rate
                that any side reached in a large product; padding and output layers do not count
    padding     share of the token places that hold no token
    memory      largest memory of the process, or of the device, in GB
    start-up    seconds from the start of the process to the end of its first step, without reading
                and tokenizing the data; flaxbert loads programs that an earlier run compiled,
                unless JAX_ENABLE_COMPILATION_CACHE=0
    others      metrics of the evaluation
"""

import importlib
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import command
import numpy as np
import rates
import turns

from flaxbert.commands import args
from flaxbert.commands.help_text import Flag

SIDES = {
    "flaxbert": "compare_flaxbert",
    "trainer": "compare_torch",
    "grouped": "compare_torch",
    "max_length": "compare_torch",
    "keras": "compare_keras",
}
FLAGS = (
    Flag("sides", "flaxbert,trainer", "sides to compare, the first of them flaxbert"),
    Flag("block", 10, "steps of a block"),
    Flag("rounds", 0, "blocks of every side; 0: to the end of the run"),
    Flag("equal-shapes", "", "ROWSxLENGTH: batches without padding"),
    Flag("json", "", "file for all figures"),
)
SPAWN = multiprocessing.get_context("spawn")


class Side:
    """A process that trains in turns."""

    def __init__(self, name: str, function: str, *arguments: Any):
        """Start the process."""
        self.name, self.blocks, self.remaining = name, list[turns.Work](), 1
        self.facts: dict[str, Any] = {}
        self._connection, other = SPAWN.Pipe()
        self._process = SPAWN.Process(
            target=_run, args=(other, SIDES[name], function, *arguments), daemon=True
        )
        self._process.start()
        other.close()

    def receive(self) -> Any:
        """Return the next message of the process.

        Raises:
          SystemExit: if the process failed.
        """
        try:
            message = self._connection.recv()
        except EOFError:
            message = "the process ended early"
        if isinstance(message, str):
            sys.exit(f"{self.name}: {message}")
        return message

    def take(self, steps: int) -> None:
        """Let the process take a block of steps."""
        self._connection.send(steps)
        work, self.remaining = self.receive()
        self.blocks.append(work)

    def finish(self) -> bool:
        """Stop training; return whether the trained weights were written."""
        if self.remaining:
            self._connection.send(0)
        self.facts |= self.receive()
        exported: bool = self.receive()["exported"]
        self._process.join()
        return exported


def _run(connection: Connection, module: str, function: str, *arguments: Any) -> None:
    turns.report_errors(connection, getattr(importlib.import_module(module), function), *arguments)


def main() -> None:
    """Train all sides in turns, evaluate them, and print a table."""
    arguments = args.parse(sys.argv, __doc__ or "", flags=FLAGS)
    flags = arguments.flags
    names = str(flags["sides"]).split(",")
    if names[0] != "flaxbert" or not set(names) <= set(SIDES):
        sys.exit(f"--sides={flags['sides']}: expected flaxbert, then any of {', '.join(SIDES)}")
    equal, argv = str(flags["equal-shapes"]), [sys.argv[0], *arguments.config_flags]
    with tempfile.TemporaryDirectory(prefix="flaxbert-compare-") as directory:
        sides = start(names, argv, equal, directory)
        settings = sides[0].facts
        print(
            f"{settings['steps']} steps of {settings['batch_size']} features, read and tokenized "
            f"in {settings['tokenize_seconds']:.1f} s; {rates.threads()} threads",
            flush=True,
        )
        alternate(sides, int(flags["block"]), int(flags["rounds"]))
        exported = [side for side in sides if side.finish()]
        records = {side.name: record(side, sides) for side in sides}
        if not equal and arguments.config.data.eval:
            for side in exported:
                weights = str(Path(directory) / side.name)
                evaluation = Side("flaxbert", "evaluate", argv, weights)
                records[side.name]["quality"] = evaluation.receive()
    print_table(records)
    if flags["json"]:
        Path(flags["json"]).write_text(
            json.dumps({"command": sys.argv, "settings": settings, "sides": records}, indent=1),
            encoding="utf-8",
        )


def start(names: list[str], argv: list[str], equal: str, directory: str) -> list[Side]:
    """Start the sides, one after another, so that none slows down the start of the next."""
    sides = []
    for name in names:
        began = time.time()
        if name == "flaxbert":
            side = Side(name, "train", argv, equal, directory, began)
            side.facts |= side.receive()
        else:
            side = Side(name, "train", name, directory, began)
        side.facts |= side.receive()
        sides.append(side)
    return sides


def alternate(sides: list[Side], block: int, rounds: int) -> None:
    """Let all sides take blocks in turn, to the end of the run or for some rounds."""
    done = 0
    while all(side.remaining for side in sides) and (done < rounds or not rounds):
        for side in sides:
            side.take(block)
        done += 1
        times = "  ".join(
            f"{side.name} {side.blocks[-1].seconds / side.blocks[-1].steps:.3f}" for side in sides
        )
        print(f"round {done}: seconds a step: {times}", flush=True)


def record(side: Side, sides: list[Side]) -> dict[str, Any]:
    """Return the figures of a side."""
    total = sum(side.blocks, turns.Work())
    settings, peak = sides[0].facts, max(other.facts["matrix_peak"] for other in sides)
    step_seconds = [work.seconds / work.steps for work in side.blocks]
    ours = [work.seconds / work.steps for work in sides[0].blocks]
    sizes = {name: settings[name] for name in ("layers", "hidden_size", "intermediate_size")}
    operations = rates.matrix_operations(**sizes, tokens=total.tokens, pairs=total.pairs)
    return {
        "step_seconds": float(np.median(step_seconds)),
        "ratio": float(np.median(np.divide(step_seconds, ours))),
        "rounds": len(side.blocks),
        "examples_per_second": total.examples / total.seconds,
        "tokens_per_second": total.tokens / total.seconds,
        "peak_share": operations / total.seconds / peak,
        "matrix_peak": side.facts["matrix_peak"],
        "padding": 1 - total.tokens / total.places,
        "peak_memory": side.facts["peak_memory"],
        "startup_seconds": side.facts["startup_seconds"],
        "blocks": [vars(work) for work in side.blocks],
    }


def print_table(records: dict[str, dict[str, Any]]) -> None:
    """Print a line for each side."""
    quality = next(iter(records.values())).get("quality", {})
    metrics = [name for name in quality if "/" not in name and name != "loss"]
    heads = ["s/step", "vs flaxbert", "examples/s", "tokens/s", "peak share", "padding", "memory"]
    heads += ["start-up", *metrics]
    widths = [max(12, len(head) + 2) for head in heads]
    print(" " * 10 + "".join(map(str.rjust, heads, widths)))
    for name, figures in records.items():
        cells = [
            f"{figures['step_seconds']:.3f}",
            f"{figures['ratio']:.2f}",
            f"{figures['examples_per_second']:.1f}",
            f"{figures['tokens_per_second']:.0f}",
            f"{figures['peak_share']:.3f}",
            f"{figures['padding']:.3f}",
            f"{figures['peak_memory'] / 1e9:.2f}",
            f"{figures['startup_seconds']:.1f}",
            *(f"{figures['quality'][metric]:.4f}" for metric in metrics if "quality" in figures),
        ]
        print(f"{name:10}" + "".join(map(str.rjust, cells, widths)))


if __name__ == "__main__":
    command.run(main)

"""Compile a run's training step for chips that are not here, and report what it needs and costs.

usage: flaxbert plan --config=NAME[:ARG] [--topology=NAMES] [--gpu=NAME --count=N]
                     [--price=PRICES] [--efficiency=SHARE] [--data=none] [--json]
                     [--config.KEY=VALUE ...]

for example:
  flaxbert plan --config=quickstart --topology=v5e:2x4,v6e:2x4 --price=v5e:1.20,v6e:2.70

The training step of the run is compiled ahead of time by the compiler of the chips, which needs the
package of that compiler but no such chip; without --topology and --gpu, for the devices of this
machine. The table shows parameters, optimizer state, activations and peak memory of each device,
operations, bytes and collectives, as the compiler counts them. With train.accumulation_steps=auto
the step is compiled in 1, 2, 4, ... micro-batches until it fits, as in a run. data.train is read
and tokenized, so batches and steps are those of the run; no weights are read. Time and cost are
estimates: the time is that of the roofline divided by an efficiency. docs/scaling.md explains how
to read a plan.
Compiling takes one to several minutes for each target. The flags of `flaxbert train` are accepted
and ignored.

exit codes:
  0   done, and the run fits at least one target
  2   it fits none; or bad usage, configuration or data, or a package is missing
  1   internal error
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxbert.commands import args, failures
from flaxbert.commands.help_text import Flag
from flaxbert.config import Config
from flaxbert.errors import ConfigError

log = logging.getLogger("flaxbert")

FLAGS = (
    Flag(
        "topology",
        "",
        "TPU slices, separated by commas: v4:2x2x4, v5e:2x4, v5p:4x4x4, v6e:4x4, ... needs libtpu",
    ),
    Flag("gpu", "", "a kind of GPU: a100, h100 or h200; needs jax[cuda12], but no GPU"),
    Flag("count", 8, "number of GPUs: 1 to 8, or a multiple of 8"),
    Flag(
        "price",
        "",
        "price of a chip for an hour, such as 1.20, or one for each chip: v5e:1.20,h100:2.50",
    ),
    Flag(
        "efficiency",
        "",
        "share of the roofline that a step reaches, such as 0.4, or one for each chip: "
        "v5e:0.4,h100:0.3 (default: 0.5, an assumption)",
    ),
    Flag("data", "auto", "none plans with full rows, without reading data.train", ("auto", "none")),
    Flag("json", False, "print JSON instead of a table"),
)
"""The flags of this command besides those of a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    argv = ["flaxbert plan", *(sys.argv[1:] if argv is None else argv)]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        arguments = args.parse(argv, __doc__ or "", flags=(*FLAGS, *args.RUN_FLAGS))
        records, note = plan(arguments.config, arguments.flags)
    except args.HelpRequested as text:
        print(text)
        return 0
    except Exception as error:
        return failures.report(error, "reading the data")
    if arguments.flags["json"]:
        print(json.dumps({"note": note, "targets": records}, indent=1))
    else:
        show(records, note)
    return 0 if any(one["fits"] for one in records) else 2


def plan(config: Config, flags: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return the plan of each target (see planning/report.py), and why it is without data.

    Args:
      config: the configuration of the run.
      flags: values of FLAGS, by name.

    Raises:
      UserError: for bad flags, configuration, model or data, or a missing package.
    """
    prices, efficiencies = (numbers(name, flags[name]) for name in ("price", "efficiency"))
    from flaxbert.planning import report, topology  # imports JAX, which --help does not need
    from flaxbert.planning.fitting import compiled
    from flaxbert.planning.workload import Job

    targets = topology.targets(flags["topology"], flags["gpu"], flags["count"])
    job = Job.read(config, use_data=flags["data"] != "none")
    records = []
    for number, target in enumerate(targets, start=1):
        name = target.chip.name
        log.info(f"compiling {number} of {len(targets)}; this may take minutes")
        work, step = compiled(job, target)
        share = efficiencies.get(name, efficiencies.get("", target.chip.efficiency))
        price = prices.get(name, prices.get(""))
        records.append(report.record(job.config, target, work, step, efficiency=share, price=price))
    return records, job.note


def numbers(flag: str, text: str) -> dict[str, float]:
    """Return {chip: number} of a flag; the number for all other chips has the key "".

    Args:
      flag: name of the flag.
      text: its value, such as v5e:1.2,h100:2.5 or 1.2.

    Raises:
      ConfigError: for anything but numbers above 0, and for an efficiency above 1.
    """
    values = {}
    for part in filter(None, text.split(",")):
        chip, _, number = part.rpartition(":")
        try:
            values[chip.strip()] = float(number)
        except ValueError:
            values[chip.strip()] = 0.0
        if not 0 < values[chip.strip()] <= (1 if flag == "efficiency" else float("inf")):
            most = " up to 1" if flag == "efficiency" else ""
            raise ConfigError(
                f"--{flag}={text}: expected a number above 0{most}, or CHIP:NUMBER, separated by "
                "commas."
            )
    return values


def show(records: Sequence[dict[str, Any]], note: str) -> None:
    """Print the table, the order of the targets, and what it rests on."""
    from flaxbert.planning import report

    table = Table("of one device", *(one["target"] for one in records), title="plan")
    for name, cells in report.lines(records):
        table.add_row(name, *map(Text, cells))
    Console(file=sys.stdout).print(table)
    for line in report.ranking(records):
        print(line)
    if note:
        print(f"without data, in full rows: {note}")
    print(
        "Memory, operations, bytes and collectives are the compiler's. Time is the roofline "
        "divided by the efficiency; evaluations, checkpoints and start-up are not included."
    )

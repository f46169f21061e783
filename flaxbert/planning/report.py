"""The report of a plan: figures of each target for programs, and lines of a table for people."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxbert.config import Config
from flaxbert.planning import estimate
from flaxbert.planning.estimate import Estimate
from flaxbert.planning.step import Analysis, Sizes
from flaxbert.planning.topology import Target
from flaxbert.planning.workload import Work
from flaxbert.runtime import sharding

Record = dict[str, Any]
"""The plan of one target, with the types of JSON. Figures of memory, operations, bytes and
collectives are those of one device."""


def record(
    config: Config,
    target: Target,
    work: Work,
    step: Sizes,
    *,
    efficiency: float,
    price: float | None,
) -> Record:
    """Return the plan of a target.

    Args:
      config: the configuration.
      target: the devices.
      work: the batches of the run on them.
      step: the compiled step of the largest batch.
      efficiency: share of the roofline that a step reaches.
      price: of a chip and hour; None if it was not given.
    """
    dtype = work.pipeline.model.config.dtype
    fits = isinstance(step, Analysis) and step.peak <= target.chip.memory
    result = _shape(config, target, work, step) | {"fits": fits}
    result |= {"memory": _memory(step) | {"capacity": target.chip.memory}}
    result |= _fitting(config, target, work, step, fits=fits)
    if isinstance(step, Analysis):
        took = estimate.estimate(
            step,
            target,
            dtype=dtype,
            buckets=work.buckets,
            padding=work.padding or 0.0,
            efficiency=efficiency,
            price=price,
        )
        result |= _counted(step) | _estimated(took, price)
    return result


def _shape(config: Config, target: Target, work: Work, step: Sizes) -> Record:
    """Return the devices, and the batches of the run on them."""
    return {
        "target": target.name,
        "chip": target.chip.name,
        "chips": target.chips,
        "devices": len(target.devices),
        "dtype": work.pipeline.model.config.dtype,
        "model": config.model.init,
        "batch_size": config.train.batch_size,
        "accumulation_steps": work.microbatches,
        "auto": config.train.accumulation_steps == "auto",
        "fsdp": sharding.fsdp(work.pipeline.mesh),
        "rows": step.rows,
        "row_length": step.row_length,
        "buckets": {str(rows): steps for rows, steps in work.buckets.items()},
        "steps": work.steps or None,
        "padding": work.padding,
        "model_flops": step.model_flops,
        "compile_seconds": step.seconds,
    }


def _fitting(config: Config, target: Target, work: Work, step: Sizes, *, fits: bool) -> Record:
    """Return the largest batch that fits, and what to change if the run's own does not."""
    parts, changes = work.microbatches, list[str]()
    if not fits:
        shared, remat = sharding.fsdp(work.pipeline.mesh), config.model.remat
        options = {"microbatches": parts, "fsdp": shared}
        changes = list(estimate.changes(step, target, remat=remat, **options))
    largest = estimate.largest_batch(step, target, microbatches=parts, features=work.features)
    return {"largest_batch": largest, "changes": changes}


def _memory(step: Sizes) -> Record:
    names = ("parameters", "optimizer", "gradients", "activations", "peak")
    return {name: getattr(step, name) for name in names}


def _counted(step: Analysis) -> Record:
    """Return what the compiler counts."""
    return {
        "compiled_flops": step.compiled_flops,
        "bytes_accessed": step.accessed,
        "hbm_traffic": step.traffic,
        "collectives": {
            kind: {"count": count, "bytes": size}
            for kind, (count, size) in step.collectives.items()
        },
    }


def _estimated(took: Estimate, price: float | None) -> Record:
    fields = dataclasses.asdict(took)
    limits = fields.pop("roofline")
    return {
        "roofline": limits | {"bound": took.roofline.bound},
        **fields,
        "price": price,
    }


# --- for people ----------------------------------------------------------------------------------


def lines(records: Sequence[Record]) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a table: a name, and a cell for each target."""
    for name, cell in CELLS.items():
        cells = [cell(one) for one in records]
        if any(cells):
            yield name, cells


def _gib(name: str) -> Any:
    return lambda one: f"{one['memory'][name] / 2**30:.2f} GiB"


def _scaled(name: str, unit: float, text: str) -> Any:
    return lambda one: text.format(one[name] / unit) if one.get(name) is not None else ""


def _peak(one: Record) -> str:
    memory = one["memory"]
    share = memory["peak"] / memory["capacity"]
    text = f"{memory['peak'] / 2**30:.2f} of {memory['capacity'] / 2**30:.2f} GiB, {share:.0%}"
    return text if one["fits"] else f"DOES NOT FIT: {text}"


def _collectives(one: Record) -> str:
    parts = (
        f"{part['count']} {kind}, {part['bytes'] / 1e9:.2f} GB"
        for kind, part in one.get("collectives", {}).items()
    )
    return "\n".join(parts)


def _limits(one: Record) -> str:
    if "roofline" not in one:
        return ""
    limits = one["roofline"]
    parts = (f"{name} {1000 * limits[name]:.1f}" for name in ("compute", "memory", "exchange"))
    return f"{', '.join(parts)} ms"


def _batch(one: Record) -> str:
    shape = f"{one['rows']} rows x {one['row_length']} tokens"
    parts = one["accumulation_steps"]
    return f"{shape} in {parts} micro-batches" if parts > 1 else shape


def _chosen_parts(one: Record) -> str:
    return f"{one['accumulation_steps']} (auto)" if one["auto"] else ""


def _time(one: Record) -> str:
    return duration(one["seconds"]) if one.get("seconds") else ""


def duration(seconds: float) -> str:
    """Return a time in words, in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


CELLS: Mapping[str, Any] = {
    "chips": lambda one: f"{one['chips']:g}",
    "arithmetic": lambda one: one["dtype"],
    "largest batch of the run": _batch,
    "train.accumulation_steps": _chosen_parts,
    "steps": lambda one: f"{one['steps']:,}" if one["steps"] else "",
    "padding": _scaled("padding", 0.01, "{:.1f} %"),
    "devices that share parameters": lambda one: str(one["fsdp"]) if one["fsdp"] > 1 else "",
    "parameters": _gib("parameters"),
    "optimizer state": _gib("optimizer"),
    "gradients": _gib("gradients"),
    "activations and the rest": _gib("activations"),
    "peak memory": _peak,
    "largest batch size that fits": lambda one: f"about {one['largest_batch']:,}",
    "operations": _scaled("compiled_flops", 1e12, "{:.2f} TFLOP"),
    "operations, analytic": _scaled("model_flops", 1e12, "{:.2f} TFLOP"),
    "bytes accessed": _scaled("bytes_accessed", 1e9, "{:.1f} GB"),
    "traffic of HBM": _scaled("hbm_traffic", 1e9, "{:.1f} GB"),
    "collectives": _collectives,
    "least time by": _limits,
    "bound by": lambda one: one["roofline"]["bound"] if "roofline" in one else "",
    "efficiency (assumed)": _scaled("efficiency", 1.0, "{:.2f}"),
    "time of a step": _scaled("step_seconds", 1e-3, "{:.1f} ms"),
    "MFU": _scaled("mfu", 0.01, "{:.0f} %"),
    "tokens per second": _scaled("tokens_per_second", 1.0, "{:,.0f}"),
    "training takes": _time,
    "and costs": _scaled("cost", 1.0, "{:,.2f}"),
    "to make it fit": lambda one: "\n".join(one["changes"]),
    "compiled in": _scaled("compile_seconds", 1.0, "{:.0f} s"),
}
"""Names of lines, and the functions that make a cell of them from a record."""


def ranking(records: Sequence[Record]) -> Iterator[str]:
    """Yield a line with the targets that fit by time, and one by cost."""
    fitting = [one for one in records if one["fits"]]
    fitting.sort(key=lambda one: one["seconds"] or one["step_seconds"])
    if len(fitting) > 1:
        yield "by time: " + ", ".join(f"{one['target']} ({_ranked_time(one)})" for one in fitting)
    priced = sorted((one for one in fitting if one["cost"]), key=lambda one: one["cost"])
    if len(priced) > 1:
        yield "by cost: " + ", ".join(f"{one['target']} ({one['cost']:,.2f})" for one in priced)


def _ranked_time(one: Record) -> str:
    return _time(one) or f"{1000 * one['step_seconds']:.1f} ms a step"

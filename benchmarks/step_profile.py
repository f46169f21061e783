"""Profile training steps, and show where their time goes by part of the model.

    python benchmarks/step_profile.py --config=configs/quickstart.py [--config.KEY=VALUE ...]
    python benchmarks/step_profile.py --config=configs/quickstart.py --svg=docs/step.svg

Trains on the first batches of the configuration, on one device, and profiles some steps. Each
operation of the compiled step has the name of its part: `embeddings`, `attention`, `mlp` (the
feed-forward layers), `head`, `rest of the model` (LayerNorm, residual sums, their dropout, the
loss), `optimizer` (AdamW, gradient norms) or `copies` (between memories of a TPU). Prints the
milliseconds of each part in a step, of matrix products and of everything else. Operations that run
at the same time both count.

Flags: --steps=N that are profiled (5), --svg=FILE for a picture.
"""

import collections
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import command
import jax
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.commands.help_text import Flag
from flaxbert.pipeline.loader import Loader
from flaxbert.planning import hlo
from flaxbert.runtime import cpu_memory, devices, sharding
from flaxbert.training import optim, state
from flaxbert.training.data import tokenize
from flaxbert.training.step import step_of_run

FLAGS = (Flag("steps", 5, "steps that are profiled"), Flag("svg", "", "file for a picture"))
KINDS = {"matrix products": "#5b7fb5", "other": "#e0a458"}
WARM_UP = 3

Times = dict[str, dict[str, float]]
"""Milliseconds of a step, by part and kind."""


def main() -> None:
    """Print a table, and draw it."""
    arguments = args.parse(sys.argv, __doc__ or "", flags=FLAGS)
    steps, svg = max(1, int(arguments.flags["steps"])), str(arguments.flags["svg"])
    times, shape = measure(arguments.config, steps)
    device = jax.devices()[0]
    dtype = devices.resolve_dtype(arguments.config.model.dtype)
    title = f"{arguments.config.model.init}, {shape} tokens, {dtype}, "
    title += device.device_kind  # cpu on any CPU
    print_table(title, times)
    if svg:
        Path(svg).write_text(picture(title, times), encoding="utf-8")


def measure(config: Any, steps: int) -> tuple[Times, str]:
    """Return the times of a step, and the shape of its batch."""
    cpu_memory.reuse()  # as in a run
    pipeline, sources = open_training_data(config)
    batches = tokenize(pipeline, sources, config.train).train.batches
    mesh = sharding.make_mesh(jax.devices()[:1])
    optimizer, _ = optim.make_optimizer(config.optim, batches.steps)
    now = state.init_state(
        pipeline.load_params(seed=config.train.seed), optimizer, mesh, pipeline.task.loss_names
    )
    parts = pipeline.model, pipeline.task, mesh
    train_step = step_of_run(*parts, optimizer, now, train=config.train, optim=config.optim)
    with Loader(batches, mesh) as loader:
        batch = loader.batch(0)
    compiled = train_step.lower(now, batch).compile()  # type: ignore[attr-defined]
    for _ in range(WARM_UP):
        now, report = compiled(now, batch)
    jax.block_until_ready(report)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(steps):
                now, report = compiled(now, batch)
            jax.block_until_ready((now, report))
        (trace,) = Path(directory).rglob("*.xplane.pb")
        seconds = durations(jax.profiler.ProfileData.from_file(str(trace)))
    times = by_part(compiled.as_text(), {name: 1e3 * s / steps for name, s in seconds.items()})
    return times, " x ".join(map(str, batch.input_ids.shape))


def durations(profile: Any) -> dict[str, float]:
    """Return the seconds of each instruction of a profile, by its name in the program."""
    seconds: collections.Counter[str] = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                name = next((value for key, value in event.stats if key == "hlo_op"), event.name)
                seconds[str(name)] += event.duration_ns / 1e9
    return dict(seconds)


def by_part(text: str, milliseconds: dict[str, float]) -> Times:
    """Add up the times of instructions by the part of the step that they belong to."""
    products = computations_with_products(text)
    calls = dict(re.findall(r"%?([\w.-]+) = [^\n]*? fusion\([^\n]*?calls=%?([\w.-]+)", text))
    parts = (*hlo.PARTS, "rest of the model", "optimizer", "copies")
    times: Times = {part: dict.fromkeys(KINDS, 0.0) for part in parts}
    for instruction in hlo.instructions(text):
        is_product = instruction.opcode == "dot" or calls.get(instruction.name) in products
        is_product |= "matmul" in instruction.target or "gemm" in instruction.target
        kind = "matrix products" if is_product else "other"
        part = hlo.part_of(instruction)
        times[part][kind] += milliseconds.get(instruction.name, 0.0)
    return {part: kinds for part, kinds in times.items() if sum(kinds.values()) > 0}


def computations_with_products(text: str) -> set[str]:
    """Return the names of fused computations that have a matrix product."""
    bodies = re.findall(r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S)
    return {name for name, body in bodies if re.search(r" (dot|convolution)\(", body)}


def print_table(title: str, times: Times) -> None:
    """Print a line for each part."""
    total = sum(sum(kinds.values()) for kinds in times.values())
    print(title)
    print(f"{'':20}" + "".join(f"{head:>18}" for head in (*KINDS, "share")))
    for part, kinds in times.items():
        cells = "".join(f"{kinds[kind]:>15.1f} ms" for kind in KINDS)
        print(f"{part:20}{cells}{sum(kinds.values()) / total:>18.3f}")


def picture(title: str, times: Times) -> str:
    """Return an SVG with a bar for each part."""
    left, width, row = 150, 520, 34
    total = sum(sum(kinds.values()) for kinds in times.values())
    longest = max(sum(kinds.values()) for kinds in times.values())
    height = 60 + row * len(times) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 130} {height}" '
        'font-family="sans-serif" font-size="14">',
        f"<title>Where the time of a training step goes: {title}</title>",
        f'<rect width="{left + width + 130}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-weight="bold">{title}</text>',
    ]
    for number, (part, kinds) in enumerate(times.items()):
        y, x = 48 + number * row, float(left)
        lines.append(f'<text x="{left - 10}" y="{y + 17}" text-anchor="end">{part}</text>')
        for kind, color in KINDS.items():
            bar = width * kinds[kind] / longest
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{bar:.1f}" height="24" fill="{color}"/>'
            )
            x += bar
        sum_of_part = sum(kinds.values())
        lines.append(
            f'<text x="{x + 8:.1f}" y="{y + 17}">{sum_of_part:.0f} ms, '
            f"{100 * sum_of_part / total:.0f} %</text>"
        )
    y, x = height - 30, left
    for kind, color in KINDS.items():
        lines.append(f'<rect x="{x}" y="{y}" width="14" height="14" fill="{color}"/>')
        lines.append(f'<text x="{x + 20}" y="{y + 12}">{kind}</text>')
        x += 160
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    command.run(main)

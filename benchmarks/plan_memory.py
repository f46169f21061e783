"""Compare the memory of a plan with that of a process that runs the planned step.

    python benchmarks/plan_memory.py [--config=quickstart] [--rows=32] [--length=128] [--steps=3]

Plans full rows of the configuration for one CPU, as `flaxbert plan --data=none` does. Then another
process compiles and runs the same step, and reports by how much its memory grew: the peak of its
resident memory in these steps, less what it had after compiling and before the first array (on
Linux). Prints both, and their ratio. A step must be large enough that the allocator's rounding does
not matter; MiniLM with 32 rows of 128 tokens needs about a gigabyte.

The command fails if the ratio is not within 15 percent of 1.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxbert.commands.config_file import load_config
from flaxbert.planning import topology
from flaxbert.planning.step import Analysis, analyze, lower_step
from flaxbert.planning.workload import Job, Work
from flaxbert.runtime import cpu_memory, sharding
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.types import Batch

TOLERANCE = 0.15


def main() -> None:
    """Print the plan, the measured memory, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    job, work = planned(flags)
    if flags.measure:
        print(json.dumps(measured(job, work, flags.steps)))
        return
    command = [sys.executable, *sys.argv, "--measure"]
    ended = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, check=True, text=True)
    growth = json.loads(ended.stdout.splitlines()[-1])
    options = {"train": job.config.train, "optim": job.config.optim, "steps": work.schedule_steps}
    pipeline = work.pipeline
    plan = analyze(pipeline.model, pipeline.task, pipeline.mesh, work.arrays, **options)
    assert isinstance(plan, Analysis)
    ratio = plan.peak / growth
    print(
        f"{flags.rows} rows x {flags.length} tokens: planned {plan.peak / 2**20:.0f} MiB, ", end=""
    )
    print(f"measured {growth / 2**20:.0f} MiB, ratio {ratio:.2f}")
    sys.exit(abs(ratio - 1) > TOLERANCE)


def planned(flags: Any) -> tuple[Job, Work]:
    """Return the job and its batches on one device."""
    config = load_config(flags.config)
    data = dataclasses.replace(config.data, max_length=flags.length, row_length=flags.length)
    train = dataclasses.replace(config.train, batch_size=flags.rows, accumulation_steps=1)
    job = Job.read(dataclasses.replace(config, data=data, train=train), use_data=False)
    here = topology.local()
    return job, job.on(dataclasses.replace(here, devices=here.devices[:1]))


def measured(job: Job, work: Work, steps: int) -> int:
    """Run the step, and return the bytes by which the resident memory of the process grew."""
    cpu_memory.reuse()
    pipeline, config = work.pipeline, job.config
    options = {"train": config.train, "optim": config.optim, "steps": work.schedule_steps}
    lowered, shapes = lower_step(
        pipeline.model, pipeline.task, pipeline.mesh, work.arrays, **options
    )
    step = lowered.compile()
    optimizer, _ = make_optimizer(config.optim, work.schedule_steps, config.train.ema)
    before = resident()
    params = jax.tree.map(lambda s: np.full(s.shape, 0.01, s.dtype), pipeline.model.shapes)
    state = init_state(params, optimizer, pipeline.mesh, pipeline.task.loss_names)
    jax.block_until_ready(state)
    del params, shapes
    rows = work.rows
    batch = Batch.from_arrays(work.arrays)
    placed = sharding.make_global_batch(batch, rows, pipeline.mesh)
    forget_peak()
    for _ in range(steps):
        state, report = step(state, placed)
        jax.block_until_ready(report)
    return peak() - before


def resident() -> int:
    """Return the resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def forget_peak() -> None:
    """Let the peak of the resident memory begin anew: compiling may have needed more."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> int:
    """Return the largest number of resident bytes since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()

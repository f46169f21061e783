"""Measure the cost of a checkpoint: waiting time, CPU seconds, and share of the training time.

    python benchmarks/checkpointing.py --config=configs/quickstart.py [--config.KEY=VALUE ...]

Runs real training steps of the configuration in alternating blocks: one without a checkpoint, and
one with a save after its first step. The block waits for the save at its end, so the whole cost
counts, including the work in the background. The share is that of a save every 500 steps, the
default of train.save_every.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import command
import jax
import numpy as np
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.config import TrainConfig
from flaxbert.pipeline.loader import Loader
from flaxbert.runtime.checkpoint import Checkpoints, Metadata
from flaxbert.runtime.compilation import start_compiling
from flaxbert.training import optim, state
from flaxbert.training.data import tokenize
from flaxbert.training.step import step_of_run

BLOCKS, STEPS = 6, 12
METADATA = Metadata({}, evaluated=True, data={}, config={}, best=None)


def main() -> None:
    """Print the size of the state, and what a save costs."""
    config = args.parse(sys.argv, __doc__ or "", flags=()).config
    pipeline, sources = open_training_data(config)
    batches = tokenize(pipeline, sources, config.train).train.batches
    model, task, mesh = pipeline.model, pipeline.task, pipeline.mesh
    loader = Loader(batches, mesh)
    optimizer, _ = optim.make_optimizer(config.optim, batches.steps)
    now = state.init_state(pipeline.load_params(), optimizer, mesh, task.loss_names)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(now))

    step = start_compiling(
        step_of_run(model, task, mesh, optimizer, now, train=config.train, optim=config.optim),
        now,
        batches.bucket_sizes,
        loader.empty,
    )()
    directory = Path(tempfile.mkdtemp(prefix="flaxbert-checkpoints-"))
    checkpoints = Checkpoints(directory)
    blocked: list[float] = []
    seconds: dict[bool, list[float]] = {False: [], True: []}
    busy: dict[bool, list[float]] = {False: [], True: []}
    taken = 0
    for block in range(-1, 2 * BLOCKS):
        saving = block % 2 == 1
        begun, used = time.perf_counter(), time.process_time()
        for number in range(STEPS):
            now, step_report = step(now, loader.batch(taken % batches.steps))
            taken += 1
            jax.block_until_ready(step_report)
            if saving and number == 0:
                start = time.perf_counter()
                checkpoints.save(now, taken, METADATA)
                blocked.append(time.perf_counter() - start)
        checkpoints.wait()
        if block >= 0:  # the first one warms up
            seconds[saving].append(time.perf_counter() - begun)
            busy[saving].append(time.process_time() - used)
    checkpoints.close()
    loader.close()
    shutil.rmtree(directory)
    without, with_save = (float(np.median(seconds[kind])) for kind in (False, True))
    cpu = float(np.median(busy[True]) - np.median(busy[False]))
    every = TrainConfig().save_every
    print(f"state: {size / 1e6:.0f} MB, {len(jax.tree.leaves(now))} arrays")
    print(f"a save blocks the loop {np.median(blocked):.3f} s (at most {max(blocked):.3f} s)")
    print(f"CPU seconds a save: {cpu:.2f}")
    print(f"{STEPS} steps: {without:.2f} s without, {with_save:.2f} s with a save")
    share = (with_save - without) / (without / STEPS * every)
    print(f"at the default interval of {every} steps: training time grows by {100 * share:.2f} %")


if __name__ == "__main__":
    command.run(main)

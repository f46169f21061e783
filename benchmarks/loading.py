"""Measure how long training waits for data, and how long building a batch takes.

    python benchmarks/loading.py --config=configs/squad.py --config.data.train=FILE \
        --config.train.batch_size=256

The device is replaced by a pause of DEVICE_MS, in which the host is free, as it is while an
accelerator computes. Blocks alternate between a loader that builds each batch when it is asked for
and one that builds ahead; the result is the share of the time that each waits.
"""

import sys
import time

import command
import numpy as np
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.pipeline.loader import AHEAD, Loader
from flaxbert.training.data import tokenize

DEVICE_MS, BLOCKS, STEPS = 20, 4, 40


def main() -> None:
    """Print the time to build a batch, and the share of waiting without and with look-ahead."""
    config = args.parse(sys.argv, __doc__ or "", flags=()).config
    pipeline, sources = open_training_data(config)
    data = tokenize(pipeline, sources, config.train).train
    assert data.batches.bucket_sizes  # packing is planned before the first step
    loaders = {ahead: Loader(data.batches, pipeline.mesh, ahead=ahead) for ahead in (0, AHEAD)}
    waits: dict[int, list[float]] = {ahead: [] for ahead in loaders}
    totals = dict.fromkeys(loaders, 0.0)
    for block in range(BLOCKS):
        for ahead, loader in loaders.items():
            first = block * STEPS % max(1, data.batches.steps - STEPS)
            loader.batch(first)  # starts the thread, as compiling does not
            time.sleep(DEVICE_MS / 1000)
            start = time.perf_counter()
            for step in range(first + 1, first + STEPS):
                asked = time.perf_counter()
                loader.batch(step)
                waits[ahead].append(time.perf_counter() - asked)
                time.sleep(DEVICE_MS / 1000)
            totals[ahead] += time.perf_counter() - start
            loader.close()
    rows, tokens = data.batches.largest_shape
    print(
        f"{config.train.batch_size} features, rows up to {rows} x {tokens}, {DEVICE_MS} ms a step"
    )
    print(f"building and placing a batch: {1000 * np.median(waits[0]):.1f} ms (median)")
    for ahead, waited in waits.items():
        share = sum(waited) / totals[ahead]
        print(f"{ahead} batches ahead: waiting for data {share:.2%} of the time")


if __name__ == "__main__":
    command.run(main)

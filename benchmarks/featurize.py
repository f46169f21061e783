"""Measure how long the host takes to tokenize a data set, how much memory that needs, and to mask.

    python benchmarks/featurize.py --config=configs/squad.py --config.data.train=FILE
    python benchmarks/featurize.py --config=configs/pretrain.py --config.data.train=FILES

Prints the seconds to make the features of data.train, once from texts and once from the cache
(`data.feature_cache`, here in a temporary directory), and how far the memory of the process grows
meanwhile, over the size of the features. For a task that draws words to mask, it prints how many
sequences one core masks and puts into batches in a second.
"""

import contextlib
import dataclasses
import resource
import sys
import tempfile
import time
from pathlib import Path

from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.data import feature_cache
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features

BATCH, STEPS = 256, 100


def main() -> None:
    """Print the times, the memory, and the rate of masking."""
    config = args.parse([*sys.argv, "--workdir=unused"], __doc__ or "").config
    feature_cache.LEAST_TOKENS = 0
    pipeline, sources = open_training_data(config)
    source = sources.train
    examples = pipeline.task.resolve(source.examples)
    # Threads, imports and the tokenizer's own caches are not part of the data set.
    pipeline.featurize(examples[:64], source.table.source, labeled=True)
    with tempfile.TemporaryDirectory() as directory:
        data = dataclasses.replace(pipeline.data, feature_cache=directory)
        stored = dataclasses.replace(pipeline, data=data)
        for name in ("from texts", "from the cache"):
            before, start, cpu = _reset_peak(), time.perf_counter(), time.process_time()
            _, features = stored.featurize(examples, name, labeled=True, stored=True)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            grown, size = _peak() - before, _size(features)
            print(
                f"{name}: {seconds:.2f} s, {cpu:.2f} s of CPU; memory grows by "
                f"{grown / 2**20:.0f} MB, {grown / size:.1f} times the {size / 2**20:.0f} MB of "
                "the features"
            )
        batches = stored.batches(features, batch_size=BATCH, seed=0)
        if batches.resample is not None:
            print(f"masking: {_rate(batches):,.0f} sequences/s a core, in batches of {BATCH}")


def _rate(batches: Batches) -> float:
    """Return how many sequences are masked and put into batches in a second of one core."""
    steps = [step % batches.steps_per_epoch for step in range(STEPS)]
    rows = {step: batches.padded_rows(step) for step in steps}  # packing is planned before
    start = time.process_time()
    for step in steps:
        batches.build(rows[step], step)
    seconds = time.process_time() - start
    return sum(len(row) for step in steps for row in rows[step]) / seconds


def _size(features: Features) -> int:
    arrays = [features.lengths, features.example_index, features.feature_index]
    for group in (features.per_token, features.token_indices, features.per_sequence):
        arrays += group.values()
    return sum(values.nbytes for values in arrays)


def _reset_peak() -> int:
    """Return the bytes of memory in use, and count the peak from here, where Linux can do so.

    Elsewhere the result is the peak since the process began, so that growth may be underestimated.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Return the most bytes of memory used since `_reset_peak`."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main()

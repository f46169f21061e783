"""Measure how long the host takes to tokenize a data set, how much memory that needs, and to mask.

    python benchmarks/featurize.py --config=configs/squad.py --config.data.train=FILE
    python benchmarks/featurize.py --config=configs/pretrain.py --config.data.train=FILES

Prints the seconds to make the features of data.train, once from texts and once from the cache
(`data.feature_cache`, here in a temporary directory), and how far the memory of the process grows
meanwhile, over the size of the features. For a task that draws words to mask, it prints how many
sequences one core masks and puts into batches in a second.

    python benchmarks/featurize.py --config=configs/pretrain.py --corpus=FILES --megabytes=50,200

With --corpus, corpora of some sizes are made from the paragraphs of these files, in random order;
this needs Linux. For each, a new process makes the data set as a run does, and builds batches of
two epochs. The script prints the bytes of its text, of its tokens as they are stored, and how far
the memory grows. Only memory that has no file counts: the operating system can drop pages of a file
that is memory-mapped. With --limit a process fails if its data grow by more megabytes
(RLIMIT_DATA).
"""

import contextlib
import dataclasses
import multiprocessing
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import command
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.commands.args import Flag
from flaxbert.config import Config
from flaxbert.data import feature_cache, readers
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.training.data import tokenize

BATCH, STEPS = 256, 100

FLAGS = (
    Flag("corpus", "", "text files to make corpora of"),
    Flag("megabytes", "10", "the sizes of corpora, such as 50,200"),
    Flag("limit", 0, "megabytes by which a process may grow; 0: no limit"),
)

FILES = 20
"""Files of a corpus."""


def main() -> None:
    """Print the times, the memory, and the rate of masking."""
    arguments = args.parse(sys.argv, __doc__ or "", flags=FLAGS)
    config = arguments.config
    if arguments.flags["corpus"]:
        config.data.train = str(arguments.flags["corpus"])
        for size in str(arguments.flags["megabytes"]).split(","):
            measure = config, float(size), int(arguments.flags["limit"])
            process = multiprocessing.get_context("spawn").Process(target=_corpus, args=measure)
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{size} MB of text: the process failed")
        return
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


def _corpus(config: Config, megabytes: float, limit: int) -> None:
    """Print the time and the memory that a corpus of a size needs."""
    with tempfile.TemporaryDirectory() as directory:
        small, large, cache = (Path(directory, name) for name in ("small", "large", "cache"))
        _write_corpus(config, small, 0.2)
        _write_corpus(config, large, megabytes)
        config.data.feature_cache = str(cache)
        config.data.train = f"{small}/*.txt"
        _make_batches(config)  # imports, threads and the tokenizer's caches
        config.data.train = f"{large}/*.txt"
        data = _status("VmData")
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (data + limit * 2**20,) * 2)
        start = time.perf_counter()
        with _watched() as peak:
            before = peak[0]
            features = _make_batches(config)
        seconds = time.perf_counter() - start
        tokens = sum(array.stat().st_size for array in cache.glob("*/*.npy"))
        text = sum(file.stat().st_size for file in large.iterdir())
        grown = peak[0] - before
        print(
            f"{text / 2**20:.0f} MB of text, {tokens / 2**20:.0f} MB of tokens, "
            f"{len(features.lengths):,} sequences, {seconds:.0f} s: memory grows by "
            f"{grown / 2**20:.0f} MB, {grown / len(features.lengths):.0f} bytes a sequence",
            flush=True,
        )


def _write_corpus(config: Config, directory: Path, megabytes: float) -> None:
    """Write a corpus of paragraphs of `data.train`, in random order."""
    directory.mkdir()
    rows = readers.read(str(config.data.train), config.data, split="train").rows
    paragraphs = [str(row.values["text"]) for row in rows]
    chance = random.Random(0)
    for number in range(FILES):
        with (directory / f"{number}.txt").open("w", encoding=config.data.encoding) as file:
            while file.tell() < megabytes * 2**20 / FILES:
                file.write("\n\n".join(chance.choices(paragraphs, k=100)) + "\n\n")


def _make_batches(config: Config) -> Features:
    """Make the training data as a run does, and some batches of two epochs."""
    pipeline, sources = open_training_data(config)
    batches = tokenize(pipeline, sources, config.train).train.batches
    for step in (0, 1, batches.steps_per_epoch, batches.steps_per_epoch + 1):
        batches.build(batches.padded_rows(step), step)
    return batches.features


@contextlib.contextmanager
def _watched() -> Iterator[list[int]]:
    """Yield a list with the most bytes of memory without a file that the process has used."""
    peak, ended = [_status("RssAnon")], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            peak[0] = max(peak[0], _status("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


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
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    """Return the most bytes of memory used since `_reset_peak`."""
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _status("VmHWM")


def _status(name: str) -> int:
    """Return the bytes of a line of Linux's status of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines[name].split()[0]) * 1024


if __name__ == "__main__":
    command.run(main)

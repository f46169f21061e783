"""Measure how long several processes take to tokenize a data set together, against one alone.

    python benchmarks/sharing.py --config=configs/squad.py --config.data.train=FILE --processes=2

The processes are on this machine, as hosts of a run that exchange their shares over loopback. Each
tokenizes in one thread, so that they do not take cores from each other; the machine needs as many
cores as processes. The cache of features is not used. Prints the seconds to make the features of
data.train, from when all processes have read the files until the last one has all features: with
the first exchange, in which the processes connect, and without reading. Also prints the seconds of
CPU of the process that needs most, which depend less on what else the machine does.
"""

import multiprocessing
import os
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection

import command
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.commands.args import Flag
from flaxbert.config import Config
from flaxbert.runtime import multihost

FLAGS = (
    Flag("processes", 2, "processes that tokenize together"),
    Flag("repeats", 3, "measurements, of which the median is printed"),
)

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Print the seconds of one process and of several."""
    arguments = args.parse(sys.argv, __doc__ or "", flags=FLAGS)
    count, repeats = int(arguments.flags["processes"]), int(arguments.flags["repeats"])
    os.environ |= ENVIRONMENT
    measured: dict[int, list[tuple[float, float]]] = {1: [], count: []}
    for _ in range(repeats):  # by turns, since the speed of a machine drifts
        for processes, times in measured.items():
            times.append(_measure(arguments.config, processes))
    for processes, times in measured.items():
        seconds, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{processes} process(es): {seconds:.2f} s, {cpu:.2f} s of CPU each")


def _measure(config: Config, count: int) -> tuple[float, float]:
    """Return the seconds that some processes take, and those of CPU of one of them.

    Their features must be equal.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        spec = f"127.0.0.1:{probe.getsockname()[1]},{count}"
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    processes = [
        context.Process(target=_tokenize, args=(config, f"{spec},{index}", count, sending))
        for index in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a process failed")
    results = [receiving.recv() for _ in processes]
    if len({digest for _, _, digest in results}) > 1:
        sys.exit("the processes have different features")
    return max(seconds for seconds, _, _ in results), max(cpu for _, cpu, _ in results)


def _tokenize(config: Config, spec: str, count: int, results: Connection) -> None:
    """Make the features of `data.train`, and send the seconds, also of CPU, and their hash."""
    if count > 1:
        multihost.start(spec)
    pipeline, sources = open_training_data(config)
    source = sources.train
    examples = pipeline.task.resolve(source.examples)
    # The tokenizer's own caches are not part of the data set.
    pipeline.featurize(examples[:64], source.table.source, labeled=True)
    multihost.all_gather("ready")
    start, cpu = time.perf_counter(), time.process_time()
    _, features = pipeline.featurize(examples, source.table.source, labeled=True, shared=True)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    results.send((seconds, cpu, features.fingerprint()))
    multihost.all_gather("done")


if __name__ == "__main__":
    command.run(main)

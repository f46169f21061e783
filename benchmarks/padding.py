"""Print the batch shapes that are chosen for the training data of a configuration, and the padding.

    python benchmarks/padding.py --config=configs/quickstart.py [--config.KEY=VALUE ...]

Nothing is trained. The estimated time is the one by which the shapes are chosen: of the token
positions of all steps, with padding, and of compiling a program for each shape
(flaxbert/pipeline/costs.py). It is in positions without attention, in thousands.
"""

import sys
import time

import command
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.training.data import tokenize


def main() -> None:
    """Print the shapes, the share of padding, the estimate, and the time that planning took."""
    config = args.parse(sys.argv, __doc__ or "", flags=()).config
    pipeline, sources = open_training_data(config)
    features = tokenize(pipeline, sources, config.train).train.batches.features
    start = time.perf_counter()
    batches = pipeline.batches(
        features,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        epochs=config.train.epochs,
        accumulation_steps=config.train.microbatches,
    )
    sizes, padding = batches.bucket_sizes, batches.padding_share()
    seconds = time.perf_counter() - start
    lengths, costs = features.lengths, batches.costs
    tokens = int(features.sizes.sum()) * config.train.epochs
    rows = tokens / (1 - padding) / batches.row_length
    estimate = costs.of_rows(rows, batches.row_length) + costs.program * len(sizes)
    print(
        f"{len(lengths)} sequences of {lengths.mean():.1f} tokens on average, {lengths.max()} most"
    )
    print(
        f"{batches.steps} steps of {config.train.batch_size} features, planned in {seconds:.2f} s"
    )
    print(f"rows of {batches.row_length} tokens (T), {sizes} a step (R), {batches.slots} sequences")
    print(f"in the fullest row (K). A program costs {costs.program / 1000:.1f} thousand positions")
    print(f"padding {padding:.3f}  estimate {estimate / 1000:.0f} thousand positions")


if __name__ == "__main__":
    command.run(main)

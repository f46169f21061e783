"""Compare the options of docs/training_options.md with the defaults, over several seeds.

    python benchmarks/training_options.py --config=configs/sentiment.py \
        --config.data.train=train.tsv --config.data.eval=test.tsv --texts=1000 --seeds=1,2,3

For the task classification. All runs train on the first --texts of the training data. A line of the
table has the mean and the standard deviation, over the seeds, of accuracy and macro F1 on
`data.eval`, of the expected calibration error (ECE, 10 bins; Guo et al. 2017), and of the seconds
of a run. With early stopping, the epochs are tripled, and `data.eval` also decides when to stop.

First, one run on all of the training data makes the columns of two lines: its probabilities are the
soft labels of `data.teacher`, and that of a text's own label is the text's `data.weight`.
"""

import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import command
import numpy as np

import flaxbert
from flaxbert.commands import args
from flaxbert.commands.help_text import Flag
from flaxbert.config import Config
from flaxbert.errors import ConfigError
from flaxbert.metrics.calibration import expected_calibration_error, reliability
from flaxbert.pipeline.datasets import read_table

FLAGS = (
    Flag("texts", 1000, "number of training texts, from the beginning of the file"),
    Flag("seeds", "1,2,3", "seeds of the runs"),
)
OPTIONS: tuple[Mapping[str, Any], ...] = (
    {},
    {"optim.schedule": "constant"},
    {"optim.schedule": "cosine"},
    {"optim.schedule": "polynomial"},
    {"optim.clip_norm": 0.0},
    {"optim.freeze": ("encoder/embeddings", "encoder/layers/[0-2]")},
    {"optim.layer_decay": 0.9},
    {"model.reinit_layers": 1},
    {"train.ema": 0.99},
    {"options.label_smoothing": 0.1},
    {"options.focal_gamma": 2.0},
    {"options.balanced_class_weights": True},
    {"data.weight": "weight"},
    {"data.teacher": "probabilities"},
    {"train.early_stopping": 2},  # takes longest
)
"""The keys that each line changes."""


def main() -> None:
    """Print the line of each option as soon as its runs are finished."""
    arguments = args.parse(sys.argv, __doc__ or "", flags=FLAGS)
    config = arguments.config
    if config.task != "classification" or not (config.data.train and config.data.eval):
        raise ConfigError("expected the task classification, with data.train and data.eval")
    seeds = [int(seed) for seed in str(arguments.flags["seeds"]).split(",")]
    with tempfile.TemporaryDirectory(prefix="flaxbert-options-") as directory:
        texts = write_texts(config, int(arguments.flags["texts"]), Path(directory))
        small = changed(config, {"data.train": texts})
        print("| option | accuracy | macro F1 | ECE | seconds |\n|---|---|---|---|---|", flush=True)
        for number, keys in enumerate(OPTIONS):
            folder = Path(directory) / str(number)
            runs = [
                measure(changed(small, {**keys, "train.seed": seed}), folder / str(seed))
                for seed in seeds
            ]
            name = ", ".join(f"`{key}={shown(value)}`" for key, value in keys.items())
            cells = [spread(column) for column in zip(*runs, strict=True)]
            print(f"| {name or 'defaults'} | {' | '.join(cells)} |", flush=True)


def write_texts(config: Config, count: int, directory: Path) -> str:
    """Train the teacher, and write the first texts of `data.train` with the columns it makes.

    Returns:
      The path of the file, in `directory`.
    """
    rows = read_table(config.data, "train").rows[:count]
    flaxbert.train(changed(config, {}), directory / "teacher")
    predictions = flaxbert.load(directory / "teacher").predict([dict(row.values) for row in rows])
    path = directory / "texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row, prediction in zip(rows, predictions, strict=True):
            by_label = prediction["probability"]
            weight = by_label[str(row.values[config.options.label])]
            made = {"weight": weight, "probabilities": list(by_label.values())}
            file.write(json.dumps({**row.values, **made}) + "\n")
    return str(path)


def changed(config: Config, keys: Mapping[str, Any]) -> Config:
    """Return a configuration with other values, which evaluates only when it needs to."""
    config = copy.deepcopy(config)
    config.train.eval_every = 0
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section), name, value)
    if config.train.early_stopping:
        config.train.eval_every = None
        config.train.epochs *= 3
    return config


def measure(config: Config, workdir: Path) -> tuple[float, float, float, float]:
    """Train, and return the figures of a line: accuracy, macro F1, ECE, seconds."""
    began = time.perf_counter()
    run = flaxbert.train(config, workdir)
    seconds = time.perf_counter() - began
    best = np.array([max(prediction["probability"].values()) for prediction in run.predictions])
    right = np.array(
        [
            prediction["label"] == run.pipeline.task.labels[example.label]
            for prediction, example in zip(run.predictions, run.examples, strict=True)
        ]
    )
    error = expected_calibration_error(reliability(best, right))
    return run["accuracy"], run["f1_macro"], error, seconds


def shown(value: Any) -> str:
    """Return a value as it is written on the command line."""
    return ",".join(value) if isinstance(value, tuple) else str(value).replace("True", "true")


def spread(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation of a cell."""
    digits = 0 if min(values) >= 1 else 3
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    command.run(main)

"""The data sets of a run: tables read, split and tokenized."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from flaxbert.config import DataConfig, TrainConfig
from flaxbert.data import checks
from flaxbert.data.table import Table
from flaxbert.errors import DataError, shortened
from flaxbert.pipeline.datasets import Dataset, read_table, split_for_thresholds
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import multihost
from flaxbert.tasks.base import HasUnits, Task, nothing_to_learn

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Tables:
    """The sources of a run, as read."""

    train: Table
    eval: Table | None

    @property
    def commits(self) -> dict[str, str]:
        """{config key: commit} of those from the hub."""
        tables = {"data.train": self.train, "data.eval": self.eval}
        return {key: table.commit for key, table in tables.items() if table and table.commit}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The data sets of a run."""

    train: Dataset
    thresholds: Dataset | None
    """Training examples held out to fit thresholds on (`data.threshold_split`)."""
    eval: Dataset | None
    counts: dict[str, float]
    """Lines, rows and answers left out of each data set (`data.on_bad_row=skip`), and examples
    that no prediction can be right on, for results.json."""

    def fingerprints(self, task: Task) -> dict[str, str]:
        """Return a hash of each data set, and the units of training if they differ from the labels'.

        A run that resumes compares them: a file may have changed under the same name, or another
        version of the library may compute in other units.
        """
        parts = {"train": self.train, "eval": self.eval, "held out": self.thresholds}
        labels: Sequence[str] = getattr(task, "labels", ())
        units = {"units": task.units} if isinstance(task, HasUnits) and task.units else {}
        return {name: data.fingerprint(labels) for name, data in parts.items() if data} | units


def read_tables(data: DataConfig) -> Tables:
    """Read `data.train` and, if it is set, `data.eval`.

    Raises:
      DataError, HubError: for a source that cannot be read.
    """
    return Tables(read_table(data, "train"), read_table(data, "eval") if data.eval else None)


def tokenize(pipeline: Pipeline, tables: Tables, train: TrainConfig) -> TrainingData:
    """Make the data sets of a run: every mistake in the data shows here, before weights are read.

    Args:
      pipeline: task and tokenizer.
      tables: the sources.
      train: batch sizes, epochs and seed.

    Raises:
      DataError: for malformed examples, or if there is nothing to learn from.
      ConfigError: for a `data.threshold_split` that the task or the data do not allow.
    """
    task, share = pipeline.task, pipeline.data.threshold_split
    examples = task.examples(tables.train, labeled=True)
    kept, held_out = split_for_thresholds(examples, task, share=share, seed=train.seed)
    training = pipeline.tokenize(
        kept,
        tables.train,
        batch_size=train.batch_size,
        labeled=True,
        seed=train.seed,
        epochs=train.epochs,
        accumulation_steps=train.accumulation_steps,
    )
    features = training.batches.features
    if reason := nothing_to_learn(features, training.batches.resample):
        raise DataError(f"{tables.train.source}: nothing to learn from: {reason}.")
    thresholds = None
    if held_out:
        source = dataclasses.replace(tables.train, source=f"{tables.train.source}, held out")
        thresholds = pipeline.tokenize(
            held_out, source, batch_size=train.eval_batch_size, labeled=True
        )
    counts = {"data/train/malformed": float(tables.train.malformed)} | features.counts("train")
    evaluated = None
    if tables.eval is not None:
        evaluated = pipeline.tokenize(
            task.examples(tables.eval, labeled=True),
            tables.eval,
            batch_size=train.eval_batch_size,
            labeled=True,
        )
        counts["data/eval/malformed"] = float(tables.eval.malformed)
        counts |= evaluated.batches.features.counts("eval")
    _warn_about_data(task, examples, evaluated.examples if evaluated else ())
    return TrainingData(training, thresholds, evaluated, counts)


def _warn_about_data(task: Task, train: Sequence[Any], evaluated: Sequence[Any]) -> None:
    """Log the labels, and warn about examples that look wrong; `flaxbert lint` reports them all."""
    if not multihost.is_lead_host():
        return
    names: Sequence[str] = getattr(task, "labels", ())
    if counts := checks.label_counts(train, names):
        shown = shortened([f"{name} {counts[name]}" for name in names])
        log.info(f"labels of {len(train)} training examples: {', '.join(shown)}")
    issues = [
        *checks.check_examples([*train, *evaluated]),
        *checks.compare_splits(train, evaluated, names),
    ]
    for line in checks.summarize(issues, "flaxbert lint --config=..."):
        log.warning(line)

"""The data sets of a run: tables read, split and tokenized."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from flaxbert.config import DataConfig, TrainConfig
from flaxbert.data import checks
from flaxbert.data.table import Reading, Table
from flaxbert.errors import DataError, shortened
from flaxbert.messages.language import tr
from flaxbert.pipeline.datasets import (
    Dataset,
    limited,
    read_examples,
    read_table,
    split_for_evaluation,
    split_for_thresholds,
)
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import multihost
from flaxbert.tasks.base import HasUnits, Task

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Source:
    """A table and the examples read from it, with labels as the table spells them."""

    table: Table
    examples: Reading[Any]


@dataclasses.dataclass(frozen=True)
class Sources:
    """The data sources of a run."""

    train: Source
    eval: Source | None

    @property
    def commits(self) -> dict[str, str]:
        """Return {config key: commit} of the sources that come from the hub."""
        tables = {"data.train": self.train.table}
        tables |= {"data.eval": self.eval.table} if self.eval else {}
        return {key: table.commit for key, table in tables.items() if table.commit}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The data sets of a run."""

    train: Dataset
    thresholds: Dataset | None
    """Training examples held out to fit thresholds on (`data.threshold_split`)."""
    eval: Dataset | None
    counts: dict[str, float]
    """For results.json: how many lines, rows and answers were left out of each data set
    (`data.on_bad_row=skip`), and on how many examples no prediction can be right."""

    def fingerprints(self, task: Task) -> dict[str, str]:
        """Return a hash of each data set, and the units of training unless they are the labels'.

        A run that resumes compares them, because a file may have changed under the same name, and
        another version of the library may compute in other units.
        """
        parts = {"train": self.train, "eval": self.eval, "held out": self.thresholds}
        units = {"units": task.units} if isinstance(task, HasUnits) and task.units else {}
        return {name: data.fingerprint(task.labels) for name, data in parts.items() if data} | units


def read_sources(task_name: str, data: DataConfig, options: Any) -> Sources:
    """Read `data.train` and, if it is set, `data.eval`.

    Args:
      task_name: the task that makes examples from the records.
      data: names the sources.
      options: the task's; None for its defaults.

    Raises:
      DataError, HubError: for a source that cannot be read.
    """

    def read(key: str) -> Source:
        table = read_table(data, key)
        if key == "train":  # evaluations do not need these columns
            columns = {data.weight: "data.weight", data.teacher: "data.teacher"}
            table.require({column: name for column, name in columns.items() if column})
        return Source(table, read_examples(task_name, table, data, options, labeled=True))

    return Sources(read("train"), read("eval") if data.eval else None)


def tokenize(pipeline: Pipeline, sources: Sources, train: TrainConfig) -> TrainingData:
    """Make the data sets of a run. No weights are read yet, so that bad data fails early.

    Args:
      pipeline: task and tokenizer.
      sources: the tables and their examples.
      train: batch sizes, epochs and seed.

    Raises:
      DataError: for malformed examples, or if there is nothing to learn from.
      ConfigError: for a `data.eval_split` or `data.threshold_split` that does not fit the data.
    """
    task, data, source = pipeline.task, pipeline.data, sources.train
    examples = task.resolve(source.examples)
    checks.log_issues(examples.issues)
    others = None
    if sources.eval is None and data.eval_split:
        examples, others = split_for_evaluation(examples, data.eval_split)
    examples = limited(examples, data.max_examples)
    kept, held_out = split_for_thresholds(
        examples, task, task_name=pipeline.task_name, share=data.threshold_split, seed=train.seed
    )
    training = pipeline.tokenize(
        kept,
        source.table.source,
        batch_size=train.batch_size,
        labeled=True,
        malformed=source.table.malformed + examples.malformed,
        seed=train.seed,
        epochs=train.epochs,
        accumulation_steps=train.microbatches,
        shared=True,
    )
    features = training.batches.features
    if reason := task.nothing_to_learn(features, training.batches.resample):
        raise DataError(f"{source.table.source}: nothing to learn from: {reason}.")
    thresholds = None
    if held_out:
        name = f"{source.table.source}, held out"
        thresholds = pipeline.tokenize(
            held_out, name, batch_size=train.eval_batch_size, labeled=True, shared=True
        )
    malformed = training.malformed + (thresholds.malformed if thresholds else 0)
    counts = {"data/train/malformed": float(malformed)} | features.counts("train")
    evaluated = _evaluated(pipeline, sources, others, train.eval_batch_size)
    if evaluated is not None:
        counts["data/eval/malformed"] = float(evaluated.malformed)
        counts |= evaluated.batches.features.counts("eval")
    _warn_about_data(task, examples, evaluated.examples if evaluated else ())
    return TrainingData(training, thresholds, evaluated, counts)


def _evaluated(
    pipeline: Pipeline, sources: Sources, held_out: Reading[Any] | None, batch_size: int
) -> Dataset | None:
    """Tokenize `data.eval`, or the examples held out for evaluation; None without either."""
    most = pipeline.data.max_examples
    if sources.eval is not None:
        table, examples = sources.eval.table, sources.eval.examples
        return pipeline.tokenize_in_order(
            table, examples, batch_size=batch_size, labeled=True, most=most, shared=True
        )
    if held_out is None:
        return None
    name = f"{sources.train.table.source}, held out for evaluation"
    held_out = limited(held_out, most)
    return pipeline.tokenize(held_out, name, batch_size=batch_size, labeled=True, shared=True)


def _warn_about_data(task: Task, train: Sequence[Any], evaluated: Sequence[Any]) -> None:
    """Log the labels, and warn about suspicious examples; `flaxbert lint` lists all of them."""
    if not multihost.is_lead_host():
        return
    names = task.labels
    if counts := checks.label_counts(train, names):
        shown = shortened([f"{name} {counts[name]}" for name in names])
        shown_labels = ", ".join(shown)
        log.info(
            tr("labels of {n} training examples: {labels}", n=str(len(train)), labels=shown_labels)
        )
    issues = [
        *checks.check_examples([*train, *evaluated]),
        *checks.compare_splits(train, evaluated, names),
    ]
    for line in checks.summarize(issues, "flaxbert lint --config=..."):
        log.warning(line)

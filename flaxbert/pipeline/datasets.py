"""Data sets: from files to examples with their features and batches."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from flaxbert.config import DataConfig
from flaxbert.data import checks, readers
from flaxbert.data.batching import Batches
from flaxbert.data.features import fingerprint_of
from flaxbert.data.shuffle import permutation
from flaxbert.data.table import Reading, Table
from flaxbert.errors import ConfigError
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import HasThresholds, Task


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with their features, batched."""

    examples: Sequence[Any]
    batches: Batches
    labeled: bool
    malformed: int = 0
    """How many lines, records and answers of its source were left out (`data.on_bad_row=skip`)."""

    def origins(self, step: int) -> list[str]:
        """Return the places that the examples of a step were read from, such as train.tsv:17."""
        features = self.batches.features
        sequences = features.feature_start[self.batches.step_features(step)]
        return [self.examples[i].origin for i in features.example_index[sequences]]

    def origin(self, sequence: int) -> str:
        """Return the place that the example of a sequence was read from."""
        origin: str = self.examples[self.batches.features.example_index[sequence]].origin
        return origin

    def fingerprint(self, labels: Sequence[str]) -> str:
        """Return a hash of the model's inputs and of the targets that evaluation uses.

        Args:
          labels: the label names behind the examples' numbers.
        """
        parts = self.batches.features.fingerprint(), fingerprint_of(self.examples, labels)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


SPLITS = {"train": "train", "eval": "validation", "predict": "test"}
"""The split of a hub data set that each key of the data section stands for."""


def read_table(data: DataConfig, key: str) -> Table:
    """Read the source in the key `key` of the data section, one of SPLITS.

    Raises:
      ConfigError: if the key is not set.
      DataError, HubError: if it cannot be read.
    """
    source = getattr(data, key)
    if not source:
        raise ConfigError(f"data.{key} is not set: --config.data.{key}=FILE, or a hub data set")
    table = readers.read(source, data, split=SPLITS[key])
    checks.log_issues(table.issues)
    return table


def read_examples(
    task_name: str, table: Table, data: DataConfig, options: Any = None, *, labeled: bool
) -> Reading[Any]:
    """Read the examples of a table, with labels as the table spells them.

    Args:
      task_name: one of TASKS.
      table: the records.
      data: the column of slices, and how malformed records are treated.
      options: the task's; None for its defaults.
      labeled: whether labels are required.

    Raises:
      ConfigError: for options that do not fit each other.
      DataError: for malformed records.
    """
    options = options or TASKS[task_name].options_type()
    options.check(data)
    return TASKS[task_name].read(table, data, options, labeled=labeled)


def split_for_thresholds(
    examples: Sequence[Any], task: Task, *, task_name: str, share: float, seed: int
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Split training examples into those to train on and those to fit thresholds on.

    Examples made from one document, such as the questions on a paragraph, stay together.

    Args:
      examples: all training examples.
      task: the task whose thresholds are fitted.
      task_name: its name in messages.
      share: share of the documents that is held out (`data.threshold_split`).
      seed: seed of the random split.

    Raises:
      ConfigError: if the task has no thresholds, or nothing would be left to train on.
    """
    if not share:
        return examples, []
    if not isinstance(task, HasThresholds):
        raise ConfigError(
            f"data.threshold_split={share}: the task {task_name!r} has no thresholds to fit"
        )
    keys = list(dict.fromkeys(map(task.group_key, examples)))
    order = permutation(len(keys), seed, 0)
    held_out = {keys[i] for i in order[: max(1, round(share * len(keys)))]}
    kept = [example for example in examples if task.group_key(example) not in held_out]
    if not kept:
        raise ConfigError(f"data.threshold_split={share} leaves nothing to train on")
    return kept, [example for example in examples if task.group_key(example) in held_out]

"""Data sets: from files to examples with their features and batches."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.batching import Batches
from flaxbert.data.features import fingerprint_of
from flaxbert.data.shuffle import permutation
from flaxbert.data.table import Table
from flaxbert.errors import ConfigError
from flaxbert.tasks.base import HasThresholds, Task


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with their features, batched."""

    examples: Sequence[Any]
    batches: Batches
    labeled: bool

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
        """Return a hash of everything that the model is given and that evaluation compares with.

        Args:
          labels: the label names behind the examples' numbers.
        """
        parts = self.batches.features.fingerprint(), fingerprint_of(self.examples, labels)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


SPLITS = {"train": "train", "eval": "validation", "predict": "test"}
"""The split of a hub data set that each key of the data section stands for."""


def read_table(data: DataConfig, key: str) -> Table:
    """Read the source that `key`, one of SPLITS, names.

    Raises:
      ConfigError: if it is not set.
      DataError, HubError: if it cannot be read.
    """
    source = getattr(data, key)
    if not source:
        raise ConfigError(f"data.{key} is not set: --config.data.{key}=FILE, or a hub data set")
    return readers.read(source, data, split=SPLITS[key])


def split_for_thresholds(
    examples: list[Any], task: Task, *, share: float, seed: int
) -> tuple[list[Any], list[Any]]:
    """Split training examples into those to train on and those to fit thresholds on.

    Examples made from one document, such as the questions on a paragraph, stay together.

    Args:
      examples: all training examples.
      task: has the thresholds.
      share: of the documents, for the thresholds (`data.threshold_split`).
      seed: of the random split.

    Raises:
      ConfigError: if the task has no thresholds, or nothing would be left to train on.
    """
    if not share:
        return examples, []
    if not isinstance(task, HasThresholds):
        raise ConfigError(f"data.threshold_split={share}: this task has no thresholds to fit")
    keys = list(dict.fromkeys(map(task.group_key, examples)))
    order = permutation(len(keys), seed, 0)
    held_out = {keys[i] for i in order[: max(1, round(share * len(keys)))]}
    kept = [example for example in examples if task.group_key(example) not in held_out]
    if not kept:
        raise ConfigError(f"data.threshold_split={share} leaves nothing to train on")
    return kept, [example for example in examples if task.group_key(example) in held_out]

"""Data sets: examples with their features and batches."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from flaxbert.config import DataConfig
from flaxbert.data import checks, readers
from flaxbert.data.batching import Batches
from flaxbert.data.features import fingerprint_of
from flaxbert.data.table import Table
from flaxbert.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with their features, batched."""

    examples: Sequence[Any]
    batches: Batches
    labeled: bool

    def origins(self, step: int) -> list[str]:
        """Where the examples of a step come from, such as train.tsv:17."""
        features = self.batches.features
        first = features.first[self.batches.step_features(step)]
        return [self.examples[i].origin for i in features.example[first]]

    def fingerprint(self, labels: Sequence[str]) -> str:
        """A hash of all that the model is given and that evaluation goes by.

        `labels` are the names behind the examples' numbers.
        """
        parts = self.batches.features.fingerprint(), fingerprint_of(self.examples, labels)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


SPLITS = {"train": "train", "eval": "validation", "predict": "test"}
"""The split of a hub data set that each key of the data section stands for."""


def read_table(data: DataConfig, key: str) -> Table:
    """Read the source that `key`, one of SPLITS, names.

    Raises:
      ConfigError: if it is not set.
    """
    spec = getattr(data, key)
    if not spec:
        raise ConfigError(f"data.{key} is not set: --config.data.{key}=FILE, or a hub data set")
    table = readers.read(spec, data, split=SPLITS[key])
    checks.log_issues(table.issues)
    return table

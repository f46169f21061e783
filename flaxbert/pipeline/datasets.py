"""Data sets: from files to examples with their features and batches."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
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
    """Number of lines, records and answers of its source that `data.on_bad_row=skip` left out."""

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

    Without `data.eval` but with `data.eval_split`, the evaluation data are part of `data.train`.

    Raises:
      ConfigError: if the key is not set.
      DataError, HubError: if it cannot be read.
    """
    if key == "eval" and not data.eval and data.eval_split:
        key = "train"
    source = getattr(data, key)
    if not source:
        raise ConfigError(f"data.{key} is not set: --config.data.{key}=FILE, or a hub data set")
    table = readers.read(source, data, split=SPLITS[key])
    checks.log_issues(table.issues)
    return table


def stream_tables(data: DataConfig, key: str, size: int) -> Iterator[Table]:
    """Yield the rows of `read_table` in tables of `size` rows; see `readers.stream`.

    With `data.max_examples`, which chooses from all rows, there is one table.
    """
    source = getattr(data, key)
    if not source or data.max_examples is not None:
        yield read_table(data, key)
        return
    for table in readers.stream(source, data, split=SPLITS[key], size=size):
        checks.log_issues(table.issues)
        yield table


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


def split_for_evaluation(examples: Reading[Any], share: float) -> tuple[Reading[Any], Reading[Any]]:
    """Split examples into those to train on and those to evaluate on.

    Examples with equal texts stay together, whatever their case and white space, and so do
    questions on one context. The groups with the lowest hashes are held out. So the same examples
    are, whatever their order, and few move when rows are added.

    Args:
      examples: all examples, with their labels resolved.
      share: share of the groups that is held out (`data.eval_split`).

    Raises:
      ConfigError: if nothing would be left to train on.
    """
    groups = [_group(example) for example in examples]
    order = sorted(set(groups))
    count = max(1, round(share * len(order)))
    if count >= len(order):
        raise ConfigError(
            f"data.eval_split={share} leaves nothing of {examples.source} to train on: it has "
            f"{len(order)} different texts. Set --config.data.eval=FILE instead."
        )
    held_out = set(order[:count])
    parts: tuple[list[Any], list[Any]] = [], []
    for example, group in zip(examples, groups, strict=True):
        parts[group in held_out].append(example)
    kept, evaluated = map(examples.with_items, parts)
    return kept, dataclasses.replace(evaluated, issues=())  # those of the whole are kept's


def _group(example: Any) -> bytes:
    """Return a hash of an example's context, or else of its texts in any order."""
    texts = [example.shared_context] if example.shared_context else example.texts
    words = (" ".join(text.casefold().split()) for text in texts)
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in words)
    return hashlib.sha256(b"".join(sorted(digests))).digest()


def limited(examples: Reading[Any], count: int | None) -> Reading[Any]:
    """Return at most `count` examples (`data.max_examples`), spread evenly over all of them."""
    if count is None or count >= len(examples):
        return examples
    return examples.with_items([examples[n * len(examples) // count] for n in range(count)])


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

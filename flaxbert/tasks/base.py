"""What a downstream task is: the only interface between tasks and the rest of the library.

A task turns rows into examples, examples into features, a head's outputs into a loss, and outputs
back into metrics and predictions. It never sees a device, a mesh, a step or an optimizer.
"""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from jax import Array

from flaxbert.config import DataConfig
from flaxbert.data.features import Features
from flaxbert.data.table import Table
from flaxbert.data.tokenization import Tokenizer
from flaxbert.models.heads import MakeHead, Outputs
from flaxbert.types import DeviceBatch, Losses, Metrics, Params, Prediction


@dataclasses.dataclass(frozen=True)
class TaskOutputs:
    """A head's outputs on the host, in the order and layout of the `Features` they belong to."""

    slots: dict[str, np.ndarray]
    """[M, ...] one value a sequence."""
    tokens: dict[str, np.ndarray]
    """[sum(lengths), ...] one value a token, all sequences end to end."""


class Example(Protocol):
    """What every task's example has."""

    @property
    def slice(self) -> str | None:
        """Value of the `data.slices` column: this example also counts in `metric/SLICE`."""

    @property
    def origin(self) -> str:
        """Where it comes from, such as train.tsv:17, for messages."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Its texts: examples with equal ones are duplicates, or leak from train to eval."""

    @property
    def target(self) -> Hashable:
        """What is to be predicted; None if unlabeled."""

    @property
    def labels(self) -> tuple[int | str, ...]:
        """Its labels, as names or numbers of the task's; none where answers are no labels."""


class NoLabels:
    """Base of examples whose answers are no labels."""

    @property
    def target(self) -> Hashable:
        """Nothing, where what is to be predicted is made from the texts."""
        return None

    @property
    def labels(self) -> tuple[int | str, ...]:
        """None."""
        return ()


class Task(Protocol):
    """A downstream task. See classification.py for a short one."""

    options_type: ClassVar[type]
    """Dataclass of this task's own configuration, `config.options`."""
    lower_is_better: ClassVar[Sequence[str]]
    """Names of the metrics of which `train.keep_best` keeps the lowest, as it does of all losses.

    These are whole names: a metric `f1_error`, of entities of the type "error", is another one.
    """

    @classmethod
    def create(
        cls, data: DataConfig, options: Any, train: Table | None, hf_config: Mapping[str, Any]
    ) -> Self:
        """Build the task for a data set; `hf_config` is the checkpoint's config.json."""

    def examples(self, table: Table, *, labeled: bool) -> list[Any]:
        """Rows -> examples.

        Args:
          table: rows of one source.
          labeled: whether labels are required; without, they are ignored.

        Raises:
          DataError: naming file, line and mend.
        """

    def featurize(
        self, examples: Sequence[Any], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Examples -> tokenised features; one example may give several."""

    @property
    def make_head(self) -> MakeHead:
        """Builds the output layer."""

    @property
    def loss_names(self) -> Sequence[str]:
        """Names of what `loss` gives, ("loss",) for most tasks. Their means are added."""

    def loss(self, outputs: Outputs, batch: DeviceBatch) -> Losses:
        """For each objective the sum of its losses, and of their weights (both scalars).

        Weights must not depend on `outputs`, and those of empty slots are 0.
        """

    def predict(self, outputs: Outputs, batch: DeviceBatch) -> dict[str, dict[str, Array]]:
        """What evaluation needs: {"slots": {name: [R, K, ...]}, "tokens": {name: [R, T, ...]}}."""

    def decode(
        self, examples: Sequence[Any], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """One record an example, for predictions.jsonl."""

    def score(self, examples: Sequence[Any], records: Sequence[Prediction]) -> Metrics:
        """Metrics of decoded records against the examples' labels."""

    def hf_config(self) -> dict[str, Any]:
        """Fields for the exported config.json, such as label names."""

    def table_row(self, example: Any, record: Prediction) -> dict[str, str]:
        """A prediction as a line of a table, for people: {column: text}."""


@runtime_checkable
class HasThresholds(Protocol):
    """What a task with thresholds has besides: they are fitted on held-out training examples."""

    def group_key(self, example: Any) -> str:
        """What an example was made from; those of one document are held out together."""

    def calibrate(self, examples: Sequence[Any], records: Sequence[Prediction]) -> Task:
        """The task with thresholds fitted to decoded records of held-out examples."""

    @property
    def stored_thresholds(self) -> dict[str, Any]:
        """The thresholds, of JSON's types. `create` finds them in `hf_config["flaxbert"]`."""


@runtime_checkable
class HasUnits(Protocol):
    """What a task has besides whose model computes in other units than those of its labels.

    Checkpoints hold weights as they are trained; exports and pre-trained weights are in the labels'
    units, so that transformers' models give the same numbers.
    """

    @property
    def units(self) -> str:
        """Describe the units of training; "" if they are those of the labels."""

    def to_units(self, params: Params) -> Params:
        """Return weights whose outputs are in the labels' units."""

    def from_units(self, params: Params) -> Params:
        """Return weights whose outputs are in the units of training."""


def score_with_slices(
    task: Task, examples: Sequence[Example], records: Sequence[Prediction]
) -> Metrics:
    """`task.score` over all examples and, as `metric/SLICE`, over each slice of them."""
    metrics = task.score(examples, records)
    for name in sorted({example.slice for example in examples if example.slice is not None}):
        chosen = [i for i, example in enumerate(examples) if example.slice == name]
        part = task.score([examples[i] for i in chosen], [records[i] for i in chosen])
        metrics |= {f"{metric}/{name}": value for metric, value in part.items()}
    return metrics

"""What a downstream task is: the only interface between tasks and the rest of the library.

A task turns rows into examples, examples into features, a head's outputs into a loss, and outputs
back into metrics and predictions. It never sees a device, a mesh, a step or an optimizer.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from flaxbert.config import DataConfig
from flaxbert.data.batching import Resample
from flaxbert.data.features import Features
from flaxbert.data.table import Table
from flaxbert.data.tokenization import Tokenizer
from flaxbert.models.heads import MakeHead, Outputs
from flaxbert.types import Batch, Losses, Metrics, Params, Prediction, TaskOutputs


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


def nothing_to_learn(features: Features, resample: Resample | None) -> str | None:
    """Return why no feature counts in a loss, so that training learns nothing; None if one does.

    Args:
      features: labeled ones.
      resample: see `Batches`.
    """
    start = features.token_indices.get("start")
    if start is not None and (start < 0).all():
        return "no window contains a complete answer; raise data.max_length or data.overlap"
    if "first" in features.per_token and not features.per_token["first"].any():
        return "no word has a visible character"
    if resample is not None:
        sequences = range(len(features.lengths))
        drawn = (resample(features.tokens_of(n), n, 0).get("masked") for n in sequences)
        if not any(masked is None or masked.any() for masked in drawn):
            return "no word can be masked: all tokens are special, or words have too many pieces"
    return None


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

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """For each objective the sum of its losses, and of their weights (both scalars).

        Weights must not depend on `outputs`, and those of empty slots are 0.
        """

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return what predictions are made of: arrays [R, K, ...] and [R, T, ...] by name."""

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

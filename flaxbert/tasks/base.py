"""The interface between a downstream task and the rest of the library.

A task reads records into examples, turns examples into features, a head's outputs into a loss, and
outputs back into metrics and predictions. It does not depend on devices, steps or optimizers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from flaxbert.config import DataConfig
from flaxbert.data.batching import Resample
from flaxbert.data.checks import MALFORMED, Example, Issue
from flaxbert.data.features import Features
from flaxbert.data.table import NoValidRowsError, Reading, Table, shown
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError
from flaxbert.models.heads import MakeHead, Outputs
from flaxbert.types import Batch, Losses, Metrics, Params, Prediction, TaskOutputs


@dataclasses.dataclass
class TaskOptions:
    """The base class of tasks' options, `config.options`."""

    def check(self, data: DataConfig) -> None:
        """Check the options, as far as this is possible without the data.

        Raises:
          ConfigError: naming the key and the valid values.
        """


@dataclasses.dataclass(frozen=True)
class Task:
    """The base class of all downstream tasks; that of tasks on whole texts is in text_task.py.

    A data set is read once. `read` parses the records into examples with labels as the table spells
    them, `create` chooses the label names, for which it may use the training data, and `resolve`
    converts labels to the form that the loss and the metrics need.
    """

    options_type: ClassVar[type] = TaskOptions
    """The dataclass of this task's options, `config.options`."""
    lower_is_better: ClassVar[Sequence[str]] = ()
    """Names of metrics whose lowest value is the best, as it is for all losses.

    Names match as a whole: `error` does not stand for `f1_error`, the F1 of entities of that type.
    """
    problem_type: ClassVar[str | None] = None
    """`problem_type` of config.json, which distinguishes tasks with the same output layer."""
    training_columns: ClassVar[Sequence[str]] = ()
    """Names of the keys `data.weight` and `data.teacher` that the task can use."""
    not_for_loss: ClassVar[Sequence[str]] = ()
    """Names of values per token that `loss` does not read: batches for training leave them out."""
    answer_key: ClassVar[str | None] = None
    """The key of a prediction that holds the answer, such as "label"; None without such a key."""
    same_answer_advice: ClassVar[str] = ""
    """Advice for a model that gives all examples the same answer, besides training longer."""
    head_type: ClassVar[str] = ""
    """Suffix of the Hugging Face class of the head; "" if the task cannot predict for texts."""

    data: DataConfig
    options: Any
    labels: tuple[str, ...] = ()
    """Label names; () for tasks without class labels."""

    @classmethod
    def read(cls, table: Table, data: DataConfig, options: Any, *, labeled: bool) -> Reading[Any]:
        """Read the records of a table into examples, with labels as the table spells them.

        Args:
          table: the records of one source.
          data: the column of slices, and how malformed records are treated (`on_bad_row`).
          options: an instance of `options_type`.
          labeled: whether labels are required; otherwise they are ignored.

        Raises:
          DataError: with file and line, and how to fix it.
        """
        raise NotImplementedError

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: Any,
        train: Reading[Any] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Return the task for a data set.

        Args:
          data: lengths and slices.
          options: an instance of `options_type`.
          train: the result of `read` for the training data; None in evaluation and prediction.
          hf_config: the checkpoint's config.json.

        Raises:
          ConfigError: for options that do not fit each other or the training data.
        """
        options.check(data)
        return cls(data, options, cls.choose_labels(data, options, train, hf_config))

    @classmethod
    def choose_labels(
        cls,
        data: DataConfig,
        options: Any,
        train: Reading[Any] | None,
        hf_config: Mapping[str, Any],
    ) -> tuple[str, ...]:
        """Return the names of the class labels, by default none; see `create`."""
        return ()

    def resolve(self, examples: Reading[Any]) -> Reading[Any]:
        """Convert the labels of labeled examples to the form that `loss` needs.

        Raises:
          DataError: for a label that is none of the task's.
        """
        return examples

    def examples(self, table: Table, *, labeled: bool) -> Reading[Any]:
        """Read a table and resolve its labels, if it has any."""
        examples = self.read(table, self.data, self.options, labeled=labeled)
        return self.resolve(examples) if labeled else examples

    def featurize(
        self, examples: Sequence[Any], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Tokenize examples; one example may become several sequences.

        With data.on_bad_row=skip, examples that are too long are in `Features.dropped`, and the
        other indices of the features count the examples that remain.

        Raises:
          DataError: for an example that is too long and not to be skipped.
        """
        raise NotImplementedError

    @property
    def make_head(self) -> MakeHead:
        """Return the function that builds the output layer."""
        raise NotImplementedError

    @property
    def loss_names(self) -> Sequence[str]:
        """Names of the losses that `loss` returns. Their means are added."""
        return ("loss",)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the weighted sum of each loss.

        Weights must not depend on `outputs`; where a row has no sequence they are 0.
        """
        raise NotImplementedError

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return the outputs for predictions: arrays [R, K, ...] and [R, T, ...] by name."""
        raise NotImplementedError

    def decode(
        self, examples: Sequence[Any], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """Return the prediction for each example, as predictions.jsonl holds it."""
        raise NotImplementedError

    def score(self, examples: Sequence[Any], records: Sequence[Prediction]) -> Metrics:
        """Return the metrics of decoded records against the examples' labels.

        Metrics are computed from records alone, so predictions.jsonl gives the same metrics.
        """
        raise NotImplementedError

    @classmethod
    def fits(cls, hf_config: Mapping[str, Any]) -> bool:
        """Return whether a checkpoint's output layer was trained for this task, by its config."""
        named = (hf_config.get("architectures") or [""])[0]
        if not cls.head_type or not named.endswith(cls.head_type):
            return False
        numeric = len(hf_config.get("id2label") or ()) == 1
        default = "regression" if numeric else "single_label_classification"
        problem_type = hf_config.get("problem_type") or default
        return cls.problem_type is None or cls.problem_type == problem_type

    def record_of(self, item: Any, origin: str) -> dict[str, Any]:
        """Return an input of `Predictor.predict` as a record: {column: value}.

        Raises:
          DataError: for an input of another form.
        """
        if isinstance(item, Mapping):
            return dict(item)
        raise DataError(
            f"{origin}: {shown(item)}; expected a dict with the columns of a data file."
        )

    def answers(
        self,
        examples: Sequence[Any],
        features: Features,
        outputs: TaskOutputs,
        predictions: Sequence[Prediction],
        *,
        top_k: int,
    ) -> list[Prediction]:
        """Return the result of `Predictor.predict`: predictions in a form for programs.

        Args:
          examples: one per prediction.
          features: the features of the examples.
          outputs: the outputs of the model.
          predictions: the predictions decoded from the outputs.
          top_k: the number of alternatives, for tasks that have any.

        Raises:
          ConfigError: if there are no alternatives to return.
        """
        if top_k != 1:
            raise ConfigError(f"top_k={top_k}: only question answering has alternatives.")
        return list(predictions)

    def hf_config(self) -> dict[str, Any]:
        """Return fields for the exported config.json, such as label names."""
        return {}

    def table_row(self, example: Any, record: Prediction) -> dict[str, str]:
        """Return a prediction as a line of a table: {column: text}."""
        raise NotImplementedError

    def resampler(self, tokenizer: Tokenizer) -> Resample | None:
        """Return the function that draws new token arrays in each epoch; None without one.

        See `Resample`. What it draws must be a pure function of (sequence, epoch).
        """
        return None

    def nothing_to_learn(self, features: Features, resample: Resample | None = None) -> str | None:
        """Return why no feature counts in a loss, so that training learns nothing; else None."""
        return None


@runtime_checkable
class HasThresholds(Protocol):
    """A task with thresholds, which are fitted on held-out training examples."""

    def group_key(self, example: Any) -> str:
        """Return the group of an example, such as its document; groups are held out as a whole."""

    def calibrate(self, examples: Sequence[Any], records: Sequence[Prediction]) -> Task:
        """Return the task with thresholds fitted to decoded records of held-out examples."""

    @property
    def stored_thresholds(self) -> dict[str, Any]:
        """The thresholds, of JSON's types. `create` reads them from `hf_config["flaxbert"]`."""


@runtime_checkable
class HasUnits(Protocol):
    """A task whose model computes in other units than those of its labels.

    Checkpoints hold weights as they are trained; exports and pre-trained weights are in the labels'
    units, so that transformers' models give the same numbers.
    """

    @property
    def units(self) -> str:
        """A description of the units of training; "" if they are those of the labels."""

    def to_units(self, params: Params) -> Params:
        """Return weights whose outputs are in the labels' units."""

    def from_units(self, params: Params) -> Params:
        """Return weights whose outputs are in the units of training."""


def refuse_too_long(
    examples: Sequence[Example], too_long: Mapping[int, str], on_bad_row: str
) -> dict[int, str]:
    """Raise for examples that are too long, or return them to be left out.

    Args:
      examples: the examples.
      too_long: {index of an example: what is wrong}.
      on_bad_row: "error" or "skip".

    Returns:
      {index: what is wrong, with the example's place}.

    Raises:
      DataError: if such examples are not to be skipped.
      NoValidRowsError: if all examples are too long.
    """
    dropped = {index: f"{examples[index].origin}: {what}" for index, what in too_long.items()}
    first, *others = dropped.values() or [""]
    message = f"{first} (and {len(others)} more)" if others else first
    if dropped and on_bad_row != "skip":
        raise DataError(message)
    if dropped and len(dropped) == len(examples):
        issues = [Issue(MALFORMED, "", text) for text in dropped.values()]
        raise NoValidRowsError(f"{message} No other rows are left.", issues)
    return dropped


def score_with_slices(
    task: Task, examples: Sequence[Example], records: Sequence[Prediction]
) -> Metrics:
    """Return `task.score` over all examples and, as `metric/SLICE`, over each slice of them."""
    metrics = task.score(examples, records)
    slices: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if example.slice is not None:
            slices.setdefault(example.slice, []).append(number)
    for name, chosen in sorted(slices.items()):
        part = task.score([examples[i] for i in chosen], [records[i] for i in chosen])
        metrics |= {f"{metric}/{name}": value for metric, value in part.items()}
    return metrics

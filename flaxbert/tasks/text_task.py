"""The base class of tasks on whole texts: one dense layer over [CLS], windows share a loss."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jax import Array

from flaxbert.config import DataConfig
from flaxbert.data.batching import Resample
from flaxbert.data.features import Features
from flaxbert.data.table import Reading, Record, Table, shown
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import DataError
from flaxbert.models.heads import MakeHead, Outputs, SequenceClassificationHead
from flaxbert.tasks import texts
from flaxbert.tasks.base import Task
from flaxbert.tasks.label_names import hf_label_maps
from flaxbert.tasks.losses import pool, weighted_sum
from flaxbert.tasks.texts import TextExample, TextOptions
from flaxbert.types import Batch, Losses, Prediction, TaskOutputs


@dataclasses.dataclass(frozen=True)
class TextTask(Task):
    """The base class of tasks on a text or a pair of texts: a pooler and a dense layer over [CLS].

    A minimal task defines `losses`, `activation`, `answer` and `score`. If a text has several
    windows, `losses` and `activation` receive the mean of their logits.
    """

    options_type: ClassVar[type] = TextOptions
    head_type: ClassVar[str] = "ForSequenceClassification"
    training_columns: ClassVar[Sequence[str]] = ("weight",)
    activation_name: ClassVar[str] = "probability"
    """The name of the result of `activation` in `TaskOutputs`."""

    @property
    def output_names(self) -> Sequence[str]:
        """A name for each output of the dense layer (C), by default the labels."""
        return self.labels

    def losses(self, logits: Array, label: Array) -> Array:
        """Return the loss of each text [R, K]: logits [R, K, C], label [R, K, ...]."""
        raise NotImplementedError

    def label_weight(self, label: Array) -> Array | None:
        """Return the weight of each text [R, K] by its label; None if all weigh the same."""
        return None

    def activation(self, logits: Array) -> Array:
        """Return the outputs for predictions [R, K, ...]: logits [R, K, C]."""
        raise NotImplementedError

    def answer(self, output: np.ndarray) -> Prediction:
        """Return the prediction for one text, without the text, from its `activation`."""
        raise NotImplementedError

    @classmethod
    def read_label(cls, record: Record, options: Any) -> Any:
        """Return the label of a record; by default the unchanged value of its column.

        Raises:
          DataError: for a label that is malformed.
        """
        return record.values.get(options.label)

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: Any, *, labeled: bool
    ) -> Reading[TextExample]:
        """Read texts and labels."""
        options.check(data)
        label = (lambda record: cls.read_label(record, options)) if labeled else None
        return texts.read(table, options, data, label)

    def record_of(self, item: Any, origin: str) -> dict[str, Any]:
        """Return a text, or a pair of texts, as a record."""
        options = self.options
        if isinstance(item, str) and options.pair is None:
            return {options.text: item}
        pair = isinstance(item, list | tuple) and [type(text) for text in item] == [str, str]
        if pair and options.pair is not None:
            return {options.text: item[0], options.pair: item[1]}
        if isinstance(item, Mapping):
            return dict(item)
        form = "a text" if options.pair is None else "(first text, second text)"
        raise DataError(f"{origin}: {shown(item)}; expected {form}, or a dict with the columns.")

    def featurize(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Return a sequence for each text or pair, or its windows (`options.long_texts`)."""
        return texts.featurize(examples, tokenizer, self.options, self.data, labeled=labeled)

    @property
    def make_head(self) -> MakeHead:
        """Return the function that builds the pooler and the dense layer."""
        count = len(self.output_names)
        return lambda config, rngs: SequenceClassificationHead(config, count, rngs)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the weighted sum of `losses`, against the teacher's probabilities if given."""
        target = batch.extra.get("teacher", batch.label)
        losses = self.losses(pool(outputs["logits"], batch), target)
        by_label = self.label_weight(batch.label)
        weight = batch.weight if by_label is None else batch.weight * by_label
        if "example_weight" in batch.extra:
            weight = weight * batch.extra["example_weight"]
        return {"loss": weighted_sum(losses, weight)}

    def nothing_to_learn(self, features: Features, resample: Resample | None = None) -> str | None:
        """Return the reason if all examples have the weight 0."""
        weights = features.per_sequence.get("example_weight")
        return None if weights is None or weights.any() else "all examples have the weight 0"

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return the `activation` of each sequence."""
        values = self.activation(pool(outputs["logits"], batch))
        return TaskOutputs(per_sequence={self.activation_name: values})

    def decode(
        self, examples: Sequence[TextExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """Return each text with its `answer`; all windows of a text have the same output."""
        values = features.per_feature(predictions.per_sequence[self.activation_name])
        pairs = zip(examples, values, strict=True)
        return [{**example.record(), **self.answer(value)} for example, value in pairs]

    def hf_config(self) -> dict[str, Any]:
        """Return label maps and problem type, as the pipelines of transformers read them."""
        return {**hf_label_maps(self.output_names), "problem_type": self.problem_type}

    def table_row(self, example: TextExample, record: Prediction) -> dict[str, str]:
        """Return the text, its label and the answer."""
        label = "" if example.label is None else str(example.label)
        answer = str(record[self.answer_key]) if self.answer_key else ""
        return {**example.record(), "label": label, "predicted": answer}

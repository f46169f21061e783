"""Classification of a text or a pair of texts: sentiment, spam, entailment and the like.

BERT paper, section 4.1: the final hidden state of [CLS] goes through the pooler and one dense
layer; the loss is cross-entropy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data.table import Reading, Table
from flaxbert.errors import ConfigError, DataError, shortened
from flaxbert.metrics import classification as metrics
from flaxbert.tasks import label_names as names
from flaxbert.tasks import texts
from flaxbert.tasks.classes import ClassTask, OneClassOptions
from flaxbert.tasks.text_task import TextTask
from flaxbert.tasks.texts import TextExample
from flaxbert.types import Metrics, Prediction


@dataclasses.dataclass
class ClassificationOptions(OneClassOptions, texts.TextOptions):
    """Columns and labels."""

    label: str = option("label", "column of the label, a name or an integer", column=True)
    labels: tuple[str, ...] = option(
        (), "label names in order (default: those in the training data)"
    )
    positive: str | None = option(
        None, "if there are two labels, the one whose F1 is `f1` (default: the second)"
    )


@dataclasses.dataclass(frozen=True)
class Classification(ClassTask, TextTask):
    """Single-label classification with cross-entropy."""

    options_type: ClassVar[type] = ClassificationOptions
    problem_type: ClassVar[str | None] = "single_label_classification"
    training_columns: ClassVar[Sequence[str]] = ("weight", "teacher")
    answer_key: ClassVar[str | None] = "label"
    same_answer_advice: ClassVar[str] = "for rare labels, set options.balanced_class_weights=true"

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: ClassificationOptions, *, labeled: bool
    ) -> Reading[TextExample]:
        """Read texts and labels."""
        if labeled:
            names.refuse_flag_columns(table, options.label, "--config.task=multi_label ")
        return super().read(table, data, options, labeled=labeled)

    @classmethod
    def choose_labels(
        cls,
        data: DataConfig,
        options: ClassificationOptions,
        train: Reading[TextExample] | None,
        hf_config: Mapping[str, Any],
    ) -> names.Labels:
        """Return the labels of the options, the data set, the checkpoint or the training data."""
        if train is None:
            return names.resolve(options.labels, None, None, hf_config)
        known = train.label_names.get(options.label)
        seen = set[str]()
        if not options.labels and known is None:
            stored = names.checkpoint_labels(hf_config)
            given = [names.single(example.label, stored) for example in train]
            if data.on_bad_row == "skip":  # `resolve` leaves out rows with other values
                given = [label for label in given if isinstance(label, str | int)]
            # NaN, which a Parquet file may hold for a null, differs from itself.
            seen = {str(label) for label in given if label not in (None, "") and label == label}
        return names.resolve(options.labels, known, seen, hf_config)

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: ClassificationOptions,
        train: Reading[TextExample] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Choose labels and class weights, and check `options.positive`."""
        task = super().create(data, options, train, hf_config)
        labels, positive = task.labels, options.positive
        if positive is not None and positive not in labels:
            raise ConfigError(f"options.positive={positive!r}: expected one of {', '.join(labels)}")
        if positive is not None and len(labels) != 2:
            raise ConfigError("options.positive is for two labels; with more there is f1_macro")
        return task

    def label_counts(self, train: Reading[TextExample]) -> np.ndarray:
        """Return the number of texts with each label."""
        given = [example.label for example in self._indexed(train)]
        return np.bincount(given, minlength=len(self.labels))

    def resolve(self, examples: Reading[TextExample]) -> Reading[TextExample]:
        """Turn labels into their indices."""
        resolved = self._indexed(examples)
        known = examples.label_names.get(self.options.label)
        given = (example.label for example in examples)
        names.log_integer_labels(given, self.labels, known, examples.source)
        return resolved

    def _indexed(self, examples: Reading[TextExample]) -> Reading[TextExample]:
        known = examples.label_names.get(self.options.label)
        given = (example.label for example in examples)
        names.refuse_counted_from_one(given, self.labels, known, examples.source)
        return examples.map(lambda one: self._with_index(one, known), self.data.on_bad_row)

    def _with_index(self, example: TextExample, known: Sequence[str] | None) -> TextExample:
        if example.teacher is not None and len(example.teacher) != len(self.labels):
            raise DataError(
                f"{example.origin}: {self.data.teacher} has {len(example.teacher)} probabilities, "
                f"but there are {len(self.labels)} labels: {', '.join(shortened(self.labels))}."
            )
        place = names.to_index(example.label, self.labels, known, example.origin)
        return example.with_label(place)

    def activation(self, logits: Array) -> Array:
        """Return class probabilities [R, K, C]."""
        return jax.nn.softmax(logits)

    def answer(self, output: np.ndarray) -> Prediction:
        """Return the most probable label, and every label's probability."""
        probability = {name: float(p) for name, p in zip(self.labels, output, strict=True)}
        return {"label": self.labels[int(np.argmax(output))], "probability": probability}

    def score(self, examples: Sequence[TextExample], records: Sequence[Prediction]) -> Metrics:
        """Return accuracy with its 95 % interval, macro F1, Matthews; with two labels also `f1`."""
        gold = np.array([example.label for example in examples], int)
        predicted = np.array([self.labels.index(record["label"]) for record in records], int)
        matrix = metrics.confusion(gold, predicted, len(self.labels))
        result = {
            **metrics.accuracy_with_interval(float(np.trace(matrix)), len(examples)),
            "f1_macro": metrics.f1_macro(matrix),
            "matthews": metrics.matthews(matrix),
        }
        if len(self.labels) == 2:
            positive = self.options.positive or self.labels[1]
            result["f1"] = metrics.f1(matrix, self.labels.index(positive))
        return result

    def table_row(self, example: TextExample, record: Prediction) -> dict[str, str]:
        """Return the text, its label, and the predicted label with its probability."""
        return {
            "text": example.text,
            "label": "" if example.label is None else self.labels[example.label],
            "predicted": record["label"],
            "probability": f"{max(record['probability'].values()):.2f}",
        }

"""Classification of a text or a pair of texts: sentiment, spam, entailment and the like.

BERT paper, section 4.1: the final hidden state of [CLS] goes through the pooler and one dense
layer; the loss is cross-entropy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from flaxbert.config import DataConfig, option
from flaxbert.data.features import Features
from flaxbert.data.table import Reading, Table
from flaxbert.errors import ConfigError
from flaxbert.metrics import classification as metrics
from flaxbert.models.heads import Outputs
from flaxbert.tasks import label_names as names
from flaxbert.tasks import texts
from flaxbert.tasks.losses import cross_entropy, pool, weighted_sum
from flaxbert.tasks.texts import TextExample, TextTask
from flaxbert.types import Batch, Losses, Metrics, Prediction, TaskOutputs


@dataclasses.dataclass
class ClassificationOptions(texts.TextOptions):
    """Columns and labels."""

    label: str = option("label", "column of the label: a name, or an integer", column=True)
    labels: tuple[str, ...] = option((), "label names in order (default: from the training data)")
    positive: str | None = option(None, "of two labels, the one that `f1` is of (default: the 2nd)")
    class_weights: tuple[float, ...] = option(
        (), "weight of each label's examples in the loss, in the labels' order"
    )
    balanced_class_weights: bool = option(
        False, "class weights inverse to the labels' training frequencies"
    )


@dataclasses.dataclass(frozen=True)
class Classification(TextTask):
    """Single-label classification with cross-entropy."""

    options_type: ClassVar[type] = ClassificationOptions
    problem_type: ClassVar[str | None] = "single_label_classification"
    answer_key: ClassVar[str | None] = "label"

    class_weights: tuple[float, ...] = ()

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: ClassificationOptions, *, labeled: bool
    ) -> Reading[TextExample]:
        """Read texts and labels."""
        if labeled:
            names.refuse_flag_columns(table, options.label, "--config.task=multi_label ")
        return super().read(table, data, options, labeled=labeled)

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: ClassificationOptions,
        train: Reading[TextExample] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Choose labels and class weights."""
        options.check(data)
        seen: set[str] | None = None if train is None else set()
        known = None if train is None else train.label_names.get(options.label)
        if train is not None and not options.labels and known is None:
            stored = names.checkpoint_labels(hf_config)
            given = [names.single(example.label, stored) for example in train]
            if data.on_bad_row == "skip":  # rows whose labels `resolve` refuses name no class
                given = [label for label in given if isinstance(label, str | int)]
            # NaN, which a Parquet file may hold for a null, differs from itself.
            seen = {str(label) for label in given if label not in (None, "") and label == label}
        labels = names.resolve(options.labels, known, seen, hf_config)
        if options.positive is not None and options.positive not in labels:
            raise ConfigError(f"options.positive={options.positive!r}: one of {', '.join(labels)}")
        if options.positive is not None and len(labels) != 2:
            raise ConfigError("options.positive is for two labels; with more there is f1_macro")
        weights = tuple(options.class_weights)
        if weights and (len(weights) != len(labels) or min(weights) < 0 or not any(weights)):
            raise ConfigError(
                f"options.class_weights={weights!r}: a number from 0 for each of {list(labels)}"
            )
        if weights and options.balanced_class_weights:
            raise ConfigError(
                "options.class_weights and options.balanced_class_weights: one or the other"
            )
        task = cls(data, options, labels, weights)
        if not options.balanced_class_weights:
            return task
        if train is None:
            stored_weights = hf_config.get("flaxbert", {}).get("class_weights", ())
            return dataclasses.replace(task, class_weights=tuple(stored_weights))
        given = [example.label for example in task._indexed(train)]
        counts = np.bincount(given, minlength=len(labels))
        # scikit-learn's "balanced": examples / (classes * examples of the class).
        balanced = counts.sum() / (len(labels) * np.maximum(counts, 1))
        return dataclasses.replace(task, class_weights=tuple(balanced.tolist()))

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
        return examples.map(
            lambda example: example.with_label(
                names.to_index(example.label, self.labels, known, example.origin)
            ),
            self.data.on_bad_row,
        )

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Cross-entropy: logits [R, K, C] against label [R, K]; a class weight counts as copies."""
        losses = cross_entropy(pool(outputs["logits"], batch), batch.label)
        weight = batch.weight
        if self.class_weights:
            weight *= jnp.asarray(self.class_weights, jnp.float32)[batch.label]
        return {"loss": weighted_sum(losses, weight)}

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Class probabilities [R, K, C]."""
        probability = jax.nn.softmax(pool(outputs["logits"], batch))
        return TaskOutputs(per_sequence={"probability": probability})

    def decode(
        self, examples: Sequence[TextExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """The most probable label, and every label's probability."""
        probabilities = features.per_feature(predictions.per_sequence["probability"])
        return [
            {
                **example.record(),
                "label": self.labels[int(np.argmax(row))],
                "probability": {name: float(p) for name, p in zip(self.labels, row, strict=True)},
            }
            for example, row in zip(examples, probabilities, strict=True)
        ]

    def score(self, examples: Sequence[TextExample], records: Sequence[Prediction]) -> Metrics:
        """Accuracy with its 95 % interval, macro F1, Matthews; with two labels `f1` too."""
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

    def hf_config(self) -> dict[str, Any]:
        """Label maps, as transformers' pipelines read them."""
        own = (
            {"class_weights": list(self.class_weights)}
            if self.options.balanced_class_weights
            else {}
        )
        return {
            **names.hf_label_maps(self.labels),
            "problem_type": "single_label_classification",
            **({"flaxbert": own} if own else {}),
        }

    def table_row(self, example: TextExample, record: Prediction) -> dict[str, str]:
        """A line of the table of predictions."""
        gold = "" if example.label is None else self.labels[example.label]
        sure = max(record["probability"].values())
        return {
            "text": example.text,
            "label": gold,
            "predicted": record["label"],
            "probability": f"{sure:.2f}",
        }

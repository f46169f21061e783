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
from flaxbert.data.table import Table
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError
from flaxbert.metrics import classification as metrics
from flaxbert.models.heads import MakeHead, Outputs, SequenceClassificationHead
from flaxbert.tasks import label_names as names
from flaxbert.tasks import texts
from flaxbert.tasks.losses import cross_entropy, pool, weighted_sum
from flaxbert.tasks.texts import TextExample
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
class Classification:
    """Single-label classification with cross-entropy."""

    options_type: ClassVar[type] = ClassificationOptions
    loss_names: ClassVar[Sequence[str]] = ("loss",)
    lower_is_better: ClassVar[Sequence[str]] = ()

    data: DataConfig
    options: ClassificationOptions
    labels: tuple[str, ...]
    class_weights: tuple[float, ...] = ()

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: ClassificationOptions,
        train: Table | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Choose labels and class weights."""
        options.check(data)
        column = options.label
        seen: set[str] | None = None if train is None else set()
        known = None if train is None else train.label_names.get(column)
        if train is not None and not options.labels and known is None:
            names.refuse_flag_columns(train, column, "--config.task=multi_label ")
            texts.require(train, options, data, labeled=True)
            own = names.checkpoint_labels(hf_config)
            given = [names.single(row.values.get(column), own) for row in train.rows]
            if data.on_bad_row == "skip":  # rows whose labels `index` refuses name no class
                given = [each for each in given if isinstance(each, str | int)]
            # NaN, which a Parquet file may hold for a null, differs from itself.
            seen = {str(each) for each in given if each not in (None, "") and each == each}
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
        if options.balanced_class_weights and train is not None:
            texts.require(train, options, data, labeled=True)
            values = [row.values.get(column) for row in train.rows]
            names.check_integers(values, labels, known, train.source)
            indices = train.read(
                lambda row: names.to_index(row.values.get(column), labels, known, row.origin),
                data.on_bad_row,
            )
            counts = np.bincount(indices, minlength=len(labels))
            # scikit-learn's "balanced": examples / (classes * examples of the class).
            weights = tuple((counts.sum() / (len(labels) * np.maximum(counts, 1))).tolist())
        elif options.balanced_class_weights:
            weights = tuple(hf_config.get("flaxbert", {}).get("class_weights", ()))
        return cls(data, options, labels, weights)

    def examples(self, table: Table, *, labeled: bool) -> list[TextExample]:
        """Rows -> examples; a label becomes its index."""
        column = self.options.label
        known = table.label_names.get(column)
        if labeled:
            values = [row.values.get(column) for row in table.rows]
            names.refuse_flag_columns(table, column, "--config.task=multi_label ")
            names.check_integers(values, self.labels, known, table.source)
        return texts.read(
            table,
            self.options,
            self.data,
            (lambda row: names.to_index(row.values.get(column), self.labels, known, row.origin))
            if labeled
            else None,
        )

    def featurize(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """A text or pair, or with `options.long_texts=windows` the windows of one, is a feature."""
        return texts.featurize(examples, tokenizer, self.options, self.data, labeled=labeled)

    @property
    def make_head(self) -> MakeHead:
        """Pooler and classifier."""
        count = len(self.labels)
        return lambda config, rngs: SequenceClassificationHead(config, count, rngs)

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

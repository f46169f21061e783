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
from flaxbert.data.features import Features
from flaxbert.data.sources import Row, Table
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError
from flaxbert.losses import cross_entropy, weighted_sum
from flaxbert.metrics import classification as metrics
from flaxbert.models.heads import MakeHead, Outputs, SequenceClassificationHead
from flaxbert.tasks.base import DeviceBatch, Metrics, Predictions, Record


@dataclasses.dataclass
class Options:
    """Columns and labels."""

    text: str = option("text", "column of the text")
    pair: str | None = option(None, "column of the second text, for sentence pairs")
    label: str = option("label", "column of the label: a name, or an integer")
    labels: tuple[str, ...] = option((), "label names in order (default: from the training data)")
    positive: str | None = option(None, "of two labels, the one that `f1` is of (default: the 2nd)")


@dataclasses.dataclass(frozen=True)
class Example:
    """One text or pair; `label` indexes the task's labels."""

    text: str
    pair: str | None
    label: int | None
    slice: str | None
    origin: str


@dataclasses.dataclass(frozen=True)
class Classification:
    """Single-label classification with cross-entropy."""

    options_type: ClassVar[type] = Options

    data: DataConfig
    options: Options
    labels: tuple[str, ...]

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: Options,
        train: Table | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Label names come from the options, the data set, the checkpoint, or the training rows.

        The checkpoint's own names (and so their order) win over the rows' where they cover them.
        """
        own = _checkpoint_labels(hf_config)
        if options.labels:
            labels = options.labels
        elif train is None:
            labels = own
        elif options.label in train.label_names:
            labels = tuple(train.label_names[options.label])
        else:
            train.require({options.label: "options.label"})
            given = [row.values.get(options.label) for row in train.rows]
            seen = {str(label) for label in given if label not in (None, "")}
            digits = all(name.isdigit() for name in seen)
            labels = own if seen <= set(own) else tuple(sorted(seen, key=int if digits else None))
        if len(labels) < 2:
            raise ConfigError(
                f"classification needs two labels or more; found {list(labels)}. Give them with "
                "--config.options.labels, or training data that has them."
            )
        if len(set(labels)) != len(labels):
            raise ConfigError(f"options.labels={labels!r}: a name occurs twice")
        if options.positive is not None and options.positive not in labels:
            raise ConfigError(f"options.positive={options.positive!r}: one of {', '.join(labels)}")
        return cls(data, options, labels)

    def examples(self, table: Table, *, labelled: bool) -> list[Example]:
        """Rows -> examples."""
        columns = {self.options.text: "options.text"}
        if self.options.pair is not None:
            columns[self.options.pair] = "options.pair"
        if labelled:
            columns[self.options.label] = "options.label"
            if self.data.slices:
                columns[self.data.slices] = "data.slices"
        table.require(columns)
        names = table.label_names.get(self.options.label)
        return [self._example(row, labelled, names) for row in table.rows]

    def _example(self, row: Row, labelled: bool, names: Sequence[str] | None) -> Example:
        options, value = self.options, row.values.get(self.options.label)
        return Example(
            text=row.text(options.text),
            pair=None if options.pair is None else row.text(options.pair),
            label=self._label(value, row.origin, names) if labelled else None,
            slice=row.slice(self.data.slices) if labelled else None,
            origin=row.origin,
        )

    def _label(self, value: Any, origin: str, names: Sequence[str] | None) -> int:
        """Index of a label: a name or an integer.

        An integer is an index into `names`, the data set's own, if it has them (their order need
        not be ours); else into the task's labels.
        """
        integer = isinstance(value, int) and not isinstance(value, bool)
        if integer and names is not None and 0 <= value < len(names):
            value, integer = names[value], False
        if str(value) in self.labels:
            return self.labels.index(str(value))
        integer = integer or (isinstance(value, str) and value.isdecimal())
        if integer and 0 <= int(value) < len(self.labels):
            return int(value)
        raise DataError(
            f"{origin}: label {value!r} is none of {list(self.labels)}. Mend the row, or list all "
            "labels with --config.options.labels."
        )

    def featurize(
        self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool
    ) -> Features:
        """[CLS] text [SEP], or [CLS] text [SEP] pair [SEP]; the longer one is cut to fit."""
        encoded = tokenizer(
            [example.text for example in examples],
            None if self.options.pair is None else [example.pair for example in examples],
            truncation="longest_first",
            max_length=self.data.max_length,
            return_token_type_ids=True,
        )
        labels = [example.label for example in examples if example.label is not None]
        return Features.build(
            {name: encoded[name] for name in ("input_ids", "token_type_ids")},
            slots={"label": labels} if labelled else {},
            truncated=sum(bool(encoding.overflowing) for encoding in encoded.encodings),
        )

    @property
    def make_head(self) -> MakeHead:
        """Pooler and classifier."""
        count = len(self.labels)
        return lambda config, rngs: SequenceClassificationHead(config, count, rngs)

    def loss(self, outputs: Outputs, batch: DeviceBatch) -> tuple[Array, Array]:
        """Cross-entropy: logits [R, K, C] against label [R, K]."""
        return weighted_sum(cross_entropy(outputs["logits"], batch["label"]), batch["weight"])

    def predict(self, outputs: Outputs, batch: DeviceBatch) -> dict[str, dict[str, Array]]:
        """Class probabilities [R, K, C]."""
        return {"slots": {"probability": jax.nn.softmax(outputs["logits"])}, "tokens": {}}

    def decode(
        self, examples: Sequence[Example], features: Features, predictions: Predictions
    ) -> list[Record]:
        """The most probable label, and every label's probability."""
        probabilities = predictions.slots["probability"]
        return [
            {
                "text": example.text,
                **({} if example.pair is None else {"pair": example.pair}),
                "label": self.labels[int(np.argmax(row))],
                "probability": {name: float(p) for name, p in zip(self.labels, row, strict=True)},
            }
            for example, row in zip(examples, probabilities, strict=True)
        ]

    def score(self, examples: Sequence[Example], records: Sequence[Record]) -> Metrics:
        """Accuracy with its 95 % interval, macro F1, Matthews; with two labels `f1` too."""
        gold = np.array([example.label for example in examples], int)
        predicted = np.array([self.labels.index(record["label"]) for record in records], int)
        matrix = metrics.confusion(gold, predicted, len(self.labels))
        low, high = metrics.wilson(float(np.trace(matrix)), len(examples))
        result = {
            "accuracy": metrics.accuracy(matrix),
            "accuracy_low95": low,
            "accuracy_high95": high,
            "f1_macro": metrics.f1_macro(matrix),
            "matthews": metrics.matthews(matrix),
        }
        if len(self.labels) == 2:
            positive = self.options.positive or self.labels[1]
            result["f1"] = metrics.f1(matrix, self.labels.index(positive))
        return result

    def hf_config(self) -> dict[str, Any]:
        """Label maps, as transformers' pipelines read them."""
        return {
            "id2label": {str(i): name for i, name in enumerate(self.labels)},
            "label2id": {name: i for i, name in enumerate(self.labels)},
            "problem_type": "single_label_classification",
        }

    def show(self, example: Example, record: Record) -> dict[str, str]:
        """A line of the table of predictions."""
        gold = "" if example.label is None else self.labels[example.label]
        sure = max(record["probability"].values())
        return {
            "text": example.text,
            "label": gold,
            "predicted": record["label"],
            "probability": f"{sure:.2f}",
        }


def _checkpoint_labels(hf_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Label names that somebody gave; not transformers' placeholders LABEL_0, LABEL_1, ..."""
    names = hf_config.get("id2label") or {}
    ordered = tuple(str(names[key]) for key in sorted(names, key=int))
    return () if any(name.startswith("LABEL_") for name in ordered) else ordered

"""Regression: a number for a text or a pair of texts, such as the similarity of STS-B.

As in the GLUE runs of the BERT paper: pooler and a dense layer of width one; the loss is the
squared error.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data.features import Features
from flaxbert.data.table import Row, Table, shown
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import DataError
from flaxbert.losses import pool, weighted_sum
from flaxbert.metrics import regression as metrics
from flaxbert.models.heads import MakeHead, Outputs, SequenceClassificationHead
from flaxbert.tasks import texts
from flaxbert.tasks.base import DeviceBatch, Losses, Metrics, Predictions, Record
from flaxbert.tasks.texts import TextExample


@dataclasses.dataclass
class Options(texts.TextOptions):
    """Columns."""

    label: str = option("label", "column of the number", column=True)


@dataclasses.dataclass(frozen=True)
class Regression:
    """One number a text or pair, by least squares."""

    options_type: ClassVar[type] = Options
    objectives: ClassVar[Sequence[str]] = ("loss",)
    lower_is_better: ClassVar[Sequence[str]] = ("squared_error",)

    data: DataConfig
    options: Options

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: Options,
        train: Table | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Check the options."""
        options.check(data)
        return cls(data, options)

    def examples(self, table: Table, *, labelled: bool) -> list[TextExample]:
        """Rows -> examples."""
        return texts.read(table, self.options, self.data, self._number if labelled else None)

    def _number(self, row: Row) -> float:
        value = row.values.get(self.options.label)
        try:
            number = math.nan if isinstance(value, bool) or value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= np.finfo(np.float32).max:
            raise DataError(
                f"{row.origin}: {self.options.label} is {shown(value)}; expected a number."
            )
        return number

    def featurize(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, *, labelled: bool
    ) -> Features:
        """A text or pair, or with `options.long=windows` the windows of one, is a feature."""
        return texts.featurize(examples, tokenizer, self.options, self.data, labelled=labelled)

    @property
    def make_head(self) -> MakeHead:
        """Pooler and a dense layer of width one."""
        return lambda config, rngs: SequenceClassificationHead(config, 1, rngs)

    def loss(self, outputs: Outputs, batch: DeviceBatch) -> Losses:
        """Squared error: logits [R, K, 1] against label [R, K]."""
        error = pool(outputs["logits"], batch)[..., 0] - batch["label"]
        return {"loss": weighted_sum(jnp.square(error), batch["weight"])}

    def predict(self, outputs: Outputs, batch: DeviceBatch) -> dict[str, dict[str, Array]]:
        """The number, [R, K]."""
        return {"slots": {"value": pool(outputs["logits"], batch)[..., 0]}, "tokens": {}}

    def decode(
        self, examples: Sequence[TextExample], features: Features, predictions: Predictions
    ) -> list[Record]:
        """The number."""
        values = features.per_feature(predictions.slots["value"])
        pairs = zip(examples, values, strict=True)
        return [{**example.record(), "value": float(value)} for example, value in pairs]

    def score(self, examples: Sequence[TextExample], records: Sequence[Record]) -> Metrics:
        """Pearson and Spearman correlation, and the mean squared error."""
        return metrics.score(
            [record["value"] for record in records], [example.label for example in examples]
        )

    def hf_config(self) -> dict[str, Any]:
        """As transformers marks a regression."""
        return {"id2label": {"0": "LABEL_0"}, "problem_type": "regression"}

    def show(self, example: TextExample, record: Record) -> dict[str, str]:
        """A line of the table of predictions."""
        gold = "" if example.label is None else f"{example.label:g}"
        return {**example.record(), "label": gold, "predicted": f"{record['value']:.2f}"}

"""Regression: a number for a text or a pair of texts, such as the similarity of STS-B.

As in the GLUE runs of the BERT paper: pooler and a dense layer of width one; the loss is the
squared error.
"""

import dataclasses
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data.table import Reading, Record, shown
from flaxbert.errors import DataError
from flaxbert.metrics import regression as metrics
from flaxbert.tasks import texts
from flaxbert.tasks.text_task import TextTask
from flaxbert.tasks.texts import TextExample
from flaxbert.types import Metrics, Params, Prediction

log = logging.getLogger("flaxbert")

FAR, NARROW, WIDE = 10.0, 0.1, 10.0
"""Largest mean, and smallest and largest standard deviation, of numbers that are learned without
standardization, such as the 0 to 5 of STS-B. A new output layer begins near 0, and its bias moves
by about the learning rate in each step: it would not reach other numbers."""


@dataclasses.dataclass
class RegressionOptions(texts.TextOptions):
    """Columns."""

    label: str = option("label", "column of the number", column=True)


@dataclasses.dataclass(frozen=True)
class Regression(TextTask):
    """Regression by least squares: one number for each text or pair."""

    options_type: ClassVar[type] = RegressionOptions
    lower_is_better: ClassVar[Sequence[str]] = ("squared_error",)
    problem_type: ClassVar[str | None] = "regression"
    activation_name: ClassVar[str] = "value"

    mean: float = 0.0
    scale: float = 1.0
    """The model's outputs, times `scale` plus `mean`, are the numbers to predict."""

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: RegressionOptions,
        train: Reading[TextExample] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Check the options; numbers that a new output layer cannot reach are standardized."""
        options.check(data)
        if train is None:
            stored = hf_config.get("flaxbert", {})
            mean, scale = stored.get("mean", 0.0), stored.get("scale", 1.0)
            return cls(data, options, mean=mean, scale=scale)
        numbers = np.array([example.label for example in train])
        mean, scale = float(numbers.mean()), float(numbers.std())
        if (abs(mean) <= FAR and NARROW <= scale <= WIDE) or not 0 < scale < math.inf:
            return cls(data, options)
        log.info(
            f"{train.source}: numbers from {numbers.min():g} to {numbers.max():g} are standardized "
            f"for training (mean {mean:.6g}, standard deviation {scale:.6g}), as is the loss; "
            "predictions and the export are in their own units"
        )
        return cls(data, options, mean=mean, scale=scale)

    @classmethod
    def read_label(cls, record: Record, options: RegressionOptions) -> float:
        """Return the number of a record.

        Raises:
          DataError: for anything else.
        """
        value = record.values.get(options.label)
        number = texts.as_number(value)
        if not abs(number) <= np.finfo(np.float32).max:
            comma = isinstance(value, str) and re.fullmatch(r"\s*[-+]?[\d.]*,[\d.,]+\s*", value)
            advice = "Write it without a comma between thousands, and with a point before decimals."
            message = f"{record.origin}: {options.label} is {shown(value)}; expected a number."
            raise DataError(f"{message} {advice}" if comma else message)
        return number

    @property
    def output_names(self) -> Sequence[str]:
        """One output, by the name that transformers gives it."""
        return ("LABEL_0",)

    def losses(self, logits: Array, label: Array) -> Array:
        """Return the squared error of the standardized numbers."""
        return jnp.square(logits[..., 0] - (label - self.mean) / self.scale)

    def activation(self, logits: Array) -> Array:
        """Return the number, [R, K]."""
        return logits[..., 0] * self.scale + self.mean

    def answer(self, output: np.ndarray) -> Prediction:
        """Return the number."""
        return {"value": float(output)}

    def score(self, examples: Sequence[TextExample], records: Sequence[Prediction]) -> Metrics:
        """Return Pearson and Spearman correlation, and the mean squared error."""
        return metrics.score(
            [record["value"] for record in records], [example.label for example in examples]
        )

    def hf_config(self) -> dict[str, Any]:
        """Return the fields by which transformers recognizes a regression, and our scale."""
        fields = {"id2label": {"0": "LABEL_0"}, "problem_type": self.problem_type}
        scale = {"flaxbert": {"mean": self.mean, "scale": self.scale}}
        return fields | (scale if self.units else {})

    @property
    def units(self) -> str:
        """Describe how numbers are standardized; "" if they are not."""
        standard = (self.mean, self.scale) == (0.0, 1.0)
        return "" if standard else f"(label - {self.mean:.6g}) / {self.scale:.6g}"

    def to_units(self, params: Params) -> Params:
        """Scale the output layer to the units of the labels."""
        return rescaled(params, self.scale, self.mean)

    def from_units(self, params: Params) -> Params:
        """Scale the output layer to the units of training."""
        return rescaled(params, 1 / self.scale, -self.mean / self.scale)

    def table_row(self, example: TextExample, record: Prediction) -> dict[str, str]:
        """Return the text, its number, and the predicted one."""
        gold = "" if example.label is None else f"{example.label:g}"
        return {**example.record(), "label": gold, "predicted": f"{record['value']:.2f}"}


def rescaled(params: Params, scale: float, mean: float) -> Params:
    """Return weights whose outputs are `scale` times those of `params`, plus `mean`."""
    if (scale, mean) == (1.0, 0.0):
        return params
    layer = params["head"]["classifier"]
    kernel = (layer["kernel"] * scale).astype(layer["kernel"].dtype)
    bias = (layer["bias"] * scale + mean).astype(layer["bias"].dtype)
    head = params["head"] | {"classifier": layer | {"kernel": kernel, "bias": bias}}
    return params | {"head": head}

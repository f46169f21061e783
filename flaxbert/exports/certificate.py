"""The certificate of an export: it computes the same logits, and decides the same, on real texts.

An export is run by `runtime.Runtime`, with its own tokenizer file and its own decision.json, on the
evaluation set of the run. So a wrong weight, threshold, label order or length shows.
"""

import dataclasses
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxbert.exports import runtime, stablehlo
from flaxbert.exports.runtime import Arrays, Run, Runtime
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pipeline.predictor import Predictor
from flaxbert.tasks.base import Task
from flaxbert.tasks.multiple_choice import ChoiceExample
from flaxbert.tasks.questions import QuestionExample
from flaxbert.tasks.sentences import SentenceExample
from flaxbert.types import Metrics, Params, Prediction

log = logging.getLogger("flaxbert")

VERSION = 1
LOGITS = 1e-4
"""Largest absolute difference of logits that a float32 export may have. For regression it is in the
units of training: numbers such as 1950 have fewer decimals."""
ANSWERS = 1e-3
"""Share of the answers that a float32 export may change: two labels may be equally probable."""
PAD_TO = 32
"""Rows are padded to multiples of this, so that JAX compiles few programs."""
ROUNDING = {"pearson": 1e-4}
"""How much lower a metric of numbers may be whatever is allowed: it changes with their last digit.
Metrics of answers do not."""
METRICS = ("accuracy", "f1", "f1_micro", "pearson")
"""The metric that is compared is the first of these that the task has; higher is better."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The comparison of an export with the model that it was made from: certificate.json."""

    format: str
    """onnx or stablehlo."""
    int8: bool
    data: str
    """The evaluation set."""
    examples: int
    sequences: int
    """Texts or windows that the graph has run."""
    logit_difference: float
    """The largest absolute difference, over all real tokens."""
    logit_tolerance: float | None
    """None for int8, where the metric decides."""
    metric: str
    flaxbert: float
    """The value of the metric, of the model itself."""
    export: float
    """Its value, of the export."""
    max_drop: float
    """How much lower the latter may be, in units of the metric."""
    changed_answers: int
    changed_answers_allowed: int | None
    versions: Mapping[str, str]
    """Versions of the packages that computed both sides."""
    version: int = VERSION

    @property
    def problems(self) -> list[str]:
        """Why the export must not be used; empty if it may."""
        problems = []
        tolerance, allowed = self.logit_tolerance, self.changed_answers_allowed
        if tolerance is not None and not self.logit_difference <= tolerance:  # NaN
            problems.append(
                f"its logits differ by up to {self.logit_difference:.1e}, and {tolerance:.0e} is "
                "allowed"
            )
        if not self.flaxbert - self.export <= self.max_drop:
            problems.append(
                f"{self.metric} is {self.export:.6g} instead of {self.flaxbert:.6g}; a drop of "
                f"{self.max_drop:g} is allowed"
            )
        if allowed is not None and self.changed_answers > allowed:
            problems.append(
                f"{self.changed_answers} of {self.examples} answers differ; {allowed} may"
            )
        return problems

    def to_json(self) -> dict[str, Any]:
        """Return the content of certificate.json."""
        return dataclasses.asdict(self) | {"passed": not self.problems, "problems": self.problems}


def certify(
    directory: Path,
    predictor: Predictor,
    params: Params,
    dataset: Dataset,
    source: str,
    *,
    format: str,
    int8: bool = False,
    max_drop: float = 0.0,
) -> Certificate:
    """Run an export on an evaluation set, and compare it with the model.

    Args:
      directory: the export.
      predictor: the model.
      params: the parameters that were exported, float32 on the host.
      dataset: labeled examples.
      source: their name.
      format: onnx or stablehlo.
      int8: whether the weights of the export are rounded to 8 bits.
      max_drop: how many points the metric may drop, of 100.
    """
    task = predictor.pipeline.task
    with jax.default_matmul_precision("float32"):  # as the export computes, on any device
        evaluation = predictor.run(dataset)
    run = (
        runtime.onnx_runner(directory / runtime.MODEL)
        if format == "onnx"
        else stablehlo.runner(directory)
    )
    difference = Difference(run, predictor, params)
    reader = Runtime(directory, difference.run, pad_to=PAD_TO)
    records = reader.records([input_of(example) for example in dataset.examples])
    metrics = task.score(dataset.examples, records)
    metric = next(name for name in METRICS if name in metrics)
    changed = changed_answers(task, evaluation.predictions, records)
    return Certificate(
        format=format,
        int8=int8,
        data=source,
        examples=len(records),
        sequences=difference.sequences,
        logit_difference=difference.largest,
        logit_tolerance=None if int8 else LOGITS * unit_of(task),
        metric=metric,
        flaxbert=evaluation.metrics[metric],
        export=metrics[metric],
        max_drop=max_drop * point_of(metrics) + ROUNDING.get(metric, 0.0),
        changed_answers=changed,
        changed_answers_allowed=None if int8 else int(ANSWERS * len(records)),
        versions={
            name: importlib.metadata.version(name)
            for name in ("flaxbert", "jax", "onnxruntime" if format == "onnx" else "jaxlib")
        },
    )


def input_of(example: Any) -> Any:
    """Return an example as an input of `Runtime`."""
    match example:
        case SentenceExample():
            return list(example.tokens)
        case QuestionExample():
            return example.question, example.context
        case ChoiceExample():
            return example.question, example.choices
    return example.text if example.pair is None else (example.text, example.pair)


def unit_of(task: Task) -> float:
    """Return the unit of the logits: 1, or for regression the size of the numbers if larger."""
    return max(1.0, abs(getattr(task, "mean", 0.0)), getattr(task, "scale", 1.0))


def point_of(metrics: Metrics) -> float:
    """Return one point of the metrics: SQuAD's are percentages, the others are from 0 to 1."""
    return 1.0 if "exact_match" in metrics or "exact" in metrics else 0.01


def changed_answers(
    task: Task, expected: Sequence[Prediction], records: Sequence[Prediction]
) -> int:
    """Return the number of predictions with another answer; 0 for numbers, which have no answer."""
    key = task.answer_key or "index"
    pairs = zip(expected, records, strict=True)
    return sum(ours.get(key) != theirs.get(key) for ours, theirs in pairs)


class Difference:
    """Runs an export and the model on the same batches, and keeps the largest difference.

    Attributes:
      largest: the largest absolute difference of logits, NaN if there is one.
      sequences: the number of sequences compared.
    """

    def __init__(self, run: Run, predictor: Predictor, params: Params):
        """Compile nothing yet: each shape is compiled when it comes."""
        self.largest, self.sequences = 0.0, 0
        self._export = run
        self._model = jax.jit(stablehlo.forward(predictor.pipeline.with_attention("plain").model))
        self._params = jax.tree.map(jnp.asarray, params)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of the export, after comparing them."""
        outputs = dict(self._export(inputs))
        with jax.default_matmul_precision("float32"):
            ours = self._model(self._params, {k: x.astype(np.int32) for k, x in inputs.items()})
        mask = inputs["attention_mask"]
        for name, values in outputs.items():
            error = np.abs(values - np.asarray(ours[name]))
            if error.shape[:2] == mask.shape:  # outputs for padding mean nothing
                error = error[mask > 0]
            self.largest = float(np.maximum(self.largest, error.max()))
        self.sequences += len(mask)
        return outputs

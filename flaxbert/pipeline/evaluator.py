"""Evaluation: run a model over a data set, decode its outputs, score them."""

import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from flaxbert.errors import DivergedError, Preempted
from flaxbert.messages.language import tr
from flaxbert.metrics.chance import worse_than_chance
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pipeline.loader import AHEAD, Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pipeline.predict_step import PredictStep, StepOutputs, make_predict_step
from flaxbert.runtime import memory, multihost
from flaxbert.runtime.compilation import start_compiling
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.progress import Progress
from flaxbert.tasks.base import Task, score_with_slices
from flaxbert.types import Losses, Metrics, Params, Prediction, TaskOutputs, WeightedSum

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation."""

    predictions: list[Prediction]
    """In the order of the examples. Without labels, only the lead host has them."""
    metrics: Metrics


class Evaluator:
    """One data set, evaluated as often as needed with one compiled program per bucket size."""

    def __init__(
        self,
        pipeline: Pipeline,
        data: Dataset,
        *,
        step: PredictStep | None = None,
        quiet: bool = False,
    ):
        """Create an evaluator.

        Args:
          pipeline: task and model.
          data: the data set to evaluate.
          step: a forward step to use instead of compiling one for this data set.
          quiet: show no progress, and build each batch when it is needed.
        """
        self._pipeline, self.data, self._quiet = pipeline, data, quiet
        self._loader = Loader(data.batches, pipeline.mesh, ahead=0 if quiet else AHEAD)
        self._step = step
        self._warned = False

    @property
    def metric_names(self) -> list[str]:
        """Return the names of the metrics that `run` may return, without `perf/...`.

        Some depend on the data: the F1 of answerable questions needs such questions.
        """
        task = self._pipeline.task
        names = list(task.score([], []))
        slices = sorted({e.slice for e in self.data.examples if e.slice is not None})
        losses = mean_losses({name: WeightedSum(0.0, 0.0) for name in task.loss_names})
        return [*names, *losses, *(f"{name}/{part}" for part in slices for name in names)]

    def lower_is_better(self, metric: str) -> bool:
        """Return whether lower values of a metric are better, also for its slices."""
        task, name = self._pipeline.task, metric.partition("/")[0]
        return name in ("loss", *task.loss_names, *task.lower_is_better)

    def start_compiling(self, params: Params) -> Callable[[], None]:
        """Start to compile for every bucket size; otherwise `run` does it.

        Returns:
          A function that waits until all programs are compiled.
        """
        pipeline, batches = self._pipeline, self.data.batches
        step = make_predict_step(
            pipeline.model, pipeline.task, pipeline.mesh, labeled=self.data.labeled
        )
        explained = functools.partial(
            memory.explain_exhaustion,
            "compiling an evaluation",
            memory.EVALUATION,
            batches.largest_shape,
            arguments=params,
            advise=self._smaller_batch,
        )
        with explained():
            finish_step = start_compiling(step, params, batches.bucket_sizes, self._loader.empty)

        def finish() -> None:
            with explained():
                self._step = finish_step()

        return finish

    def _smaller_batch(self, usage: memory.Usage | None) -> str:
        """Return a batch size that fits by estimate; see `memory.smaller_batch`."""
        batches = self.data.batches
        rows = max(batches.bucket_sizes) // batches.multiple
        least = math.ceil(batches.batch_size / rows)
        return memory.smaller_batch("train.eval_batch_size", batches.batch_size, least, usage)

    def run(
        self, params: Params, task: Task | None = None, *, preemption: Preemption | None = None
    ) -> Evaluation:
        """Predict, decode, and score where there are labels.

        Args:
          params: parameters on the devices.
          task: the task with fitted thresholds; by default the pipeline's.
          preemption: checked before each batch.

        Returns:
          The predictions, and the metrics: the task's, `loss`, each slice's (`accuracy/en`), and
          under `perf/` those that depend on the clock.

        Raises:
          Preempted: if a signal came.
          DivergedError: for outputs that are not finite.
        """
        if self._step is None:
            self.start_compiling(params)()
        task, data = task or self._pipeline.task, self.data
        start = time.perf_counter()
        outputs, losses = self._forward(params, preemption or Preemption())
        # Every host needs the scores, because they determine thresholds and the best weights.
        # Predictions without labels are only written to a file, by the lead host.
        predictions: list[Prediction] = []
        if data.labeled or multihost.is_lead_host():
            predictions = task.decode(data.examples, data.batches.features, outputs)
        metrics: Metrics = {}
        if data.labeled:
            metrics = score_with_slices(task, data.examples, predictions) | mean_losses(losses)
            self._warn_if_worse_than_chance(task, predictions)
        seconds = time.perf_counter() - start
        metrics["perf/eval_seconds"] = seconds
        metrics["perf/eval_examples_per_s"] = len(data.examples) / seconds
        return Evaluation(predictions, metrics)

    def outputs(self, params: Params) -> TaskOutputs:
        """Return the outputs that predictions are made from, in the order of the features."""
        if self._step is None:
            self.start_compiling(params)()
        outputs, _ = self._forward(params, Preemption())
        return outputs

    def stream(self, params: Params) -> Iterator[Prediction]:
        """Yield the prediction for each example, in their order, as batches finish.

        Predictions are not kept, so there may be more of them than memory can hold. Only the lead
        host yields any.

        Args:
          params: parameters on the devices.

        Raises:
          DivergedError: for outputs that are not finite.
        """
        if self._step is None:
            self.start_compiling(params)()
        examples, batches, outputs = self.data.examples, self.data.batches, TaskOutputs()
        features, done = batches.features, 0
        if np.any(np.diff(features.example_index) < 0):
            raise ValueError("predictions can be streamed only if features are in order")
        lead = multihost.is_lead_host()
        for step in self._collected(params, Preemption(), outputs if lead else None, {}):
            # An example is ready if the later batches hold none of its sequences.
            count = min((step + 1) * batches.batch_size, len(features))
            pending = features.example_index[features.feature_start[count] :]
            ready = int(pending[0]) if len(pending) else len(examples)
            if lead:
                part, here = features.part(done, ready), self._outputs_of(outputs, done, ready)
                yield from self._pipeline.task.decode(examples[done:ready], part, here)
            done = ready

    def _outputs_of(self, outputs: TaskOutputs, first: int, end: int) -> TaskOutputs:
        """Return the outputs for the examples from `first` to `end`."""
        features = self.data.batches.features
        here = features.sequences_of(first, end)
        tokens = slice(*features.sequence_start[[here.start, here.stop]].tolist())
        return TaskOutputs(
            {name: values[here] for name, values in outputs.per_sequence.items()},
            {name: values[tokens] for name, values in outputs.per_token.items()},
        )

    def _forward(self, params: Params, preemption: Preemption) -> tuple[TaskOutputs, Losses]:
        """Return the outputs for every feature, and the sums of the losses."""
        outputs, losses = TaskOutputs(), dict[str, WeightedSum]()
        for _ in self._collected(params, preemption, outputs, losses):
            pass
        return outputs, losses

    def _collected(
        self, params: Params, preemption: Preemption, outputs: TaskOutputs | None, losses: Losses
    ) -> Iterator[int]:
        """Run all batches, and yield the number of each when its outputs are stored.

        Args:
          params: parameters on the devices.
          preemption: checked before each batch.
          outputs: receives the outputs for every feature; None drops them.
          losses: receives the sums of the losses.
        """
        step, batches = self._step, self.data.batches
        assert step is not None
        bar = Progress(
            tr("evaluate"),
            len(batches.features.lengths),
            active=multihost.is_lead_host() and not self._quiet,
        )
        in_flight: list[tuple[int, StepOutputs]] = []

        def collect(number: int, pending: StepOutputs) -> int:
            received = jax.tree.map(np.asarray, pending)
            rows = batches.padded_rows(number)
            self._require_finite(rows, received.finite)
            if outputs is not None:
                batches.unpack(rows, received.outputs, outputs)
            for name, sums in received.losses.items():
                part = WeightedSum(float(sums.total), float(sums.weight))
                losses[name] = losses[name] + part if name in losses else part
            bar.advance(sum(map(len, rows)))
            return number

        with (
            memory.explain_exhaustion(
                "evaluating" if self.data.labeled else "predicting",
                memory.EVALUATION if self.data.labeled else memory.PREDICTION,
                batches.largest_shape,
                usage=getattr(step, "usage", None),
                advise=self._smaller_batch,
            ),
            contextlib.closing(bar),
            self._loader as loader,
        ):
            for number in range(batches.steps_per_epoch):
                if preemption.requested():
                    raise Preempted("stopped while evaluating; the same command continues")
                in_flight.append((number, step(params, loader.batch(number))))
                if len(in_flight) > 1:  # the device works on one while the host stores another
                    yield collect(*in_flight.pop(0))
            for item in in_flight:
                yield collect(*item)

    def _require_finite(self, rows: Sequence[list[int]], finite: np.ndarray) -> None:
        for row, row_is_finite in zip(rows, finite, strict=True):
            if row and not row_is_finite:
                raise DivergedError(
                    f"{self.data.origin(row[0])}: the model's outputs for it, or for a text in the "
                    "same row, are not finite, so there is no prediction. Try model.dtype=float32. "
                    "If the weights themselves have grown too large, train again with a lower "
                    "optim.learning_rate."
                )

    def _warn_if_worse_than_chance(self, task: Task, predictions: Sequence[Prediction]) -> None:
        """Warn once if predicted labels are wrong so often that label names are likely mixed up."""
        labels = [prediction.get("label") for prediction in predictions]
        names = task.labels
        if self._warned or not multihost.is_lead_host() or not set(labels) <= set(names):
            return
        numbers = {name: number for number, name in enumerate(names)}
        targets = [example.label for example in self.data.examples]
        warning = worse_than_chance(targets, [numbers[str(label)] for label in labels], names)
        if warning:
            self._warned = True
            log.warning(f"evaluation: {warning}")


def mean_losses(losses: Losses) -> Metrics:
    """Return the mean of each loss, and their sum as `loss`; the sums must be on the host.

    Without losses the result is empty.
    """
    means = {name: float(sums.mean) for name, sums in losses.items()}
    return {"loss": sum(means.values())} | means if means else {}

"""Evaluation: run the model over a data set and hand its outputs back to the task."""

import collections
import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flaxbert.data import checks
from flaxbert.data.batching import Batches
from flaxbert.data.packing import PackedRow
from flaxbert.data.table import Table
from flaxbert.errors import DivergedError, Preempted
from flaxbert.metrics.chance import worse_than_chance
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pipeline.predict_step import PredictStep, make_predict_step
from flaxbert.runtime import memory, sharding
from flaxbert.runtime.compilation import compile_buckets
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.progress import Progress
from flaxbert.tasks.base import Task, TaskOutputs, score_with_slices
from flaxbert.types import Metrics, Params, Prediction

log = logging.getLogger("flaxbert")

ENDS = ("", "/weight")
"""What the names of an objective's two sums end with."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What evaluation gives: one record an example, and metrics where there are labels."""

    records: list[Prediction]
    """Empty on all hosts but the first where there are no labels."""
    metrics: Metrics


def predict(
    step: PredictStep,
    params: Params,
    batches: Batches,
    mesh: Any,
    progress: Callable[[int], None],
    preemption: Preemption,
    origin: Callable[[int], str],
) -> tuple[TaskOutputs, Metrics]:
    """Outputs of every feature, in the features' order, and the mean loss where there are labels.

    Args:
      step: from `step.make_predict_step`.
      params: on the mesh.
      batches: in order, not shuffled.
      mesh: the mesh.
      progress: called after each step with the number of sequences done.
      preemption: asked at each step.
      origin: where a sequence comes from, such as train.tsv:17.

    Raises:
      Preempted: told to stop.
      DivergedError: for outputs that are not finite.
    """
    features = batches.features
    slots: dict[str, np.ndarray] = {}
    tokens: dict[str, np.ndarray] = {}
    totals: dict[str, float] = collections.defaultdict(float)

    def collect(rows: list[PackedRow], pending: Any) -> None:
        outputs, losses = jax.tree.map(np.asarray, pending)
        for name, (value, weight) in losses.items():
            totals[name] += float(value)
            totals[f"{name}/weight"] += float(weight)
        for store, kind, size in (
            (slots, "slots", len(features.lengths)),
            (tokens, "tokens", int(features.lengths.sum())),
        ):
            for name, values in outputs[kind].items():
                if name not in store:
                    store[name] = np.zeros((size, *values.shape[2:]), values.dtype)
        for r, row in enumerate(rows):
            if row and not outputs["finite"][r]:
                raise DivergedError(
                    f"{origin(row[0])}: the model's outputs for it, or for a text in the same row, "
                    "are not finite, so they predict nothing. Try model.dtype=float32; weights "
                    "that have grown this large must be trained anew, with a lower "
                    "optim.learning_rate."
                )
            offset = 0
            for k, sequence in enumerate(row):
                length, start = int(features.lengths[sequence]), features.starts[sequence]
                for name, store_values in slots.items():
                    store_values[sequence] = outputs["slots"][name][r, k]
                for name, store_values in tokens.items():
                    here = outputs["tokens"][name][r, offset : offset + length]
                    store_values[start : start + length] = here
                offset += length
        progress(sum(map(len, rows)))

    # One step is in flight while the host stores the one before.
    waiting: list[tuple[list[PackedRow], Any]] = []
    for number in range(batches.steps_per_epoch):
        if preemption.asked():
            raise Preempted("stopped while evaluating; the same command continues")
        rows = batches.full_rows(number)
        build = functools.partial(batches.build, step=number)
        waiting.append((rows, step(params, sharding.make_global_batch(rows, build, mesh))))
        if len(waiting) > 1:
            collect(*waiting.pop(0))
    for item in waiting:
        collect(*item)
    return TaskOutputs(slots, tokens), objective_means(totals) if totals else {}


def objective_means(sums: Mapping[str, Any]) -> Metrics:
    """Each objective's mean, and `loss`, their sum, from sums of losses and of weights."""
    weights = {name: float(sums[name]) for name in sums if name.endswith("/weight")}
    means = {}
    for name, weight in weights.items():
        objective = name.removesuffix("/weight")
        means[objective] = float(sums[objective]) / weight if weight else 0.0
    return {"loss": sum(means.values())} | means


class Evaluator:
    """One data set, evaluated as often as wanted with one compiled program for each shape."""

    def __init__(self, setup: Pipeline, data: Dataset):
        self._setup, self.data = setup, data
        self._step: PredictStep | None = None
        self._warned = False
        self.malformed = 0

    @classmethod
    def open(cls, setup: Pipeline, table: Table, *, labeled: bool) -> "Evaluator":
        """Tokenise a table's rows."""
        examples = setup.task.examples(table, labeled=labeled)
        checks.log_issues(examples.issues)
        evaluator = cls.of(setup, list(examples), table, labeled=labeled)
        dropped = evaluator.data.batches.features.dropped
        evaluator.malformed = table.malformed + examples.malformed + len(dropped)
        return evaluator

    @classmethod
    def of(
        cls, setup: Pipeline, examples: list[Any], table: Table, *, labeled: bool
    ) -> "Evaluator":
        """Tokenise examples."""
        size = setup.config.train.eval_batch_size
        return cls(
            setup,
            setup.dataset(examples, table, batch_size=size, labeled=labeled, training=False),
        )

    @property
    def examples(self) -> Sequence[Any]:
        """The task's examples, in the order of the records."""
        return self.data.examples

    @property
    def metric_names(self) -> list[str]:
        """What `run` may give, before it has run (and without `perf/...`).

        What an example must have for a metric is the task's affair: data or a slice may lack some,
        such as the F1 of answerable questions where there is none.
        """
        task = self._setup.task
        names = list(task.score([], []))
        slices = sorted({e.slice for e in self.data.examples if e.slice is not None})
        losses = objective_means({f"{name}{end}": 1 for name in task.loss_names for end in ENDS})
        return [*names, *losses, *(f"{name}/{part}" for part in slices for name in names)]

    def lower_is_better(self, metric: str) -> bool:
        """Return whether a low value of a metric is a good one; slices are as the whole."""
        task, name = self._setup.task, metric.partition("/")[0]
        return name in ("loss", *task.loss_names, *task.lower_is_better)

    def compile(self, params: Params) -> None:
        """Compile for every batch height now; `run` does it otherwise."""
        setup, batches = self._setup, self.data.batches
        step = make_predict_step(setup.model, setup.task, setup.mesh, labeled=self.data.labeled)
        with memory.explained("compiling an evaluation", memory.EVALUATION, batches):
            self._step = compile_buckets(
                step,
                params,
                batches.bucket_sizes,
                lambda rows: sharding.make_global_batch([[]] * rows, batches.build, setup.mesh),
            )

    def run(
        self, params: Params, task: Task | None = None, *, preemption: Preemption | None = None
    ) -> Evaluation:
        """Predict, decode, and score where there are labels; `task` may have fitted thresholds.

        Metrics are the task's, `loss`, each slice's (`accuracy/en`), and under `perf/` those that
        depend on the clock.

        Raises:
          Preempted: told to stop.
        """
        if self._step is None:
            self.compile(params)
        assert self._step is not None
        task, data = task or self._setup.task, self.data
        start = time.perf_counter()
        active = jax.process_index() == 0
        bar = Progress("evaluate", len(data.batches.features.lengths), active=active)
        explained = memory.explained("evaluating", memory.EVALUATION, data.batches)
        with explained, contextlib.closing(bar):
            predictions, losses = predict(
                self._step,
                params,
                data.batches,
                self._setup.mesh,
                bar.advance,
                preemption or Preemption(),
                lambda n: data.examples[data.batches.features.example[n]].origin,
            )
        # Scores are needed on every host, as thresholds and the best weights follow from them;
        # without labels the records are only written.
        records: list[Prediction] = []
        if data.labeled or active:
            records = task.decode(data.examples, data.batches.features, predictions)
        metrics: Metrics = {}
        if data.labeled:
            metrics = score_with_slices(task, data.examples, records) | losses
            if active:
                self._compare_with_chance(task, records)
        seconds = time.perf_counter() - start
        metrics["perf/eval_seconds"] = seconds
        metrics["perf/eval_examples_per_s"] = len(data.examples) / seconds
        return Evaluation(records, metrics)

    def _compare_with_chance(self, task: Task, records: Sequence[Prediction]) -> None:
        """Warn, once, where one label a text is wrong so often that the labels must be mixed up."""
        labels = [record.get("label") for record in records]
        names: Sequence[str] = task.labels
        if self._warned or not set(labels) <= set(names):
            return
        numbers = {name: number for number, name in enumerate(names)}
        gold = [example.label for example in self.data.examples]
        warning = worse_than_chance(gold, [numbers[str(label)] for label in labels], names)
        if warning:
            self._warned = True
            log.warning(f"evaluation: {warning}")

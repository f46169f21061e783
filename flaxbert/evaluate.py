"""Evaluation: run the model over a data set and hand its outputs back to the task."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from flaxbert import sharding
from flaxbert.data.batching import Batches
from flaxbert.data.packing import Row
from flaxbert.models.model import Params
from flaxbert.progress import Progress
from flaxbert.setup import Dataset, Setup, read_table
from flaxbert.step import PredictStep, compile_heights, make_predict_step
from flaxbert.tasks.base import Metrics, Predictions, Record, score_with_slices


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What evaluation gives: one record an example, and metrics where there are labels."""

    records: list[Record]
    metrics: Metrics


def predict(
    step: PredictStep,
    params: Params,
    batches: Batches,
    mesh: Any,
    progress: Callable[[int], None],
) -> tuple[Predictions, Metrics]:
    """Outputs of every feature, in the features' order, and the mean loss where there are labels.

    Args:
      step: from `step.make_predict_step`.
      params: on the mesh.
      batches: in order, not shuffled.
      mesh: the mesh.
      progress: called after each step with the number of features done.
    """
    features = batches.features
    slots: dict[str, np.ndarray] = {}
    tokens: dict[str, np.ndarray] = {}
    totals = np.zeros(2)  # losses, weights

    def collect(rows: list[Row], pending: Any) -> None:
        outputs, sums = jax.tree.map(np.asarray, pending)
        totals[:] += [sums.get("loss", 0.0), sums.get("weight", 0.0)]
        for store, kind, size in (
            (slots, "slots", len(features)),
            (tokens, "tokens", int(features.lengths.sum())),
        ):
            for name, values in outputs[kind].items():
                if name not in store:
                    store[name] = np.zeros((size, *values.shape[2:]), values.dtype)
        for r, row in enumerate(rows):
            offset = 0
            for k, feature in enumerate(row):
                length, start = int(features.lengths[feature]), features.starts[feature]
                for name, store_values in slots.items():
                    store_values[feature] = outputs["slots"][name][r, k]
                for name, store_values in tokens.items():
                    here = outputs["tokens"][name][r, offset : offset + length]
                    store_values[start : start + length] = here
                offset += length
        progress(sum(map(len, rows)))

    # One step is in flight while the host stores the one before.
    waiting: list[tuple[list[Row], Any]] = []
    for number in range(batches.steps_per_epoch):
        rows = batches.full_rows(number)
        waiting.append((rows, step(params, sharding.put_rows(rows, batches.build, mesh))))
        if len(waiting) > 1:
            collect(*waiting.pop(0))
    for item in waiting:
        collect(*item)
    losses = {"loss": float(totals[0] / totals[1])} if totals[1] else {}
    return Predictions(slots, tokens), losses


class Evaluator:
    """One data set, evaluated as often as wanted with one compiled program for each shape."""

    def __init__(self, setup: Setup, data: Dataset):
        self._setup, self._data = setup, data
        self._step: PredictStep | None = None

    @classmethod
    def open(cls, setup: Setup, key: str, *, labelled: bool) -> "Evaluator":
        """Read and tokenise what `data.eval` or `data.predict` names."""
        split = {"eval": "validation", "predict": "test"}[key]
        table = read_table(getattr(setup.config.data, key), key=f"data.{key}", split=split)
        batch_size = setup.config.train.eval_batch_size
        return cls(
            setup,
            setup.dataset(table, batch_size=batch_size, labelled=labelled, training=False),
        )

    @property
    def examples(self) -> Sequence[Any]:
        """The task's examples, in the order of the records."""
        return self._data.examples

    @property
    def metric_names(self) -> list[str]:
        """What `run` will give, before it has run (and without `perf/...`)."""
        names = [*self._setup.task.score([], []), "loss"]
        slices = sorted({e.slice for e in self._data.examples if e.slice is not None})
        return names + [f"{name}/{part}" for part in slices for name in names[:-1]]

    def compile(self, params: Params) -> None:
        """Compile for every batch height now; `run` does it otherwise."""
        setup, batches = self._setup, self._data.batches
        self._step = compile_heights(
            make_predict_step(setup.model, setup.task, setup.mesh, labelled=self._data.labelled),
            params,
            batches.row_counts,
            lambda rows: sharding.put_rows([[]] * rows, batches.build, setup.mesh),
        )

    def run(self, params: Params) -> Evaluation:
        """Predict, decode, and score where there are labels.

        Metrics are the task's, `loss`, each slice's (`accuracy/en`), and under `perf/` those that
        depend on the clock.
        """
        if self._step is None:
            self.compile(params)
        assert self._step is not None
        task, data = self._setup.task, self._data
        start = time.perf_counter()
        active = jax.process_index() == 0
        bar = Progress("evaluate", len(data.batches.features), active=active)
        predictions, losses = predict(
            self._step, params, data.batches, self._setup.mesh, bar.advance
        )
        bar.close()
        records = task.decode(data.examples, data.batches.features, predictions)
        metrics: Metrics = {}
        if data.labelled:
            metrics = score_with_slices(task, data.examples, records) | losses
        seconds = time.perf_counter() - start
        metrics["perf/eval_seconds"] = seconds
        metrics["perf/eval_examples_per_s"] = len(data.examples) / seconds
        return Evaluation(records, metrics)

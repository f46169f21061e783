"""What a report says about predictions; each task has a function that assesses its own."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flaxbert.metrics import resampling
from flaxbert.metrics.calibration import Bin
from flaxbert.metrics.classification import wilson
from flaxbert.report.html import Html
from flaxbert.report.rundir import RunFiles


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Evaluated examples."""

    labels: Sequence[Mapping[str, Any]]
    """As from `labels.label_records`."""
    predictions: Sequence[Mapping[str, Any]]
    """One for each of them."""
    names: Sequence[str]
    """The names of the task's labels, in the order of the model's outputs; may be empty."""
    config: Mapping[str, Any]
    """{dotted key: value} of the run's configuration."""
    fitted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The thresholds of the export (`HasThresholds.stored_thresholds`)."""

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: Sequence[int]) -> "Evaluated":
        """Return some of the examples."""
        labels = [self.labels[n] for n in chosen]
        predictions = [self.predictions[n] for n in chosen]
        return dataclasses.replace(self, labels=labels, predictions=predictions)


class Estimate(NamedTuple):
    """A metric with its uncertainty."""

    value: float
    low: float
    high: float
    """Ends of the 95 % interval; equal to `value` if there are too few examples for one."""
    baseline: float | None
    """The metric of predictions that ignore the texts; None without such a baseline."""


class Suspect(NamedTuple):
    """An example whose label is probably wrong."""

    example: int
    """Its index."""
    likely: str
    """The label that it probably should have."""


class Calibration(NamedTuple):
    """Probabilities, and what came true."""

    bins: list[Bin]
    """Those of a reliability diagram."""
    outcome: str
    """What the probabilities are of, such as "right predictions"."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """An assessment of predictions."""

    main: str
    """The most important metric."""
    estimates: Mapping[str, Estimate]
    baseline: str
    """What the baseline predicts, such as: the most frequent label, "ham"."""
    correct: np.ndarray | None
    """Booleans [N]; None if predictions are only more or less wrong, as numbers are."""
    wrongness: np.ndarray
    """[N] higher for worse predictions, such as the loss."""
    wrongness_name: str
    """Such as "loss"."""
    row: Callable[[int], dict[str, object]]
    """Returns an example as cells {column: HTML or text}; the first one is its text."""
    doubt: np.ndarray | None = None
    """[N] higher for more doubtful predictions; None if the model gives nothing to judge that."""
    doubt_name: str = ""
    """Where doubt is highest, such as "the score is lowest"."""
    calibration: Calibration | None = None
    """None if the model gives no probabilities."""
    sections: Sequence[Html] = ()
    """Tables and charts of this task."""
    suspects: Sequence[Suspect] | None = None
    """None if the model gives no probabilities of the labels."""
    details: Collection[str] = ()
    """Metrics that are in `sections`, and so need not be among the main ones."""


def estimates(
    counts: np.ndarray, statistic: resampling.Statistic, baseline: np.ndarray | None
) -> dict[str, Estimate]:
    """Return metrics with their intervals and baselines.

    Args:
      counts: what each group of examples adds [G, k]; see `resampling.group_sums`.
      statistic: computes the metrics from the sums.
      baseline: the sums [k] of the baseline's predictions.
    """
    values = statistic(counts.sum(axis=0, dtype=np.float64))
    edges = resampling.intervals(counts, statistic)
    lower = {} if baseline is None else statistic(baseline.astype(np.float64))
    return {
        name: Estimate(
            float(value),
            *edges.get(name, (float(value), float(value))),
            float(lower[name]) if name in lower else None,
        )
        for name, value in values.items()
    }


def with_proportion(
    known: Mapping[str, Estimate], name: str, correct: np.ndarray
) -> dict[str, Estimate]:
    """Return estimates with Wilson's interval for the share of correct examples [N].

    It is the one of the results, and better than resampling near 0 and 1.
    """
    low, high = wilson(float(correct.sum()), len(correct))
    return dict(known) | {name: known[name]._replace(low=low, high=high)}


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) != 0)


def main_metrics(results: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an evaluation without intervals, slices, counts and timings."""
    others = ("step", "skipped_steps", "best_step", "padding_share")
    return {
        name: value
        for name, value in results.items()
        if "/" not in name and not name.endswith(("_low95", "_high95")) and name not in others
        and isinstance(value, int | float)
    }  # fmt: skip


def estimate_of(files: RunFiles, quality: Quality | None, name: str) -> Estimate:
    """Return a metric of the results, with its interval if there is one."""
    value = files.results[name]
    known = quality.estimates.get(name) if quality else None
    if known is not None:
        return known._replace(value=value)
    low, high = (files.results.get(f"{name}_{side}", value) for side in ("low95", "high95"))
    return Estimate(value, low, high, None)

"""Quality of predicted numbers."""

import functools

import numpy as np

from flaxbert.messages.language import tr
from flaxbert.metrics import resampling
from flaxbert.report.charts import POINTS, scatter
from flaxbert.report.classes import text_cell
from flaxbert.report.html import note, number, tag
from flaxbert.report.quality import Evaluated, Quality, estimates, ratio


def assess(evaluated: Evaluated) -> Quality:
    """Assess predicted numbers."""
    gold = np.array([label["value"] for label in evaluated.labels], float)
    predicted = np.array([prediction["value"] for prediction in evaluated.predictions], float)
    error = np.abs(predicted - gold)
    mean = np.full_like(gold, gold.mean() if len(gold) else 0.0)
    points = list(zip(gold.tolist(), predicted.tolist(), strict=True))
    chart = scatter(tr("Predicted numbers and labels"), points, tr("label"), tr("predicted"))
    shown = min(POINTS, len(points))
    drawn = note(
        tr("{shown} of {n} examples, at equal distances in the file.", shown=shown, n=len(points))
    )
    return Quality(
        main="pearson",
        estimates=estimates(_sums(gold, predicted), _statistic, _sums(gold, mean).sum(axis=0)),
        baseline=tr("always the mean of the labels"),
        correct=None,
        wrongness=error,
        wrongness_name=tr("absolute error"),
        row=functools.partial(_row, evaluated),
        sections=[tag("div", chart, drawn)],
    )


def _sums(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return, for each group, the sums that both correlations and the squared error need."""
    import scipy.stats  # takes a second

    ranks = [
        scipy.stats.rankdata(values) if len(values) else values for values in (gold, predicted)
    ]
    scaled = [values - values.mean() if len(values) else values for values in (gold, predicted)]
    columns = [np.ones(len(gold)), np.square(predicted - gold)]
    for a, b in (scaled, ranks):
        columns += [a, b, a * a, b * b, a * b]
    return resampling.group_sums(np.stack(columns, axis=1))


def _statistic(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of metrics/regression.py, of many samples at once."""
    count = sums[..., 0]
    return {
        "pearson": _correlation(count, sums[..., 2:7]),
        "spearman": _correlation(count, sums[..., 7:12]),
        "squared_error": ratio(sums[..., 1], count),
    }


def _correlation(count: np.ndarray, sums: np.ndarray) -> np.ndarray:
    a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    spread = (count * aa - a * a) * (count * bb - b * b)
    small = spread <= 1e-12 * np.square(count * (aa + bb)) * 1e-6
    return np.where(small, 0.0, ratio(count * ab - a * b, np.sqrt(np.maximum(spread, 0.0))))


def _row(evaluated: Evaluated, index: int) -> dict[str, object]:
    label, prediction = evaluated.labels[index], evaluated.predictions[index]
    return {
        tr("text"): text_cell(prediction),
        tr("label"): number(label["value"]),
        tr("predicted"): number(prediction["value"]),
    }

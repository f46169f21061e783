"""Metrics of regression."""

import warnings
from collections.abc import Sequence

import numpy as np


def score(predicted: Sequence[float], gold: Sequence[float]) -> dict[str, float]:
    """Return Pearson and Spearman correlation (ties get their mean rank) and mean squared error.

    An undefined correlation is 0: of fewer than two examples, or of constant numbers.
    """
    import scipy.stats  # takes a second

    p, g = np.asarray(predicted, np.float64), np.asarray(gold, np.float64)
    result = {"pearson": 0.0, "spearman": 0.0}
    if len(p) > 1 and np.ptp(p) > 0 and np.ptp(g) > 0:
        with warnings.catch_warnings():  # nearly constant input shows in the value itself
            warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
            result = {
                "pearson": float(scipy.stats.pearsonr(p, g).statistic),
                "spearman": float(scipy.stats.spearmanr(p, g).statistic),
            }
    return {**result, "squared_error": float(np.mean(np.square(p - g))) if len(p) else 0.0}

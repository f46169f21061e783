"""Metrics of predicted numbers."""

import warnings
from collections.abc import Sequence

import numpy as np
import scipy.stats


def score(predicted: Sequence[float], gold: Sequence[float]) -> dict[str, float]:
    """Pearson and Spearman correlation (ties share their mean rank) and mean squared error.

    Correlations are 0 where undefined: fewer than two examples, or a side that is constant.
    """
    p, g = np.asarray(predicted, np.float64), np.asarray(gold, np.float64)
    result = {"pearson": 0.0, "spearman": 0.0}
    if len(p) > 1 and np.ptp(p) > 0 and np.ptp(g) > 0:
        with warnings.catch_warnings():  # nearly constant input: the figure says it by itself
            warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
            result = {
                "pearson": float(scipy.stats.pearsonr(p, g).statistic),
                "spearman": float(scipy.stats.spearmanr(p, g).statistic),
            }
    return {**result, "squared_error": float(np.mean(np.square(p - g))) if len(p) else 0.0}

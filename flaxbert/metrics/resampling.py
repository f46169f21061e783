"""Confidence intervals of any metric, by resampling examples with replacement (the bootstrap).

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: the percentile
interval.
"""

from collections.abc import Callable, Mapping

import numpy as np

GROUPS = 500
"""Examples are resampled in at most this many groups of neighbors, which bounds the time. Groups of
neighbors also keep most questions on one paragraph together, as independent examples would not."""

RESAMPLES = 1000

Statistic = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""A function of sums [..., k] over examples, which returns {metric: values [...]}."""


def group_of(count: int) -> np.ndarray:
    """Return the group of each of `count` examples [count], from 0."""
    return np.arange(count) * min(count, GROUPS) // max(1, count)


def group_sums(counts: np.ndarray) -> np.ndarray:
    """Return the sums [G, k] over groups of counts [N, k]."""
    starts = np.flatnonzero(np.diff(group_of(len(counts)), prepend=-1))
    return np.add.reduceat(counts, starts, axis=0) if len(counts) else counts


def intervals(sums: np.ndarray, statistic: Statistic) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric.

    Args:
      sums: sums over groups of examples [G, k], as from `group_sums`.
      statistic: computes the metrics from sums over all examples.

    Returns:
      {metric: (low, high)}; empty for fewer than two groups. Two calls give the same numbers.
    """
    groups = len(sums)
    if groups < 2:
        return {}
    draws = np.random.default_rng(0).multinomial(groups, [1 / groups] * groups, size=RESAMPLES)
    values = statistic(draws @ sums.astype(np.float64))
    edges = {name: np.quantile(value, (0.025, 0.975)) for name, value in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in edges.items()}

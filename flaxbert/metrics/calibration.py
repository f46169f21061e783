"""Calibration: whether predictions with probability p are right in a share p of the cases.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017),
arXiv:1706.04599, section 2.
"""

from typing import NamedTuple

import numpy as np

BINS = 10


class Bin(NamedTuple):
    """The predictions whose probabilities lie in one interval."""

    low: float
    high: float
    size: int
    """The number of predictions."""
    confidence: float
    """Mean probability; 0 without predictions."""
    accuracy: float
    """Share of correct predictions; 0 without any."""


def reliability(probabilities: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Return the bins of a reliability diagram, of equal width.

    Args:
      probabilities: [N], of the predicted answers, 0 to 1.
      correct: booleans [N], whether they are right.
      bins: the number of bins.
    """
    place = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidence = np.bincount(place, probabilities, bins) / np.maximum(counts, 1)
    accuracy = np.bincount(place, correct.astype(float), bins) / np.maximum(counts, 1)
    return [
        Bin(n / bins, (n + 1) / bins, int(counts[n]), float(confidence[n]), float(accuracy[n]))
        for n in range(bins)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean distance of accuracy and probability, weighted by the bins' counts."""
    total = sum(part.size for part in bins)
    return sum(part.size * abs(part.accuracy - part.confidence) for part in bins) / max(1, total)


def excess_confidence(bins: list[Bin]) -> float:
    """Return the mean probability minus the accuracy: above 0 if the model is overconfident."""
    total = sum(part.size for part in bins)
    return sum(part.size * (part.confidence - part.accuracy) for part in bins) / max(1, total)

"""F1 and Matthews correlation from a confusion matrix, and accuracy with its interval."""

import math
from typing import Any

import numpy as np


def confusion(gold: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts [C, C]; rows are gold classes, columns predicted classes."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (gold, predicted), 1)
    return matrix


def f1(matrix: np.ndarray, label: int | np.integer[Any]) -> float:
    """Return the F1 of one class against the others; 0 if precision and recall are undefined."""
    hits = matrix[label, label]
    marked = matrix[label].sum() + matrix[:, label].sum()
    return float(2 * hits / marked) if marked else 0.0


def f1_macro(matrix: np.ndarray) -> float:
    """Return the mean F1 of classes that occur in labels or predictions, as in scikit-learn."""
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    return float(np.mean([f1(matrix, label) for label in present])) if len(present) else 0.0


def matthews(matrix: np.ndarray) -> float:
    """Return the Matthews correlation of C classes (Gorodkin 2004, R_K); 0 if undefined."""
    gold, predicted = matrix.sum(1).astype(float), matrix.sum(0).astype(float)
    total = float(matrix.sum())
    covariance = float(np.trace(matrix)) * total - float(gold @ predicted)
    spread = (total**2 - float(gold @ gold)) * (total**2 - float(predicted @ predicted))
    return covariance / math.sqrt(spread) if spread > 0 else 0.0


def accuracy_with_interval(hits: float, total: int) -> dict[str, float]:
    """Return `accuracy` and its 95 % interval."""
    low, high = wilson(hits, total)
    share = float(hits / max(1, total))
    return {"accuracy": share, "accuracy_low95": low, "accuracy_high95": high}


def wilson(hits: float, total: int) -> tuple[float, float]:
    """Return the 95 % interval (Wilson 1927) of a proportion of `total` examples."""
    if total == 0:
        return 0.0, 1.0
    z = 1.959963984540054  # the 97.5 % point of the normal distribution
    share, scale = hits / total, 1 + z**2 / total
    center = (share + z**2 / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / scale
    return max(0.0, center - half), min(1.0, center + half)

"""Examples whose labels are probably wrong, from the probabilities of a model.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021),
arXiv:1911.00068. The model should not have been trained on the examples, or for an epoch only: in
the end it learns wrong labels by heart.
"""

from typing import NamedTuple

import numpy as np


class Suspects(NamedTuple):
    """Examples whose given label is probably wrong, the most probable errors first."""

    examples: np.ndarray
    """[S] their indices."""
    likely: np.ndarray
    """[S] the label that they probably should have."""


def thresholds(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return each label's mean probability among the examples that have it [C]; 1 if none has.

    Args:
      probabilities: [N, C].
      given: the labels of the examples [N], 0 to C - 1.
    """
    counts = np.bincount(given, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(given)), given]
    means = np.bincount(given, own, probabilities.shape[1]) / np.maximum(counts, 1)
    return np.where(counts > 0, means, 1.0)


def suspects(probabilities: np.ndarray, given: np.ndarray) -> Suspects:
    """Return the examples off the diagonal of the confident joint, by normalized margin.

    An example is confidently of the most probable of the labels whose threshold its probability
    reaches. It is a suspect if that is not its given label. Suspects are ranked by the probability
    of the given label minus that of the most probable other one.

    Args:
      probabilities: [N, C].
      given: the labels of the examples [N], 0 to C - 1.
    """
    if not probabilities.size:
        return Suspects(np.zeros(0, int), np.zeros(0, int))
    reached = probabilities >= thresholds(probabilities, given)
    confident = np.where(reached, probabilities, -1.0).argmax(axis=1)
    chosen = np.flatnonzero(reached.any(axis=1) & (confident != given))
    order = chosen[np.argsort(margins(probabilities, given)[chosen], kind="stable")]
    return Suspects(order, confident[order])


def margins(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the probability of each given label minus that of the best other one [N]."""
    rows = np.arange(len(given))
    others = probabilities.copy()
    others[rows, given] = -1.0
    return np.asarray(probabilities[rows, given] - others.max(axis=1))

"""Metrics of multi-label classification, named and defined as in scikit-learn."""

import numpy as np


def score(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Return micro precision, recall and F1, macro F1, and subset accuracy; 0 if undefined.

    Args:
      predicted: booleans [X, C].
      gold: booleans [X, C].

    Returns:
      `f1_macro` is the mean over all C labels. `accuracy` is the share of examples for which all
      labels are right.
    """
    hits, marked, real = (predicted & gold).sum(0), predicted.sum(0), gold.sum(0)
    both = zip(hits, marked + real, strict=True)
    return {
        "f1_micro": _share(2 * hits.sum(), marked.sum() + real.sum()),
        "f1_macro": float(np.mean([_share(2 * h, m) for h, m in both])),
        "precision_micro": _share(hits.sum(), marked.sum()),
        "recall_micro": _share(hits.sum(), real.sum()),
        "accuracy": _share(int((predicted == gold).all(1).sum()), len(gold)),
    }


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def best_thresholds(probabilities: np.ndarray, gold: np.ndarray) -> list[float]:
    """Return the threshold with the best F1 for each label, halfway between two probabilities.

    Args:
      probabilities: [X, C].
      gold: booleans [X, C]. The threshold of a label that never occurs is 0.5.
    """
    thresholds = []
    for p, real in zip(probabilities.T, gold.T, strict=True):
        order = np.argsort(-p, kind="stable")
        ranked, hits = p[order], np.cumsum(real[order])
        f1 = 2 * hits / (np.arange(1, len(p) + 1) + real.sum())
        f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # no threshold separates equal probabilities
        last = int(np.argmax(f1)) if len(p) else 0
        if not real.any():
            thresholds.append(0.5)
        else:
            below = ranked[last + 1] if last + 1 < len(p) else 0.0
            thresholds.append(float((ranked[last] + below) / 2))
    return thresholds

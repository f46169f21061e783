"""Exact match and F1 of SQuAD v1.1, as its official `evaluate-v1.1.py` defines them.

Rajpurkar, Zhang, Lopyrev and Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text"
(2016), arXiv:1606.05250, section 6.1.
"""

import collections
import re
import string
from collections.abc import Callable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower-case, drop ASCII punctuation, then English articles, then extra white space."""
    text = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 if both are equal once normalised, else 0."""
    return float(normalize(prediction) == normalize(reference))


def f1(prediction: str, reference: str) -> float:
    """F1 over the two bags of normalised words; 0 if they share none, even if both are empty."""
    predicted, gold = normalize(prediction).split(), normalize(reference).split()
    common = sum((collections.Counter(predicted) & collections.Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The best score against any of the references."""
    return max(metric(prediction, reference) for reference in references)


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean over all questions, in percent.

    Args:
      predictions: one answer a question ("" where there is none: it scores as wrong).
      references: one or more acceptable answers a question.

    Returns:
      `exact_match` and `f1`, 0 to 100.

    Raises:
      ValueError: for a question without any reference, or lists of different lengths.
    """
    if not all(references):
        raise ValueError("SQuAD v1.1 scores answerable questions: every one needs a reference")
    pairs = list(zip(predictions, references, strict=True))
    count = max(1, len(pairs))
    return {
        "exact_match": 100.0 * sum(best(exact_match, p, r) for p, r in pairs) / count,
        "f1": 100.0 * sum(best(f1, p, r) for p, r in pairs) / count,
    }

"""Exact match and F1 of SQuAD, defined as in its official scripts.

Version 1.1, all questions answerable (`evaluate-v1.1.py`): Rajpurkar, Zhang, Lopyrev and Liang,
"SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), arXiv:1606.05250, section 6.1.

Version 2.0, where some are not (`evaluate-v2.0.py`): Rajpurkar, Jia and Liang, "Know What You Don't
Know: Unanswerable Questions for SQuAD" (2018), arXiv:1806.03822. Names ending in `_v2` belong to
this version only; normalization and exact match are the same in both.

Words are separated by white space. In scripts without it (Chinese, Japanese, Thai), an answer is
one word, so F1 is 0 or 1. MLQA and CMRC count characters there, which is a different metric.
"""

import collections
import itertools
import re
import string
from collections.abc import Callable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Convert to lower case; remove ASCII punctuation, English articles and extra white space."""
    text = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, reference: str) -> float:
    """Return 1 if both are equal after normalization, else 0."""
    return float(normalize(prediction) == normalize(reference))


def f1(prediction: str, reference: str) -> float:
    """Return F1 over the bags of normalized words; 0 if they share none, even if both are empty."""
    predicted, gold = normalize(prediction).split(), normalize(reference).split()
    common = sum((collections.Counter(predicted) & collections.Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """Return the best score against any of the references."""
    return max(metric(prediction, reference) for reference in references)


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the means over all questions, in percent.

    Args:
      predictions: one answer for each question; "" (no answer) counts as wrong.
      references: one or more acceptable answers for each question.

    Returns:
      `exact_match` and `f1`, 0 to 100.

    Raises:
      ValueError: for a question without references, or lists of different lengths.
    """
    if not all(references):
        raise ValueError("SQuAD v1.1 scores answerable questions: each needs a reference")
    pairs = list(zip(predictions, references, strict=True))
    count = max(1, len(pairs))
    return {
        "exact_match": 100.0 * sum(best(exact_match, p, r) for p, r in pairs) / count,
        "f1": 100.0 * sum(best(f1, p, r) for p, r in pairs) / count,
    }


def f1_v2(prediction: str, reference: str) -> float:
    """Return `f1`, but 1 if both sides are empty after normalization: correctly no answer."""
    return f1(prediction, reference) if normalize(reference) else exact_match(prediction, reference)


def acceptable(references: Sequence[str]) -> Sequence[str]:
    """Return the references that are not empty after normalization, or only "" if all are."""
    return [reference for reference in references if normalize(reference)] or [""]


def question_scores_v2(
    metric: Callable[[str, str], float],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
) -> list[float]:
    """Return the score of each question, 0 to 1, before any threshold.

    `metric` is `exact_match` or `f1_v2`.
    """
    pairs = zip(predictions, references, strict=True)
    return [best(metric, prediction, acceptable(golds)) for prediction, golds in pairs]


def score_v2(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    null_scores: Sequence[float] | None = None,
    *,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Return means over all, over answerable and over unanswerable questions, in percent.

    Args:
      predictions: one answer for each question, "" for none.
      references: the acceptable answers of each question; an empty list marks it unanswerable.
      null_scores: how sure the model is that there is no answer, as probabilities or on any other
        scale; None means 0 for all, as in the official script.
      threshold: the answer to a question with a greater null score counts as "". The official value
        1 keeps all answers if null scores are probabilities; `math.inf` always does.

    Returns:
      Metrics, here and in the official script:

        exact_match, f1                    exact, f1
        has_ans_exact_match, has_ans_f1    HasAns_exact, HasAns_f1; if any question is answerable
        no_ans_exact_match, no_ans_f1      NoAns_exact, NoAns_f1; if any is not

      and with null scores, from the predictions before `threshold`:

        best_exact_match, best_exact_match_threshold    best_exact, best_exact_thresh
        best_f1, best_f1_threshold                      best_f1, best_f1_thresh

      The official search may stop between equal null scores, and it starts at threshold 0 whatever
      their range, so its threshold may not attain its best score; `best_threshold` fixes both.
      Without questions, all these metrics are 0.

    Raises:
      ValueError: for lists of different lengths.
    """
    nulls = [0.0] * len(predictions) if null_scores is None else null_scores
    answerable = [bool(golds) for golds in references]
    raw = {
        name: question_scores_v2(metric, predictions, references)
        for name, metric in (("exact_match", exact_match), ("f1", f1_v2))
    }
    parts = {
        "": [True] * len(answerable),
        "has_ans_": answerable,
        "no_ans_": [not flag for flag in answerable],
    }
    result = {}
    for part, members in parts.items():
        if any(members) or not members:
            for name, scores in raw.items():
                questions = zip(scores, answerable, nulls, strict=True)
                final = [float(not flag) if null > threshold else s for s, flag, null in questions]
                total = sum(itertools.compress(final, members))
                result[part + name] = 100.0 * total / max(1, sum(members))
    if null_scores is None:
        return result
    for name, scores in raw.items():
        # The official search takes any text for an answer, even one that normalizes to "".
        texts = zip(scores, answerable, predictions, strict=True)
        kept = [s if flag else float(not prediction) for s, flag, prediction in texts]
        sweep = _sweep(kept, answerable, nulls, start=0.0)
        best_at, total = max(sweep, key=lambda point: point[1])  # the first of equals
        result[f"best_{name}"] = 100.0 * total / max(1, len(kept))
        result[f"best_{name}_threshold"] = best_at
    return result


def best_threshold(
    scores: Sequence[float], answerable: Sequence[bool], null_scores: Sequence[float]
) -> tuple[float, float]:
    """Return the best mean score, in percent, and the null-score threshold that attains it.

    A question gets no answer if its null score is greater than the threshold. Questions with equal
    null scores are treated alike, so `score_v2` at the threshold gives the returned score.

    Args:
      scores: the score of each question's answer, 0 to 1; see `question_scores_v2`.
      answerable: whether each question has an answer.
      null_scores: as in `score_v2`, in any range.

    Returns:
      The score and the lowest threshold that attains it: one of the null scores, or 1 less than all
      of them if it is best to answer nothing. Both are 0 without questions.

    Raises:
      ValueError: for lists of different lengths.
    """
    start = float(min(null_scores, default=1.0)) - 1.0  # finite, because JSON has no -inf
    # Of equal thresholds, the dict keeps the last total, which includes all their questions.
    totals = dict(_sweep(scores, answerable, null_scores, start=start))
    best_at = max(totals, key=totals.__getitem__)
    return 100.0 * totals[best_at] / max(1, len(scores)), best_at


def _sweep(
    scores: Sequence[float],
    answerable: Sequence[bool],
    null_scores: Sequence[float],
    *,
    start: float,
) -> list[tuple[float, float]]:
    """Return (threshold, sum of scores): nothing answered at `start`, then one more each time."""
    # Without an answer an unanswerable question scores 1, any other 0.
    gains = [float(s) - float(not flag) for s, flag in zip(scores, answerable, strict=True)]
    order = sorted(zip(null_scores, gains, strict=True), key=lambda question: question[0])
    nothing = float(sum(not flag for flag in answerable))
    totals = itertools.accumulate((gain for _, gain in order), initial=nothing)
    thresholds = [start, *(float(null) for null, _ in order)]
    return list(zip(thresholds, totals, strict=True))

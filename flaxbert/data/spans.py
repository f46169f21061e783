"""Spans of tokens, from candidates that the model scored: the half that needs no device."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaxbert.data.features import Features
from flaxbert.data.windows import trim

IMPOSSIBLE = -1e30
"""A score below all real ones, which excludes a position."""

Candidates = Mapping[str, np.ndarray]
"""`start_score` `start_place` `end_score` `end_place`, [n] each, of one sequence."""


def best_spans(scored: Candidates, longest: int, count: int) -> list[tuple[float, int, int]]:
    """Return the `count` best pairs of a start and an end of at most `longest` tokens.

    Returns:
      (score, first token, last token), best first; fewer where there are not as many pairs.
    """
    starts, ends, scores = _scores(scored, longest)
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, scores.shape)
    return [
        (float(scores[row, column]), int(starts[row]), int(ends[column]))
        for row, column in zip(rows, columns, strict=True)
        if np.isfinite(scores[row, column])
    ]


def best_span(scored: Candidates, longest: int) -> tuple[float, int, int]:
    """Return the best pair of a start and an end of at most `longest` tokens.

    Returns:
      (score, first token, last token); the score is -inf if there is no such pair.
    """
    starts, ends, scores = _scores(scored, longest)
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return float(scores[row, column]), int(starts[row]), int(ends[column])


def _scores(scored: Candidates, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return starts [n], ends [n] and the score of each pair [n, n], -inf if it is no span."""
    starts, ends = scored["start_place"], scored["end_place"]
    start, end = (scored[f"{side}_score"].astype(np.float64) for side in ("start", "end"))
    length = ends[None, :] - starts[:, None] + 1
    valid = (length >= 1) & (length <= longest)
    valid &= (start > IMPOSSIBLE)[:, None] & (end > IMPOSSIBLE)[None, :]
    return starts, ends, np.where(valid, start[:, None] + end[None, :], -np.inf)


def characters(features: Features, window: int, first: int, last: int) -> tuple[int, int]:
    """Return the characters of the context, start and end, that tokens of a window cover."""
    begin = features.sequence_start[window]
    start = int(features.per_token["char_start"][begin + first])
    end = int(features.per_token["char_end"][begin + last])
    return start, end


def ranked(
    contexts: Sequence[str], features: Features, candidates: Candidates, *, longest: int, count: int
) -> list[dict[tuple[int, int], float]]:
    """Return the spans of each context with their scores: {(start, end): score}, in characters.

    Windows overlap, and spans that differ only in blanks are equal: the best score counts.

    Args:
      contexts: one per example.
      features: windows of the contexts.
      candidates: those of all windows, [M, n] each.
      longest: the most tokens of a span.
      count: the number of spans of each window.
    """
    scores: list[dict[tuple[int, int], float]] = [{} for _ in contexts]
    for window, example in enumerate(features.example_index):
        here = {name: values[window] for name, values in candidates.items()}
        for score, first, last in best_spans(here, longest, count):
            place = trim(contexts[example], *characters(features, window, first, last))
            scores[example][place] = max(score, scores[example].get(place, -np.inf))
    return scores


def best(context: str, scores: Mapping[tuple[int, int], float], count: int) -> list[dict[str, Any]]:
    """Return the best spans of one context, as from `ranked`, the best first.

    Of spans with the same text only the best one is returned, as in the n-best lists of the
    original BERT (`run_squad.py`), so that each answer is another one.

    Each has `score`, `start` and `end` in characters, and `answer`, their text.
    """
    answers: dict[str, dict[str, Any]] = {}
    for start, end in sorted(scores, key=lambda place: -scores[place]):
        text = context[start:end]
        answer = {"score": scores[start, end], "start": start, "end": end, "answer": text}
        answers.setdefault(text, answer)
    return list(answers.values())[:count]

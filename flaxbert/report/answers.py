"""Quality of extracted answers."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from flaxbert.messages.language import amount, plural, tr
from flaxbert.metrics import resampling, squad
from flaxbert.report.html import Html, join, number, share, table, tag, user_text
from flaxbert.report.quality import Evaluated, Quality, Suspect, estimates, ratio

AROUND = 120
"""Characters of a context that are shown before and after an answer."""

CONFIDENT = 0.75
"""Answers that are wrong in spite of a score above this quantile may have wrong labels."""


def assess(evaluated: Evaluated) -> Quality:
    """Assess answers to questions, some of which may have no answer in their text."""
    references = [[text for text, _ in label["answers"]] for label in evaluated.labels]
    answers = [prediction["answer"] for prediction in evaluated.predictions]
    exact, f1 = (
        np.array(squad.question_scores_v2(metric, answers, references))
        for metric in (squad.exact_match, squad.f1_v2)
    )
    answerable = np.array([bool(golds) for golds in references], bool)
    empty = np.array([not answer for answer in answers], bool)
    sums = _sums(exact, f1, answerable)
    null = (~answerable).astype(float)  # right without any answer
    doubt, name = _doubt(evaluated)
    return Quality(
        main="f1",
        estimates=estimates(sums, _statistic, _sums(null, null, answerable).sum(axis=0)),
        baseline=tr("never an answer"),
        correct=exact > 0,
        wrongness=1 - f1,
        wrongness_name=tr("missing F1"),
        row=functools.partial(_row, evaluated),
        doubt=doubt,
        doubt_name=name,
        sections=[_breakdown(exact, f1, answerable, empty)],
        suspects=_suspects(evaluated, f1, empty),
    )


def _sums(exact: np.ndarray, f1: np.ndarray, answerable: np.ndarray) -> np.ndarray:
    """Return exact matches, F1 and questions of all, of answerable and of other questions."""
    parts = np.ones(len(exact)), answerable.astype(float), 1.0 - answerable
    columns = [value * part for part in parts for value in (exact, f1, 1.0)]
    return resampling.group_sums(np.stack(columns, axis=1))


def _statistic(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of metrics/squad.py, in percent, of many samples at once."""
    result = {}
    for place, part in enumerate(("", "has_ans_", "no_ans_")):
        exact, f1, count = np.moveaxis(sums[..., 3 * place : 3 * place + 3], -1, 0)
        result[f"{part}exact_match"] = 100.0 * ratio(exact, count)
        result[f"{part}f1"] = 100.0 * ratio(f1, count)
    return result


def _doubt(evaluated: Evaluated) -> tuple[np.ndarray, str]:
    """Return how doubtful each answer is, and why."""
    if all("null_odds" in prediction for prediction in evaluated.predictions):
        odds = np.array([prediction["null_odds"] for prediction in evaluated.predictions], float)
        distance = np.abs(odds - evaluated.fitted.get("null_threshold", 0.0))
        return -distance, tr("the choice between an answer and none is closest")
    scores = [prediction.get("score") for prediction in evaluated.predictions]
    known = np.array([-np.inf if s is None else s for s in scores], float)
    return -known, tr("the score is lowest")


def _breakdown(
    exact: np.ndarray, f1: np.ndarray, answerable: np.ndarray, empty: np.ndarray
) -> Html:
    """Return how many questions of each kind have which kind of answer."""
    kinds = {
        True: {
            tr("exactly right"): answerable & (exact > 0),
            tr("partly right (some words)"): answerable & (exact == 0) & (f1 > 0),
            tr("wrong"): answerable & (f1 == 0) & ~empty,
            tr("no answer given"): answerable & empty,
        },
        False: {
            tr("right: no answer given"): ~answerable & (f1 > 0),
            tr("wrong: an answer given"): ~answerable & (f1 == 0),
        },
    }
    parts = []
    for has_answer, outcomes in kinds.items():
        total = int(sum(mask.sum() for mask in outcomes.values()))
        rows = [
            [outcome, amount(mask.sum()), share(float(mask.sum()), total),
             number(100 * float(f1[mask].mean()) if mask.any() else None)]
            for outcome, mask in outcomes.items()
        ]  # fmt: skip
        columns = [tr("outcome"), tr("questions"), tr("share"), tr("mean F1")]
        caption = (
            plural(total, "1 question with an answer", "{n} questions with an answer")
            if has_answer
            else plural(total, "1 question without an answer", "{n} questions without an answer")
        )
        parts.append(table(caption, columns, rows if total else [], numeric=columns[1:]))
    return join(*parts)


def _suspects(evaluated: Evaluated, f1: np.ndarray, empty: np.ndarray) -> list[Suspect]:
    """Return wrong answers in which the model is confident, the most confident first."""
    scores = np.array([p.get("score") or -np.inf for p in evaluated.predictions], float)
    finite = scores[np.isfinite(scores) & ~empty]
    if not len(finite):
        return []
    chosen = np.flatnonzero((f1 == 0) & ~empty & (scores >= np.quantile(finite, CONFIDENT)))
    order = chosen[np.argsort(-scores[chosen], kind="stable")]
    return [Suspect(int(n), str(evaluated.predictions[n]["answer"])) for n in order]


def _row(evaluated: Evaluated, index: int) -> dict[str, object]:
    label, prediction = evaluated.labels[index], evaluated.predictions[index]
    golds = [text for text, _ in label["answers"]]
    return {
        tr("question and text"): join(
            tag("strong", user_text(prediction["question"]), class_="sentence"),
            _context(label, prediction),
        ),
        tr("answer"): user_text(golds[0], 120) if golds else tr("no answer"),
        tr("predicted"): user_text(prediction["answer"] or tr("no answer"), 120),
    }


def _context(label: Mapping[str, Any], prediction: Mapping[str, Any]) -> Html:
    """Return the excerpt of the context, with the right and the predicted answer highlighted."""
    context, offset = str(label["context"]), int(label["offset"])
    kinds = [""] * (len(context) + 1)
    for text, start in label["answers"][:1]:
        for place in range(max(0, start - offset), min(len(context), start + len(text) - offset)):
            kinds[place] = "missed"
    if prediction["answer"]:
        span = range(int(prediction["start"]) - offset, int(prediction["end"]) - offset)
        for place in span:
            if 0 <= place < len(context):
                kinds[place] = "right" if kinds[place] else "wrong"
    parts: list[object] = ["… "] if offset else []
    names = {"right": tr("both"), "missed": tr("answer"), "wrong": tr("predicted")}
    start = 0
    for end in range(1, len(context) + 1):
        if end == len(context) or kinds[end] != kinds[start]:
            piece, kind = context[start:end], kinds[start]
            about = tag("small", names[kind]) if kind else None
            text = _elided(piece, start == 0, end == len(context))
            parts.append(tag("mark", text, about, class_=kind) if kind else text)
            start = end
    if offset + len(context) < label["length"]:
        parts.append(" …")
    return tag("span", *parts, class_="sentence", dir="auto")


def _elided(piece: str, first: bool, last: bool) -> str:
    """Return a piece of a context, shortened at the ends that are far from an answer."""
    if len(piece) <= 2 * AROUND:
        return piece
    if first and last:
        return f"{piece[: 2 * AROUND]} …"
    head = "" if first else piece[:AROUND]
    return f"{head} … {'' if last else piece[-AROUND:]}"

"""Answers in SQuAD's form, checked against their context."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flaxbert.data.checks import RARE, Issue
from flaxbert.data.table import Record, parsed, shown
from flaxbert.errors import DataError

Answer = tuple[str, int]
"""The text, and the place of its first character in the context."""

NEAR = 500
"""Characters around an answer's place that are searched for a similar text, in quadratic time."""


def read_answers(
    row: Record, *, unanswerable: bool, on_bad_row: str = "error"
) -> tuple[tuple[Answer, ...], list[str]]:
    """Return the reference answers of a question, and what is wrong with skipped ones.

    Args:
      row: a record with `context` and `answers`.
      unanswerable: whether there may be none.
      on_bad_row: "error" raises for an answer that is not at its place; "skip" leaves it out if the
        question has others. Machine-translated data sets have such answers.

    Raises:
      DataError: for another form, a malformed answer, or none where one is needed.
    """
    context = row.text("context")
    pairs = _pairs(row)
    if not pairs and not unanswerable:
        raise DataError(
            f"{row.origin}: no answer. For SQuAD v2.0, where some questions have none, set "
            "--config.options.unanswerable=true; else remove the row."
        )
    problems = [_problem(text, start, context) for text, start in pairs]
    valid: Any = tuple(
        pair for pair, problem in zip(pairs, problems, strict=True) if problem is None
    )
    if len(valid) < len(pairs) and (on_bad_row != "skip" or not valid):
        problem = next(problem for problem in problems if problem is not None)
        raise DataError(
            f"{row.origin}: {problem} Fix it, or leave such answers out with "
            "--config.data.on_bad_row=skip."
        )
    return valid, [f"{row.origin}: {problem}" for problem in problems if problem is not None]


def _pairs(row: Record) -> tuple[tuple[object, object], ...]:
    """Return unchecked texts and places; none if `is_impossible` is true and no text is given.

    Raises:
      DataError: for another form.
    """
    answers: Any = row.values.get("answers")
    impossible = _impossible(row)
    try:
        if isinstance(answers, str):  # a cell of a .tsv or .csv
            answers = parsed(answers) if answers.strip() else None
        if answers == {} or (answers is None and impossible):
            return ()
        if isinstance(answers, list):  # of objects, as in the nested form
            pairs = [(answer["text"], answer["answer_start"]) for answer in answers]
        else:
            columns = [answers["text"], answers["answer_start"]]
            if isinstance(columns[0], str) and not isinstance(columns[1], list | tuple):
                columns = [[columns[0]], [columns[1]]]
            if not all(isinstance(column, list | tuple) for column in columns):
                raise TypeError(
                    "a text instead of a list would be read as one answer per character"
                )
            pairs = list(zip(*columns, strict=True))
    except (KeyError, TypeError, ValueError, RecursionError, SyntaxError, MemoryError):
        raise DataError(
            f"{row.origin}: answers is {shown(answers)}; expected "
            "{'text': [...], 'answer_start': [...]} of equal lengths (in .csv and .tsv as JSON). "
            "Without an answer: empty lists, or is_impossible true."
        ) from None
    if impossible and not any(isinstance(text, str) and text.strip() for text, _ in pairs):
        return ()
    return tuple((text, _whole(start)) for text, start in pairs)


def _impossible(row: Record) -> bool | None:
    """Return the value of `is_impossible`; None if it is absent or has another value."""
    value = str(row.values.get("is_impossible")).strip().lower()
    return {"true": True, "1": True, "false": False, "0": False}.get(value)


def _whole(start: object) -> object:
    """Convert a place that is a text or, written by pandas, a float, to an integer."""
    if isinstance(start, str) and start.strip().isdecimal() and len(start) < 20:
        return int(start)
    return int(start) if isinstance(start, float) and start.is_integer() else start


def check_questions(rows: Iterable[Record], *, unanswerable: bool) -> Iterator[Issue]:
    """Report duplicate question ids, and `is_impossible` flags that contradict the answers.

    Args:
      rows: records with `id`, which identifies predictions.
      unanswerable: whether `is_impossible` is read.
    """
    first: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        name, answers = str(row.values.get("id")), row.values.get("answers")
        if "id" in row.values and name in first:
            what = f"question {number} has the id {shown(name)}, as has question {first[name]}"
            yield Issue("id twice", row.origin, f"{what}; it identifies predictions")
        first.setdefault(name, str(number))
        impossible = _impossible(row)
        if unanswerable and impossible is not None and answers is not None:
            given = _has_answer(row)
            if given == impossible:
                what = (
                    f"is_impossible is {impossible}, but there is {'an' if given else 'no'} answer"
                )
                yield Issue("is_impossible", row.origin, f"{what}, which counts")


def _has_answer(row: Record) -> bool | None:
    try:
        return bool(_pairs(row))
    except DataError:  # reading reports it
        return None


UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)
"""Matches letters of scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana,
Chinese.
"""


def unspaced(answers: Sequence[Sequence[Answer]], origins: Sequence[str]) -> Iterator[Issue]:
    """Report answers in scripts without blanks, for which the official F1 is hardly meaningful."""
    texts = [(pairs[0][0], origin) for pairs, origin in zip(answers, origins, strict=True) if pairs]
    affected = [(text, origin) for text, origin in texts if UNSPACED.search(text)]
    if affected and RARE * len(affected) >= len(texts):
        text, origin = affected[0]
        what = (
            f"{len(affected)} of {len(texts)} answers are in a script without blanks between "
            f"words, such as {shown(text)}. Exact match and F1 are the official script's, which "
            "compares words between blanks: an answer with one more character has F1 0"
        )
        yield Issue("words without blanks", origin, what)


def _problem(text: object, start: object, context: str) -> str | None:
    """Return what is wrong with an answer; None for a valid one."""
    if (
        not (isinstance(text, str) and text)
        or not isinstance(start, int)
        or isinstance(start, bool)
        or start < 0
    ):
        return (
            f"answer {shown(text)} at {shown(start)}; expected a text that is not empty and the "
            "number of its first character."
        )
    if context[start : start + len(text)] != text:
        return (
            f"answer {shown(text)} is not at character {start}; {_nearest(text, start, context)}."
        )
    return None


def _nearest(text: str, start: int, context: str) -> str:
    """Describe where a misplaced answer is in the context, or the text that is most similar."""
    places = [match.start() for match in re.finditer(re.escape(text), context)]
    if places:
        return f"it is at {min(places, key=lambda place: abs(place - start))}"
    begin = max(0, min(start, len(context)) - NEAR)
    near = context[begin : begin + 2 * NEAR]
    matcher = difflib.SequenceMatcher(None, near, text[:NEAR], autojunk=False)
    place, _, size = matcher.find_longest_match()
    if 2 * size < len(text):
        return "the context does not contain it"
    place += begin
    return f"the context does not contain it, but {shown(context[place : place + size])} at {place}"

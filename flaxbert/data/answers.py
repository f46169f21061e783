"""Answers in SQuAD's form, checked against their context."""

import difflib
import json
import re
from typing import Any

from flaxbert.data.table import Row, shown
from flaxbert.errors import DataError

Answer = tuple[str, int]
"""Text, and its first character in the context."""

NEAR = 500
"""Characters around an answer's place where its like is looked for: time grows by their square."""


def read_answers(
    row: Row, *, unanswerable: bool, malformed: str = "error"
) -> tuple[tuple[Answer, ...], list[str]]:
    """All reference answers of a question, and what is wrong with those that were skipped.

    Args:
      row: with `context` and `answers`.
      unanswerable: whether there may be none.
      malformed: whether an answer that does not stand at its place is an "error", or left out
        ("skip") where the question has others; machine-translated sets have such answers.

    Raises:
      DataError: for another form, no answer where one is needed, or a malformed one.
    """
    answers: Any = row.values.get("answers")
    context = row.text("context")
    try:
        if isinstance(answers, str):  # a cell of a .tsv or .csv
            answers = json.loads(answers)
        columns = [answers["text"], answers["answer_start"]]
        if not all(isinstance(column, list | tuple) for column in columns):
            raise TypeError("a text in place of a list would be read as one answer a character")
        pairs = tuple(zip(*columns, strict=True))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise DataError(
            f"{row.origin}: answers is {shown(answers)}; expected "
            "{'text': [...], 'answer_start': [...]} of equal lengths (in .csv and .tsv as JSON)."
        ) from None
    if not pairs and not unanswerable:
        raise DataError(
            f"{row.origin}: no answer. For SQuAD v2.0, where some questions have none, set "
            "--config.options.unanswerable=true; else remove the row."
        )
    faults = [_fault(text, start, context) for text, start in pairs]
    good = tuple(pair for pair, fault in zip(pairs, faults, strict=True) if fault is None)
    if len(good) < len(pairs) and (malformed != "skip" or not good):
        fault = next(fault for fault in faults if fault is not None)
        raise DataError(
            f"{row.origin}: {fault} Mend it, or leave such answers out with "
            "--config.data.malformed=skip."
        )
    return good, [f"{row.origin}: {fault}" for fault in faults if fault is not None]


def _fault(text: object, start: object, context: str) -> str | None:
    """What is wrong with an answer."""
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
    """Where an answer stands that is not where it should be, or what is most like it."""
    places = [match.start() for match in re.finditer(re.escape(text), context)]
    if places:
        return f"it stands at {min(places, key=lambda place: abs(place - start))}"
    begin = max(0, min(start, len(context)) - NEAR)
    near = context[begin : begin + 2 * NEAR]
    matcher = difflib.SequenceMatcher(None, near, text[:NEAR], autojunk=False)
    place, _, size = matcher.find_longest_match()
    if 2 * size < len(text):
        return "the context does not contain it"
    place += begin
    return f"the context does not contain it, but {shown(context[place : place + size])} at {place}"

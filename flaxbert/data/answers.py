"""Answers in SQuAD's form, checked against their context."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from flaxbert.data.findings import Finding
from flaxbert.data.table import Row, printed, shown
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
            answers = printed(answers)
        columns = [answers["text"], answers["answer_start"]]
        if not all(isinstance(column, list | tuple) for column in columns):
            raise TypeError("a text in place of a list would be read as one answer a character")
        pairs = tuple(zip(*columns, strict=True))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise DataError(
            f"{row.origin}: answers is {shown(answers)}; expected "
            "{'text': [...], 'answer_start': [...]} of equal lengths (in .csv and .tsv as JSON or "
            "as Python prints it; array(...) of numpy is not read: write it with json.dumps)."
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


def doubtful(rows: Iterable[Row], *, unanswerable: bool) -> Iterator[Finding]:
    """Questions whose `id` another has too, or whose `is_impossible` their answers belie.

    Args:
      rows: with `id`, by which predictions are told apart.
      unanswerable: whether answers are read, and `is_impossible` means something.
    """
    first: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        name, answers = str(row.values.get("id")), row.values.get("answers")
        if "id" in row.values and name in first:
            what = f"question {number} has the id {shown(name)}, as has question {first[name]}"
            yield Finding("id twice", row.origin, f"{what}; predictions go by it")
        first.setdefault(name, str(number))
        impossible = row.values.get("is_impossible")
        if unanswerable and isinstance(impossible, bool) and isinstance(answers, dict):
            given = bool(answers.get("text"))
            if given == impossible:
                what = (
                    f"is_impossible is {impossible}, but there is {'an' if given else 'no'} answer"
                )
                yield Finding("is_impossible", row.origin, f"{what}, which counts")


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

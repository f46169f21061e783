"""Answers in SQuAD's form, checked against their context."""

import json

from flaxbert.data.sources import Row
from flaxbert.errors import DataError


def read_answers(row: Row, *, unanswerable: bool) -> tuple[tuple[str, int], ...]:
    """All reference answers of a question, as (text, first character).

    Args:
      row: with `context` and `answers`.
      unanswerable: whether there may be none.

    Raises:
      DataError: for another form, or an answer that does not stand at its place in the context.
    """
    answers = row.values.get("answers") or {}
    try:
        if isinstance(answers, str):  # a cell of a .tsv or .csv
            answers = json.loads(answers)
        pairs = tuple(zip(answers["text"], answers["answer_start"], strict=True))
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{row.origin}: answers is {answers!r}; expected "
            "{'text': [...], 'answer_start': [...]} of equal lengths (in .csv and .tsv as JSON)."
        ) from None
    if not pairs and not unanswerable:
        raise DataError(
            f"{row.origin}: no answer. For SQuAD v2.0, where some questions have none, set "
            "--config.options.unanswerable=true; else remove the row."
        )
    context = row.values["context"]
    for text, start in pairs:
        if not isinstance(text, str) or not text or not isinstance(start, int) or start < 0:
            raise DataError(
                f"{row.origin}: answer {text!r} at {start!r}; expected a text that is not empty "
                "and the number of its first character."
            )
        if context[start : start + len(text)] != text:
            near = context.find(text)
            mend = f"it stands at {near}" if near >= 0 else "the context does not contain it"
            raise DataError(f"{row.origin}: answer {text!r} is not at character {start}; {mend}.")
    return pairs

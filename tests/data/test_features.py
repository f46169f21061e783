"""Features and examples: what makes two data sets the same."""

import dataclasses
from typing import Any

import pytest

from flaxbert.data.features import fingerprint_of
from flaxbert.tasks.question_answering import QuestionExample
from flaxbert.tasks.texts import TextExample

EXAMPLES = [TextExample("fine film", None, 1, "en", "a.tsv:2"), TextExample("", "b", 0, None, "x")]


def test_the_fingerprint_of_examples_goes_by_what_they_are_not_by_where_they_stand() -> None:
    moved = [dataclasses.replace(each, origin="b.tsv:9") for each in EXAMPLES]
    assert fingerprint_of(moved, ["bad", "good"]) == fingerprint_of(EXAMPLES, ("bad", "good"))
    assert len(fingerprint_of([])) == 64


@pytest.mark.parametrize(
    "change", [{"text": "fine  film"}, {"pair": ""}, {"label": 0}, {"slice": None}, {"slice": "es"}]
)
def test_any_change_of_an_example_changes_the_fingerprint(change: dict[str, Any]) -> None:
    changed = [dataclasses.replace(EXAMPLES[0], **change), EXAMPLES[1]]
    assert fingerprint_of(changed) != fingerprint_of(EXAMPLES)


def test_names_of_labels_and_all_reference_answers_are_in_the_fingerprint() -> None:
    assert fingerprint_of(EXAMPLES, ["bad", "good"]) != fingerprint_of(EXAMPLES, ["bad", "fine"])
    one = QuestionExample("q1", "who?", "the king", (("king", 4),), None, "a.json: question q1")
    two = dataclasses.replace(one, answers=(("king", 4), ("the king", 0)))
    assert fingerprint_of([one]) != fingerprint_of([two])

"""Answers in SQuAD's form: every way a file can hold them."""

import json
from typing import Any

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.answers import check_questions, read_answers, unspaced
from flaxbert.data.table import Record
from flaxbert.errors import DataError

CONTEXT = "Ann met Bob, and Bob met Ann."
ANSWERS = {"text": ["Bob", "Ann"], "answer_start": [17, 0]}


def row(answers: Any) -> Record:
    return Record({"context": CONTEXT, "answers": answers}, "dev.csv:2")


@pytest.mark.parametrize("form", [dict, json.dumps, repr])
def test_answers_are_pairs_of_text_and_place(form: Any) -> None:
    assert read_answers(row(form(ANSWERS)), unanswerable=False) == ((("Bob", 17), ("Ann", 0)), [])


@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_table_of_text_holds_answers_as_json(ending: str, mark: str, tmp_path: Any) -> None:
    cells = [CONTEXT, json.dumps(ANSWERS)]
    if ending == "csv":
        cells = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    path = tmp_path / f"dev.{ending}"
    path.write_text(f"context{mark}answers\n{mark.join(cells)}\n")
    (read,) = readers.read(str(path), DataConfig(), split="train").rows
    assert read_answers(read, unanswerable=False) == ((("Bob", 17), ("Ann", 0)), [])


@pytest.mark.parametrize(
    "answers",
    [
        *("Bob", "{", "[1]", {"text": ["Bob"]}, 3, "[" * 9999, None, "", "f()", "{'text': x}"),
        {"text": "An", "answer_start": [0, 1]},  # not the answers "A" and "n"
        {"text": {"Ann": 1}, "answer_start": [0]},
    ],
)
def test_another_form_is_named_with_its_line(answers: Any) -> None:
    with pytest.raises(DataError, match=r"dev\.csv:2: answers is .*'answer_start'.*as JSON"):
        read_answers(row(answers), unanswerable=True)


def test_a_question_without_answer_needs_the_option() -> None:
    nothing = {"text": [], "answer_start": []}
    assert read_answers(row(nothing), unanswerable=True) == ((), [])
    with pytest.raises(DataError, match=r"dev\.csv:2: no answer.*options\.unanswerable=true"):
        read_answers(row(nothing), unanswerable=False)


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Bob"], "answer_start": ["8"]},
        {"text": ["Bob"], "answer_start": [8.0]},
        {"text": "Bob", "answer_start": 8},
        [{"text": "Bob", "answer_start": "8"}],
        "[{'text': 'Bob', 'answer_start': 8}]",
        "{'text': ['Bob'], 'answer_start': [8]}",  # as pandas writes an object into a .csv
        "{'text': array(['Bob'], dtype=object), 'answer_start': array([8], dtype=int32)}",
    ],
)
def test_places_and_answers_are_read_as_tools_write_them(answers: Any) -> None:
    assert read_answers(row(answers), unanswerable=False) == ((("Bob", 8),), [])


def test_a_place_that_is_text_is_checked_against_the_context() -> None:
    with pytest.raises(DataError, match="'Bob' is not at character 1; it is at 8"):
        read_answers(row({"text": ["Bob"], "answer_start": ["1"]}), unanswerable=False)
    for start in ("eight", "-1", "8.5", 8.5):
        with pytest.raises(DataError, match="answer 'Bob' at"):
            read_answers(row({"text": ["Bob"], "answer_start": [start]}), unanswerable=False)


@pytest.mark.parametrize("impossible", [True, "true", "True", 1])
@pytest.mark.parametrize(
    "answers",
    [
        {"text": [""], "answer_start": [-1]},
        {"text": ["", " "], "answer_start": [0, 0]},
        [{"text": "", "answer_start": -1}],
        {"text": [], "answer_start": []},
        {},
        [],
        None,
        "",
    ],
)
def test_an_impossible_question_with_an_empty_answer_has_none(
    impossible: Any, answers: Any
) -> None:
    values = {"id": "q", "context": CONTEXT, "answers": answers, "is_impossible": impossible}
    values["plausible_answers"] = {"text": ["Bob"], "answer_start": [8]}
    impossible_row = Record(values, "dev.csv:2")
    assert read_answers(impossible_row, unanswerable=True) == ((), [])
    assert list(check_questions([impossible_row], unanswerable=True)) == []
    with pytest.raises(DataError, match=r"dev\.csv:2: no answer.*options\.unanswerable=true"):
        read_answers(impossible_row, unanswerable=False)


def test_an_empty_answer_of_a_question_that_has_one_is_a_fault() -> None:
    for impossible in (False, "false", None):
        values = {"context": CONTEXT, "answers": [{"text": "", "answer_start": -1}]}
        with pytest.raises(DataError, match="answer '' at -1"):
            read_answers(Record(values | {"is_impossible": impossible}, "a:1"), unanswerable=True)
    with pytest.raises(DataError, match=r"answers is None; expected .* or is_impossible true"):
        read_answers(Record({"context": CONTEXT, "answers": None}, "a:1"), unanswerable=True)


@pytest.mark.parametrize("impossible", [True, "true"])
def test_an_answer_that_is_impossible_counts_and_is_reported(impossible: Any) -> None:
    values = {"id": "q", "context": CONTEXT, "answers": ANSWERS, "is_impossible": impossible}
    assert len(read_answers(Record(values, "a:1"), unanswerable=True)[0]) == 2
    (found,) = check_questions([Record(values, "a:1")], unanswerable=True)
    assert found.text.endswith("but there is an answer, which counts")


@pytest.mark.parametrize("text", ["東京", "とうきょう", "กรุงเทพ"])
def test_scripts_without_blanks_are_reported_once(text: str) -> None:
    answers = [((text, 0),), ((text, 3),), (("Bob", 8),), ()]
    (found,) = unspaced(answers, ["a:1", "a:2", "a:3", "a:4"])
    assert str(found).startswith("a:1: 2 of 3 answers are in a script without blanks between")
    assert "an answer with one more character has F1 0" in found.text
    assert not list(unspaced([(("서울 시", 0),), (("Łódź", 0),)], ["a:1", "a:2"]))
    assert not list(unspaced([answers[0], *[answers[2]] * 20], ["a:1"] * 21))  # a name in passing


def test_a_misplaced_answer_is_reported_with_its_place() -> None:
    with pytest.raises(DataError, match="'Bob' is not at character 1; it is at 8"):
        read_answers(row({"text": ["Bob"], "answer_start": [1]}), unanswerable=False)


def test_a_boolean_is_not_a_place() -> None:
    with pytest.raises(DataError, match="answer 'nn' at True; expected a text"):
        read_answers(row({"text": ["nn"], "answer_start": [True]}), unanswerable=False)


def test_answers_lost_in_translation_are_left_out_and_counted_on_request() -> None:
    answers = {"text": ["", "Bob", "Eve"], "answer_start": [-1, 8, 0]}
    with pytest.raises(DataError, match=r"answer '' at -1.*data\.on_bad_row=skip"):
        read_answers(row(answers), unanswerable=False)
    good, faults = read_answers(row(answers), unanswerable=False, on_bad_row="skip")
    assert good == (("Bob", 8),)
    assert len(faults) == 2
    nothing = {"text": [""], "answer_start": [-1]}  # no other: the row is malformed
    with pytest.raises(DataError, match="answer '' at -1"):
        read_answers(row(nothing), unanswerable=True, on_bad_row="skip")


def test_what_is_most_like_an_answer_is_looked_for_near_its_place_alone() -> None:
    # In all of a book it would take minutes, and what is far off is another text.
    context = "x" * 900_000 + " the bridge of Paris " + "x" * 1_000_000
    answers = {"text": ["the brigde of Paris"], "answer_start": [900_001]}
    near = Record({"context": context, "answers": answers}, "a:1")
    with pytest.raises(DataError, match="does not contain it, but 'e of Paris' at 900010"):
        read_answers(near, unanswerable=False)
    for start in (0, 2**70):
        far = Record({"context": context, "answers": answers | {"answer_start": [start]}}, "a:1")
        with pytest.raises(DataError, match=r"the context does not contain it\."):
            read_answers(far, unanswerable=False)

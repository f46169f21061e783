"""JSON: rows and questions in all forms that files have, whatever their names say."""

import json
from pathlib import Path
from typing import Any

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.answers import read_answers
from flaxbert.data.checks import READ_AS
from flaxbert.errors import DataError

ROWS = [{"text": "good film", "label": "good"}, {"text": "bad film", "label": "bad"}]
QUESTIONS = [
    {
        "id": f"q{n}",
        "question": "where?",
        "answers": [{"text": "paris", "answer_start": 7, "document_id": 3}],
        "is_impossible": False,
    }
    for n in (1, 2)
]
PARAGRAPH = {"context": "now in paris", "qas": QUESTIONS, "document_id": 3}
ARTICLE = {"title": "a", "paragraphs": [PARAGRAPH]}


def read(path: Path, content: str) -> readers.Table:
    path.write_text(content)
    return readers.read(str(path), DataConfig(), split="train")


def lines(*values: Any) -> str:
    return "".join(f"{json.dumps(value)}\n" for value in values)


def read_as(table: readers.Table) -> list[str]:
    return [str(finding) for finding in table.issues if finding.kind == READ_AS]


@pytest.mark.parametrize(
    ("name", "content", "remark"),
    [
        ("a.json", json.dumps(ROWS), ""),
        ("a.jsonl", lines(*ROWS), ""),
        ("a.json", json.dumps({"data": ROWS}), ""),
        ("a.json", lines(*ROWS), "JSON lines, an object each"),
        ("a.json", "\n" + lines(*ROWS), "JSON lines, an object each"),
        ("a.jsonl", json.dumps(ROWS), "one JSON document"),
        ("a.jsonl", json.dumps(ROWS, indent=2), "one JSON document"),
        ("a.jsonl", json.dumps({"data": ROWS}, indent=2), "one JSON document"),
        (
            "a.json",
            json.dumps({"text": ["good film", "bad film"], "label": ["good", "bad"]}),
            "columns ['text', 'label'] of rows",
        ),
        (  # pandas: to_json without an orient
            "a.json",
            json.dumps(
                {
                    "text": {"0": "good film", "1": "bad film"},
                    "label": {"1": "bad", "0": "good"},  # in any order
                }
            ),
            "columns ['text', 'label'] of rows",
        ),
        (  # orient="index"
            "a.json",
            json.dumps(dict(enumerate(ROWS))),
            "rows by their keys, such as '0'",
        ),
        (  # orient="split"
            "a.json",
            json.dumps(
                {
                    "columns": ["text", "label"],
                    "index": [0, 1],
                    "data": [["good film", "good"], ["bad film", "bad"]],
                }
            ),
            "columns ['text', 'label'] of rows",
        ),
    ],
)
def test_rows_are_read_by_their_form(name: str, content: str, remark: str, tmp_path: Path) -> None:
    table = read(tmp_path / name, content)
    assert [row.values for row in table.rows] == ROWS
    (found,) = read_as(table) if remark else [""]
    assert remark in found


def test_rows_by_their_ids_keep_them(tmp_path: Path) -> None:
    content = {f"a{n}": row for n, row in enumerate([*ROWS, ROWS[0] | {"more": 1}])}
    table = read(tmp_path / "a.json", json.dumps(content))
    expected = [{"id": key} | row for key, row in content.items()]
    assert [row.values for row in table.rows] == expected
    assert "rows by their keys, such as 'a0'" in read_as(table)[0]
    columns = {"text": {"a0": "x", "a1": "y", "a2": "z"}, "label": {"a0": 1, "a1": 0, "a2": 1}}
    table = read(tmp_path / "a.json", json.dumps(columns))
    assert [row.values["text"] for row in table.rows] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("name", "content", "remark"),
    [
        ("a.json", json.dumps({"version": "2.0", "data": [ARTICLE]}), ""),
        ("a.json", json.dumps({"data": [PARAGRAPH]}), "paragraphs with questions"),
        ("a.json", json.dumps([PARAGRAPH]), "paragraphs with questions"),
        ("a.json", json.dumps([ARTICLE]), "articles with questions"),
        ("a.json", json.dumps(ARTICLE), "articles with questions"),
        ("a.json", json.dumps(PARAGRAPH), "paragraphs with questions"),
        ("a.jsonl", lines({"data": [ARTICLE]}), "one JSON document"),
        ("a.jsonl", lines(PARAGRAPH), ""),
        ("a.jsonl", lines(ARTICLE), ""),
        ("a.json", lines(PARAGRAPH | {"qas": QUESTIONS[:1]}, PARAGRAPH | {"qas": QUESTIONS[1:]}),
         "JSON lines"),
        (
            "a.jsonl",
            lines(
                {"header": {"dataset": "a"}},
                {
                    "context": "now in paris",
                    "qas": [
                        {
                            "qid": f"q{n}",
                            "question": "where?",
                            "answers": ["paris"],
                            "detected_answers": [{"text": "paris", "char_spans": [[7, 11]]}],
                        }
                        for n in (1, 2)
                    ],
                },
            ),
            "a header, which is left out",
        ),
    ],
)  # fmt: skip
def test_questions_are_read_however_they_are_nested(
    name: str, content: str, remark: str, tmp_path: Path
) -> None:
    table = read(tmp_path / name, content)
    assert [row.values["id"] for row in table.rows] == ["q1", "q2"]
    for row in table.rows:
        assert read_answers(row, unanswerable=False) == ((("paris", 7),), [])
    assert all("question q" in row.origin for row in table.rows)
    (found,) = read_as(table) if remark else [""]
    assert remark in found


def test_a_question_without_id_goes_by_its_place(tmp_path: Path) -> None:
    question = {"question": "where?", "answers": [{"text": "paris", "answer_start": 7}]}
    table = read(tmp_path / "a.json", json.dumps([PARAGRAPH | {"qas": [question]}]))
    (row,) = table.rows
    assert "id" not in row.values
    assert row.origin == f"{tmp_path}/a.json: [0].qas[0]"


def test_an_impossible_question_with_null_for_answers_has_none(tmp_path: Path) -> None:
    question = QUESTIONS[0] | {"answers": None, "is_impossible": True}
    table = read(tmp_path / "a.json", json.dumps([PARAGRAPH | {"qas": [question]}]))
    assert read_answers(table.rows[0], unanswerable=True) == ((), [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": 1}\n{"a": \n', r"a\.json:2: not valid JSON"),  # JSON lines
        ("a.json", "{\n}\n{\n}\n", r"a\.json:3: not valid JSON \(Extra data\) \(several values;"),
        ("a.jsonl", '{"a": \n{"a": 1}\n', r"a\.jsonl:1: not valid JSON"),
        ("a.jsonl", "[1]\n[2]\n", r"a\.jsonl:1: expected a JSON object, found list"),
        ("a.json", '{"text": "x", "label": 1}', r"found dict with the keys \['text', 'label'\]"),
        ("a.json", '{"text": ["x"], "label": []}', "found dict with the keys"),
        (
            "a.json",
            json.dumps({"train": ROWS, "test": ROWS}),
            r"a list of objects for each of \['train', 'test'\]; .*own file.*--config\.data\.train",
        ),
        (
            "a.json",
            '{"x": {"text": "a", "text": "b"}, "y": {"text": "c"}, "z": {"text": "c"}}',
            r"a\.json: item 1: .*text.*twice",
        ),
        (
            "a.json",
            json.dumps([PARAGRAPH | {"qas": [{"question": "a", "detected_answers": [{}]}]}]),
            r"a\.json: \[0\]\.qas\[0\]: not in SQuAD's form",
        ),
        ("a.jsonl", lines({"context": "x", "qas": [{}]}), r"a\.jsonl:1: object\.qas\[0\]: not in"),
        (
            "a.json",
            json.dumps([{"id": 1, "data": {"text": "x"}, "annotations": [{"result": []}]}]),
            "Label Studio's JSON, .*JSON-MIN",
        ),
    ],
)
def test_what_is_no_form_is_refused_by_what_it_is(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, content)

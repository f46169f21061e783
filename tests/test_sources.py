"""Sources: every local format gives the same rows, and bad input says where and how to mend it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flaxbert.data import sources
from flaxbert.errors import DataError, HubError

ROWS = [
    {"text": "plain words", "label": "good"},
    {"text": 'she said "no", twice', "label": "bad"},
    {"text": "café 東京 😀", "label": "good"},
]
TWO_LINES = {"text": "first line\nsecond, line", "label": "bad"}  # TSV cannot hold a newline


def write_tsv(path: Path, rows: list[dict]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: list[dict]) -> None:
    def quoted(value: str) -> str:  # RFC 4180: a quote inside quotes is doubled
        return '"' + value.replace('"', '""') + '"'

    lines = [",".join(map(quoted, values)) for values in (rows[0], *(r.values() for r in rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(path: Path, rows: list[dict]) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")  # a blank last line is no row


def write_parquet(path: Path, rows: list[dict]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict]], None]] = {
    ".tsv": write_tsv,
    ".csv": write_csv,
    ".json": write_json,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


def read(path: Path) -> sources.Table:
    return sources.read(str(path), split="train")


def read_text(tmp_path: Path, name: str, content: str | bytes) -> sources.Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path)


def values(table: sources.Table) -> list[dict]:
    return [row.values for row in table.rows]


def test_every_format_is_tested() -> None:
    assert WRITERS.keys() == sources.READERS.keys() - {".txt"}  # paragraphs, not records


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_rows(ending: str, tmp_path: Path) -> None:
    rows = ROWS if ending == ".tsv" else [*ROWS, TWO_LINES]
    path = tmp_path / f"data{ending}"
    WRITERS[ending](path, rows)
    table = read(path)
    assert values(table) == rows
    assert table.columns == ["text", "label"]


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".json", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{ending}"
    WRITERS[ending](path, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(read(path)) == ROWS


def test_the_ending_may_be_upper_case(tmp_path: Path) -> None:
    write_tsv(tmp_path / "DATA.TSV", ROWS)
    assert values(read(tmp_path / "DATA.TSV")) == ROWS


def test_tsv_quotes_are_characters(tmp_path: Path) -> None:
    table = read_text(tmp_path, "a.tsv", 'text\tlabel\n"an open quote\tgood\n"both"\tbad\n')
    assert [row["text"] for row in values(table)] == ['"an open quote', '"both"']


def test_windows_line_ends_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    table = read_text(tmp_path, "a.csv", "text,label\r\n\r\nfine,good\r\n")
    assert values(table) == [{"text": "fine", "label": "good"}]


def test_origins_name_the_line_of_the_file(tmp_path: Path) -> None:
    csv = read_text(tmp_path, "a.csv", 'text,label\n"two\nlines",good\nfine,bad\n')
    assert [row.origin for row in csv.rows] == [f"{tmp_path}/a.csv:3", f"{tmp_path}/a.csv:4"]
    jsonl = read_text(tmp_path, "a.jsonl", '{"text": "x"}\n\n{"text": "y"}\n')
    assert [row.origin for row in jsonl.rows] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:3"]


# --- SQuAD -------------------------------------------------------------------------------------

QUESTION = {
    "id": "q1",
    "question": "Where is the bridge?",
    "answers": [{"text": "Paris", "answer_start": 3}, {"text": "in Paris", "answer_start": 0}],
}
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Bridges",
            "paragraphs": [
                {"context": "in Paris", "qas": [QUESTION, QUESTION | {"id": "q2", "lang": "en"}]},
                {"context": "old book", "qas": []},
            ],
        }
    ],
}


def test_squad_as_published_gives_the_hub_form(tmp_path: Path) -> None:
    table = read_text(tmp_path, "squad.json", json.dumps(SQUAD))
    first = {
        "id": "q1",
        "question": "Where is the bridge?",
        "context": "in Paris",
        "answers": {"text": ["Paris", "in Paris"], "answer_start": [3, 0]},
    }
    assert values(table) == [first, first | {"id": "q2", "lang": "en"}]  # further keys are kept
    assert table.rows[0].origin == f"{tmp_path}/squad.json: question q1"


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet"])
def test_flat_squad_rows_equal_the_published_form(ending: str, tmp_path: Path) -> None:
    published = values(read_text(tmp_path, "squad.json", json.dumps(SQUAD)))[:1]
    WRITERS[ending](tmp_path / f"flat{ending}", published)
    assert values(read(tmp_path / f"flat{ending}")) == published


def test_a_list_under_data_need_not_be_squad(tmp_path: Path) -> None:
    assert values(read_text(tmp_path, "a.json", json.dumps({"data": ROWS}))) == ROWS


def squad_with(article: object) -> str:
    good = {"paragraphs": []}
    return json.dumps({"data": [good, article]})


def squad_question(**changes: object) -> str:
    question = {key: value for key, value in (QUESTION | changes).items() if value is not ...}
    return squad_with({"paragraphs": [{"context": "in Paris", "qas": [question]}]})


# --- bad input ---------------------------------------------------------------------------------

LATIN = "text\tlabel\ncaf\xe9\tgood\n".encode("latin-1")

BAD = {
    "unknown ending": ("a.xlsx", "x", ["a.xlsx: ends with none of .tsv, .csv, .json, .jsonl"]),
    "too many columns": (
        "a.tsv",
        "text\tlabel\nfine\tgood\nfine\tgood\textra\n",
        ["a.tsv:3: 3 columns, but the first line names 2 (text, label)"],
    ),
    "too few columns": ("a.csv", "text,label\nfine\n", ["a.csv:2: 1 columns", "names 2"]),
    "open quote": ("a.csv", 'text,label\n"fine,good\n', ["a.csv:2:", "unexpected end of data"]),
    "repeated header": ("a.tsv", "text\ttext\na\tb\n", ["a.tsv:1: columns named twice: ['text']"]),
    "tsv not UTF-8": ("a.tsv", LATIN, ["a.tsv:2: not UTF-8", "iconv"]),
    "json not UTF-8": ("a.json", b'["\xff"]', ["a.json:1: not UTF-8", "iconv"]),
    "jsonl not UTF-8": ("a.jsonl", b'{"a": "\xff"}\n', ["a.jsonl:1: not UTF-8", "iconv"]),
    "malformed line": ("a.jsonl", '{"text": "x"}\n{"text": \n', ["a.jsonl:2: not valid JSON"]),
    "line no object": ("a.jsonl", "{}\n[1]\n", ["a.jsonl:2: expected a JSON object, found list"]),
    "malformed file": ("a.json", "[\n{},\n{,}]", ["a.json:3: not valid JSON"]),
    "no list": ("a.json", '{"text": "x"}', ["a.json: expected a list of objects, or SQuAD's"]),
    "item no object": (
        "a.json",
        '[{}, "x"]',
        ["a.json: item 2: expected a JSON object, found str"],
    ),
    "not Parquet": ("a.parquet", "text", ["a.parquet: not a readable Parquet file"]),
    "SQuAD without id": ("a.json", squad_question(id=...), ["[0].qas[0]: not in SQuAD's", "'id'"]),
    "SQuAD without question": ("a.json", squad_question(question=...), ["'question'"]),
    "SQuAD flat answers": ("a.json", squad_question(answers=["Paris"]), ["paragraphs[0].qas[0]"]),
    "SQuAD null answers": ("a.json", squad_question(answers=None), ["paragraphs[0].qas[0]"]),
    "SQuAD without context": (
        "a.json",
        squad_with({"paragraphs": [{"qas": [QUESTION]}]}),
        ["data[1].paragraphs[0].qas[0]: not in SQuAD's form", "'context'"],
    ),
    "SQuAD question a text": (
        "a.json",
        squad_with({"paragraphs": [{"context": "", "qas": ["Where?"]}]}),
        ["data[1].paragraphs[0].qas[0]: not in SQuAD's form"],
    ),
    "SQuAD article a text": ("a.json", squad_with("x"), ["data[1]", "not in SQuAD's form"]),
    "SQuAD paragraph a text": (
        "a.json",
        squad_with({"paragraphs": ["x"]}),
        ["data[1].paragraphs[0]", "not in SQuAD's form"],
    ),
    "SQuAD paragraphs null": (
        "a.json",
        squad_with({"paragraphs": None}),
        ["data[1]", "not in SQuAD's form"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_where_and_what(case: str, tmp_path: Path) -> None:
    name, content, parts = BAD[case]
    with pytest.raises(DataError) as caught:
        read_text(tmp_path, name, content)
    message = str(caught.value)
    assert message.startswith(str(tmp_path))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("ending", WRITERS)
def test_an_absent_file_is_named_with_the_present_directory(ending: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        read(tmp_path / f"absent{ending}")
    assert f"absent{ending}" in str(caught.value)
    assert str(Path.cwd()) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.tsv", ""), ("a.csv", "text,label\n"), ("a.jsonl", "\n"), ("a.json", "[]")],
)
def test_a_file_without_rows_is_refused_when_used(name: str, content: str, tmp_path: Path) -> None:
    table = read_text(tmp_path, name, content)
    with pytest.raises(DataError, match=f"{name}: holds no rows"):
        table.require({"text": "options.text"})


def test_a_missing_column_names_those_there_and_the_key_to_set(tmp_path: Path) -> None:
    table = read_text(tmp_path, "a.tsv", "sentence\tlabel\nfine\tgood\n")
    table.require({"sentence": "options.text", "label": "options.label"})
    with pytest.raises(DataError) as caught:
        table.require({"text": "options.text"})
    for part in (
        "a.tsv: no column 'text'",
        "['sentence', 'label']",
        "--config.options.text=COLUMN",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("spec", ["nobody/absent-data", "nobody/absent-data:config@validation"])
def test_without_network_a_hub_data_set_points_to_local_files(spec: str) -> None:
    with pytest.raises(HubError) as caught:
        sources.read(spec, split="train")
    split = "validation" if "@" in spec else "train"
    for part in (
        f"{spec!r} is no local file",
        f"(split {split})",
        "--config.data.train=FILE",
        ".tsv",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)

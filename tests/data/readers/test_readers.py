"""Sources: every local format gives the same rows, and bad input says where and how to mend it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from toy import logged

from flaxbert.config import FORMATS, DataConfig
from flaxbert.data import readers
from flaxbert.data.table import Record, RecordOrIssue
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
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict]], None]] = {
    ".tsv": write_tsv,
    ".csv": write_csv,
    ".json": write_json,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


def read(path: Path) -> readers.Table:
    return readers.read(str(path), DataConfig(), split="train")


def read_text(tmp_path: Path, name: str, content: str | bytes) -> readers.Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path)


def values(table: readers.Table) -> list[dict]:
    return [row.values for row in table.rows]


def test_every_format_is_tested() -> None:
    assert readers.READERS.keys() == set(FORMATS) == set(readers.ENDINGS.values())
    assert {f".{form}" for form in FORMATS} - WRITERS.keys() == {".conll", ".txt"}  # no tables


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


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_cell_may_be_a_long_document(name: str, separator: str, tmp_path: Path) -> None:
    text = "word " * 40_000  # csv alone stops at 131,072 characters
    table = read_text(tmp_path, name, f"text{separator}label\n{text}{separator}good\n")
    assert values(table) == [{"text": text, "label": "good"}]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("good\tfine\nbad\told\n", {"format": "tsv", "columns": ("label", "text")}),
        ("label;text\ngood;fine\nbad;old\n", {"format": "csv", "separator": "semicolon"}),
        ("label|text\ngood|fine\nbad|old\n", {"format": "tsv", "separator": "|"}),
        ('label\ttext\n"good"\t"fine"\nbad\told\n', {"format": "tsv", "quoting": "yes"}),
        ('{"label": "good", "text": "fine"}\n{"label": "bad", "text": "old"}', {"format": "jsonl"}),
    ],
)
def test_options_say_what_the_name_does_not(content: str, options: dict, tmp_path: Path) -> None:
    path = tmp_path / "SMSSpamCollection"
    path.write_text(content)
    table = readers.read(str(path), DataConfig(**options), split="train")
    assert values(table) == [{"label": "good", "text": "fine"}, {"label": "bad", "text": "old"}]


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "conll", "txt"])
def test_text_of_other_encodings_is_read_if_told(form: str, tmp_path: Path) -> None:
    content = {
        "csv": "text\nпривет\n",
        "tsv": "text\nпривет\n",
        "json": '[{"text": "привет"}]',
        "jsonl": '{"text": "привет"}',
        "conll": "привет O\n",
        "txt": "привет\n",
    }[form]
    (tmp_path / "a.data").write_text(content, encoding="cp1251")
    told = DataConfig(format=form, encoding="cp1251")
    (row,) = readers.read(str(tmp_path / "a.data"), told, split="train").rows
    assert row.values.get("text", row.values.get("tokens")) in ("привет", ["привет"])


def write_named(path: Path, names: list[str]) -> None:
    """A file of two integer labels as `datasets` writes it, with their names in the schema."""
    import datasets

    label = datasets.ClassLabel(names=names)
    features = {"text": datasets.Value("string"), "label": label, "tags": datasets.List(label)}
    data = {"text": ["fine", "old"], "label": [1, 0], "tags": [[0], [1, 0]]}
    datasets.Dataset.from_dict(data, features=datasets.Features(features)).to_parquet(path)


def test_parquet_keeps_the_names_behind_integer_labels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_named(tmp_path / f"{name}.parquet", ["good", "bad"])
    for name, copies in (("a.parquet", 1), ("*.parquet", 2)):
        table = read(tmp_path / name)
        assert [row["label"] for row in values(table)] == [1, 0] * copies
        assert table.label_names == {"label": ["good", "bad"], "tags": ["good", "bad"]}


def test_files_of_one_source_with_other_names_behind_the_integers_are_refused(
    tmp_path: Path,
) -> None:
    write_named(tmp_path / "a.parquet", ["good", "bad"])
    write_named(tmp_path / "b.parquet", ["bad", "good"])
    with pytest.raises(DataError, match=r"b\.parquet: the integers of label stand for \['bad'"):
        read(tmp_path / "*.parquet")


def test_windows_line_ends_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    table = read_text(tmp_path, "a.csv", "text,label\r\n\r\nfine,good\r\n")
    assert values(table) == [{"text": "fine", "label": "good"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_blank_line_of_one_column_is_an_empty_text(name: str, end: str, tmp_path: Path) -> None:
    # Dropped, it would shift the predictions of the rows behind it. Those at the end are none.
    table = read_text(tmp_path, name, end.join(["text", "fine", "", "", "bad", "", ""]))
    assert [row["text"] for row in values(table)] == ["fine", "", "", "bad"]
    assert [row.origin for row in table.rows] == [f"{tmp_path}/{name}:{n}" for n in (2, 3, 4, 5)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_carriage_return_within_a_line_is_one_malformed_row(name: str, tmp_path: Path) -> None:
    content = "text\nfine\nthe\rfilm\n\r!\nbad\n"
    with pytest.raises(DataError, match=rf"{name}:3: a carriage return within the line; .*skip"):
        read_text(tmp_path, name, content)
    table = readers.read(str(tmp_path / name), DataConfig(on_bad_row="skip"), split="train")
    assert [row["text"] for row in values(table)] == ["fine", "bad"]
    assert [str(finding).split(":")[1] for finding in table.issues] == ["3", "4"]
    with pytest.raises(DataError, match=rf"{name}:1: a carriage return within the line"):
        read_text(tmp_path, name, content.replace("\n", "\r"))


def test_a_quoted_cell_of_csv_may_hold_any_line_end(tmp_path: Path) -> None:
    table = read_text(tmp_path, "a.csv", 'text,label\n"a\rb\nc\r\nd",good\n')
    assert values(table) == [{"text": "a\rb\nc\r\nd", "label": "good"}]


def test_origins_name_the_line_of_the_file(tmp_path: Path) -> None:
    csv = read_text(tmp_path, "a.csv", 'text,label\n"two\nlines",good\nfine,bad\n')
    assert [row.origin for row in csv.rows] == [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:4"]
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
    "unknown ending": (
        "a.xlsx",
        "x",
        [
            "a.xlsx: the ending '.xlsx' is none of .tsv, .csv, .json, .jsonl",
            "--config.data.format",
        ],
    ),
    "too many columns": (
        "a.tsv",
        "text\tlabel\nfine\tgood\nfine\tgood\textra\n",
        ["a.tsv:3: 3 columns, but the first line names 2 (text, label)"],
    ),
    "too few columns": ("a.csv", "text,label\nfine\n", ["a.csv:2: 1 columns", "names 2"]),
    "open quote": ("a.csv", 'text,label\n"fine,good\n', ["a.csv:2:", "unexpected end of data"]),
    "open quote, far from the end": ("a.csv", 'a,b\nx,"y\n1,2\n3,4\n', ["a.csv:2: unexpected end"]),
    "quote closed too late": ("a.csv", 'a,b\nx,"y\n1,"2"\n', ["a.csv:2: ',' expected after"]),
    "columns of a whole file": (
        "a.csv",
        ",".join(f"{n:0100}" for n in range(9999)) + "\nx\n",
        ["a.csv:2: 1 columns, but the first line names 9999 (000", "0..., ... 9979 more)"],
    ),
    "repeated header": ("a.tsv", "text\ttext\na\tb\n", ["a.tsv:1: columns named twice: ['text']"]),
    "tsv not UTF-8": ("a.tsv", LATIN, ["a.tsv:2: not UTF-8", "--config.data.encoding"]),
    "json not UTF-8": ("a.json", b'["\xff"]', ["a.json:1: not UTF-8", "--config.data.encoding"]),
    "jsonl not UTF-8": (
        "a.jsonl",
        b'{"a": "\xff"}\n',
        ["a.jsonl:1: not UTF-8", "data.encoding"],
    ),
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
    "SQuAD without question": ("a.json", squad_question(question=...), ["'question'"]),
    "SQuAD flat answers": ("a.json", squad_question(answers=["Paris"]), ["paragraphs[0].qas[0]"]),
    "SQuAD questions an empty object": (
        "a.json",
        squad_with({"paragraphs": [{"context": "", "qas": {}}]}),
        ["data[1].paragraphs[0]: not in SQuAD's form", "expected a list, found dict"],
    ),
    "half a character": (
        "a.jsonl",
        '{}\n{"a": ["\\ud83d"]}',
        ["a.jsonl:2: '\\ud83d' is half of a"],
    ),
    "half a character in SQuAD": (
        "a.json",
        squad_question(question="\ud83d"),
        ["a.json: question q1: '\\ud83d' is half of a character"],
    ),
    "half a character for an id": (
        "a.json",
        squad_question(id="\ud83d"),
        ["[0].qas[0]: '\\ud83d'"],
    ),
    "key twice": (
        "a.jsonl",
        '{}\n{"a": {"text": "x", "text": "y"}}\n',
        ["a.jsonl:2: the key 'text' occurs twice in one object; remove one"],
    ),
    "key twice in an item": (
        "a.json",
        '[{}, {"a": 1, "a": 1}]',
        ["a.json: item 2: the key 'a' occurs twice"],
    ),
    "key twice about all items": (
        "a.json",
        '{"data": [{}], "data": [{}, {}]}',
        ["a.json: the key 'data' occurs twice"],
    ),
    **{
        f"SQuAD {key} twice": (
            "a.json",
            squad_question().replace(f'"{key}":', f'"{key}": [], "{key}":', 2),
            [f"a.json: {place}: not in SQuAD's form", f"the key '{key}' occurs twice"],
        )
        for key, place in {
            "paragraphs": "data[0]",
            "qas": "data[1].paragraphs[0]",
            "answers": "data[1].paragraphs[0].qas[0]",
            "answer_start": "data[1].paragraphs[0].qas[0]",
        }.items()
    },
    "line without end": ("a.jsonl", "[" * 9999, ["a.jsonl:1: not valid JSON (lists or objects"]),
    "deep line": ("a.jsonl", '{"a":' * 99 + "1" + "}" * 99, ["a.jsonl:1: lists or objects are"]),
    "file without end": ("a.json", "[" * 9999, ["a.json: cannot be read (lists or objects"]),
    "number of the line": ("a.jsonl", "1" * 9999, ["a.jsonl:1: not valid JSON (a number of"]),
    "number of the file": ("a.json", "1" * 9999, ["a.json: cannot be read (a number of"]),
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


def test_a_changed_byte_of_parquet_with_checksums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["fine film"], "tags": [["O"]]})
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pyarrow.parquet.write_table(table, path, **options)
    content = path.read_bytes()
    stored = b"\x09\0\0\0fine film"  # behind its length: the text, not the statistics about it
    assert content.count(stored) == 1
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file .*checksum"):
        read_text(tmp_path, "a.parquet", content.replace(stored, b"\x09\0\0\0fine firm"))


def test_a_name_within_parquet_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"tags": [["O"]]}), path)
    content = path.read_bytes().replace(b"element", b"eleme\xff\xff")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file \('utf-8'"):
        read_text(tmp_path, "a.parquet", content)


def test_answers_that_are_absent_are_not_the_same_as_none(tmp_path: Path) -> None:
    # A question without answers is one to leave unanswered; a file to predict on has none at all.
    for answers, expected in (([], {"text": [], "answer_start": []}), (..., None)):
        table = read_text(tmp_path, "a.json", squad_question(answers=answers))
        assert table.rows[0].values.get("answers") == expected


def test_a_file_that_the_system_does_not_give_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: DataConfig) -> RecordOrIssue:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(readers.READERS, "txt", refuse)
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(Permission denied\)"):
        read_text(tmp_path, "a.txt", "x")


@pytest.mark.parametrize("value", [[["en"], ["de"]], [{}, "en"], ["en", None], [1, "1.0"]])
def test_a_slice_of_several_values_of_any_kind_is_refused(value: list) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: lang has several values"):
        Record({"lang": value}, "a.jsonl:1").slice("lang")


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


def test_a_column_that_the_first_row_lacks_is_there(tmp_path: Path) -> None:
    table = read_text(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b", "label": "x"}\n')
    table.require({"label": "options.label"})
    assert table.columns == ["text", "label"]


def test_of_squad_a_question_that_is_malformed_is_left_out_alone(tmp_path: Path) -> None:
    bad = QUESTION | {"id": "q2", "answers": [{"text": "Paris"}]}
    asked = [QUESTION, bad, QUESTION | {"id": "q3"}]
    (tmp_path / "a.json").write_text(
        squad_with({"paragraphs": [{"context": "in Paris", "qas": asked}]})
    )
    table = readers.read(str(tmp_path / "a.json"), DataConfig(on_bad_row="skip"), split="train")
    assert [row["id"] for row in values(table)] == [QUESTION["id"], "q3"]
    (finding,) = table.issues
    assert "data[1].paragraphs[0].qas[1]: not in SQuAD's form (KeyError('answer_start'))" in str(
        finding
    )


@pytest.mark.parametrize(
    ("spec", "split"),
    [
        ("nobody/absent-data", "train"),
        ("nobody/absent-data:config@validation", "validation"),
        ("nobody/absent-data:config@train[:100]", "train[:100]"),
    ],
)
def test_without_network_a_hub_data_set_points_to_local_files(spec: str, split: str) -> None:
    with pytest.raises(HubError) as caught:
        readers.read(spec, DataConfig(), split="train")
    for part in (
        f"{spec!r} is no local file",
        f"(split {split})",
        "--config.data.train=FILE",
        ".tsv",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each call of the hub's library; its cache is named by the commit."""
    import datasets

    cached = tmp_path / "squad" / "0.0.0" / COMMIT / "squad-train.arrow"
    cached.parent.mkdir(parents=True)
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.rename(cached)
    calls: list[dict[str, Any]] = []

    def load_dataset(repo: str, config: str | None, **arguments: Any) -> datasets.Dataset:
        calls.append({"repo": repo, "config": config, **arguments})
        return datasets.Dataset.from_file(str(cached))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


@pytest.mark.parametrize(
    ("spec", "config", "split", "revision"),
    [
        ("some/data", None, "train", None),
        ("some/data#v1.1", None, "train", "v1.1"),
        ("some/data:plain@test[:10]#refs/pr/1", "plain", "test[:10]", "refs/pr/1"),
        (f"some/data:plain#{COMMIT}", "plain", "train", COMMIT),
    ],
)
def test_a_hub_data_set_may_name_a_revision_and_the_commit_is_known(
    hub_data: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    spec: str,
    config: str | None,
    split: str,
    revision: str | None,
) -> None:
    caplog.set_level("INFO", "flaxbert")
    table = readers.read(spec, DataConfig(), split="train")
    assert hub_data == [
        {"repo": "some/data", "config": config, "split": split, "revision": revision}
    ]
    assert values(table) == [{"text": "a"}, {"text": "b"}]
    assert table.commit == COMMIT
    assert f"commit {COMMIT}" in caplog.text


@pytest.mark.parametrize("name", ["there.tsv", "absent.csv", "there"])
def test_a_revision_of_a_file_is_refused(
    hub_data: list[dict[str, Any]], tmp_path: Path, name: str
) -> None:
    for file in ("there.tsv", "there"):
        (tmp_path / file).write_text("text\na\n")
    with pytest.raises(DataError, match=r"#main: only data sets of the hub.* leave #main out"):
        readers.read(f"{tmp_path / name}#main", DataConfig(), split="train")
    assert not hub_data


def test_a_revision_that_is_not_named_is_refused(hub_data: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="no branch, tag or commit after the #"):
        readers.read("some/data#", DataConfig(), split="train")
    assert not hub_data


def test_a_file_may_have_the_sign_of_a_revision_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "data#1.tsv").write_text("text\na\n")
    table = readers.read(str(tmp_path / "data#1.tsv"), DataConfig(), split="train")
    assert values(table) == [{"text": "a"}]
    assert table.commit is None


# --- plain text --------------------------------------------------------------------------------


def paragraphs(table: readers.Table, tmp_path: Path) -> list[tuple[str, str]]:
    """(text, origin below the directory) of each row."""
    return [(r.values["text"], r.origin.removeprefix(f"{tmp_path}/")) for r in table.rows]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_paragraph_of_plain_text_is_a_row(end: str, tmp_path: Path) -> None:
    lines = ["", "First line,", "  second line. ", "", " \t", "", "Another.", "\f", "The last."]
    table = read_text(tmp_path, "book.txt", end.join(lines))  # no line end behind the last
    assert paragraphs(table, tmp_path) == [
        ("First line,\nsecond line.", "book.txt:2"),
        ("Another.", "book.txt:7"),
        ("The last.", "book.txt:9"),
    ]
    assert {row.values["file"] for row in table.rows} == {f"{tmp_path}/book.txt"}
    assert table.columns == ["text", "file"]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfOnce.\n", b"\xef\xbb\xbf\n\nOnce.\n\n\n"])
def test_a_byte_order_mark_is_no_text(content: bytes, tmp_path: Path) -> None:
    table = read_text(tmp_path, "book.txt", content)
    assert [row.values["text"] for row in table.rows] == ["Once."]


def test_blank_text_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"book\.txt: holds no rows"):
        read_text(tmp_path, "book.txt", " \n\t\n\n").require({"text": "options.text"})


# --- patterns ----------------------------------------------------------------------------------


def pattern(tmp_path: Path, name: str, **options: str) -> readers.Table:
    return readers.read(f"{tmp_path}/{name}", DataConfig(**options), split="train")


def test_a_pattern_is_all_files_that_it_matches_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("c.txt", "a.txt", "b.txt"):
        (tmp_path / name).write_text(f"One of {name}.\n\nTwo.\n")
    (tmp_path / "a.tsv").write_text("text\nno\n")
    table = pattern(tmp_path, "*.txt")
    assert table.source == f"{tmp_path}/*.txt"
    assert paragraphs(table, tmp_path) == [
        (text, f"{name}:{line}")
        for name in ("a.txt", "b.txt", "c.txt")
        for text, line in ((f"One of {name}.", 1), ("Two.", 3))
    ]
    assert [r.values["file"] for r in table.rows[::2]] == [f"{tmp_path}/{n}.txt" for n in "abc"]
    some = paragraphs(pattern(tmp_path, "[bc].txt"), tmp_path)
    assert [origin for _, origin in some] == ["b.txt:1", "b.txt:3", "c.txt:1", "c.txt:3"]


def test_two_stars_look_into_directories(tmp_path: Path) -> None:
    for name in ("2/b.txt", "1/deep/a.txt", "0.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Text.\n")
    found = paragraphs(pattern(tmp_path, "**/*.txt"), tmp_path)
    assert [origin for _, origin in found] == ["0.txt:1", "1/deep/a.txt:1", "2/b.txt:1"]


def test_a_pattern_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        pattern(tmp_path, "*.txt")
    for part in (f"{tmp_path}/*.txt: no file matches", str(Path.cwd())):
        assert part in str(caught.value)


def test_a_pattern_may_have_the_sign_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "old@home").mkdir()
    (tmp_path / "old@home" / "a.txt").write_text("Text.\n")
    found = paragraphs(pattern(tmp_path, "old@home/*.txt"), tmp_path)
    assert found == [("Text.", "old@home/a.txt:1")]
    with pytest.raises(DataError, match=r"\*\.tsv: no such file"):
        pattern(tmp_path, "old@home/*.tsv")


def test_a_name_that_looks_like_a_pattern_is_a_file_if_there_is_one(tmp_path: Path) -> None:
    for name in ("[ab].txt", "a.txt"):
        (tmp_path / name).write_text(f"Text of {name}.\n")
    table = pattern(tmp_path, "[ab].txt")
    assert [row.values["text"] for row in table.rows] == ["Text of [ab].txt."]


def test_a_bad_file_among_those_matched_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n{"text": \n')
    with pytest.raises(DataError, match=r"b\.jsonl:2: not valid JSON"):
        pattern(tmp_path, "*.jsonl")


# --- CoNLL -------------------------------------------------------------------------------------

COLUMNS = "Paris NNP B-LOC\nsleeps VBZ O\n\n-DOCSTART- -X- O\n\nGood JJ O\n"
BROKEN = "Paris B-LOC\nsleeps\n\nGood O\nnight O O\n"  # lines 2 and 5


def test_a_sentence_of_a_column_file_is_a_row(tmp_path: Path) -> None:
    for name in ("a.conll", "B.CONLL"):
        table = read_text(tmp_path, name, COLUMNS)
        assert values(table) == [
            {"tokens": ["Paris", "sleeps"], "column2": ["NNP", "VBZ"], "tags": ["B-LOC", "O"]},
            {"tokens": ["Good"], "column2": ["JJ"], "tags": ["O"]},
        ]
        assert [row.origin for row in table.rows] == [f"{tmp_path}/{name}:{n}" for n in (1, 6)]
        assert table.source == f"{tmp_path}/{name}"


def test_a_malformed_line_is_an_error_that_says_how_to_skip_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_text(tmp_path, "a.conll", BROKEN)
    for part in (f"{tmp_path}/a.conll:2: columns: 1; expected 2", "--config.data.on_bad_row=skip"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["a.conll", "*.conll"])
def test_malformed_lines_are_skipped_and_counted_when_asked(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.conll").write_text(BROKEN)
    with caplog.at_level("INFO", "flaxbert"):
        table = logged(pattern(tmp_path, name, on_bad_row="skip"))
    assert [row.values["tokens"] for row in table.rows] == [["Paris"], ["Good"]]
    (message,) = caplog.messages
    for part in (f"{tmp_path}/a.conll: 2 malformed lines skipped", "a.conll:2: columns: 1"):
        assert part in message


FINE, LAST = '{"text": "fine", "label": "good"}', '{"text": "last", "label": "bad"}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\nfine,good\nfine\na,b,c\nlast,bad\n"),
        ("a.tsv", "text\tlabel\nfine\tgood\nfine\na\tb\tc\nlast\tbad\n"),
        ("a.jsonl", f'{FINE}\n{{"text\n[1]\n{LAST}\n'),
        ("a.json", f'[{FINE}, 3, "x", {LAST}]'),
    ],
)
def test_malformed_records_of_other_formats_are_skipped_too(
    name: str, content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(content)
    with caplog.at_level("INFO", "flaxbert"):
        table = logged(pattern(tmp_path, name, on_bad_row="skip"))
    assert [row.values for row in table.rows] == [
        {"text": "fine", "label": "good"},
        {"text": "last", "label": "bad"},
    ]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}/{name}: 2 malformed lines skipped, the first: ")


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize("name", ["a.conll", "a.txt"])
def test_text_that_is_not_utf8_is_named_with_its_line(
    name: str, on_bad_row: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes("Paris B-LOC\n\nna O\nna\xefve O\n".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        pattern(tmp_path, name, on_bad_row=on_bad_row)
    for part in (f"{tmp_path}/{name}:4: not UTF-8", "--config.data.encoding"):
        assert part in str(caught.value)


@pytest.mark.parametrize("ending", [".txt", ".conll"])
def test_absent_text_is_named_with_the_present_directory(ending: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"absent{ending}: no such file"):
        read(tmp_path / f"absent{ending}")

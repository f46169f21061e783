"""Properties that hold for any file and any sizes: what hypothesis makes up is read or refused.

Every test here has a few cases by default and many among the slow ones. Cases are the same at every
run: a failure is printed with the smallest case that shows it.
"""

import collections
import contextlib
import csv
import io
import itertools
import json
import logging
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import arrays_of, logged

from flaxbert.commands import lint
from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.data import readers, tag_schemes, windows
from flaxbert.data.batching import MAX_SHAPES, Batches
from flaxbert.data.checks import READ_AS
from flaxbert.data.encoding import encode
from flaxbert.data.features import Features
from flaxbert.data.packing import choose_bucket_sizes, pack
from flaxbert.data.readers import conll
from flaxbert.errors import ConfigError, DataError, UserError
from flaxbert.tasks import TASKS, base, question_answering, texts, token_classification

Check = Callable[..., None]


def cases(quick: int, many: int) -> Any:
    """`count`, the number of cases: the quick run's, and the slow one's."""
    slow = pytest.param(many, marks=pytest.mark.slow, id="many")
    return pytest.mark.parametrize("count", [pytest.param(quick, id="few"), slow])


def for_all(count: int, **strategies: Any) -> Callable[[Check], None]:
    """Decorates a check: runs it at once, for `count` draws of what it takes."""
    chosen = settings(
        max_examples=count,
        derandomize=True,  # a change breaks it, not the day
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def run(check: Check) -> None:
        chosen(given(**strategies)(check))()

    return run


# --- files -------------------------------------------------------------------------------------

NUMBERED = (".tsv", ".csv", ".jsonl", ".conll", ".txt")
"""Formats in which a message names a line."""

VALID: dict[str, bytes] = {
    ".tsv": "text\tlabel\nfine film\tgood\ncafé 東京\tbad\n".encode(),
    ".csv": 'text,label\nfine,good\n"a ""b"",\nc",bad\ncafé,good\n'.encode(),
    ".json": b'[{"text": "fine", "label": 1},\n {"text": "\\u00e9", "tags": ["O", null]}]',
    ".squad.json": json.dumps(
        {
            "version": "1.1",
            "data": [
                {
                    "title": "t",
                    "paragraphs": [
                        {
                            "context": "in paris",
                            "qas": [
                                {
                                    "id": "q1",
                                    "question": "where?",
                                    "answers": [{"text": "paris", "answer_start": 3}],
                                },
                                {"id": "q2", "question": "who?", "answers": []},
                            ],
                        }
                    ],
                }
            ],
        }
    ).encode(),
    ".jsonl": b'{"text": "fine", "label": 1}\n\n{"text": "\\u00e9", "label": null}\n',
    ".conll": "# id 1\nParis\tNNP\tB-LOC\ncafé\tNN\tO\n\n-DOCSTART-\tO\n\nGood\tJJ\tO\n".encode(),
    ".txt": "First line,\nsecond.\n\nCafé.\n".encode(),
}


def parquet_bytes() -> bytes:
    table = pyarrow.table({"text": ["fine", "café"], "label": [1, None], "tags": [["O"], []]})
    names = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}}}}
    sink = io.BytesIO()
    metadata = {b"huggingface": json.dumps(names).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue()


VALID[".parquet"] = parquet_bytes()

PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\t", b" ", b",", b'"', b'""', b"\\", b"\0", b"\xff", b"\xe9"),
    *(b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-1", b"1e999", b'"text"', b'"\\ud800"'),
    *(b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1c", b"\x0c", "東".encode(), b"\xed\xa0"),
    *(b"text", b"label", b"# ", b"# id ", b"-DOCSTART-", b"O", b"B-LOC", b'{"data": ['),
    *(b'"paragraphs":', b'"qas":', b"[" * 3000, b"1" * 5000, b"PAR1"),
]
"""What means something to one reader or another."""


def ending_of(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file with a few accidents."""
    content = valid
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        piece = draw(st.sampled_from(PIECES))
        lines = content.splitlines(keepends=True) or [b""]
        line = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["flip", "cut", "drop", "insert", "replace", "double", "lose"]))
        if kind == "flip" and start < len(content):
            changed = bytes([content[start] ^ (1 << draw(st.integers(0, 7)))])
            content = content[:start] + changed + content[start + 1 :]
        elif kind == "cut":
            content = content[:start]
        elif kind == "drop":
            content = content[:start] + content[min(end, start + 9) :]
        elif kind == "insert":
            content = content[:start] + piece + content[start:]
        elif kind == "replace":
            content = content[:start] + piece + content[start + len(piece) :]
        elif kind == "double":
            content = b"".join([*lines[: line + 1], *lines[line:]])
        elif kind == "lose":
            content = b"".join([*lines[:line], *lines[line + 1 :]])
    return content


def any_content(name: str) -> st.SearchStrategy[bytes]:
    soup = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
    return st.one_of(st.binary(max_size=60), soup, damaged(VALID[name]))


@contextlib.contextmanager
def messages() -> Iterator[list[str]]:
    """What is told meanwhile. caplog would last for all cases of a test."""
    told: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    log, handler = logging.getLogger("flaxbert"), Handler()
    level, log.propagate = log.level, False
    log.addHandler(handler)
    log.setLevel("INFO")
    try:
        yield told
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True


def skipped(told: Sequence[str], what: str) -> int:
    found = [re.search(rf": (\d+) malformed {what} skipped", message) for message in told]
    return sum(int(match[1]) for match in found if match)


def csv_records(text: str) -> list[int]:
    """The cells of each record of a CSV file; 0 for a line without anything."""
    counts, quoted, cell, empty, commas, broken = [], False, "", True, 0, False
    for char in re.split(r"(\r*\n|\r|,|\")", text + "\n"):
        if quoted:  # a quote that is doubled ends the cell and begins it again
            quoted = char != '"'
        elif char == "\r" or (broken and "\n" not in char):
            broken, empty = True, False  # one record up to the line's end, however malformed
        elif char == '"':
            quoted, empty = not cell, False
            cell += '"' * bool(cell)
        elif char == ",":
            cell, empty, commas = "", False, commas + 1
        elif char.endswith("\n"):
            counts.append(0 if empty else commas + 1)
            cell, empty, commas, broken = "", True, 0, False
        elif char:
            cell, empty = cell + char, False
    return counts


def records_of_cells(cells: list[int]) -> int:
    """Those behind the header; in one column lines without anything are some, but for the last."""
    header, *behind = [*itertools.dropwhile(lambda count: not count, cells)] or [0]
    while behind and not behind[-1]:
        behind.pop()
    return len(behind) if header == 1 else sum(count > 0 for count in behind)


def record_count(name: str, content: bytes) -> int | None:
    """The records of a file that can be read, counted otherwise; None where that is as hard."""
    # Python reads a file of no more than the first bytes of a byte order mark as empty.
    half_mark = b"\xef\xbb\xbf".startswith(content)
    text = "" if half_mark or name == ".parquet" else content.decode("utf-8-sig")
    if name == ".tsv":
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        return records_of_cells([line.count("\t") + 1 if line else 0 for line in lines])
    if name == ".csv":
        return records_of_cells(csv_records(text))
    if name == ".txt":
        lines = [bool(line.strip()) for line in re.split(r"\r\n|\r|\n", text)]
        return sum(now and not before for before, now in itertools.pairwise([False, *lines]))
    if name == ".jsonl":
        return sum(bool(line.strip()) for line in re.split(r"\r\n|\r|\n", text))
    if name == ".json":
        value = json.loads(text)
        return len(value["data"] if isinstance(value, dict) else value)
    if name == ".parquet":
        return pyarrow.parquet.read_metadata(io.BytesIO(content)).num_rows
    return None


def refused(path: Path, error: UserError, *, lines: bool = False) -> None:
    """Check a message: it begins with the file, and the line where there is one."""
    line = r"\d+:" if lines else r"(\d+:)?"
    assert re.match(rf"{re.escape(str(path))}:{line} ", str(error)), str(error)
    assert str(error).encode(), "can be written"
    assert len(str(error)) < 1500, "can be read"


@cases(40, 1000)
@pytest.mark.parametrize("name", VALID)
def test_any_bytes_are_read_or_refused_by_one_error_that_names_the_place(
    name: str, count: int, tmp_path: Path
) -> None:
    path = tmp_path / f"file{name}"

    @for_all(count, content=any_content(name))
    def _(content: bytes) -> None:
        path.write_bytes(content)
        with messages() as told:
            try:
                table = logged(
                    readers.read(str(path), DataConfig(on_bad_row="skip"), split="train")
                )
            except DataError as error:
                refused(path, error, lines=ending_of(name) in NUMBERED)
                with pytest.raises(DataError):  # what cannot be skipped is an error the more
                    readers.read(str(path), DataConfig(), split="train")
                return
        detected = any(finding.kind == READ_AS for finding in table.issues)
        expected = None if detected else record_count(name, content)
        faults = skipped(told, "lines")
        assert expected is None or len(table.rows) + faults == expected
        for row in table.rows:
            json.dumps(row.values, ensure_ascii=False, default=str).encode()  # UTF-8 through
            refused(path, DataError(f"{row.origin}: "), lines=ending_of(name) in NUMBERED)
        if faults:
            with pytest.raises(DataError) as caught:
                readers.read(str(path), DataConfig(), split="train")
            refused(path, caught.value, lines=ending_of(name) in NUMBERED)
        else:
            again = readers.read(str(path), DataConfig(), split="train")
            assert list(again.rows) == list(table.rows)


@cases(40, 1000)
def test_every_line_of_a_column_file_is_a_word_a_fault_a_comment_or_an_end(
    count: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.conll"

    @for_all(count, content=any_content(".conll"))
    def _(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found, faults = conll.sentences(path)
        except UnicodeDecodeError:
            return
        except DataError as error:  # no words in the first column
            refused(path, error)
            return
        lines = content.decode("utf-8-sig").split("\n")
        words = [line for line in lines if line.split() and line.split()[0] != conll.DOCUMENT]
        kept = sum(len(sentence.tokens) for sentence in found)
        comments = sum(line.startswith("# ") for line in words)
        wrong = sum(isinstance(fault, DataError) for fault in faults)
        assert len(words) - comments <= kept + wrong <= len(words)
        for sentence in found:
            assert sentence.tokens
            assert all(len(column) == len(sentence.tokens) for column in sentence.columns.values())
            for token, number in zip(sentence.tokens, sentence.lines, strict=True):
                assert token in lines[number - 1]


TAGS = ["O", "o", "B", "I", "E", "B-", "B-X", "I-X", "E-X", "S-X", "L-Y", "U-Y", "M-X", "X", "NN"]
TAGS += ["b-x", "B_X", "X-B", "B-\n", "O-X", "\u00a0"]


@cases(100, 5000)
def test_any_tags_are_of_a_scheme_or_odd_and_no_entity_ends_up_outside(count: int) -> None:
    some = st.lists(st.sampled_from(TAGS), min_size=1, max_size=4, unique=True)
    sentences = some.flatmap(
        lambda few: st.lists(st.lists(st.sampled_from(few), max_size=5), min_size=1, max_size=3)
    )

    @for_all(count, sentences=sentences)
    def _(sentences: list[list[str]]) -> None:
        counts = collections.Counter(tag for tags in sentences for tag in tags)
        spelled = tag_schemes.respelled(counts)
        sentences = [[spelled.get(tag, tag) for tag in tags] for tags in sentences]
        scheme = tag_schemes.detect_scheme(sentences)
        if scheme not in ("plain", "IO") and tag_schemes.odd_tags(counts.keys() - spelled.keys()):
            return
        for tags in sentences:
            found = tag_schemes.to_bio(tags, scheme)
            if scheme == "plain":
                assert found == tags
                continue
            assert [tag == "O" for tag in found] == [tag == "O" for tag in tags]
            assert tag_schemes.misplaced(found, "BIO") == []
            assert all(tag == "O" or tag[0] in "BI" for tag in found)
            assert tag_schemes.to_bio(found, "BIO") == found


LATIN, LATIN_ENDS = map(pyarrow.py_buffer, (b"\xe9x", np.array([0, 1, 2], np.int32).tobytes()))
PARQUET_COLUMNS: list[Callable[[], pyarrow.Array]] = [
    lambda: pyarrow.array([None, None]),
    lambda: pyarrow.array([1.5, float("nan")]),
    lambda: pyarrow.array([b"\xff", b"x"]),
    lambda: pyarrow.array([{"text": ["a"]}, None]),
    lambda: pyarrow.array([[["O"]], [None]]),
    lambda: pyarrow.array([2**62, 0], pyarrow.timestamp("us")),  # beyond the year 9999
    lambda: pyarrow.array([2**62, 0], pyarrow.timestamp("ns")),
    lambda: pyarrow.array([2**62, 0], pyarrow.duration("s")),
    lambda: pyarrow.array(["a", "b"]).dictionary_encode(),
    lambda: pyarrow.array([[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    lambda: pyarrow.Array.from_buffers(  # Latin-1 in a column of text
        pyarrow.string(), 2, [None, LATIN_ENDS, LATIN]
    ),
]
PARQUET_NAMES = [
    *("", "{", "[]", "null", '{"info": []}', '{"info": {"features": [1]}}', '{"info": null}'),
    *(
        json.dumps({"info": {"features": {"label": feature}}})
        for feature in (
            {"_type": "ClassLabel"},
            {"_type": "ClassLabel", "names": [1, 2]},
            {"_type": "ClassLabel", "names": "ab"},
            {"_type": "ClassLabel", "names": ["a", "b"]},
            {"feature": {"_type": "ClassLabel", "names": None}},
            {"feature": [3]},
            [],
        )
    ),
]


@cases(40, 400)
def test_any_columns_and_metadata_of_parquet_are_read_or_refused(
    count: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.parquet"

    @for_all(
        count,
        columns=st.lists(st.sampled_from(PARQUET_COLUMNS), min_size=1, max_size=2),
        names=st.permutations(["label", "label", "text", "tags"]),
        written=st.one_of(st.none(), st.sampled_from(PARQUET_NAMES).map(str.encode), st.binary()),
    )
    def _(
        columns: list[Callable[[], pyarrow.Array]], names: list[str], written: bytes | None
    ) -> None:
        table = pyarrow.table([make() for make in columns], names=names[: len(columns)])
        table = table.replace_schema_metadata({b"huggingface": written} if written else None)
        pyarrow.parquet.write_table(table, path)
        try:
            found = readers.read(str(path), DataConfig(), split="train")
        except DataError as error:
            refused(path, error)
            return
        assert len(found.rows) == 2
        for values in found.label_names.values():
            assert values
            assert all(isinstance(value, str) for value in values)


# --- round trips -------------------------------------------------------------------------------

# One half of a surrogate pair is no character, and UTF-8 has no bytes for it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ONE_LINE = TEXTS.filter(lambda text: not set(text) & set("\t\n\r"))


def values_of(path: Path) -> list[dict[str, Any]]:
    return [row.values for row in readers.read(str(path), DataConfig(), split="train").rows]


def lines_of(path: Path) -> list[int]:
    rows = readers.read(str(path), DataConfig(), split="train").rows
    return [int(row.origin.removeprefix(f"{path}:")) for row in rows]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.lists(st.dictionaries(TEXTS, JSON_VALUES, max_size=3), max_size=4)


@cases(50, 1000)
def test_objects_come_back_from_json_with_their_lines(count: int, tmp_path: Path) -> None:
    @for_all(
        count, rows=OBJECTS, blanks=st.lists(st.integers(0, 2), min_size=4), ascii=st.booleans()
    )
    def _(rows: list[dict[str, Any]], blanks: list[int], ascii: bool) -> None:
        path = tmp_path / "file.json"
        path.write_text(json.dumps(rows, ensure_ascii=ascii), encoding="utf-8")
        assert values_of(path) == rows
        path, lines, numbers = tmp_path / "file.jsonl", [], []
        for row, blank in zip(rows, blanks, strict=False):
            lines += [""] * blank + [json.dumps(row, ensure_ascii=ascii)]
            numbers.append(len(lines))
        path.write_bytes("\n".join(lines).encode())
        assert values_of(path) == rows
        assert lines_of(path) == numbers


@cases(50, 1000)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_come_back_from_csv_and_tsv_with_their_lines(
    end: str, count: int, tmp_path: Path
) -> None:
    rows = st.lists(st.tuples(ONE_LINE, TEXTS), max_size=4)

    @for_all(count, rows=rows)
    def _(rows: list[tuple[str, str]]) -> None:
        path = tmp_path / "file.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
            writer.writerows([("a", "b"), *rows])
        expected = [dict(zip("ab", row, strict=True)) for row in rows]
        assert values_of(path) == expected
        # A record of several lines is named by its first.
        breaks = [row[1].count("\n") + 1 for row in rows]
        assert lines_of(path) == list(itertools.accumulate(breaks, initial=2))[:-1]

        path = tmp_path / "file.tsv"
        plain = [(a, re.sub(r"[\t\n\r]", " ", b)) for a, b in rows]
        path.write_bytes(end.join("\t".join(row) for row in [("a", "b"), *plain]).encode())
        assert values_of(path) == [dict(zip("ab", row, strict=True)) for row in plain]
        assert lines_of(path) == list(range(2, 2 + len(rows)))


@cases(30, 500)
def test_records_come_back_from_parquet(count: int, tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    record = st.fixed_dictionaries(
        {
            "text": st.none() | TEXTS,
            "label": st.none() | st.integers(-(2**63), 2**63 - 1),
            "tags": st.lists(st.none() | TEXTS, max_size=3),
            "answers": st.fixed_dictionaries({"text": st.lists(TEXTS, max_size=2)}),
        }
    )
    kinds = pyarrow.schema(
        {
            "text": pyarrow.string(),
            "label": pyarrow.int64(),
            "tags": pyarrow.list_(pyarrow.string()),
            "answers": pyarrow.struct({"text": pyarrow.list_(pyarrow.string())}),
        }
    )

    @for_all(count, rows=st.lists(record, max_size=4))
    def _(rows: list[dict[str, Any]]) -> None:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, kinds), path)
        assert values_of(path) == rows


WORDS = TEXTS.filter(lambda text: text.strip() and not set(text) & set("\t\n\r #\ufeff"))


@cases(50, 1000)
@pytest.mark.parametrize("separator", ["\t", " "])
def test_sentences_come_back_from_conll_with_their_lines(
    separator: str, count: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.conll"
    sentence = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)

    @for_all(count, sentences=st.lists(sentence, max_size=3), blank=st.integers(1, 3))
    def _(sentences: list[list[tuple[str, str]]], blank: int) -> None:
        lines: list[str] = []
        numbers = []
        for pairs in sentences:
            numbers.append(len(lines) + 1)
            lines += [separator.join(pair) for pair in pairs] + [""] * blank
        path.write_bytes("\n".join(lines).encode())
        assert values_of(path) == [
            {"tokens": [word for word, _ in pairs], "tags": [tag for _, tag in pairs]}
            for pairs in sentences
        ]
        assert lines_of(path) == numbers


@cases(50, 1000)
def test_paragraphs_come_back_from_plain_text_with_their_lines(count: int, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    line = ONE_LINE.map(str.strip).filter(lambda text: text and "\ufeff" not in text)
    paragraph = st.lists(line, min_size=1, max_size=3)

    @for_all(count, paragraphs=st.lists(paragraph, max_size=3), blank=st.integers(1, 3))
    def _(paragraphs: list[list[str]], blank: int) -> None:
        lines: list[str] = []
        numbers = []
        for paragraph in paragraphs:
            numbers.append(len(lines) + 1)
            lines += paragraph + [""] * blank
        path.write_bytes("\n".join(lines).encode())
        assert [values["text"] for values in values_of(path)] == list(map("\n".join, paragraphs))
        assert lines_of(path) == numbers


# --- tasks -------------------------------------------------------------------------------------

ODD = [
    *("null", "true", "false", "0", "1", "-1", "7", "2.5", "1.0", "NaN", "Infinity", "1e999"),
    *('""', '" "', '"1"', '"O"', '"9"', f'"{"9" * 5000}"', '"\\ud800"', '"\\u0000"', '"\\u0301"'),
    *("[]", "[[]]", "{}", "[null]", "[true]", "[1, 1]", '["O", 2]', '["\\udfff"]', '["", "O"]'),
    *('[["O"], {}]', '["I-LOC", "E-LOC", ""]', '["a", "b"]', "[0, 1]", '{"text": 1, "label": 2}'),
    *('{"text": ["a", "b"], "label": ["A", "A"]}', '{"text": ["a", "b"], "label": [null, 1]}'),
    *('{"text": "pa", "answer_start": [0, 1]}', '{"text": ["in"], "answer_start": [true]}'),
    *('{"text": ["in"], "answer_start": [0.0]}', '{"text": [], "answer_start": []}'),
    *('{"text": ["in"], "answer_start": null}', '{"text": [null], "answer_start": [0]}'),
    *("1" + "0" * 400, "1" * 5000, "[" * 900 + "]" * 900, '{"a":' * 200 + "1" + "}" * 200),
    *('{"text": "x", "text": "y"}', '{"text": ["in"], "text": [], "answer_start": []}'),
    *('"[" ', '"{\\"text\\": [\\"in\\"], \\"answer_start\\": [0]}"', f'"{"[" * 3000}"'),
]
"""Values of JSON where another was meant, as they are written."""

RECORDS: dict[str, dict[str, Any]] = {
    "classification": {"text": "fine film", "label": "good", "lang": "en"},
    "multi_label": {"text": "fine", "labels": ["good", "bad"], "lang": "en"},
    "regression": {"text": "fine", "label": 0.5, "lang": "en"},
    "multiple_choice": {"question": "who?", "choices": ["a", "b"], "label": 1, "lang": "en"},
    "question_answering": {
        "id": "q",
        "question": "where?",
        "context": "in paris",
        "answers": {"text": ["paris"], "answer_start": [3]},
        "lang": "en",
    },
    "token_classification": {"tokens": ["in", "paris"], "tags": ["O", "B-LOC"], "lang": ["a", "a"]},
    "pretraining": {"text": "Old book. It is red.", "file": "a", "lang": "en"},
}
TASK_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"labels": ("bad", "good")}],
    "multi_label": [{"labels": ("bad", "good")}],
    "regression": [{}],
    "multiple_choice": [{}],
    "question_answering": [{}, {"unanswerable": True}],
    "token_classification": [{"labels": ("O", "B-LOC", "I-LOC")}],
    "pretraining": [{}],
}

Written = dict[str, str]
"""A record: the JSON of each value."""


def test_every_task_is_fuzzed() -> None:
    assert RECORDS.keys() == TASK_OPTIONS.keys() == TASKS.keys()


def some_records(valid: dict[str, Any]) -> st.SearchStrategy[list[Written]]:
    """Valid records, of which some have a value replaced or left out."""
    good = {key: json.dumps(value) for key, value in valid.items()}
    value = st.sampled_from(list(good)).flatmap(
        lambda key: st.sampled_from([None, *ODD]).map(lambda odd: good | {key: odd})
    )
    one = st.one_of(st.just(good), value).map(
        lambda row: {key: text for key, text in row.items() if text is not None}
    )
    return st.lists(one, min_size=1, max_size=3).map(lambda rows: [*rows, good])


def write_objects(path: Path, records: list[Written]) -> None:
    objects = [
        "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in record.items()) + "}"
        for record in records
    ]
    path.write_text("[" + ",\n".join(objects) + "]" if path.suffix == ".json" else "")
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{each}\n" for each in objects))


def make_task(name: str, options: dict[str, Any], on_bad_row: str, train: Any = None) -> base.Task:
    kind = TASKS[name]
    data = DataConfig(on_bad_row=on_bad_row, slices="lang", max_length=16, overlap=4)
    settings = kind.options_type(**options)
    raw = None if train is None else kind.read(train, data, settings, labeled=True)
    return kind.create(data, settings, raw, {})


def origins(name: str, examples: Sequence[Any]) -> int:
    """The rows that examples hold."""
    return sum(len(each.paragraphs) if name == "pretraining" else 1 for each in examples)


@cases(60, 1500)
@pytest.mark.parametrize("name", RECORDS)
def test_records_of_any_values_become_examples_or_are_refused_or_counted(
    name: str, count: int, tmp_path: Path, tokenizer: Any
) -> None:
    @for_all(
        count,
        records=some_records(RECORDS[name]),
        options=st.sampled_from(TASK_OPTIONS[name]),
        ending=st.sampled_from([".json", ".jsonl"]),
        labeled=st.booleans(),
    )
    def _(records: list[Written], options: dict[str, Any], ending: str, labeled: bool) -> None:
        path = tmp_path / f"file{ending}"
        write_objects(path, records)
        refusals = 0
        for on_bad_row in ("error", "skip"):
            task = make_task(name, options, on_bad_row)
            with messages() as told:
                try:
                    table = logged(
                        readers.read(str(path), DataConfig(on_bad_row=on_bad_row), split="train")
                    )
                    examples = logged(task.examples(table, labeled=labeled))
                except DataError as error:
                    refused(path, error)
                    refusals += 1
                    continue
            faults = skipped(told, "lines") + skipped(told, "rows")
            assert table.malformed + examples.malformed == faults + skipped(told, "answers")
            assert origins(name, examples) + faults == len(records)
            assert not faults or on_bad_row == "skip"
            assert (faults > 0) <= (refusals == 1)  # "error" refuses what "skip" leaves out
            try:
                features = task.featurize(examples, tokenizer, labeled=labeled)
            except DataError as error:  # such as texts of one document, or a question too long
                refused(path, error)
                continue
            assert set(features.example_index.tolist()) <= set(range(len(examples)))


@cases(40, 750)
@pytest.mark.parametrize("name", RECORDS)
def test_a_task_is_made_from_any_records_or_refused(name: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"

    @for_all(count, records=some_records(RECORDS[name]))
    def _(records: list[Written]) -> None:
        write_objects(path, records)
        for on_bad_row in ("error", "skip"):
            with messages() as told:
                try:
                    table = logged(
                        readers.read(str(path), DataConfig(on_bad_row=on_bad_row), split="train")
                    )
                    task = make_task(name, {}, on_bad_row, table)
                    made = logged(task.examples(table, labeled=True))
                except UserError:
                    continue
            faults = skipped(told, "lines") + skipped(told, "rows")
            assert origins(name, made) + faults == len(records)
            assert table.malformed + made.malformed == faults + skipped(told, "answers")
            labels = task.labels
            assert all(isinstance(label, str) for label in labels)
            assert len(set(labels)) == len(labels)
            assert made


@cases(40, 1000)
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_damaged_files_become_examples_or_are_refused(
    on_bad_row: str, count: int, tmp_path: Path, tokenizer: Any
) -> None:
    task_of = {
        ".tsv": "classification",
        ".csv": "classification",
        ".jsonl": "multi_label",
        ".squad.json": "question_answering",
        ".conll": "token_classification",
        ".txt": "pretraining",
        ".parquet": "classification",
    }
    any_file = st.sampled_from(list(task_of)).flatmap(
        lambda ending: st.tuples(st.just(ending), damaged(VALID[ending]))
    )

    @for_all(count, file=any_file)
    def _(file: tuple[str, bytes]) -> None:
        ending, content = file
        path, name = tmp_path / f"file{ending}", task_of[ending]
        path.write_bytes(content)
        data = DataConfig(on_bad_row=on_bad_row, max_length=16, overlap=4)
        kind = TASKS[name]
        options = kind.options_type(**TASK_OPTIONS[name][-1])
        try:
            table = logged(
                readers.read(str(path), DataConfig(on_bad_row=on_bad_row), split="train")
            )
            task = kind.create(data, options, None, {})
            examples = task.examples(table, labeled=True)
            task.featurize(examples, tokenizer, labeled=True)
        except DataError as error:
            refused(path, error)


SQUAD = json.loads(VALID[".squad.json"])


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything inside a value of JSON."""
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from nodes(child, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    """A copy with another value at the end of a way; `...` leaves it out."""
    if not path:
        return leaf
    inner = replaced(value[path[0]], path[1:], leaf)
    if isinstance(value, dict):
        return {key: each for key, each in (value | {path[0]: inner}).items() if each is not ...}
    return [each for each in [*value[: path[0]], inner, *value[path[0] + 1 :]] if each is not ...]


def question_count(value: Any) -> int:
    return sum(len(part["qas"]) for article in value["data"] for part in article["paragraphs"])


@cases(100, 2000)
def test_squad_with_any_part_replaced_gives_every_question_or_is_refused(
    count: int, tmp_path: Path, tokenizer: Any
) -> None:
    path = tmp_path / "file.json"
    inside = [way for way in nodes(SQUAD) if way[0] == "data" and len(way) > 1]

    @for_all(
        count,
        way=st.sampled_from(inside),
        odd=st.sampled_from([None, *ODD]),
        on_bad_row=st.sampled_from(["error", "skip"]),
        labeled=st.booleans(),
    )
    def _(way: tuple[Any, ...], odd: str | None, on_bad_row: str, labeled: bool) -> None:
        squad = replaced(SQUAD, way, ... if odd is None else "@")
        path.write_text(json.dumps(squad).replace('"@"', odd or ""))
        task = make_task("question_answering", {"unanswerable": True}, on_bad_row)
        task.data.slices = None
        with messages() as told:
            try:
                table = logged(
                    readers.read(str(path), DataConfig(on_bad_row=on_bad_row), split="train")
                )
                examples = logged(task.examples(table, labeled=labeled))
            except DataError as error:
                refused(path, error)
                return
        faults = skipped(told, "lines") + skipped(told, "rows")
        assert table.malformed + examples.malformed == faults + skipped(told, "answers")
        assert len(examples) + faults == question_count(json.loads(path.read_text()))
        for example in examples if labeled else []:
            # Only an empty list says that there is no answer.
            (given,) = [r.values["answers"] for r in table.rows if r.origin == example.origin]
            assert len(example.answers) == len(given.get("text", ())) or on_bad_row == "skip"
        try:
            task.featurize(examples, tokenizer, labeled=labeled)
        except DataError as error:  # a question that leaves no room
            refused(path, error)


@cases(8, 150)
def test_the_linter_lists_what_is_wrong_with_any_damaged_file(count: int, tmp_path: Path) -> None:
    task_of = {
        ".tsv": "classification",
        ".csv": "regression",
        ".json": "multi_label",
        ".jsonl": "multiple_choice",
        ".squad.json": "question_answering",
        ".conll": "token_classification",
        ".txt": "pretraining",
        ".parquet": "classification",
    }
    any_file = st.sampled_from(list(task_of)).flatmap(
        lambda ending: st.tuples(st.just(ending), damaged(VALID[ending]))
    )

    @for_all(count, file=any_file, key=st.sampled_from(["train", "eval", "predict"]))
    def _(file: tuple[str, bytes], key: str) -> None:
        ending, content = file
        paths = {each: tmp_path / f"{each}{ending}" for each in {"train", key}}
        for each, path in paths.items():
            path.write_bytes(content if each == key else VALID[ending])
        kind = TASKS[task_of[ending]]
        data = DataConfig(**{each: str(path) for each, path in paths.items()})
        model = ModelConfig(init=str(tmp_path / "none"))  # texts and labels; lengths are not
        options = kind.options_type()
        made = Config(task=task_of[ending], model=model, data=data, options=options)
        with contextlib.suppress(ConfigError):  # such as a file with one label
            for finding in lint.lint(made):
                assert str(finding).encode()


# --- packing and batches -----------------------------------------------------------------------


@cases(100, 1250)
def test_packing_places_every_sequence_once_and_overfills_no_row(count: int) -> None:
    @for_all(
        count,
        lengths=st.lists(st.integers(0, 30), max_size=40),
        room=st.integers(30, 60),
        segments=st.integers(1, 6),
    )
    def _(lengths: list[int], room: int, segments: int) -> None:
        numbers = pack(lengths, room, segments)
        rows: list[list[int]] = [[] for _ in range(max(numbers, default=-1) + 1)]
        for item, row in enumerate(numbers):
            rows[row].append(item)
        assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
        assert all(1 <= len(row) <= segments for row in rows)
        assert all(sum(lengths[item] for item in row) <= room for row in rows)
        assert pack(lengths, room, segments) == numbers


@cases(100, 1250)
def test_heights_hold_every_need_and_are_few(count: int) -> None:
    @for_all(
        count,
        needed=st.lists(st.integers(0, 300), min_size=1, max_size=30),
        multiple=st.integers(1, 64),
        limit=st.integers(1, 4),
    )
    def _(needed: list[int], multiple: int, limit: int) -> None:
        heights = choose_bucket_sizes(needed, multiple, limit)
        assert 1 <= len(heights) <= limit
        assert heights == sorted(set(heights))
        assert all(height > 0 and height % multiple == 0 for height in heights)
        assert max(needed) <= heights[-1] < max(1, max(needed)) + multiple


def make_features(sizes: list[list[int]]) -> Features:
    """Features of sequences of the given lengths; every value is its own."""
    lengths = [length for sequences in sizes for length in sequences]
    values = itertools.count(1)
    ids = [[next(values) for _ in range(length)] for length in lengths]
    owner = [feature for feature, sequences in enumerate(sizes) for _ in sequences]
    return Features.build(
        {"input_ids": ids, "other": [[-token for token in row] for row in ids]},
        example_index=owner,
        feature_index=owner,
        token_indices={"last": [length - 1 for length in lengths]},
        per_sequence={"label": [n + 1 for n in range(len(lengths))]},
    )


PLANS: dict[str, Any] = dict(
    sizes=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=20),
    batch_size=st.integers(1, 25),
    room=st.integers(12, 30),
    segments=st.integers(1, 5),
    data_parallelism=st.integers(1, 4),
    parts=st.integers(1, 4),
    seed=st.none() | st.integers(0, 2**64),
)


@cases(80, 1000)
def test_an_epoch_is_every_feature_once_however_it_is_cut(count: int) -> None:
    @for_all(count, **PLANS)
    def _(
        sizes: list[list[int]],
        batch_size: int,
        room: int,
        segments: int,
        data_parallelism: int,
        parts: int,
        seed: int | None,
    ) -> None:
        features = make_features(sizes)
        a_pass = -(-len(sizes) // batch_size)
        plan = Batches(
            features,
            batch_size,
            room,
            segments,
            data_parallelism,
            2 * a_pass,
            seed=seed,
            microbatches=parts,
        )
        elsewhere = Batches(features, batch_size, room, 1, 1, 2 * a_pass, seed=seed)
        assert plan.steps_per_epoch == a_pass
        assert plan.slots <= segments
        heights = plan.bucket_sizes
        assert 1 <= len(heights) <= MAX_SHAPES
        assert all(height % (data_parallelism * parts) == 0 for height in heights)
        for epoch in range(2):
            seen: list[int] = []
            for step in range(epoch * a_pass, (epoch + 1) * a_pass):
                members = plan.step_features(step).tolist()
                assert members == elsewhere.step_features(step).tolist()
                seen += members
                full = plan.padded_rows(step)
                assert len(full) in heights
                # Nothing lost or repeated on the way to the rows, and no row overfull.
                placed = list(itertools.chain(*full))
                wanted = [s for feature in members for s in features.sequences(feature)]
                assert sorted(placed) == sorted(wanted)
                assert all(len(row) <= segments for row in full)
                assert all(features.lengths[row].sum() <= room for row in full)
                # The rows of a part, over all devices, hold whole features.
                height = len(full) // (data_parallelism * parts)
                part_of: dict[int, set[int]] = collections.defaultdict(set)
                for number, row in enumerate(full):
                    for sequence in row:
                        part = number // height % parts
                        part_of[int(features.feature_index[sequence])].add(part)
                assert all(len(each) == 1 for each in part_of.values())
            assert sorted(seen) == list(range(len(sizes)))
        again = Batches(
            features,
            batch_size,
            room,
            segments,
            data_parallelism,
            2 * a_pass,
            seed=seed,
            microbatches=parts,
        )
        assert [again.padded_rows(s) for s in range(a_pass)] == [
            plan.padded_rows(s) for s in range(a_pass)
        ]
        assert 0 <= plan.padding_share() < 1


@cases(60, 750)
def test_the_arrays_of_a_batch_are_its_features(count: int) -> None:
    @for_all(count, **PLANS)
    def _(
        sizes: list[list[int]],
        batch_size: int,
        room: int,
        segments: int,
        data_parallelism: int,
        parts: int,
        seed: int | None,
    ) -> None:
        features = make_features(sizes)
        plan = Batches(
            features, batch_size, room, segments, data_parallelism, 1, seed=seed, microbatches=parts
        )
        rows = plan.padded_rows(0)
        batch = plan.build(rows, 0)
        arrays = arrays_of(batch)
        found: list[int] = []
        groups: dict[tuple[int, int], set[int]] = collections.defaultdict(set)
        for r in range(len(rows)):
            for k in range(plan.slots):
                here = np.flatnonzero(batch.segment_ids[r] == k + 1)
                if batch.weight[r, k] == 0:
                    assert len(here) == 0
                    continue
                sequence = int(batch.label[r, k]) - 1
                feature = int(features.feature_index[sequence])
                found.append(sequence)
                begin, end = features.sequence_start[sequence : sequence + 2]
                assert np.array_equal(here, np.arange(here[0], here[0] + end - begin))
                for name in ("input_ids", "other"):
                    assert np.array_equal(
                        arrays[name][r, here], features.per_token[name][begin:end]
                    )
                assert np.array_equal(batch.position_ids[r, here], np.arange(len(here)))
                assert batch.cls_position[r, k] == here[0]
                assert batch.extra["last"][r, k] == here[-1]
                if features.grouped:
                    part = r // (len(rows) // (data_parallelism * parts)) % parts
                    groups[part, int(batch.group[r, k])].add(feature)
            padding = batch.segment_ids[r] == 0
            for name in ("input_ids", "other", "position_ids"):
                assert not arrays[name][r, padding].any()
        members = plan.step_features(0).tolist()
        assert sorted(found) == sorted(s for f in members for s in features.sequences(f))
        assert batch.weight.sum() == pytest.approx(len(members))  # a feature counts once
        assert all(len(each) == 1 for each in groups.values())
        slots = len(rows) // parts * plan.slots
        assert all(number < slots for _, number in groups)


# --- windows -----------------------------------------------------------------------------------

# Words of the tiny checkpoint, words of several pieces, words without any, and marks that an
# uncased tokenizer drops.
SOME_WORDS = st.one_of(
    st.sampled_from(
        ["paris", "the", "a", "bridges", "xyzzy", "!?", "東京", "éa", "", "\u200b", " "]
    ),
    st.text("ab.é\u0301\u200b\u200d\u00ad 東😀", max_size=4),
)
SIZES = st.integers(5, 20).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 4)))
"""max_length and overlap."""


@cases(60, 750)
def test_every_word_is_tagged_once_at_its_first_piece_over_all_windows(
    count: int, tokenizer: Any
) -> None:
    tags = ("O", "B-X", "I-X")

    @for_all(
        count,
        texts=st.lists(st.lists(SOME_WORDS, min_size=1, max_size=30), min_size=1, max_size=3),
        size=SIZES,
        seed=st.integers(0, 99),
    )
    def _(texts: list[list[str]], size: tuple[int, int], seed: int) -> None:
        chance = np.random.default_rng(seed)
        data = DataConfig(max_length=size[0], overlap=size[1])
        options = token_classification.TokenClassificationOptions(labels=tags)
        task = token_classification.TokenClassification.create(data, options, None, {})
        examples = [
            token_classification.SentenceExample(
                tuple(words), tuple(chance.choice(tags, len(words)).tolist()), None, "here"
            )
            for words in texts
        ]
        features = task.featurize(examples, tokenizer, labeled=True)
        assert features.lengths.max() <= size[0]
        owner = np.repeat(features.example_index, features.lengths)
        guess = chance.integers(0, len(tags), len(owner))
        predictions = base.TaskOutputs({}, {"tag": guess, "probability": np.ones(len(owner))})
        records = task.decode(examples, features, predictions)
        for number, (example, record) in enumerate(zip(examples, records, strict=True)):
            whole = tokenizer([list(example.tokens)], is_split_into_words=True)
            pieces = list(zip(whole.word_ids(0), whole["input_ids"][0], strict=True))
            first_piece = {word: piece for word, piece in reversed(pieces) if word is not None}
            mine = owner == number
            in_windows = set(features.per_token["word"][mine].tolist()) - {-1}
            assert in_windows == set(first_piece)
            places = np.flatnonzero(mine & (features.per_token["first"] == 1))
            words = features.per_token["word"][places].tolist()
            assert sorted(words) == sorted(first_piece)
            assert len(record["tags"]) == len(example.tokens)
            assert set(record["tags"]) <= set(tags)
            for place, word in zip(places, words, strict=True):
                assert features.per_token["input_ids"][place] == first_piece[word]
                assert tags[features.per_token["label"][place]] == example.tags[word]
                assert record["tags"][word] == tags[guess[place]]


@cases(60, 750)
@pytest.mark.parametrize("long", texts.LONG)
def test_every_piece_of_a_long_text_is_read_or_the_text_counted_as_cut(
    long: str, count: int, tokenizer: Any
) -> None:
    words = st.lists(SOME_WORDS, max_size=30).map(" ".join)

    @for_all(count, pairs=st.lists(st.tuples(words, words), min_size=1, max_size=3), size=SIZES)
    def _(pairs: list[tuple[str, str]], size: tuple[int, int]) -> None:
        data = DataConfig(max_length=size[0], overlap=size[1])
        for paired in (False, True):
            if paired and long == "head_tail":
                continue
            options = texts.TextOptions(pair="pair" if paired else None, long_texts=long)
            examples = [
                texts.TextExample(text, pair if paired else None, 0, None, "here")
                for text, pair in pairs
            ]
            # A first text may leave no room for windows of the second.
            firsts = [
                len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text, _ in pairs
            ]
            if paired and long == "windows" and max(firsts) >= size[0] - 3 - size[1]:
                with pytest.raises(DataError, match=r"here: the first text has \d+ tokens; with"):
                    texts.featurize(examples, tokenizer, options, data, labeled=True)
                continue
            features = texts.featurize(examples, tokenizer, options, data, labeled=True)
            assert features.lengths.max() <= size[0]
            assert len(features) == len(examples)
            cut = 0
            for number, example in enumerate(examples):
                both = (example.text, example.pair) if paired else (example.text,)
                parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in both]
                fits = sum(map(len, parts)) + 1 + len(parts) <= size[0]
                cut += not fits
                sequences = [features.tokens_of(s) for s in features.sequences(number)]
                if fits:
                    (only,) = sequences
                    special = [[tokenizer.cls_token_id], *[[tokenizer.sep_token_id]] * len(parts)]
                    whole = [*special[0], *itertools.chain(*map(operator.add, parts, special[1:]))]
                    assert only["input_ids"].tolist() == whole
                elif long == "windows":
                    # Without [CLS], the first of two texts, and [SEP]: each overlaps the next.
                    skip = 1 + (len(parts[0]) + 1) * paired
                    shown = [each["input_ids"][skip:-1].tolist() for each in sequences]
                    whole = shown[0] + [t for each in shown[1:] for t in each[size[1] :]]
                    assert whole == parts[-1]
                else:
                    assert len(sequences) == 1
                    assert len(sequences[0]["input_ids"]) == size[0]
            assert features.truncated_count == (0 if long == "windows" else cut)


@st.composite
def questions(draw: st.DrawFn) -> question_answering.QuestionExample:
    """A context and a piece of it for an answer."""
    context = draw(st.lists(SOME_WORDS, min_size=1, max_size=30).map(" ".join).filter(bool))
    begin = draw(st.integers(0, len(context) - 1))
    end = draw(st.integers(begin + 1, min(len(context), begin + 12)))
    answers = ((context[begin:end], begin),) if draw(st.integers(0, 4)) else ()
    return question_answering.QuestionExample("q", "a", context, answers, None, "here")


@cases(60, 750)
def test_a_predicted_answer_is_the_text_at_its_characters(count: int, tokenizer: Any) -> None:
    @for_all(
        count,
        examples=st.lists(questions(), min_size=1, max_size=3),
        size=SIZES,
        seed=st.integers(0, 99),
        longest=st.integers(1, 6),
    )
    def _(
        examples: list[question_answering.QuestionExample],
        size: tuple[int, int],
        seed: int,
        longest: int,
    ) -> None:
        data = DataConfig(max_length=size[0], overlap=min(size[1], max(0, size[0] - 5)))
        options = question_answering.QuestionAnsweringOptions(
            unanswerable=True, max_answer_length=longest, n_best=4
        )
        task = question_answering.QuestionAnswering.create(data, options, None, {})
        features = task.featurize(examples, tokenizer, labeled=False)
        chance = np.random.default_rng(seed)
        # What `predict` gives: the best places of each window, those that are none far below.
        slots = {"null_score": chance.normal(size=len(features.lengths))}
        for side, name in (("start", "max_context"), ("end", "char_start")):
            places = np.zeros((len(features.lengths), 4), int)
            scores = np.full(places.shape, -3e38, np.float32)
            for window in range(len(places)):
                values = features.tokens_of(window)[name]
                allowed = chance.permutation(
                    np.flatnonzero(values > 0 if side == "start" else values >= 0)
                )[:4]
                places[window, : len(allowed)] = allowed
                scores[window, : len(allowed)] = np.sort(chance.normal(size=len(allowed)))[::-1]
            slots |= {f"{side}_place": places, f"{side}_score": scores}
        records = task.decode(examples, features, base.TaskOutputs(slots, {}))
        assert len(records) == len(examples)
        for example, record in zip(examples, records, strict=True):
            json.dumps(record, allow_nan=False)
            assert record["answer"] == example.context[record["start"] : record["end"]]
            assert record["answer"] in ("", record["span"])
            encoded = tokenizer(record["span"], add_special_tokens=False)
            assert bool(record["span"]) == (record["score"] is not None)
            assert len(set(encoded.word_ids(0))) <= longest or len(encoded["input_ids"]) == 0


@cases(100, 1500)
def test_an_answer_lies_at_its_characters_in_each_window_that_holds_it(
    count: int, tokenizer: Any
) -> None:
    @for_all(count, examples=st.lists(questions(), min_size=1, max_size=3), size=SIZES)
    def _(examples: list[question_answering.QuestionExample], size: tuple[int, int]) -> None:
        data = DataConfig(max_length=size[0], overlap=min(size[1], size[0] - 5))
        if data.overlap < 0:
            return
        options = question_answering.QuestionAnsweringOptions(unanswerable=True)
        task = question_answering.QuestionAnswering.create(data, options, None, {})
        features = task.featurize(examples, tokenizer, labeled=True)
        told = [note.text for note in features.notes]
        lost = set()
        for number, example in enumerate(examples):
            encoded = encode(tokenizer, [example.context], characters=True)
            whole = windows.Windows.of(encoded, [example.context])
            pairs = zip(whole.starts.tolist(), whole.ends.tolist(), strict=True)
            tokens = [(s, e) for s, e in pairs if s >= 0]
            own = np.flatnonzero(features.example_index == number)
            spans = []
            shown = set()
            marked: list[int] = []
            for sequence in own:
                place = {
                    name: int(features.token_indices[name][sequence]) for name in ("start", "end")
                }
                here = slice(
                    features.sequence_start[sequence], features.sequence_start[sequence + 1]
                )
                begins = features.per_token["char_start"][here].tolist()
                stops = features.per_token["char_end"][here].tolist()
                shown |= {each for each in zip(begins, stops, strict=True) if each[0] >= 0}
                marks = features.per_token["max_context"][here]
                marked += np.array(begins)[np.flatnonzero(marks)].tolist()
                spans.append((place["start"], place["end"], begins, stops))
            assert shown == set(tokens)  # no token of the context is lost
            assert sorted(marked) == sorted(start for start, _ in tokens)  # each decoded once
            if not example.answers:
                assert {(s, e) for s, e, _, _ in spans} == {(0, 0)}
                continue
            ((text, begin),) = example.answers
            seen = [begin + n for n, char in enumerate(text) if not windows._blank(char)]
            held = [t for t in tokens if seen and t[1] > seen[0] and t[0] <= seen[-1]]
            if (-1, -1) in {(s, e) for s, e, _, _ in spans}:
                assert {(s, e) for s, e, _, _ in spans} == {(-1, -1)}
                lost.add(number)
            else:
                assert any(s > 0 for s, _, _, _ in spans)
            for start, end, begins, stops in spans:
                if start > 0:
                    assert [(s, e) for s, e in zip(begins, stops, strict=True)][
                        start : end + 1
                    ] == held
                elif (
                    held and held[0][0] <= seen[0] and held[-1][1] > seen[-1]
                ):  # not whole in this one
                    own_tokens = set(zip(begins, stops, strict=True))
                    assert not set(held) <= own_tokens
        expected = f"{len(lost)} answers are complete in no window"
        assert any(expected in message for message in told) == bool(lost)

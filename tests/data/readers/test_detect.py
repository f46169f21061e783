"""How a file that nothing is known about is read: encoding, format, separator and header."""

from pathlib import Path

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.readers import detect
from flaxbert.errors import DataError

NAMES = frozenset(["text", "label", "sentence"])
SENTENCES = [f"sentence number {n} is here" for n in range(12)]
LABELS = ["good", "bad", "good", "fine"] * 3
TAGGED = "".join(f"word{n} B-X\nother O\n\n" for n in range(8))


def found(path: Path, content: str | bytes, **known: str) -> DataConfig:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return detect.detect(str(path), DataConfig(**known), NAMES).data


def table(separator: str, header: str = "") -> str:
    rows = (f"{label}{separator}{text}" for label, text in zip(LABELS, SENTENCES, strict=True))
    return "\n".join([*([header] if header else []), *rows, ""])


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("ending", [".dat", ".txt", ".csv", ""])
def test_a_table_without_a_header_is_read_whatever_its_name(separator, ending, tmp_path):
    path = tmp_path / f"a{ending}"
    data = found(path, table(separator))
    assert data.columns == ("column1", "column2")
    rows = readers.read(str(path), data, split="train").rows
    assert [row.values["column1"] for row in rows] == LABELS


@pytest.mark.parametrize(
    ("header", "named"),
    [("label;text", True), ("Klasse;Satz", True), ("good;a first sentence of words", False)],
)
def test_a_header_is_recognized(header, named, tmp_path):
    data = found(tmp_path / "a.csv", table(";", header))
    assert (data.columns == ()) is named


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        ([["a", "score"], ["x y", "0.5"], ["z", "1.5"]], True),
        ([["x y", "0.5"], ["z", "1.5"]], False),
        ([["", "0", "1"], ["0", "a", "b"]], False),
        ([["0", "1"], ["a", "b"]], True),  # pandas without names
        ([["a", "a"], ["x", "y"]], False),
    ],
)
def test_numbers_and_equal_cells_tell_a_header(rows, header):
    assert detect.has_header(rows, NAMES)[0] is header


@pytest.mark.parametrize("name", ["a.annotated", "a.txt", "a.tsv", "a.iob", "a.data"])
def test_words_and_tags_are_read_whatever_the_name(name, tmp_path):
    data = found(tmp_path / name, TAGGED)
    rows = readers.read(str(tmp_path / name), data, split="train").rows
    assert rows[0].values == {"tokens": ["word0", "other"], "tags": ["B-X", "O"]}
    assert len(rows) == 8


def test_prose_stays_prose(tmp_path):
    paragraphs = "\n\n".join(f"The first, and second, line {n}.\nAnother one." for n in range(30))
    assert found(tmp_path / "a.txt", paragraphs).format == "auto"
    assert found(tmp_path / "b.txt", "A book in one line. " * 10_000).format in ("auto", "txt")


@pytest.mark.parametrize("name", ["a.txt", "a.data"])
def test_json_is_read_whatever_the_name(name, tmp_path):
    line = '{"text": "a", "label": "b"}\n'
    for content in (line * 3, f'{{"data": [{line * 5}'.replace("\n", ",")[:-1] + "]}"):
        found(tmp_path / name, content)
    # One line of more than the part that is searched.
    long = '{"data": [' + ",".join([line.strip()] * 5000) + "]}"
    data = found(tmp_path / "b.data", long)
    assert len(readers.read(str(tmp_path / "b.data"), data, split="train").rows) == 5000


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "café “quoted”"),
        ("cp1252", "El niño comió piñas; ¿qué más?"),
        ("cp1252", "one “quote” in English text, it’s"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy, věřte že řeka"),
        ("cp1250", "Zażółć gęślą jaźń, łódź i żółw są łagodne"),
        ("cp1251", "Это хороший фильм, мне очень понравился"),
        ("shift_jis", "これはとても良い映画でした"),
        ("gb18030", "这是一部非常好的电影"),
        ("utf-16", "any text"),
    ],
)
def test_the_encoding_is_recognized(encoding, text):
    content = "\n".join([text] * 3).encode(encoding)
    assert detect.encoding_of(content)[0] == encoding


def test_a_damaged_file_has_no_other_encoding(tmp_path):
    content = "naïve café déjà vu\n".encode() * 9 + b"caf\xe9\n"
    with pytest.raises(DataError, match=r"a\.csv:10: not UTF-8, as the rest of the file is"):
        found(tmp_path / "a.csv", content)


def test_the_line_that_excel_writes_first_is_no_header(tmp_path):
    data = found(tmp_path / "a.csv", "sep=;\n" + table(";"))
    assert data.columns == ("column1", "column2")


def test_what_is_known_is_kept(tmp_path):
    data = found(tmp_path / "a.dat", table(";").encode("cp1252"), encoding="latin1", format="csv")
    assert (data.encoding, data.format) == ("latin1", "csv")


def test_an_empty_or_absent_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="the file is empty"):
        found(tmp_path / "a.csv", "")
    with pytest.raises(DataError, match="no such file"):
        detect.detect(str(tmp_path / "none.csv"), DataConfig(), NAMES)

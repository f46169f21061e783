"""Files side by side, one line for each example."""

from pathlib import Path

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.readers import parallel
from flaxbert.errors import DataError


def write(directory: Path, **files: str) -> list[str]:
    for name, content in files.items():
        (directory / name).write_bytes(content.encode())
    return [str(directory / name) for name in files]


def read(files: list[str], *columns: str) -> list[dict[str, object]]:
    table = readers.read("+".join(files), DataConfig(columns=columns), split="train")
    return [row.values for row in table.rows]


def test_lines_of_texts_and_labels_are_rows(tmp_path):
    files = write(tmp_path, a="good film\r\n\r\nbad film\r\n", b="pos\nneutral\nneg")
    assert read(files) == [
        {"text": "good film", "label": "pos"},
        {"text": "", "label": "neutral"},  # a blank line is a text: later rows would shift
        {"text": "bad film", "label": "neg"},
    ]


def test_as_many_words_in_every_line_are_words_and_tags(tmp_path):
    files = write(tmp_path, a="fly to paris\nhello\n", b="O O B-city\nO\n")
    assert read(files)[0] == {"tokens": ["fly", "to", "paris"], "tags": ["O", "O", "B-city"]}
    assert read(files, "text", "label")[0] == {"text": "fly to paris", "label": "O O B-city"}


def test_columns_name_any_number_of_files(tmp_path):
    files = write(tmp_path, a="fly home\n", b="O O\n", c="go\n")
    assert read(files, "tokens", "tags", "label") == [
        {"tokens": ["fly", "home"], "tags": ["O", "O"], "label": "go"}
    ]
    with pytest.raises(DataError, match=r"3 files, but data\.columns names 0 \(none\)"):
        read(files)


def test_origins_and_the_note_name_the_files(tmp_path):
    files = write(tmp_path, a="x y\nz\n", b="pos\nneg\n")
    table = readers.read("+".join(files), DataConfig(), split="train")
    assert [row.origin for row in table.rows] == [f"{files[0]}:1", f"{files[0]}:2"]
    assert f"{files[0]} as text and {files[1]} as label" in str(table.issues[0])


def test_different_numbers_of_lines_are_refused_with_both(tmp_path):
    files = write(tmp_path, a="x\ny\n", b="pos\n")
    with pytest.raises(DataError, match=r"different numbers of lines \(.*a 2, .*b 1\)"):
        read(files)


def test_an_absent_file_is_named(tmp_path):
    (file,) = write(tmp_path, a="x\n")
    with pytest.raises(DataError, match=r"labels: cannot be read \(No such file"):
        read([file, f"{tmp_path}/labels"])


def test_another_encoding_is_reported_with_its_line(tmp_path):
    files = write(tmp_path, a="x\ny\n", b="pos\nneg\n")
    Path(files[0]).write_bytes("x\ncafé\n".encode("cp1252"))
    with pytest.raises(DataError, match="a:2: not UTF-8"):
        read(files)


def test_a_plus_in_a_name_or_a_split_is_no_separator(tmp_path):
    (file,) = write(tmp_path, **{"a+b.tsv": "text\nx\n"})
    assert parallel.parts(file) == []
    assert parallel.parts("some/data@train[10%:20%]+test") == []


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (("train.texts", "train.labels"), "train.texts+train.labels"),
        (("seq.in", "label"), "seq.in+label"),
        (("seq.in", "seq.out"), "seq.in+seq.out"),
        (("train.texts", "dev.labels"), None),
    ],
)
def test_the_labels_next_to_a_file_of_texts_are_found(names, joined, tmp_path):
    first, _ = write(tmp_path, **dict.fromkeys(names, "x\n"))
    expected = joined and f"{first}+{tmp_path / names[1]}"
    assert parallel.sibling(first) == expected

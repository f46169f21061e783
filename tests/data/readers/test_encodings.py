"""Encodings: none is named that the bytes do not support, and text that was misread is found."""

from pathlib import Path

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.checks import check_examples
from flaxbert.data.readers.encodings import LIKELY, undecodable
from flaxbert.errors import DataError
from flaxbert.tasks.texts import TextExample

TEXTS = {
    "cp1251": "хороший фильм",
    "cp1252": "un naïf “déjà vu”",
    "cp1250": "žluťoučký kůň",
    "shift_jis": "東京は大きい",
    "gb18030": "你好世界",
    "latin1": "café",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_line_is_shown_in_the_encodings_that_it_may_be_in(
    encoding: str, tmp_path: Path
) -> None:
    path, text = tmp_path / "a.csv", TEXTS[encoding]
    path.write_bytes(f"text,label\nfine,good\n{text},bad\n".encode(encoding))
    with pytest.raises(DataError) as caught:
        readers.read(str(path), DataConfig(), split="train")
    message = str(caught.value)
    assert message.startswith(f"{path}:3: not UTF-8. The line in other encodings: ")
    named = "cp1252" if encoding == "latin1" else encoding  # these bytes are the same in both
    assert f"{named} {f'{text},bad'!r}" in message
    assert "--config.data.encoding" in message
    told = DataConfig(encoding=named)
    assert readers.read(str(path), told, split="train").rows[1].values["text"] == text


def test_an_encoding_that_the_bytes_do_not_support_is_not_named() -> None:
    message = undecodable(b"text\nna\x81ve\n", "utf-8")  # 0x81 is nothing in cp1252
    assert "cp1252" not in message
    assert "latin1" not in message  # there it is a control character
    assert undecodable("žluťoučký".encode("cp1250"), "utf-8").count("cp1252") == 0


def test_a_long_line_is_shown_in_part() -> None:
    content = b"x" * 9999 + "привет".encode("cp1251") + b"y" * 9999
    assert len(undecodable(content, "utf-8")) < 1000


@pytest.mark.parametrize(
    ("content", "encoding", "parts"),
    [
        ("text\n".encode("utf-16"), "utf-8", ["1: not UTF-8 but UTF-16", "encoding=utf-16"]),
        (
            "text\nпривет\nnaïve\n".encode() + b"caf\xe9\n",
            "utf-8",
            ["4: not UTF-8, as the rest of the file is: 'caf\\xe9'; fix the line"],
        ),
        ("text\nпривет".encode(), "ascii", ["2: not ascii", "utf-8 'привет'"]),
        (b"PK\x03\x04\xff", "utf-8", ["1: not text but a ZIP archive, such as an Excel workbook"]),
        (b"\x1f\x8b\xff", "utf-8", ["compressed by gzip"]),
        (b"PAR1\xff", "utf-8", ["--config.data.format=parquet"]),
    ],
)
def test_what_a_file_is_instead_is_named(content: bytes, encoding: str, parts: list[str]) -> None:
    message = undecodable(content, encoding)
    for part in parts:
        assert part in message
    assert all(name in LIKELY for name in ("utf-8", "latin1"))


def finds(text: str) -> list[str]:
    return [
        finding.text for finding in check_examples([TextExample(text, None, None, None, "a:1")])
    ]


@pytest.mark.parametrize(
    ("text", "encoding", "what"),
    [
        ("café", "latin1", "UTF-8 was read as latin-1"),
        ("É", "cp1252", "UTF-8 was read as latin-1"),
        ("don’t", "cp1252", "UTF-8 was read as latin-1"),
        ("при", "cp1252", "UTF-8 was read as latin-1"),
        ("при", "latin1", "UTF-8 was read as latin-1"),
        ("при", "cp1251", "UTF-8 was read as cp1251"),
        ("東京だ", "latin1", "UTF-8 was read as latin-1"),
        ("😀", "cp1252", "UTF-8 was read as latin-1"),
    ],
)
def test_utf8_that_was_read_otherwise_is_found(text: str, encoding: str, what: str) -> None:
    (found,) = finds(f"so {text.encode().decode(encoding)} it is")
    assert what in found


def test_cyrillic_that_was_read_as_latin_is_found() -> None:
    (found,) = finds("привет".encode("cp1251").decode("latin1"))
    assert "Cyrillic (cp1251) was read as latin-1" in found


@pytest.mark.parametrize(
    "text",
    [
        "naïve façade, “déjà vu” – Ñandú, ESPAÑA «olé» Ã la carte",
        "São João, ÀÉÎÕÜ",
        "Рівне, Сіль, РСФСР, СССР, Ўзбекистон",
        "Łódź, žluťoučký kůň, İstanbul, Þórður Ðe",
        "東京は大きい",
    ],
)
def test_letters_of_many_languages_are_left_alone(text: str) -> None:
    assert finds(text) == []

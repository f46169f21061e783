"""How to read a file that nothing is known about: encoding, format, separator and header.

Runs never guess: they read files as the configuration says. This module writes that configuration.
"""

import collections
import dataclasses
import re
import statistics
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from flaxbert.config import DataConfig
from flaxbert.data import readers, remote
from flaxbert.data.checks import is_number
from flaxbert.data.readers import delimited, parallel
from flaxbert.data.readers.encodings import FORMATS, MARKS, codec, mostly_utf8, undecodable
from flaxbert.errors import DataError

CANDIDATES = ("cp1252", "cp1251", "cp1250", "shift_jis", "gb18030")
"""Encodings that are tried for text that is not UTF-8."""

COMMON = {
    "cp1252": "áéíóúñüöäßàèçâêîôûëïœæøåãõÁÉÍÓÚÑÜÖÄÀÈÇØÅ¿¡€£§°«»\u2013—\u2018\u2019“”…ºª·",
    "cp1250": "ąćęłńóśźżčďěňřšťůžőűáéíýúäöüßôăîșțĄĆĘŁŃÓŚŹŻČŘŠŽ€„”“\u2019\u2013—…",
}
"""Characters that are frequent in Western and Central European text."""

PRIOR = {"cp1252": 0.2}
"""Added to the score of the most frequent encoding, which decides where there are few letters."""

DENSE = 0.6
"""Share of the letters that are not ASCII, in text of scripts other than Latin."""

SHOWN = 60
"""Characters of a line that a reason quotes."""

WORDY = 4
"""Words of a cell that is a sentence and no name of a column."""


@dataclasses.dataclass(frozen=True)
class Detected:
    """How to read a file, and why."""

    data: DataConfig
    reasons: dict[str, str]
    """{key of the data section: why it has its value}"""


def detect(spec: str, data: DataConfig, names: Collection[str]) -> Detected:
    """Return how to read a file.

    Args:
      spec: a path, or files side by side.
      data: the keys that are known; all others have their defaults.
      names: usual names of columns, in lower case.

    Raises:
      DataError: if there is no such file, or its format cannot be recognized.
    """
    path = remote.local(parallel.parts(spec)[0] if parallel.parts(spec) else spec)
    if not path.is_file():
        raise DataError(f"{spec}: no such file (from {Path.cwd()}).")
    content, reasons = path.read_bytes(), dict[str, str]()
    if not content.strip():
        raise DataError(f"{spec}: the file is empty.")
    if not any(content.startswith(mark) for mark in FORMATS) and data.encoding == "utf-8":
        encoding, why = encoding_of(content)
        if not encoding:
            raise DataError(f"{spec}:{undecodable(content, data.encoding)}.")
        if encoding != data.encoding:
            data, reasons["encoding"] = dataclasses.replace(data, encoding=encoding), why
    if parallel.parts(spec):
        return Detected(data, reasons)
    form, why = _form(path, content, data)
    if why:
        data, reasons["format"] = dataclasses.replace(data, format=form), why
    if form in ("csv", "tsv") and not data.columns:
        try:
            text = content.decode(codec(data.encoding))
        except UnicodeDecodeError:
            raise DataError(f"{spec}:{undecodable(content, data.encoding)}.") from None
        records = delimited.first_records(text, path, dataclasses.replace(data, format=form))
        header, why = has_header(records, names) if records else (True, "")
        if not header:
            width = collections.Counter(map(len, records)).most_common(1)[0][0]
            columns = tuple(f"column{n}" for n in range(1, width + 1))
            data, reasons["columns"] = dataclasses.replace(data, columns=columns), why
    return Detected(data, reasons)


def encoding_of(content: bytes) -> tuple[str, str]:
    """Return the encoding of text, and how it was recognized; "" for none of those tried.

    A file that is UTF-8 except for a few bytes is damaged, and has no other encoding.
    """
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding, "its byte order mark"
    try:
        content.decode("utf-8-sig")
        return "utf-8", "valid UTF-8"
    except UnicodeDecodeError as error:
        place = error.start
    scores = {encoding: _score(content, encoding) for encoding in CANDIDATES}
    best = max(scores, key=lambda encoding: scores[encoding])
    if scores[best] <= 0 or mostly_utf8(content):
        return "", ""
    begin = content.rfind(b"\n", 0, place) + 1
    line = content[begin : place + 20].decode(best, "replace").partition("\n")[0]
    number = content.count(b"\n", 0, place) + 1
    return best, f"not UTF-8; as {best} line {number} reads {line[-SHOWN:]!r}"


def _score(content: bytes, encoding: str) -> float:
    """Return how plausible an encoding is, about 1 at most; 0 if it is impossible."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    characters = set(text) - set("\t\r\n\f")
    if any(unicodedata.category(char) in ("Cc", "Cn", "Co") for char in characters):
        return 0.0
    foreign = [char for char in text if not char.isascii()]
    letters = sum(char.isalpha() for char in text) or 1
    # European text has few accented letters, Russian text hardly any others.
    dense = sum(char.isalpha() for char in foreign) > DENSE * letters
    if encoding in COMMON:
        usual = sum(char in COMMON[encoding] for char in foreign) / len(foreign)
        return 0.0 if dense else usual + PRIOR.get(encoding, 0.0)
    if encoding == "cp1251":
        words = re.findall("[\u0430-\u044f\u0451]{2,}", text.lower())
        return sum(map(len, words)) / len(foreign) if dense else 0.0
    wide = sum("\u3040" <= char <= "\u30ff" or "\u4e00" <= char <= "\u9fff" for char in foreign)
    kana = sum("\u3040" <= char <= "\u30ff" for char in foreign)
    if encoding == "shift_jis":  # Japanese has kana, and half-width kana are mostly mistakes
        return 0.0 if kana * 10 < len(foreign) else wide / len(foreign)
    return 0.9 * wide / len(foreign)


def _form(path: Path, content: bytes, data: DataConfig) -> tuple[str, str]:
    """Return the format of a file, and why if it is not the one that a run detects."""
    if data.format != "auto":
        return data.format, ""
    lines = content[: readers.HEAD].decode(codec(data.encoding), "replace").split("\n")
    lines = lines[:-1] if len(content) > readers.HEAD and len(lines) > 1 else lines
    if path.suffix.lower() != ".txt":
        try:
            return readers.form_of(path, data)[0], ""
        except DataError:
            if content.startswith(tuple(FORMATS)) or not _is_tagged(lines):
                raise
            return "conll", "words and tags in columns, and blank lines between sentences"
    if _is_tagged(lines):
        return "conll", "words and tags in columns, and blank lines between sentences"
    form = delimited.form_of("\n".join(lines), path, data)
    if form and _is_table(lines, path, dataclasses.replace(data, format=form)):
        return form, "all lines have as many columns"
    if lines[0].strip()[:1] == "{":
        return "jsonl", "JSON objects"
    return "txt", ""


def _is_tagged(lines: Sequence[str]) -> bool:
    """Return whether lines are words with tags: columns, and blank lines between sentences."""
    tabs = sum("\t" in line for line in lines) > sum(bool(line.strip()) for line in lines) / 2
    cells = [line.split("\t" if tabs else None) for line in lines if line.strip()]
    blanks = sum(not line.strip() for line in lines[:-1])
    widths = collections.Counter(map(len, cells))
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    if width < 2 or blanks * 100 < len(lines) or count < 0.97 * len(cells):
        return False
    rows = [row for row in cells if len(row) == width]
    tags = {row[-1].strip() for row in rows}
    words = sum(len(row[0].split()) <= 1 for row in rows) >= 0.97 * len(rows)
    return words and len(tags) <= max(10, len(rows) // 10)


def _is_table(lines: Sequence[str], path: Path, data: DataConfig) -> bool:
    """Return whether almost all lines have as many columns, two or more."""
    try:
        records = delimited.first_records("\n".join(lines), path, data)
    except DataError:
        return False
    widths = collections.Counter(map(len, records))
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return width > 1 and count >= 0.95 * len(records) and not _is_prose(lines)


def _is_prose(lines: Sequence[str]) -> bool:
    """Return whether blank lines separate paragraphs."""
    return sum(not line.strip() for line in lines[:-1]) * 20 > len(lines)


def has_header(records: Sequence[Sequence[str]], names: Collection[str]) -> tuple[bool, str]:
    """Return whether the first record names the columns, and why.

    Args:
      records: the first records of a file.
      names: usual names of columns, in lower case.
    """
    first, rows = [cell.strip() for cell in records[0]], records[1:]
    columns = [
        [row[n].strip() for row in rows if len(row) == len(first)] for n in range(len(first))
    ]
    pairs = [(cell, column) for cell, column in zip(first, columns, strict=True) if column]
    if first == [str(n) for n in range(len(first))]:
        return True, "the first line counts the columns"
    for cell, column in pairs:
        if cell and len(set(column)) * 2 <= len(column) and cell in column:
            return False, f"{cell!r} in the first line is a value of its column"
        if is_number(cell):
            return False, f"the first line has the number {cell}"
        words = statistics.median(len(value.split()) for value in column)
        if words >= WORDY and len(cell.split()) >= WORDY:
            return False, f"the first line has a sentence, {cell[:40]!r}"
    if len(set(first)) < len(first):
        return False, "two cells of the first line are equal"
    known = [cell for cell in first if cell.lower() in names]
    if known:
        return True, f"{known[0]!r} in the first line is a usual name"
    if any(all(map(is_number, column)) for _, column in pairs):
        return True, "a column of numbers begins with a word"
    named = all(len(cell.split()) < WORDY for cell in first)
    return named, "the first line is as short as names" if named else "no cell looks like a name"

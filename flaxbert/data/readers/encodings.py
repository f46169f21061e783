"""Encodings of text files, and guesses at the encoding of a file that cannot be decoded."""

import codecs
import re
import unicodedata

LIKELY = ("utf-8", "cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "latin1")
"""The most frequent encodings of files that are not UTF-8; latin-1 decodes any bytes."""

SHOWN = 4
"""Number of readings of a line that a message shows."""

AROUND = 30
"""Bytes of a line that a message shows, before and after the first that is wrong."""

ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive, such as an Excel workbook; unpack it, or save the sheet as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
}
"""First bytes of files that no reader supports."""

FORMATS = ARCHIVES | {b"PAR1": "Parquet; set --config.data.format=parquet"}
"""First bytes of files that are not text."""

MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks."""


def codec(encoding: str) -> str:
    """Return Python's codec for `data.encoding`; in UTF-8 a byte order mark is not text."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def undecodable(content: bytes, encoding: str) -> str:
    """Describe why a file is not in `encoding`, as "LINE: what is wrong, and how to fix it"."""
    for begin, what in FORMATS.items():
        if content.startswith(begin):
            return f"1: not text but {what}"
    try:
        content.decode(codec(encoding))
        place = 0  # only the reader's incremental decoder failed
    except UnicodeDecodeError as error:
        place = error.start
    line = content.count(b"\n", 0, place) + 1
    name = "UTF-8" if codec(encoding) == "utf-8-sig" else encoding
    for mark, other in MARKS.items():
        if content.startswith(mark):
            return f"{line}: not {name} but {other.upper()}; set --config.data.encoding={other}"
    if name == "UTF-8" and mostly_utf8(content):
        text = _around(content, place).decode("utf-8", "backslashreplace")
        return f"{line}: not UTF-8, as the rest of the file is: '{text}'; fix the line"
    readings: dict[str, str] = {}
    for other in LIKELY:
        reading = _reading(content, place, other)
        if reading and reading not in readings.values():
            readings[other] = reading
    shown = ", ".join(f"{other} {text!r}" for other, text in list(readings.items())[:SHOWN])
    if not shown:
        return f"{line}: not {name}, nor any of {', '.join(LIKELY)}; set --config.data.encoding"
    return (
        f"{line}: not {name}. The line in other encodings: {shown}. Set --config.data.encoding to "
        "the one that reads right (any that Python has)"
    )


def mostly_utf8(content: bytes) -> bool:
    """Return whether most characters beyond ASCII are valid UTF-8."""
    text = content.decode("utf-8", "surrogateescape")  # invalid bytes become surrogates
    faults = sum("\udc80" <= char <= "\udcff" for char in text)
    return 2 * faults < sum(not char.isascii() for char in text)


def _around(content: bytes, place: int) -> bytes:
    """Return part of a line around a place, cut between words where ASCII separates these."""
    begin = content.rfind(b"\n", 0, place) + 1
    end = content.find(b"\n", place)
    line = content[begin : len(content) if end < 0 else end].rstrip(b"\r")
    place -= begin
    if len(line) <= 2 * AROUND:
        return line
    before = re.search(rb"(?s)[\x21-\x7e\x80-\xff]*$", line[: max(0, place - AROUND)])
    start = before.start() if before and place > AROUND else 0
    behind = re.search(rb"[ \t,;]", line[place + AROUND :])
    stop = place + AROUND + behind.start() if behind else len(line)
    return line[max(start, place - 2 * AROUND) : min(stop, place + 2 * AROUND)]


def _reading(content: bytes, place: int, encoding: str) -> str | None:
    """Return part of a line in an encoding; None if the file is in another one."""
    try:
        text = content.decode(encoding)
        part = _around(content, place).decode(encoding, "replace").strip()
    except UnicodeDecodeError:
        return None
    controls = sum(unicodedata.category(char) in ("Cc", "Cn", "Co") for char in text)
    return None if controls > sum(char in "\t\r\n\f" for char in text) else part

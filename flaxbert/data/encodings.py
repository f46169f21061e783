"""Encodings of text files."""

import codecs


def codec(encoding: str) -> str:
    """Python's codec for `data.encoding`: in UTF-8 a byte order mark is no text."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding

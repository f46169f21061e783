"""The pages on troubleshooting quote messages that flaxbert still has."""

import functools
import re

import pytest
from conftest import ROOT


def quoted(language: str) -> list[str]:
    """Return the messages that a page quotes, with `...` for what differs."""
    page = (ROOT / "docs" / language / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^```text\n(.*?)\n```$", page, flags=re.MULTILINE | re.DOTALL)


def joined(code: str) -> str:
    """Return a program in which each text is on one line, as in the message."""
    return re.sub(r"""["']\s*\n\s*f?["']""", "", code).replace('\\"', '"')


@functools.cache
def source() -> str:
    files = sorted((ROOT / "flaxbert").rglob("*.py"))
    return "\n".join(joined(file.read_text(encoding="utf-8")) for file in files)


def fixed_parts(message: str) -> list[str]:
    """Return what does not differ from case to case; a part of one character says nothing."""
    return [part for piece in message.split("...") if len(part := piece.strip()) > 1]


def absent(message: str) -> list[str]:
    return [part for part in fixed_parts(message) if part not in source()]


@pytest.mark.parametrize("message", quoted("en"))
def test_a_quoted_message_is_in_the_source(message: str) -> None:
    assert absent(message) == []
    assert max(map(len, fixed_parts(message))) >= 10  # enough to search for


@pytest.mark.parametrize("wrong", ["the model has learnt nothing", "no file such (from ...)"])
def test_a_message_that_does_not_exist_is_caught(wrong: str) -> None:
    assert absent(wrong)


def test_texts_in_several_lines_are_joined() -> None:
    code = 'raise Error(\n    f"no {name} here: "\n    "set \\"x\\"."\n)'
    assert 'f"no {name} here: set "x"."' in joined(code)


def test_both_pages_quote_the_same_messages() -> None:
    assert 20 <= len(quoted("en")) <= 40
    assert quoted("es") == quoted("en")

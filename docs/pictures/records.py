"""The numbers of facts.json and runs.json, and numbers as the languages write them."""

import functools
import json
from pathlib import Path
from typing import Any

DECIMAL = {"en": ".", "es": "."}  # as a run prints them: its configs and files have a point
THOUSANDS = {"en": ",", "es": "\u00a0"}


@functools.cache
def facts() -> dict[str, Any]:
    """Return what record_facts.py computed."""
    return _read("facts.json")


@functools.cache
def runs() -> dict[str, Any]:
    """Return what record_runs.py measured."""
    return _read("runs.json")


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name(name).read_text("utf-8"))
    return content


def number(value: float, language: str, digits: int = 0) -> str:
    """Return a number with its separators, such as 1,155 in English.

    Spanish separates thousands in numbers of five digits or more.
    """
    grouped = language != "es" or abs(value) >= 10_000
    text = f"{value:,.{digits}f}" if grouped else f"{value:.{digits}f}"
    return text.translate(str.maketrans({",": THOUSANDS[language], ".": DECIMAL[language]}))


def percent(share: float, language: str, digits: int = 0) -> str:
    """Return a share in percent."""
    return f"{number(100 * share, language, digits)}\u00a0%"

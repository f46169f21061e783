"""The text of a config file for a configuration, with comments."""

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from typing import Any

from flaxbert.config import Config

WIDTH = 98

ALWAYS = ("train.epochs", "train.batch_size", "optim.learning_rate", "data.max_length")
"""Keys that are written even if they have their defaults, since users change them most."""


def render(config: Config, comments: Mapping[str, str], about: str) -> str:
    """Return a Python file whose `get_config()` returns a configuration.

    Args:
      config: the configuration; keys with their default values are left out.
      comments: {dotted key: a comment above its value}.
      about: the docstring.
    """
    sections = [
        (name, section)
        for name in ("model", "data", "train", "optim", "options")
        if (section := getattr(config, name)) is not None
    ]
    body, used = [*_entry("task", config.task, comments.get("task"), 8)], ["Config"]
    for name, section in sections:
        if inner := _fields(name, section, comments):
            body += [f"        {name}={type(section).__name__}(", *inner, "        ),"]
            used += [type(section).__name__] if name != "options" else []
        elif name == "options":
            body.append(f"        options={type(section).__name__}(),")
    lines = [
        f'"""{_escaped(about)}\n"""',
        "",
        f"from flaxbert.config import {', '.join(sorted(used))}",
    ]
    if config.options is not None:
        options = type(config.options)
        lines.append(f"from {options.__module__} import {options.__name__}")
    lines += ["", "", "def get_config() -> Config:", '    """Return the configuration."""']
    return "\n".join([*lines, "    return Config(", *body, "    )", ""])


def _fields(prefix: str, section: Any, comments: Mapping[str, str]) -> list[str]:
    """Return the lines of the fields of a section that are not as by default."""
    lines: list[str] = []
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{prefix}.{field.name}"
        if value != field.default or key in ALWAYS or key in comments:
            lines += _entry(field.name, value, comments.get(key), 12)
    return lines


def _entry(name: str, value: Any, comment: str | None, indent: int) -> list[str]:
    blank = " " * indent
    printable = "".join(letter if letter.isprintable() else " " for letter in comment or "")
    lines = textwrap.wrap(printable, WIDTH - indent - 2, break_long_words=False)
    return [*(f"{blank}# {line}" for line in lines), f"{blank}{name}={_literal(value)},"]


def _literal(value: Any) -> str:
    """Return a value as Python's formatters write it, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')

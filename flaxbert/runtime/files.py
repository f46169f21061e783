"""Atomic files and directories: each is written completely or not at all."""

import contextlib
import json
import math
import os
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from flaxbert.errors import DivergedError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[TextIO]:
    """Yield a text file that replaces `path` when the block ends; on an error `path` stays."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            # Without it, a machine that loses power may keep the name without the content.
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that replaces `path` when the block ends.

    After an error the partial directory is gone and `path` is as it was before.
    """
    path = path.resolve()
    partial, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed here
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        replaces = path.exists()
        if replaces:  # no system call replaces a directory with content: move it away first
            os.replace(path, old)
        try:
            os.replace(partial, path)
        except BaseException:
            if replaces:
                os.replace(old, path)
            raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic_file(path) as file:
        file.write(text)


def nonfinite_to_none(value: Any) -> Any:
    """Return a value of JSON types with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: nonfinite_to_none(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nonfinite_to_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write one indented JSON document; numbers that are not finite become null."""
    text = json.dumps(nonfinite_to_none(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line. Records of a generator are written as they come.

    Raises:
      DivergedError: if a prediction is not finite; an existing file stays as it was.
    """
    with atomic_file(path) as file:
        for number, record in enumerate(records, start=1):
            try:
                line = json.dumps(record, ensure_ascii=False, allow_nan=False)
            except ValueError:
                raise DivergedError(
                    f"{path}: prediction {number} holds a number that is not finite: "
                    f"{textwrap.shorten(str(record), 200)}. The weights are corrupt, or their "
                    "activations overflow: try --config.model.dtype=float32."
                ) from None
            file.write(line + "\n")

"""The files of a run, each written whole or not at all."""

import contextlib
import json
import logging
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from flaxbert.errors import DivergedError

log = logging.getLogger("flaxbert")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Open a file that takes its name once all is written: a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a machine that is cut off may keep the name alone
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    with _whole(path) as file:
        file.write(text)


def finite(value: Any) -> Any:
    """Return a value of JSON's types with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented; numbers that are not finite become null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, as the records come: all of them never are in memory as text.

    Raises:
      DivergedError: for a prediction that is not finite; the file stays as it was.
    """
    with _whole(path) as file:
        for number, record in enumerate(records, start=1):
            try:
                line = json.dumps(record, ensure_ascii=False, allow_nan=False)
            except ValueError:
                raise DivergedError(
                    f"{path}: prediction {number} holds a number that is not finite: "
                    f"{textwrap.shorten(str(record), 200)}. The weights are damaged, or their "
                    "activations overflow: try --config.model.dtype=float32."
                ) from None
            file.write(line + "\n")

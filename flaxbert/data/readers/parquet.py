"""Parquet files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from flaxbert.config import DataConfig
from flaxbert.data.readers.json import as_list
from flaxbert.data.table import Record, RecordOrIssue
from flaxbert.errors import DataError

T = TypeVar("T")


def _from_parquet(path: Path, get: Callable[[Path], T]) -> T:
    import pyarrow

    try:
        return get(path)
    # ValueError and OverflowError: text that is not UTF-8, and times beyond Python's years.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason}).") from None


ROWS = 8192
"""Rows that are read at a time, which bounds the memory."""


def _read_parquet(path: Path, data: DataConfig) -> RecordOrIssue:
    import pyarrow.parquet

    def batches(path: Path) -> Iterator[Any]:
        # Few files have checksums, but in those a changed byte is detected.
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        return iter(file.iter_batches(batch_size=ROWS))

    remaining, before = _from_parquet(path, batches), 0

    def rows(path: Path) -> list[dict[str, Any]] | None:
        batch = next(remaining, None)
        return None if batch is None else batch.to_pylist()

    while (records := _from_parquet(path, rows)) is not None:
        for number, record in enumerate(records, start=before + 1):
            yield Record(record, f"{path}: row {number}")
        before += len(records)


def _parquet_names(path: Path) -> dict[str, list[str]]:
    """Return the names behind integer labels, which `datasets` writes into a file's schema."""
    import pyarrow.parquet

    schema = _from_parquet(path, pyarrow.parquet.read_schema)
    written = (schema.metadata or {}).get(b"huggingface")
    try:
        return _class_labels(written)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError(
            f"{path}: the key 'huggingface' of its metadata is not as the library datasets writes "
            "it, so integer labels may lack their names; write the file without that key."
        ) from None


def _class_labels(written: bytes | None) -> dict[str, list[str]]:
    features = json.loads(written).get("info", {}).get("features", {}) if written else {}
    # A list of labels, such as tags, has the names inside.
    inner = {
        column: feature.get("feature", feature)
        for column, feature in features.items()
        if isinstance(feature, dict)
    }
    names = {
        column: as_list(feature["names"])
        for column, feature in inner.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    if not all(labels and all(isinstance(n, str) for n in labels) for labels in names.values()):
        raise ValueError("label names must be texts")
    return names

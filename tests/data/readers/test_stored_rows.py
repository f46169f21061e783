"""Records that are stored are those that were added, in whatever way they are read."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import growing, readers
from flaxbert.data.readers import text
from flaxbert.data.readers.text import StoredRows
from flaxbert.data.table import Record

RECORDS = [
    Record({"text": "\ud800 é\n" * n, "file": None, "n": [n, 0.5]}, f"x:{n}", (n, n + 1))
    for n in range(11)
]


@pytest.mark.parametrize("limit", [0, 10**6])
@pytest.mark.parametrize("block", [1, 4, 11, 100])
@pytest.mark.parametrize("count", [0, 1, 8, 11])
def test_stored_records_are_those_that_were_added(
    count: int, block: int, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK", block)
    monkeypatch.setattr(growing, "IN_MEMORY", limit)
    rows = StoredRows(DataConfig(feature_cache=str(tmp_path)))
    rows.extend(RECORDS[:count])
    assert len(rows) == count
    assert list(rows) == RECORDS[:count]
    for n in range(-count, count):
        assert rows[n] == RECORDS[:count][n]
    for start, end in itertools.product([None, 0, 3, -2], repeat=2):
        assert rows[start:end] == RECORDS[:count][start:end]
    with pytest.raises(IndexError):
        rows[count]


def write_files(directory: Path) -> dict[str, Any]:
    (directory / "a.txt").write_text("one\nline\n\n \ntwo\n")
    (directory / "b.jsonl").write_text(json.dumps({"text": "three", "file": "b"}) + "\n")
    (directory / "c.txt").write_text("\n\nfour")
    a, b, c = (str(directory / name) for name in ("a.txt", "b.jsonl", "c.txt"))
    return {
        f"{a}:1": {"text": "one\nline", "file": a},
        f"{a}:5": {"text": "two", "file": a},
        f"{b}:1": {"text": "three", "file": "b"},
        f"{c}:3": {"text": "four", "file": c},
    }


def test_a_pattern_reads_text_files_next_to_others_in_order(tmp_path: Path) -> None:
    expected = write_files(tmp_path)
    for pattern, names in (("*", "abc"), ("*.txt", "ac"), ("b*", "b"), ("[bc]*", "bc")):
        table = readers.read(f"{tmp_path}/{pattern}", DataConfig(), split="train")
        rows = {row.origin: row.values for row in table.rows}
        assert list(rows.items()) == [
            item for item in expected.items() if Path(item[0]).name[0] in names
        ]
        assert isinstance(table.rows, StoredRows) == (names != "b")

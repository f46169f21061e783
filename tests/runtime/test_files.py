"""Atomic files and directories."""

import json
import math
import os
from pathlib import Path

import pytest

from flaxbert.errors import DivergedError
from flaxbert.runtime import files

STRICT = {"parse_constant": pytest.fail}
"""Arguments of json.loads, which otherwise accepts NaN and Infinity."""


def test_nonfinite_results_are_null(tmp_path):
    results = {"f1": math.nan, "inner": {"list": [1.5, -math.inf]}, "step": 3.0}
    files.write_json(tmp_path / "results.json", results)
    results = json.loads((tmp_path / "results.json").read_text(), **STRICT)
    assert results == {"f1": None, "inner": {"list": [1.5, None]}, "step": 3.0}


def test_nonfinite_prediction_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "predictions.jsonl"
    files.write_jsonl(path, [{"label": "a"}])
    with pytest.raises(DivergedError, match=r"predictions\.jsonl: prediction 2 .*not finite"):
        files.write_jsonl(path, [{"p": 0.5}, {"id": "x", "p": {"a": math.nan}}])
    assert path.read_text() == '{"label": "a"}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_are_written_as_they_come(tmp_path):
    path, written = tmp_path / "predictions.jsonl", []

    def records():
        for number in range(3):
            yield {"number": number, "text": "x" * 100_000}
            written.append((tmp_path / ".predictions.jsonl.partial").stat().st_size)

    files.write_jsonl(path, records())
    assert written[-1] > 100_000  # the file grows while records come
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2]


def content(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*.txt")}


@pytest.mark.parametrize("exists", [False, True])
def test_directory_appears_complete(tmp_path, exists):
    path = tmp_path / "export"
    if exists:
        path.mkdir()
        (path / "old.txt").write_text("old")
    with files.atomic_directory(path) as partial:
        (partial / "new.txt").write_text("new")
        assert content(tmp_path) == {".export.partial/new.txt": "new"} | (
            {"export/old.txt": "old"} if exists else {}
        )
    assert content(tmp_path) == {"export/new.txt": "new"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["content", "rename"])
def test_directory_stays_as_it_was_after_an_error(tmp_path, monkeypatch, failing):
    path, replace = tmp_path / "export", os.replace
    path.mkdir()
    (path / "old.txt").write_text("old")

    def refusing(old, new):
        if Path(old).name == ".export.partial":
            raise OSError("the rename failed")
        replace(old, new)

    def write() -> None:
        with files.atomic_directory(path) as partial:
            (partial / "new.txt").write_text("new")
            if failing == "content":
                raise OSError("the content failed")
            monkeypatch.setattr(os, "replace", refusing)

    with pytest.raises(OSError, match=f"the {failing} failed"):
        write()
    assert content(tmp_path) == {"export/old.txt": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    for name in (".export.partial", ".export.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale.txt").write_text("stale")
    with files.atomic_directory(tmp_path / "export") as partial:
        (partial / "new.txt").write_text("new")
    assert content(tmp_path) == {"export/new.txt": "new"}

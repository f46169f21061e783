"""Arrays that grow by chunks have the same content in memory and in files."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flaxbert.data import growing
from flaxbert.data.growing import GrowingArrays
from flaxbert.errors import DataError

CHUNKS = [np.arange(n, dtype=np.int32) + 10 * n for n in (3, 0, 1, 500, 2)]


def grown(directory: Path | None) -> dict[str, np.ndarray]:
    arrays = GrowingArrays(directory)
    for chunk in CHUNKS:
        arrays.add(one=chunk, other=(chunk[::-1] % 2).astype(np.int8))
    return arrays.joined()


@pytest.mark.parametrize("limit", [0, 100, 1000, 10**6])
def test_arrays_are_their_chunks_end_to_end(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "IN_MEMORY", limit)
    for directory in (None, tmp_path):
        arrays = grown(directory)
        assert {name: values.dtype for name, values in arrays.items()} == {
            "one": np.int32,
            "other": np.int8,
        }
        assert np.array_equal(arrays["one"], np.concatenate(CHUNKS))
        assert np.array_equal(arrays["other"], np.concatenate([c[::-1] % 2 for c in CHUNKS]))


def test_only_large_arrays_are_in_files_and_these_have_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "IN_MEMORY", 1000)
    arrays = grown(tmp_path / "new")
    assert isinstance(arrays["one"].base, np.memmap)
    assert type(arrays["one"]) is np.ndarray
    assert not arrays["one"].flags.writeable
    assert arrays["other"].base is None
    assert os.listdir(tmp_path / "new") == []
    assert not any(isinstance(values.base, np.memmap) for values in grown(None).values())


def test_an_array_without_values_keeps_its_type(tmp_path: Path) -> None:
    arrays = GrowingArrays(tmp_path)
    arrays.add(one=np.zeros(0, np.int16))
    assert arrays.joined()["one"].dtype == np.int16


def test_temporary_files_replace_a_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "IN_MEMORY", 0)
    (tmp_path / "file").write_text("no directory")
    assert np.array_equal(grown(tmp_path / "file")["one"], np.concatenate(CHUNKS))


class File:
    """A file on a disk with room for some bytes; each write stores at most seven."""

    def __init__(self, room: int, make: Callable[..., Any], **settings: Any) -> None:
        self.room, self.file = room, make(**settings)

    def write(self, content: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written: int = self.file.write(content[: min(7, self.room)])
        self.room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    monkeypatch.setattr(growing, "IN_MEMORY", 0)
    make = tempfile.TemporaryFile

    def limit(room: int) -> None:
        monkeypatch.setattr(
            tempfile, "TemporaryFile", lambda **settings: File(room, make, **settings)
        )

    return limit


def test_writes_that_store_a_part_are_continued(tmp_path: Path, disk: Any) -> None:
    disk(10**6)
    assert np.array_equal(grown(tmp_path)["one"], np.concatenate(CHUNKS))


def test_a_full_disk_is_one_error_that_names_the_directory(tmp_path: Path, disk: Any) -> None:
    disk(1000)
    with pytest.raises(DataError) as caught:
        grown(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: cannot store the temporary files of a large data set (")
    for part in ("No space left on device)", "Free space", "--config.data.feature_cache"):
        assert part in message
    assert os.listdir(tmp_path) == []

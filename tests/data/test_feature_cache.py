"""Features on disk: what is stored is what was made, or it is made again."""

import itertools
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flaxbert.data import feature_cache
from flaxbert.data.features import Features, Note

NAME = "0" * 64


@pytest.fixture(autouse=True)
def store_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LEAST_TOKENS", 0)


def make(value: int = 7) -> Features:
    return Features.build(
        {"input_ids": [[1, value, 3], [4, 5]], "label/x": [[0, 1, 0], [1, 0]]},
        example_index=[0, 2],
        feature_index=[0, 0],
        token_indices={"start": [1, 0]},
        per_sequence={"label": [0.5, 1.0], "flags": [[0, 1], [1, 1]]},
        truncated=[2],
        unreachable={"answer in no window": {2: "in no window"}, "answer too long": {}},
        dropped={1: "x.tsv:2: too long"},
        notes=[Note(logging.WARNING, "two are \u201codd\u201d")],
    )


def arrays(features: Features) -> dict[str, np.ndarray]:
    named = {name: getattr(features, name) for name in feature_cache.INDICES}
    for group in feature_cache.GROUPS:
        named |= {f"{group} {name}": v for name, v in getattr(features, group).items()}
    return named


def assert_same(one: Features | None, other: Features) -> None:
    assert one is not None
    assert list(arrays(one)) == list(arrays(other))
    for name, values in arrays(other).items():
        assert arrays(one)[name].dtype == values.dtype
        assert np.array_equal(arrays(one)[name], values)
    assert (one.unreachable, one.dropped) == (other.unreachable, other.dropped)
    assert list(one.truncated) == list(other.truncated)
    assert list(one.notes) == list(other.notes)
    assert one.fingerprint() == other.fingerprint()


def test_what_is_stored_is_what_was_made(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / NAME
    assert feature_cache.load(entry) is None
    assert_same(feature_cache.save(entry, make()), make())
    assert_same(feature_cache.load(entry), make())
    assert os.listdir(tmp_path / "cache") == [NAME]


def test_arrays_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    for features in (
        feature_cache.save(tmp_path / NAME, make()),
        feature_cache.load(tmp_path / NAME),
    ):
        assert features is not None
        for values in arrays(features).values():
            assert type(values) is np.ndarray
            assert isinstance(values.base, np.memmap)
            assert not values.flags.writeable


def test_features_without_sequences_are_stored_too(tmp_path: Path) -> None:
    empty = Features.build({"input_ids": []})
    assert_same(feature_cache.save(tmp_path / NAME, empty), empty)
    assert_same(feature_cache.load(tmp_path / NAME), empty)


def test_few_tokens_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LEAST_TOKENS", 6)
    features = make()
    assert feature_cache.save(tmp_path / "cache" / NAME, features) is features
    assert not (tmp_path / "cache").exists()


def test_parts_of_features_together_are_the_whole() -> None:
    # Examples of two, none, three and one sequences; the first and the third are one feature each.
    whole = Features.build(
        {"input_ids": [[n] * (n + 1) for n in range(6)]},
        example_index=[0, 0, 2, 2, 2, 3],
        feature_index=[0, 0, 1, 1, 1, 2],
        token_indices={"start": [0, 1, 0, 2, 1, 4]},
        per_sequence={"label": [5, 5, 7, 7, 7, 9]},
    )
    for edges in ([0, 4], [0, 1, 4], [0, 2, 2, 3, 4], [0, 1, 2, 3, 4]):
        parts = [whole.part(first, end) for first, end in itertools.pairwise(edges)]
        for name, values in arrays(whole).items():
            joined = [arrays(part)[name] for part in parts]
            if name == "example_index":
                joined = [a + first for a, first in zip(joined, edges, strict=False)]
            if name == "feature_index":
                counts = [0, *itertools.accumulate(len(part) for part in parts)]
                joined = [a + n for a, n in zip(joined, counts, strict=False)]
            assert np.array_equal(np.concatenate(joined), values), (edges, name)


# --- damage ------------------------------------------------------------------------------------


def shorten(file: str) -> Callable[[Path], Any]:
    return lambda entry: os.truncate(entry / file, (entry / file).stat().st_size - 1)


def flip(file: str) -> Callable[[Path], Any]:
    def damage(entry: Path) -> None:
        content = bytearray((entry / file).read_bytes())
        content[-3] ^= 1
        (entry / file).write_bytes(content)

    return damage


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "an array is truncated": shorten("3.npy"),
    "an array is empty": lambda entry: os.truncate(entry / "3.npy", 0),
    "an array is gone": lambda entry: (entry / "0.npy").unlink(),
    "a byte of an array differs": flip("3.npy"),
    "two arrays are swapped": lambda entry: shutil.copy(entry / "5.npy", entry / "1.npy"),
    "the description is truncated": lambda entry: os.truncate(entry / "features.json", 200),
    "a byte of the description differs": flip("features.json"),
    "the description is gone": lambda entry: (entry / "features.json").unlink(),
    "the description is no text": lambda entry: (entry / "features.json").write_bytes(b"\xff\n"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_corrupt_entry_is_deleted_with_one_line_of_the_log(
    damage: Callable[[Path], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = tmp_path / NAME
    feature_cache.save(entry, make())
    damage(entry)
    assert feature_cache.load(entry) is None
    assert not entry.exists()
    (message,) = caplog.messages
    assert message.startswith(f"{entry}: stored features are corrupt (")
    assert message.endswith("); tokenizing again")
    assert_same(feature_cache.save(entry, make()), make())
    assert_same(feature_cache.load(entry), make())
    assert len(caplog.messages) == 1


def test_what_a_killed_process_left_is_never_read_and_deleted_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            feature_cache.save(tmp_path / NAME, make())
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(feature_cache.PARTIAL)
    assert feature_cache.load(tmp_path / NAME) is None
    feature_cache.save(tmp_path / NAME, make())
    assert left.exists()  # it may be of a process that still writes
    os.utime(left, (0, 0))
    feature_cache.save(tmp_path / ("1" * 64), make())
    assert not left.exists()
    assert_same(feature_cache.load(tmp_path / NAME), make())


# --- several processes -------------------------------------------------------------------------


def test_the_entry_of_a_process_that_was_first_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feature_cache.save(tmp_path / NAME, make())
    before = (tmp_path / NAME).stat().st_ino
    assert_same(feature_cache.save(tmp_path / NAME, make()), make())
    assert (tmp_path / NAME).stat().st_ino == before
    assert os.listdir(tmp_path) == [NAME]
    assert not caplog.messages


def store_often(directory: Path, barrier: Any) -> None:
    """Store and read entries in step with another process."""
    feature_cache.LEAST_TOKENS = 0
    for number in range(20):
        barrier.wait(60)
        entry = directory / f"{number:064}"
        assert_same(feature_cache.save(entry, make(number)), make(number))
        assert_same(feature_cache.load(entry), make(number))


def test_two_processes_can_store_the_same_entry_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=store_often, args=(tmp_path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == [f"{number:064}" for number in range(20)]
    for number in range(20):
        assert_same(feature_cache.load(tmp_path / f"{number:064}"), make(number))


# --- the directory -----------------------------------------------------------------------------


def test_features_that_cannot_be_stored_are_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    features = make()
    assert feature_cache.save(tmp_path / "file" / NAME, features) is features
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{tmp_path / 'file'}: features are not stored (")
    assert record.getMessage().endswith("; see data.feature_cache")


def test_entries_that_no_run_reads_are_deleted(tmp_path: Path) -> None:
    used, unused, new = (tmp_path / (digit * 64) for digit in "012")
    for entry in (used, unused):
        feature_cache.save(entry, make())
    for entry in (used, unused):
        os.utime(entry, (0, 0))
    feature_cache.load(used)
    feature_cache.save(new, make())
    assert sorted(os.listdir(tmp_path)) == [used.name, new.name]


def test_an_entry_that_another_process_deletes_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter([self / "gone"]))
    feature_cache.delete_unused(tmp_path)


def test_the_directory_is_that_of_the_user_or_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert feature_cache.directory(None) is None
    assert feature_cache.directory("some/where") == Path("some/where")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert feature_cache.directory("auto") == tmp_path / "caches/flaxbert/features"
    assert feature_cache.directory("~/x") == tmp_path / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert feature_cache.directory("auto") == tmp_path / ".cache/flaxbert/features"

"""Parts of a long output: which are finished, for which input, in a directory and in a bucket."""

import json
from pathlib import Path

import pytest

from flaxbert.runtime import parts
from flaxbert.runtime.mirror import Workdir
from flaxbert.runtime.parts import Parts

KEY = {"weights": "abc"}


class Bucket:
    """A bucket in memory, in the place of `storage`."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def read(self, url: Path) -> bytes | None:
        return self.content.get(str(url))

    def write(self, url: Path, content: bytes) -> None:
        self.content[str(url)] = content

    def upload(self, file: Path, url: Path) -> None:
        self.content[str(url)] = file.read_bytes()

    def download(self, url: Path, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.content[str(url)])

    def delete_all(self, url: Path) -> None:
        self.content = {k: v for k, v in self.content.items() if not k.startswith(f"{url}/")}


@pytest.fixture
def bucket(monkeypatch) -> Bucket:
    bucket = Bucket()
    monkeypatch.setattr(parts, "storage", bucket)
    return bucket


def local(directory: Path) -> Workdir:
    return Workdir(directory, directory)


def remote(directory: Path, name: str) -> Workdir:
    """A workdir in the bucket, with a copy that is lost when the process ends."""
    (directory / name / "run").mkdir(parents=True)
    return Workdir(Path("gs:/bucket/run"), directory / name / "run")


def test_finished_parts_are_joined_in_order(tmp_path):
    first = Parts.open(local(tmp_path), KEY)
    first.add(0, "a", [{"n": 0}, {"n": 1}], 2)
    first.add(1, "b", [{"n": 2}], 0)
    again = Parts.open(local(tmp_path), KEY)
    assert (again.records, again.malformed) == (3, 2)
    assert again.holds(0, "a")
    assert not again.holds(0, "b")
    assert not again.holds(2, "c")
    assert not Parts.open(local(tmp_path), {"weights": "other"}).holds(0, "a")
    assert again.read(1) == [{"n": 2}]
    again.add(2, "c", [{"n": 3}], 1)
    again.join(2, tmp_path / "out.jsonl")  # the input has become shorter
    assert (again.records, again.malformed) == (3, 2)
    assert (tmp_path / "out.jsonl").read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    again.delete()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_part_that_fails_is_not_finished(tmp_path):
    opened = Parts.open(local(tmp_path), KEY)

    def records():
        yield {"n": 0}
        raise RuntimeError("of the model")

    with pytest.raises(RuntimeError, match="of the model"):
        opened.add(0, "a", records(), 0)
    assert not Parts.open(local(tmp_path), KEY).holds(0, "a")


def test_part_of_another_input_does_not_replace_a_finished_one(tmp_path, monkeypatch):
    Parts.open(local(tmp_path), KEY).add(0, "a", [{"n": 0}], 0)

    def killed(path, content):
        raise KeyboardInterrupt

    other = Parts.open(local(tmp_path), KEY)
    monkeypatch.setattr(parts.files, "write_json", killed)  # after the part, before the manifest
    with pytest.raises(KeyboardInterrupt):
        other.add(0, "b", [{"n": 1}], 0)
    again = Parts.open(local(tmp_path), KEY)
    assert again.holds(0, "a")
    assert again.read(0) == [{"n": 0}]


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_manifest_that_is_not_intact_is_an_empty_one(tmp_path, content):
    opened = Parts.open(local(tmp_path), KEY)
    opened.add(0, "a", [{"n": 0}], 0)
    (manifest,) = tmp_path.glob(".predictions-*/manifest.json")
    manifest.write_text(content)
    assert Parts.open(local(tmp_path), KEY).records == 0


def test_parts_are_kept_in_the_bucket(tmp_path, bucket):
    first = Parts.open(remote(tmp_path, "one"), KEY)
    first.add(0, "a", [{"n": 0}], 0)
    names = sorted(Path(name).name for name in bucket.content)
    assert names == ["000000-a.jsonl", "manifest.json"]
    assert json.loads(bucket.content[next(n for n in bucket.content if "manifest" in n)])
    place = remote(tmp_path, "two")  # of another machine
    again = Parts.open(place, KEY)
    assert again.holds(0, "a")
    again.add(1, "b", [{"n": 1}], 0)
    again.join(2, place.local / "out.jsonl")
    assert (place.local / "out.jsonl").read_text() == '{"n": 0}\n{"n": 1}\n'
    assert [path.name for path in place.local.iterdir()] == ["out.jsonl"]
    again.delete()
    assert bucket.content == {}

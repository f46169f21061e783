"""Workdirs in gs:// and s3://, on stores in memory: what runs leave there, locks and faults."""

import contextlib
import dataclasses
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fake_gcs import FakeGCS
from fsspec.implementations.memory import MemoryFileSystem
from toy import make_config

import flaxbert
from flaxbert.commands import modes, report
from flaxbert.commands.verify_resume import differences
from flaxbert.errors import ConfigError, Preempted, WorkdirError
from flaxbert.runtime import lease, mirror, storage
from flaxbert.runtime.preemption import Preemption


class MemoryS3(MemoryFileSystem):
    """A store in memory in the place of s3fs."""

    protocol = "s3"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("s3://"))


@pytest.fixture
def gcs(monkeypatch):
    """A Google Cloud Storage in memory."""
    pytest.importorskip("gcsfs")
    with FakeGCS() as server:
        server.connect(monkeypatch)
        yield server


@pytest.fixture
def s3(monkeypatch):
    """A bucket of S3 in memory, as its file system."""
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", MemoryS3)
    MemoryS3.store.clear()
    yield storage.as_path("s3://bucket/runs/spam")
    MemoryS3.store.clear()


@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def home(request) -> Path:
    request.getfixturevalue({"gs": "gcs", "s3": "s3"}[request.param])
    return storage.as_path(f"{request.param}://bucket/runs/spam")


@pytest.fixture(scope="module")
def config(one_device, one_layer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sentiment")
    config = make_config("classification", one_layer, directory, count=32, most_words=8)
    config.train.save_every = 2
    config.train.log_every = 1
    config.train.keep_best = "accuracy"
    config.optim.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def local(config, tmp_path_factory) -> Path:
    """An uninterrupted run in a local directory."""
    workdir = tmp_path_factory.mktemp("local") / "spam"
    flaxbert.train(config, workdir)
    return workdir


def fetched(home: Path, directory: Path) -> Path:
    """Return a local copy of what commands read of a workdir."""
    copy = mirror.Mirror(home, directory)
    copy.fetch(all_files=True)
    return directory


class StopAfter(Preemption):
    """A signal after some steps."""

    def __init__(self, steps: int):
        super().__init__()
        self._left = steps

    def requested(self, *args, **kwargs) -> bool:
        self._left -= 1
        return self._left < 0


MARKERS = {"gs": "commit_success.txt", "s3": "complete.json"}


def test_stopped_run_in_a_bucket_resumes_and_ends_like_a_local_one(
    home, config, local, tmp_path, caplog
):
    caplog.set_level("INFO", "flaxbert")
    with pytest.raises(Preempted):
        flaxbert.train(config, str(home), preemption=StopAfter(3))
    first = fetched(home, tmp_path / "first")
    assert not (first / "results.json").exists()
    # A run that is killed while it saves leaves a checkpoint without its last file.
    marker = MARKERS[home.parts[1]]
    complete = [Path(name) for name in storage.files(home / "checkpoints")]
    older, newest = sorted(int(path.parts[0]) for path in complete if path.parts[1:] == (marker,))
    storage.delete(home / "checkpoints" / str(newest) / marker)
    flaxbert.train(config, str(home))
    assert f"resuming {home} after step {older} of" in caplog.text
    assert list(differences(local, home)) == []
    assert report.main([str(home)]) == 0
    assert storage.read(home / "report.html") is not None


# --- paths ---------------------------------------------------------------------------------------


def test_paths_in_buckets_are_recognized_and_other_urls_refused():
    assert storage.as_path("runs/spam") == Path("runs/spam")
    assert str(storage.as_path("gs://bucket/runs/spam/")) == "gs://bucket/runs/spam"
    assert str(storage.as_path(Path("s3://bucket/run"))) == "s3://bucket/run"
    for wrong, message in [
        ("gs://bucket", "expected gs://BUCKET/PATH"),
        ("az://b/run", "not a URL"),
    ]:
        with pytest.raises(ConfigError, match=message):
            storage.as_path(wrong)


def test_missing_package_is_an_error_that_names_the_extra(monkeypatch):
    def absent(url, **_):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", absent)
    with pytest.raises(WorkdirError, match=r"pip install \"flaxbert\[s3\]\""):
        storage.read(storage.as_path("s3://bucket/run/config.json"))


# --- faults --------------------------------------------------------------------------------------


class Busy(Exception):
    """An answer of a store."""

    def __init__(self, code: int):
        super().__init__(f"status {code}")
        self.code = code


def failing(monkeypatch, codes):
    """Let the next reads fail with these statuses; return the list of pauses."""
    pauses = []
    left = list(codes)

    def cat_file(self, path):
        if left:
            raise Busy(left.pop(0))
        return b"content"

    monkeypatch.setattr(MemoryS3, "cat_file", cat_file)
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_requests_are_repeated_while_the_store_is_busy(s3, monkeypatch):
    pauses = failing(monkeypatch, [429, 503, 500])
    assert storage.read(s3 / "file") == b"content"
    assert len(pauses) == 3
    assert pauses[0] < pauses[2]


def test_clients_do_not_log_the_errors_that_they_raise(s3, monkeypatch):
    levels = []

    def cat_file(self, path):
        levels.append(logging.getLogger("gcsfs").level)
        return b"content"

    monkeypatch.setattr(MemoryS3, "cat_file", cat_file)
    storage.read(s3 / "file")
    assert levels[0] > logging.CRITICAL


@pytest.mark.parametrize(
    ("codes", "message", "pauses"),
    [([503] * 9, "could not be read .* run the same command again", 3),
     ([403], "access is denied .* Set AWS_PROFILE", 0)],
)  # fmt: skip
def test_lasting_failures_are_one_clear_error(s3, monkeypatch, codes, message, pauses):
    slept = failing(monkeypatch, codes)
    with pytest.raises(WorkdirError, match=message):
        storage.read(s3 / "file")
    assert len(slept) == pauses


def test_write_whose_answer_is_lost_is_not_taken_for_that_of_another_run(gcs):
    url = storage.as_path("gs://bucket/run/.lock-1")
    gcs.fail(0, match="POST /upload", after=True)
    assert storage.create(url, b"mine")
    assert not storage.create(url, b"of another run")
    assert storage.read(url) == b"mine"


# --- the lock ------------------------------------------------------------------------------------


def test_second_run_is_refused_while_the_first_one_renews_its_lock(s3, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 4.0)
    with contextlib.ExitStack() as first:
        first.enter_context(lease.hold(s3))
        with pytest.raises(WorkdirError, match="another run is working in it"):
            first.enter_context(lease.hold(s3))
    monkeypatch.setattr(lease, "log", None)
    with lease.hold(s3):  # without waiting, which would be logged
        pass


def test_lock_of_a_killed_run_expires_and_that_run_stops_writing(s3, monkeypatch, caplog):
    monkeypatch.setattr(lease.Lease, "_renew_until_end", lambda self: None)  # it sleeps
    monkeypatch.setattr(lease, "SECONDS", 0.1)
    caplog.set_level("INFO", "flaxbert")
    with lease.hold(s3) as killed, lease.hold(s3) as held:
        assert "Waiting up to" in caplog.text
        held.check()
        time.sleep(0.11)
        with pytest.raises(WorkdirError, match="lost its lock"):
            killed.check()
    assert not storage.create(s3 / ".lock-2", b"x")


def test_two_runs_that_take_an_expired_lock_together_do_not_both_get_it(s3, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 0.1)
    other = lease.Holder("other", "host", 0)
    create = storage.create

    def create_second(url, content):
        storage.write(s3 / ".lock-1", lease._encode(dataclasses.replace(other, released=True)))
        monkeypatch.setattr(storage, "create", create)
        return create(url, content)

    monkeypatch.setattr(storage, "create", create_second)
    with lease.hold(s3):
        assert lease._read(s3 / ".lock-1") is None  # deleted, as it is older
        assert storage.read(s3 / ".lock") == b"2"


# --- directories ---------------------------------------------------------------------------------


def write_export(local: Path, content: str) -> None:
    for name in ("config.json", "model.safetensors", "onnx/model.onnx"):
        (local / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (local / "export" / name).write_text(f"{content} {name}")


def read_export(home: Path, directory: Path) -> dict[str, str]:
    mirror._fetch_directory(home, "export", directory)
    return {path.name: path.read_text() for path in directory.rglob("*") if path.is_file()}


class Killed(BaseException):
    """The end of a run."""


@pytest.mark.parametrize("first", [True, False])
def test_reader_sees_a_whole_export_at_every_moment_of_a_new_one(s3, monkeypatch, tmp_path, first):
    versions = [{}] if first else []
    for text in ["old", "new"] if not first else ["new"]:
        write_export(tmp_path / text, text)
        versions.append({p.name: p.read_text() for p in (tmp_path / text).rglob("*.*")})
    if not first:
        mirror.Mirror(s3, tmp_path / "old").upload()
    seen = []
    for most in range(30):  # it is killed after so many requests, and repeated
        requests = 0

        def counted(call):
            def request(*args):
                nonlocal requests
                requests += 1
                if requests > most:
                    raise Killed
                return call(*args)

            return request

        with monkeypatch.context() as patch:
            for name in ("upload", "write", "delete"):
                patch.setattr(storage, name, counted(getattr(storage, name)))
            try:
                mirror.Mirror(s3, tmp_path / "new").upload()
                ended = True
            except Killed:
                ended = False
        seen.append(read_export(s3, tmp_path / f"read{most}"))
        assert seen[-1] in versions
        if ended:
            break
    assert ended
    assert seen[0] == versions[0]
    assert seen[-1] == versions[-1]
    assert {name for name in storage.files(s3) if "export" in name} == {
        ".export.json", "export/config.json", "export/model.safetensors", "export/onnx/model.onnx",
    }  # fmt: skip


def test_workdir_that_the_user_copied_to_a_bucket_is_read(s3, tmp_path):
    storage.write(s3 / "export" / "config.json", b"{}")
    storage.write(s3 / "config.json", json.dumps({"task": "classification"}).encode())
    with mirror.opened(s3) as place:
        assert (place.local / "export" / "config.json").read_text() == "{}"
        assert place.local.name == "spam"
        assert place.shown(place.local / "export") == "s3://bucket/runs/spam/export"
        (place.local / "eval_results.json").write_text("{}")
    assert storage.read(s3 / "eval_results.json") == b"{}"


def test_evaluation_of_a_run_in_a_bucket_is_that_of_the_local_run(gcs, config, local, tmp_path):
    shutil.copytree(local, tmp_path / "spam", ignore=shutil.ignore_patterns("checkpoints", "best"))
    for path in (tmp_path / "spam").rglob("*"):
        if path.is_file():
            name = path.relative_to(tmp_path).as_posix()
            gcs.put(f"bucket/runs/{name}", path.read_bytes())
    home = storage.as_path("gs://bucket/runs/spam")
    for workdir in (home, tmp_path / "spam"):
        modes.evaluate(config, workdir)
    name = "eval_results_predictions.jsonl"
    assert storage.read(home / name) == (tmp_path / "spam" / name).read_bytes()
    name = "eval_results.json"
    assert untimed(storage.read(home / name)) == untimed((tmp_path / "spam" / name).read_bytes())


def untimed(results: bytes) -> dict[str, float]:
    """Return results without how long they took."""
    metrics = json.loads(results)
    return {name: value for name, value in metrics.items() if not name.startswith("perf/")}

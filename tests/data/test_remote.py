"""Local copies of files in stores: fetched once, whole or not at all, and named by their URL."""

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import fake_store
import fsspec
import pytest
from fake_store import StatusError, Store

from flaxbert.data import remote, stores
from flaxbert.errors import DataError, RemoteError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with fake_store.opened(tmp_path / "cache") as store:
        yield store


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_copy_opens_as_the_content_and_prints_as_the_url(store):
    url = store.put("data/train.tsv", "text\tlabel\n")
    copy = remote.local_copy(url)
    assert str(copy) == f"{copy}" == url
    assert copy.read_text() == "text\tlabel\n"
    with open(copy) as file:
        assert file.read() == "text\tlabel\n"
    assert copy.is_file()
    assert copy.suffix == ".tsv"
    assert Path(os.fspath(copy)).name == "train.tsv"


def test_an_unchanged_object_is_fetched_once_and_a_changed_one_again(store):
    url = store.put("a.txt", "one")
    assert [remote.local_copy(url).read_text() for _ in range(3)] == ["one"] * 3
    assert store.fetched == ["a.txt"]
    first = remote.local_copy(url)
    store.put("a.txt", "two")  # as many bytes
    assert remote.local_copy(url).read_text() == "two"
    assert store.fetched == ["a.txt"] * 2
    assert first.read_text() == "one"  # who reads it now can go on


def test_without_a_version_an_object_is_fetched_each_time(store):
    store.unversioned = True
    url = store.put("a.txt", "one")
    remote.local_copy(url)
    store.put("a.txt", "two")
    assert remote.local_copy(url).read_text() == "two"


@pytest.mark.parametrize("fault", [StatusError(503), StatusError(429), ConnectionResetError("-")])
def test_errors_that_pass_are_tried_again(fault, store, caplog):
    url = store.put("a.txt", "one")
    store.faults = [fault, fault, None, fault, fault]  # at the version, then at the content
    assert remote.local_copy(url).read_text() == "one"
    assert len(caplog.messages) == 4
    assert caplog.messages[0].startswith(f"{url}: ")
    assert caplog.messages[0].endswith("trying again in 1 s")


def test_a_store_that_stays_away_is_an_error_and_leaves_nothing(store, tmp_path):
    url = store.put("a.txt", "one")
    store.faults = [None] + [StatusError(503)] * 9
    with pytest.raises(RemoteError, match=r"could not be fetched \(the store says 503\)\. Check"):
        remote.local_copy(url)
    assert len(store.faults) == 9 - 1 - len(stores.WAITS)
    assert cached(tmp_path) == []
    assert list((tmp_path / "cache/flaxbert/inputs").iterdir()) == []


def test_other_errors_are_not_tried_again(store):
    url = store.put("a.txt", "one")
    store.faults = [StatusError(400), StatusError(400)]
    with pytest.raises(RemoteError, match="the store says 400"):
        remote.local_copy(url)
    assert len(store.faults) == 1


def test_an_interrupted_download_is_repeated(store, tmp_path):
    url = store.put("a.txt", "a long text")
    store.cut = 4
    assert remote.local_copy(url).read_text() == "a long text"
    assert store.fetched == ["a.txt"] * 2
    assert len(cached(tmp_path)) == 1


def test_a_killed_download_leaves_no_copy(store, monkeypatch, tmp_path):
    url = store.put("a.txt", "a long text")

    def interrupt(self, rpath, lpath, **kwargs):
        Path(lpath).write_text("a lo")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store.files), "get_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            remote.local_copy(url)
    assert cached(tmp_path) == []
    assert remote.local_copy(url).read_text() == "a long text"


def test_an_object_that_changes_while_it_is_fetched_is_an_error(store, monkeypatch, tmp_path):
    url = store.put("a.txt", "one")
    get_file = type(store.files).get_file

    def written_to(self, *args, **kwargs):
        get_file(self, *args, **kwargs)
        store.put("a.txt", "two")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.files), "get_file", written_to)
        with pytest.raises(RemoteError, match=r"changed while it was fetched. Repeat the command"):
            remote.local_copy(url)
    assert cached(tmp_path) == []
    assert remote.local_copy(url).read_text() == "two"


def test_an_absent_object_names_those_with_similar_names(store):
    store.put("data/train.tsv", "x")
    store.put("data/other.tsv", "x")
    with pytest.raises(RemoteError, match=r"trian.tsv: no such file or directory; .* has train"):
        remote.local_copy("store://bucket/data/trian.tsv")
    with pytest.raises(RemoteError, match=r"; store://bucket/data/ has other.tsv, train.tsv\.$"):
        remote.local_copy("store://bucket/data/x")
    with pytest.raises(RemoteError, match="nor can store://bukket/data/ be listed; check the nam"):
        remote.local_copy("store://bukket/data/train.tsv")
    with pytest.raises(DataError, match=r"store://bucket/data: not a file; .*/data/\*\.tsv"):
        remote.local_copy("store://bucket/data")


@pytest.mark.parametrize(
    "fault", [StatusError(403), StatusError(401), PermissionError("no"), OSError("Forbidden: x")]
)
def test_denied_access_is_named(fault, store):
    url = store.put("a.txt", "one")
    store.faults = [fault]
    with pytest.raises(RemoteError, match=r"access is denied \(.*\)\. Check the credentials for"):
        remote.local_copy(url)


def test_a_store_whose_package_is_not_installed_names_the_extra(monkeypatch):
    def without(url, **kwargs):
        raise ImportError(f"Please install what reads {url}")

    monkeypatch.setattr(fsspec, "url_to_fs", without)
    for url, extra in (("gs://b/a", "gcs"), ("s3://b/a", "s3"), ("https://host/a.csv", "http")):
        with pytest.raises(RemoteError, match=rf'not installed: pip install "flaxbert\[{extra}\]"'):
            remote.local_copy(url)
    with pytest.raises(RemoteError, match="not installed: Please install what reads abfs://b/a"):
        remote.local_copy("abfs://b/a")


def test_an_unknown_scheme_is_named():
    with pytest.raises(RemoteError, match=r"gss://b/a: cannot be read \(Protocol not known: gss"):
        remote.local_copy("gss://b/a")


def test_a_full_disk_names_the_variable_for_another_directory(store, monkeypatch):
    url = store.put("a.txt", "one")

    def full(self, rpath, lpath, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", lpath)

    monkeypatch.setattr(type(store.files), "get_file", full)
    with pytest.raises(RemoteError, match=r"No space left on device\)\. Set XDG_CACHE_HOME"):
        remote.local_copy(url)


def test_a_cache_that_cannot_be_written_names_the_variable(store, tmp_path):
    url = store.put("a.txt", "one")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RemoteError, match=r"cannot be written \(.*\)\. Set XDG_CACHE_HOME"):
        remote.local_copy(url)


def test_all_files_of_a_pattern_are_fetched_in_order(store):
    urls = [store.put(f"data/part-{n:03}.jsonl", f"{n}") for n in range(20)]
    store.put("data/deeper/part-0.jsonl", "x")
    store.put("data/_SUCCESS", "")
    copies = remote.local_copies("store://bucket/data/part-*.jsonl")
    assert list(map(str, copies)) == urls
    assert [copy.read_text() for copy in copies] == [str(n) for n in range(20)]
    assert len(store.fetched) == 20
    remote.local_copies("store://bucket/data/part-*.jsonl")
    assert len(store.fetched) == 20
    assert len(remote.local_copies("store://bucket/**/*.jsonl")) == 21
    with pytest.raises(DataError, match=r"\*.tsv: no file matches; store://bucket/data/ has _SUCC"):
        remote.local_copies("store://bucket/data/*.tsv")


def test_a_file_whose_name_has_brackets_is_one_file(store):
    url = store.put("data[1].tsv", "x")
    assert list(map(str, remote.local_copies(url))) == [url]


def test_a_directory_is_copied_whole(store, tmp_path):
    store.put("model/config.json", "{}")
    store.put("model/weights", "1234")
    store.put("model/more/x", "x")
    names = remote.listing("store://bucket/model")
    assert names.pop("more") is None
    assert sorted(names) == ["config.json", "weights"]
    directory = remote.directory_copy("store://bucket/model", names)
    assert {path.name: path.read_text() for path in directory.iterdir()} == {
        "config.json": "{}",
        "weights": "1234",
    }
    assert directory.name.startswith("store-bucket-model-")
    store.put("model/weights", "5678")
    names = remote.listing("store://bucket/model")
    store.faults = [None, None, StatusError(400)]  # the second file
    with pytest.raises(RemoteError):
        remote.directory_copy("store://bucket/model", {n: f for n, f in names.items() if f})
    assert len(cached(tmp_path)) == 2  # those of before


def test_a_copy_that_is_no_longer_whole_is_fetched_again(store):
    url = store.put("a.txt", "a long text")
    for content in ("a lo", None):
        path = Path(os.fspath(remote.local_copy(url)))
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        assert remote.local_copy(url).read_text() == "a long text"
    assert len(store.fetched) == 3


def test_copies_that_nobody_reads_are_deleted(store, tmp_path):
    old = remote.local_copy(store.put("old.txt", "x"))
    entry = Path(os.fspath(old)).parent
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(entry, (long_ago, long_ago))
    remote.local_copy(store.put("new.txt", "x"))
    assert [path.name for path in cached(tmp_path)] == ["new.txt"]


def test_only_texts_with_a_scheme_are_urls():
    for text in ("C:\\data\\a.tsv", "C:/a.tsv", "nyu-mll/glue:sst2@train", "package://x", "a.tsv"):
        assert not stores.is_url(text)
    for text in ("gs://b/a", "s3://b/a.tsv", "https://host/a?b=c"):
        assert stores.is_url(text)
    assert not remote.is_pattern("https://host/a.tsv?version=1")
    assert remote.is_pattern("gs://b/a-?.tsv")


def test_the_name_of_a_copy_is_valid_everywhere():
    assert remote._name("https://host/a/train.csv?x=1:2#3") == "train.csv"
    assert remote._name("gs://b/a/what: is this?.tsv") == "what__is_this_.tsv"
    assert remote._name(f"gs://b/{'x' * 300}.tsv").endswith("x.tsv")


def test_each_kind_of_version_is_recognized():
    assert remote._version({"name": "a", "size": 3}) is None
    assert remote._version({"ETag": '"ab"', "LastModified": "x", "size": 3}) == 'etag "ab" size 3'
    assert "generation 7" in str(remote._version({"etag": "x", "generation": "7"}))
    json.dumps(remote._version({"mtime": 1.5}))

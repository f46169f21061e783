"""Local copies through the clients of stores: gcsfs, s3fs and aiohttp, if they are installed."""

import hashlib
import http.server
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fake_gcs import FakeGCS

from flaxbert.data import remote, stores
from flaxbert.errors import DataError, RemoteError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "WAITS", (0.0, 0.0))


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGCS]:
    pytest.importorskip("gcsfs")
    with FakeGCS() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("gcs").clear_instance_cache()
        yield server
        fsspec.get_filesystem_class("gcs").clear_instance_cache()


def test_objects_of_google_cloud_storage_are_fetched_once(gcs):
    for n in range(3):
        gcs.put(f"bucket/data/part-{n}.jsonl", b"%d" % n)
    gcs.fail(503, times=2, match="GET")
    pattern = "gs://bucket/data/*.jsonl"
    copies = remote.local_copies(pattern)
    assert [str(copy) for copy in copies] == [f"gs://bucket/data/part-{n}.jsonl" for n in range(3)]
    assert [copy.read_text() for copy in copies] == ["0", "1", "2"]
    before = len(gcs.requests)
    remote.local_copies(pattern)
    assert not any("alt=media" in line for line in gcs.requests[before:])
    gcs.put("bucket/data/part-1.jsonl", b"x")
    assert [copy.read_text() for copy in remote.local_copies(pattern)] == ["0", "x", "2"]
    assert remote.local_copy("gs://bucket/data/part-1.jsonl").read_text() == "x"


def test_a_directory_of_google_cloud_storage_is_listed(gcs):
    for name in ("config.json", "weights", "deep/x"):
        gcs.put(f"bucket/models/one/{name}", name.encode())
    names = remote.listing("gs://bucket/models/one")
    assert {name: file is None for name, file in names.items()} == {
        "config.json": False, "weights": False, "deep": True,
    }  # fmt: skip
    files = {name: file for name, file in names.items() if file}
    directory = remote.directory_copy("gs://bucket/models/one", files)
    assert (directory / "weights").read_text() == "weights"
    assert set(remote.tree("gs://bucket/models/one")) == {"config.json", "weights", "deep/x"}


def test_errors_of_google_cloud_storage_are_explained(gcs, capfd):
    gcs.put("bucket/data/train.tsv", b"x")
    with pytest.raises(
        RemoteError, match=r"trian.tsv: no such file .*; gs://bucket/data/ has trai"
    ):
        remote.local_copy("gs://bucket/data/trian.tsv")
    with pytest.raises(RemoteError, match=r"nothing: no such file or directory"):
        remote.listing("gs://bucket/nothing")
    with pytest.raises(DataError, match="no file matches"):
        remote.local_copies("gs://bucket/data/*.csv")
    gcs.fail(403, times=9)
    with pytest.raises(RemoteError, match=r"access is denied .* `gcloud auth application-default"):
        remote.local_copy("gs://bucket/data/train.tsv")
    assert "Traceback" not in capfd.readouterr().err


class Files(http.server.SimpleHTTPRequestHandler):
    """A web server that fails and denies at request."""

    fails = 0

    def send_head(self):
        if type(self).fails:
            type(self).fails -= 1
            self.send_error(503)
            return None
        if "secret" in self.path:
            self.send_error(403)
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "train.csv").write_text("text,label\n")
    (tmp_path / "secret.csv").write_text("text,label\n")
    handler = lambda *given: Files(*given, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_files_of_web_servers_are_fetched(address, tmp_path):
    url = f"{address}/train.csv?version=1"
    Files.fails = 2
    copy = remote.local_copy(url)
    assert (str(copy), copy.suffix, copy.read_text()) == (url, ".csv", "text,label\n")
    (tmp_path / "train.csv").write_text("changed,label\n")
    assert remote.local_copy(url).read_text() == "changed,label\n"
    with pytest.raises(RemoteError, match=r"absent.csv: the server has no such file"):
        remote.local_copy(f"{address}/absent.csv")
    with pytest.raises(RemoteError, match=r"access is denied \(403"):
        remote.local_copy(f"{address}/secret.csv")
    with pytest.raises(RemoteError, match=r"could not be fetched \(Cannot connect to host"):
        remote.local_copy("http://127.0.0.1:9/train.csv")


class S3(http.server.BaseHTTPRequestHandler):
    """The part of Amazon S3's API that reads the objects of /bucket."""

    objects: ClassVar[dict[str, bytes]] = {}
    fails = 0

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if type(self).fails:
            type(self).fails -= 1
            self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        elif path.startswith("/denied"):
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        elif "list-type=2" in query:
            self._list(dict(urllib.parse.parse_qsl(query)))
        elif content := self.objects.get(path.removeprefix("/bucket/")):
            self._answer(200, content)
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def _list(self, query: dict[str, str]) -> None:
        prefix, keys, folders = query.get("prefix", ""), "", set[str]()
        for name, content in sorted(self.objects.items()):
            inner = name.removeprefix(prefix).partition("/")
            if name.startswith(prefix) and "delimiter" in query and inner[1]:
                folders.add(f"{prefix}{inner[0]}/")
            elif name.startswith(prefix):
                keys += (
                    f"<Contents><Key>{name}</Key><Size>{len(content)}</Size>"
                    f"<ETag>{self._etag(content)}</ETag>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        shared = "".join(
            f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        count = keys.count("<Key>") + len(folders)
        result = f"<IsTruncated>false</IsTruncated><KeyCount>{count}</KeyCount>{keys}{shared}"
        self._answer(200, f"<ListBucketResult>{result}</ListBucketResult>".encode())

    def _etag(self, content: bytes) -> str:
        return f'"{hashlib.md5(content).hexdigest()}"'

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", self._etag(content))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[S3]]:
    pytest.importorskip("s3fs")
    S3.objects.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), S3) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        settings = {
            "endpoint_url": f"http://127.0.0.1:{server.server_address[1]}",
            "key": "me",
            "secret": "-",
            "client_kwargs": {"region_name": "us-east-1"},
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield S3
        server.shutdown()


def test_objects_of_amazon_s3_are_fetched_once(s3):
    s3.objects |= {f"data/part-{n}.jsonl": b"%d" % n for n in range(3)}
    s3.objects["data/deep/x"] = b"x"
    s3.fails = 2
    copies = remote.local_copies("s3://bucket/data/*.jsonl")
    assert [str(copy) for copy in copies] == [f"s3://bucket/data/part-{n}.jsonl" for n in range(3)]
    s3.objects["data/part-1.jsonl"] = b"y"
    assert remote.local_copy("s3://bucket/data/part-1.jsonl").read_text() == "y"
    names = remote.listing("s3://bucket/data")
    assert names.pop("deep") is None
    files = {name: file for name, file in names.items() if file}
    assert len(list(remote.directory_copy("s3://bucket/data", files).iterdir())) == 3
    assert set(remote.tree("s3://bucket/data")) == {*files, "deep/x"}


def test_errors_of_amazon_s3_are_explained(s3, monkeypatch):
    s3.objects["data/train.tsv"] = b"x"
    with pytest.raises(
        RemoteError, match=r"trian.tsv: no such file .*; s3://bucket/data/ has trai"
    ):
        remote.local_copy("s3://bucket/data/trian.tsv")
    with pytest.raises(RemoteError, match=r"access is denied .* Set AWS_PROFILE, or"):
        remote.local_copy("s3://denied/train.tsv")
    settings = fsspec.config.conf["s3"]
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": settings["endpoint_url"]})
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RemoteError, match=r"access is denied .* Set AWS_PROFILE, or"):
        remote.local_copy("s3://bucket/data/train.tsv")

"""A Google Cloud Storage in memory on 127.0.0.1, with faults that tests inject.

It has the part of the JSON API that gcsfs, google-cloud-storage and TensorStore use. Every bucket
exists.

    with FakeGCS() as gcs, pytest.MonkeyPatch.context() as patch:
        gcs.connect(patch)
        gcs.fail(503, times=2)
"""

import base64
import contextlib
import dataclasses
import email
import email.policy
import hashlib
import importlib
import json
import re
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

PAGE = 1000
"""Most objects in one page of a listing."""


@dataclasses.dataclass
class Stored:
    """An object."""

    data: bytes
    generation: int
    created: float
    """By the server's `time.monotonic`."""


@dataclasses.dataclass
class _Fault:
    """Answers of the next `times` requests whose line "METHOD path?query" matches."""

    status: int
    """0 resets the connection."""
    times: int
    pattern: re.Pattern[str]
    after: bool
    """Whether the request takes effect, so that only its answer is lost."""


class FakeGCS:
    """The server; `objects` is {"bucket/name": Stored}.

    Attributes:
      url: the address.
      lag: seconds until a listing shows what was written or deleted.
      requests: lines "METHOD path?query" in order.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.lag = 0.0
        self.requests: list[str] = []
        self._deleted: dict[str, tuple[Stored, float]] = {}
        self._uploads: dict[str, tuple[str, bytearray, dict[str, str]]] = {}
        self._faults: list[_Fault] = []
        self._generation = 0
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.gcs = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """Return the variables that direct all clients here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask another server by gRPC
            "FSSPEC_GCS_TOKEN": "anon",
            "GOOGLE_CLOUD_PROJECT": "fake",
            "NO_PROXY": "127.0.0.1",
        }

    def connect(self, patch: Any) -> None:
        """Direct this process and those that it starts here, until `patch` (MonkeyPatch) ends."""
        import fsspec
        from etils.epath import backend

        for name, value in self.environment().items():
            patch.setenv(name, value)
        core = importlib.import_module("gcsfs.core")
        registry = sys.modules["fsspec.registry"]._registry  # type: ignore[attr-defined]
        for name in ("gcs", "gs"):  # it may have been imported without these variables
            patch.setitem(registry, name, core.GCSFileSystem)
        patch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
        core.GCSFileSystem.clear_instance_cache()
        backend.fsspec_backend._get_filesystem.cache_clear()

    def fail(self, status: int, *, times: int = 1, match: str = "", after: bool = False) -> None:
        """Answer the next `times` requests that `match` (a regular expression) with an error.

        Args:
          status: of HTTP; 0 resets the connection.
          times: the number of requests.
          match: searched in "METHOD path?query".
          after: let the request take effect, and lose only the answer.
        """
        with self._lock:
            self._faults.append(_Fault(status, times, re.compile(match), after))

    def heal(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()
            self.lag = 0.0

    def put(self, key: str, data: bytes) -> Stored:
        """Store an object under "bucket/name"."""
        with self._lock:
            self._generation += 1
            self.objects[key] = Stored(data, self._generation, time.monotonic())
            return self.objects[key]

    def remove(self, key: str) -> None:
        """Delete an object, if there is one."""
        with self._lock:
            if key in self.objects:
                self._deleted[key] = self.objects.pop(key), time.monotonic()

    def names(self, prefix: str) -> list[str]:
        """Return the keys that begin with "bucket/prefix", in order."""
        with self._lock:
            return sorted(key for key in self.objects if key.startswith(prefix))

    def listed(self, bucket: str) -> list[tuple[str, Stored]]:
        """Return (name, object) of a bucket in order, as a listing shows them."""
        now = time.monotonic() - self.lag
        with self._lock:
            shown = {key: kept for key, kept in self.objects.items() if kept.created <= now}
            gone = {key: kept for key, (kept, when) in self._deleted.items() if when > now}
        start = f"{bucket}/"
        return sorted(
            (key.removeprefix(start), kept)
            for key, kept in (gone | shown).items()
            if key.startswith(start)
        )

    def take_fault(self, line: str) -> _Fault | None:
        """Record a request, and return the fault that it meets."""
        with self._lock:
            self.requests.append(line)
            for fault in self._faults:
                if fault.times > 0 and fault.pattern.search(line):
                    fault.times -= 1
                    return fault
        return None

    # --- the API ---------------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Any:
        """Return (status, headers, body) of a request."""
        if path.startswith("/batch/"):
            return self._batch(headers, body)
        if path.startswith("/upload/"):
            return self._upload(method, path, query, headers, body)
        found = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", path)
        if not found:
            return _error(404, f"no such address: {path}")
        bucket, name = found[1], found[2]
        if name is None and not path.endswith("/o"):
            return _json({"kind": "storage#bucket", "id": bucket, "name": bucket,
                          "locationType": "region", "storageClass": "STANDARD"})  # fmt: skip
        if name is None:
            return self._list(bucket, query)
        if copied := re.fullmatch(r"(.+)/(rewriteTo|copyTo)/b/([^/]+)/o/(.+)", name):
            return self._copy(f"{bucket}/{unquote(copied[1])}", copied, query)
        return self._object(method, f"{bucket}/{unquote(name)}", query, headers)

    def _object(self, method: str, key: str, query: dict[str, str], headers: Any) -> Any:
        with self._lock:
            kept = self.objects.get(key)
            if refused := _precondition(kept, query):
                return refused
            if kept is None:
                return _error(404, f"No such object: {key}")
            if method == "DELETE":
                self.remove(key)
                return 204, {}, b""
        if query.get("alt") != "media":
            return _json(_resource(key, kept))
        return _media(kept, headers.get("Range"))

    def _list(self, bucket: str, query: dict[str, str]) -> Any:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        most = min(int(query.get("maxResults", PAGE)), PAGE)
        after = query.get("pageToken", "")
        for name, kept in self.listed(bucket):
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            if "endOffset" in query and name >= query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            folder = prefix + rest.partition(delimiter)[0] + delimiter if delimiter else ""
            inside = bool(delimiter) and delimiter in rest
            shown = folder if inside else name
            if shown <= after or (inside and shown in prefixes):
                continue
            if len(items) + len(prefixes) == most:
                last = max([item["name"] for item in items] + prefixes)
                return _json(_page(items, prefixes) | {"nextPageToken": last})
            if inside:
                prefixes.append(shown)
            else:
                items.append(_resource(f"{bucket}/{name}", kept))
        return _json(_page(items, prefixes))

    def _copy(self, source: str, copied: re.Match[str], query: dict[str, str]) -> Any:
        with self._lock:
            if source not in self.objects:
                return _error(404, f"No such object: {source}")
            key = f"{copied[3]}/{unquote(copied[4])}"
            if refused := _precondition(self.objects.get(key), query):
                return refused
            resource = _resource(key, self.put(key, self.objects[source].data))
        if copied[2] == "copyTo":
            return _json(resource)
        size = resource["size"]
        return _json({"kind": "storage#rewriteResponse", "done": True, "resource": resource,
                      "objectSize": size, "totalBytesRewritten": size})  # fmt: skip

    def _upload(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Any:
        bucket = path.split("/")[5]
        if "upload_id" in query:
            return self._chunk(method, query["upload_id"], headers, body)
        kind, name = query.get("uploadType"), query.get("name", "")
        if kind == "media":
            return self._insert(f"{bucket}/{name}", query, body)
        if kind == "multipart":
            boundary = re.search(r"boundary=['\"]?([^'\";]+)", headers["Content-Type"])
            assert boundary is not None
            _, about, content = body.split(b"--" + boundary[1].encode(), 2)
            content = content[: content.rindex(b"--" + boundary[1].encode())]
            name = json.loads(_after_headers(about))["name"]
            return self._insert(f"{bucket}/{name}", query, _after_headers(content, cut=True))
        name = name or json.loads(body)["name"]
        token = uuid.uuid4().hex
        self._uploads[token] = f"{bucket}/{name}", bytearray(), query
        place = f"{self.url}{path}?uploadType=resumable&upload_id={token}"
        return 200, {"Location": place, "X-GUploader-UploadID": token}, b""

    def _chunk(self, method: str, token: str, headers: Any, body: bytes) -> Any:
        if token not in self._uploads:
            return _error(404, "no such upload")
        key, data, query = self._uploads[token]
        if method == "DELETE":
            del self._uploads[token]
            return 499, {}, b""
        span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", headers["Content-Range"])
        assert span is not None
        if span[1]:
            data[int(span[1]) :] = body
        if span[3] != "*" and len(data) == int(span[3]):
            del self._uploads[token]
            return self._insert(key, query, bytes(data))
        return 308, {"Range": f"bytes=0-{len(data) - 1}"} if data else {}, b""

    def _insert(self, key: str, query: dict[str, str], data: bytes) -> Any:
        with self._lock:
            if refused := _precondition(self.objects.get(key), query):
                return refused
            return _json(_resource(key, self.put(key, data)))

    def _batch(self, headers: Any, body: bytes) -> Any:
        message = email.message_from_bytes(
            b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
        )
        parts = []
        for number, part in enumerate(message.get_payload()):  # type: ignore[arg-type]
            inner = part.get_payload()  # type: ignore[union-attr]
            method, target, _ = inner.lstrip().split(None, 2)
            address = urlsplit(target)
            query = dict(parse_qsl(address.query))
            status, _, content = self.answer(method, address.path, query, {}, b"")
            name = part.get("Content-ID", str(number))  # type: ignore[union-attr]
            parts.append(
                f"--part\r\nContent-Type: application/http\r\nContent-ID: <response-{name}>\r\n\r\n"
                f"HTTP/1.1 {status} OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
        answer = b"\r\n".join([*parts, b"--part--\r\n"])
        return 200, {"Content-Type": "multipart/mixed; boundary=part"}, answer


def _after_headers(part: bytes, *, cut: bool = False) -> bytes:
    """Return the content of a part; `cut` removes the line break before the next boundary."""
    content = re.split(rb"\r?\n\r?\n", part.lstrip(b"\r\n"), maxsplit=1)[1]
    return re.sub(rb"\r?\n\Z", b"", content, count=1) if cut else content


def _precondition(kept: Stored | None, query: dict[str, str]) -> Any:
    generation = kept.generation if kept else 0
    if "ifGenerationMatch" in query and generation != int(query["ifGenerationMatch"]):
        return _error(412, "At least one of the pre-conditions you specified did not hold.")
    if "ifGenerationNotMatch" in query and generation == int(query["ifGenerationNotMatch"]):
        return 304, {}, b""
    return None


def _media(kept: Stored, span: str | None) -> Any:
    headers = {"x-goog-generation": str(kept.generation), "x-goog-hash": f"md5={_md5(kept.data)}"}
    headers |= {"Content-Type": "application/octet-stream", "ETag": str(kept.generation)}
    if not span:
        return 200, headers, kept.data
    first, last = span.removeprefix("bytes=").split("-")
    size = len(kept.data)
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return 416, headers, b""
    headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return 206, headers, kept.data[start:stop]


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _page(items: list[dict[str, Any]], prefixes: list[str]) -> dict[str, Any]:
    return {"kind": "storage#objects", "items": items, "prefixes": prefixes}


def _resource(key: str, kept: Stored) -> dict[str, Any]:
    bucket, _, name = key.partition("/")
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(kept.data)),
        "generation": str(kept.generation),
        "metageneration": "1",
        "md5Hash": _md5(kept.data),
        "etag": str(kept.generation),
        "contentType": "application/octet-stream",
        "storageClass": "STANDARD",
        "timeCreated": "2026-01-01T00:00:00.000Z",
        "updated": "2026-01-01T00:00:00.000Z",
    }


def _json(value: dict[str, Any]) -> Any:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(status: int, message: str) -> Any:
    body = {"error": {"code": status, "message": message, "errors": [{"message": message}]}}
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gcs: FakeGCS

    def handle_error(self, *_: object) -> None:
        """Ignore clients that are killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        address = urlsplit(self.path)
        body = self._body()
        fault = self.server.gcs.take_fault(f"{self.command} {self.path}")
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        parts = self.command, address.path, query, self.headers, body
        if fault is None:
            self._send(*self.server.gcs.answer(*parts))
            return
        if fault.after:
            self.server.gcs.answer(*parts)
        if fault.status:
            self._send(*_error(fault.status, "fault of the test"))
            return
        self.close_connection = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)  # close sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""

"""A small hub on the loopback interface, with the requests of huggingface_hub and datasets."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by their path, such as models/some/model or datasets/some/data.

    Attributes:
      files: {repository: {file: content}}.
      denied: {repository: error code}; a request with `token` may read it all the same.
      token: the token that gives access.
    """

    def __init__(self) -> None:
        self.files: dict[str, Mapping[str, bytes]] = {}
        self.denied: dict[str, str] = {}
        self.token = "hf_right"
        self.address = ""


def _handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            path = self.path.partition("?")[0].strip("/")
            api = path.startswith("api/")
            parts = path.removeprefix("api/").split("/")
            if not api and parts[0] != "datasets":
                parts = ["models", *parts]
            repo, rest = "/".join(parts[:3]), parts[3:]
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if repo not in hub.files:
                return self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            if repo in hub.denied and token != hub.token:
                return self._answer(401, b"{}", {"X-Error-Code": hub.denied[repo]})
            files = hub.files[repo]
            if rest[:1] not in ([], ["refs"]) and rest[1] not in ("main", COMMIT):
                return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if not api:
                return self._file(files, "/".join(rest[2:]))
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": COMMIT}
                for name, content in files.items()
            ]
            if rest[:1] == ["tree"]:
                below = "/".join(rest[2:])
                return self._json([e for e in entries if e["path"].startswith(below)])
            if rest[:1] == ["paths-info"]:
                return self._json([e for e in entries if str(e["path"]).encode() in body])
            siblings = [{"rfilename": name} for name in files]
            name = "/".join(parts[1:3])
            return self._json({"id": name, "sha": COMMIT, "siblings": siblings, "tags": []})

        def _file(self, files: Mapping[str, bytes], name: str) -> None:
            if name not in files:
                return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
            return self._answer(200, files[name], headers)

        def _json(self, value: object) -> None:
            self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


@contextlib.contextmanager
def serve(patch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """Serve a hub, and make the clients use it with a cache of their own."""
    import datasets.config
    from huggingface_hub import constants

    hub = Hub()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for module in (constants, datasets.config):
            patch.setattr(module, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", f"{cache}/hub")
        patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
        patch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", f"{cache}/datasets")
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False, raising=False)
        patch.delenv("HF_TOKEN", raising=False)
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()

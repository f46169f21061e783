"""Push: the client of the hub uploads a run to a hub on this machine, byte for byte."""

import base64
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from flaxbert.commands import push

TOKEN = "hf_secret"


class Hub(http.server.ThreadingHTTPServer):
    """A hub that takes one user's repositories, with files of 1 kB or more as LFS objects."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """The parts of the hub's API that creating a repository and uploading a folder use."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.answer({"error": "not found"}, 404)

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        content, path = self.body(), self.path.partition("?")[0]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            self.server.created.append(json.loads(content))
            self.answer({"url": f"{self.server.url}/me/toy", "id": "me/toy", "name": "me/toy"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path == "/api/models/me/toy/preupload/main":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= 1000 else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            self.answer({"files": files})
        elif path == "/me/toy.git/info/lfs/objects/batch":
            objects = [
                item | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}}
                for item in json.loads(content)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif path == "/api/models/me/toy/commit/main":
            self.commit([json.loads(line) for line in content.splitlines()])
        else:
            self.answer({"error": f"no such place: {path}"}, 404)

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
            else:
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        address = {"commitUrl": f"{self.server.url}/me/toy/commit/1", "commitOid": "1" * 40}
        self.answer(address | {"hookOutput": ""})


@pytest.fixture
def fake_hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """A run with a large file, a small one, and one in a folder."""
    export = tmp_path / "run" / "export"
    (export / "onnx").mkdir(parents=True)
    (export / "config.json").write_text('{"model_type": "bert"}')
    (export / "README.md").write_text("---\nlibrary_name: transformers\n---\n# A model\n")
    (export / "model.safetensors").write_bytes(bytes(range(256)) * 20)
    (export / "onnx" / "decision.json").write_text("{}")
    return tmp_path / "run"


def files_of(run: Path) -> dict[str, bytes]:
    export = run / "export"
    paths = (path for path in export.rglob("*") if path.is_file())
    return {path.relative_to(export).as_posix(): path.read_bytes() for path in paths}


def test_uploaded_files_are_those_of_the_export(fake_hub, finished_run, tmp_path):
    program = (
        "import os, sys\n"
        "from flaxbert.commands.push import main\n"
        f"arguments = [{str(finished_run)!r}, 'me/toy', '--private']\n"
        "codes = [main(arguments)]\n"
        f"os.environ['HF_TOKEN'] = {TOKEN!r}\n"
        "codes.append(main(arguments))\n"
        "os.environ['HF_TOKEN'] = 'hf_wrong'\n"
        "codes.append(main(arguments))\n"
        "assert codes == [2, 0, 2], codes\n"
        "assert 'jax' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if name[:3] != "HF_"}
    environment |= {
        "HF_ENDPOINT": fake_hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",  # its protocol is that of another server
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "no token of the Hugging Face Hub: set the environment variable HF_TOKEN" in done.stderr
    assert "me/toy: the upload failed (" in done.stderr
    assert "Check the network, that the token has write access" in done.stderr
    assert f"uploaded: {fake_hub.url}/me/toy" in done.stdout
    assert fake_hub.files == files_of(finished_run)
    digest = hashlib.sha256(fake_hub.files["model.safetensors"]).hexdigest()
    assert list(fake_hub.objects) == [digest]
    assert fake_hub.messages == ["Upload with flaxbert"]
    (created,) = fake_hub.created
    assert created["name"] == "toy"
    assert created["organization"] == "me"
    assert created["visibility"] == "private"
    assert TOKEN not in done.stdout + done.stderr


def test_dry_run_lists_every_file_and_needs_no_token(finished_run, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = shutil.copytree(finished_run, tmp_path / "copy")
    uploaded = files_of(run)
    (run / "export/.git").mkdir()
    (run / "export/.git/config").write_text("[core]")  # the client leaves it out
    assert push.main([str(run), "me/toy", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for name, content in uploaded.items():
        assert f"{len(content):,}  {name}\n" in printed
    assert "4 files, " in printed
    assert "/me/toy. If it does not exist, a public repository would be created." in printed


@pytest.mark.parametrize(
    ("run", "repo", "message"),
    [
        ("run", "me/toy/more", "'me/toy/more' is not the id of a repository"),
        ("nothing", "me/toy", "nothing: no config.json, so there is no model to upload"),
        ("unfinished", "me/toy", "unfinished: a run that has not finished"),
        ("nowhere://bucket/run", "me/toy", "nowhere://bucket/run: cannot be read (Protocol not"),
    ],
)
def test_bad_usage_is_one_clear_error(run, repo, message, finished_run, capsys, monkeypatch):
    monkeypatch.chdir(finished_run.parent)
    Path("unfinished/checkpoints").mkdir(parents=True)
    assert push.main([run, repo]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""

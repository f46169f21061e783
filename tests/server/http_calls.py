"""Requests to an ASGI app without a socket, and toy services to send them to."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from toy import build_pipeline, make_config

from flaxbert.pipeline.predictor import Predictor
from flaxbert.server.app import make_app
from flaxbert.server.service import Limits, Service, State

JSON = {"content-type": "application/json"}


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """The status, and the code in the body; fails for another form of errors."""
        assert list(self.json) == ["error"]
        assert list(self.json["error"]) == ["code", "message"]
        assert self.headers["content-type"] == "application/json"
        return self.status, self.json["error"]["code"]


async def send(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    receive: Callable[[], Awaitable[dict[str, Any]]] | None = None,
) -> Answer:
    """Send a request; a body that is not bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = dict(headers if headers is not None else JSON if body is not None else {})
    if body is not None or receive is not None:
        given.setdefault("content-length", str(len(raw)))
    sent: list[dict[str, Any]] = []

    async def whole() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def collect(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(key.encode(), value.encode()) for key, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive or whole, collect)
    answered = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(m.get("body", b"") for m in sent[1:]))


def call(app: Any, *arguments: Any, **options: Any) -> Answer:
    """Send one request; see `send`."""
    return asyncio.run(send(app, *arguments, **options))


def call_all(app: Any, path: str, bodies: Sequence[Any]) -> list[Answer]:
    """Send requests at the same time."""

    async def together() -> list[Answer]:
        return list(await asyncio.gather(*(send(app, "POST", path, body) for body in bodies)))

    return asyncio.run(together())


def make_predictor(task: str, checkpoint: Path, directory: Path, max_length: int = 32) -> Predictor:
    """Return a predictor with a new output layer: its answers are random, but always the same."""
    config = make_config(task, checkpoint, directory, count=12, most_words=8)
    config.data = dataclasses.replace(config.data, max_length=max_length, overlap=8)
    pipeline = build_pipeline(config)
    params, _ = pipeline.read_params(seed=0)
    return Predictor(config, pipeline, params)


def make_service(predictor: Predictor, **limits: Any) -> tuple[Service, Any]:
    """Return a service that is ready without compiling anything, and its app."""
    service = Service("toy", predictor, Limits(**{"batch_size": 2, "wait_ms": 0} | limits))
    service.state = State.READY
    return service, make_app(service)

"""The server on a socket: slow clients, signals, and an end that answers what is in flight."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_calls import make_predictor

from flaxbert.errors import ConfigError
from flaxbert.pipeline.predictor import Predictor
from flaxbert.server import serving
from flaxbert.server.service import Limits, Service

pytestmark = pytest.mark.usefixtures("one_device")

SECONDS = 30
"""No test waits so long, unless it fails."""


@pytest.fixture(scope="module")
def predictor(
    one_device: None, one_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Predictor:
    made = make_predictor("classification", one_layer, tmp_path_factory.mktemp("texts"))
    made.compile = lambda *_, **__: 0  # type: ignore[method-assign]  # the first request compiles
    return made


class Running:
    """A server in a thread."""

    def __init__(self, predictor: Predictor, **limits: Any):
        bound = serving.bind("127.0.0.1", 0)
        self.port = bound.getsockname()[1]
        service = Service("toy", predictor, Limits(batch_size=1, wait_ms=0, **limits))
        self.server, self.ready = serving.Server(service, bound), threading.Event()
        self.thread = threading.Thread(target=self.server.run, args=(self.ready.set,))
        self.thread.start()
        assert self.ready.wait(SECONDS)

    def post(self) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/predict", json.dumps({"inputs": ["good"]}), headers)
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        return response.status, body

    def end(self) -> None:
        self.server.stop()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def running(predictor: Predictor) -> Iterator[Running]:
    server = Running(predictor, body_seconds=0.3)
    yield server
    server.end()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(4096):
        parts.append(part)
    return b"".join(parts)


def test_slow_clients_are_closed_and_block_nobody(running: Running) -> None:
    slow = [socket.create_connection(("127.0.0.1", running.port), SECONDS) for _ in range(20)]
    for number, connection in enumerate(slow):
        start = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n"
        body = b"Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
        connection.sendall(start + (body if number % 2 else b""))
    status, answer = running.post()
    assert status == 200
    assert answer["predictions"][0]["text"] == "good"
    for connection in slow:
        received = read_all(connection)  # until the server closes
        assert received.startswith(b"HTTP/1.1 408")
        assert b'"code": "request_timeout"' in received
        connection.close()


def test_a_client_that_reads_nothing_is_disconnected(running: Running) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", running.port))
        with contextlib.suppress(ConnectionError):  # the server resets it
            while True:
                connection.sendall(request)  # raises TimeoutError if it does not


def test_what_is_not_http_is_refused_in_the_form_of_all_errors(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), SECONDS) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 400")
    assert b'"code": "malformed_request"' in received


def test_stopping_answers_what_is_in_flight_and_accepts_nothing_else(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Running(predictor)
    opened, entered = threading.Event(), threading.Event()
    tokenize = predictor.tokenize

    def held(inputs: Any) -> Any:
        entered.set()
        assert opened.wait(SECONDS)
        return tokenize(inputs)

    monkeypatch.setattr(predictor, "tokenize", held)
    answers: list[tuple[int, Any]] = []
    clients = [threading.Thread(target=lambda: answers.append(server.post())) for _ in range(3)]
    for client in clients:
        client.start()
    assert entered.wait(SECONDS)
    while server.server.service.batcher.waiting < 2:  # one is computed, two wait
        pass
    server.server.stop()
    refused = False
    while not refused:
        try:
            socket.create_connection(("127.0.0.1", server.port), SECONDS).close()
        except OSError:
            refused = True
    assert server.thread.is_alive()
    opened.set()
    for client in clients:
        client.join(SECONDS)
    server.end()
    assert [status for status, _ in answers] == [200, 200, 200]


def test_an_error_while_compiling_ends_the_server(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise ConfigError("no memory")

    monkeypatch.setattr(predictor, "compile", fail)
    server = serving.Server(Service("toy", predictor, Limits()), serving.bind("127.0.0.1", 0))
    with pytest.raises(ConfigError, match="no memory"):
        server.run()


def test_a_port_in_use_is_one_clear_error() -> None:
    bound = serving.bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"--port={port}: .*in use.*Choose another --port"):
        serving.bind("127.0.0.1", port)
    bound.close()


def test_the_first_signal_stops_and_the_second_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    others = signal.set_wakeup_fd(-1)  # a run that an earlier test started may still listen
    stopped: list[str] = []
    try:
        signals = serving.Signals()
        signals.listen()
        signals.serving(lambda: stopped.append("stop"))
        signal.raise_signal(signal.SIGTERM)
        assert (stopped, codes) == (["stop"], [])
        signal.raise_signal(signal.SIGINT)
        assert (stopped, codes) == (["stop"], [130])
        loading = serving.Signals()
        loading.listen()
        signal.raise_signal(signal.SIGTERM)  # no request is lost while the model is loaded
        assert codes == [130, 0]
    finally:
        signal.set_wakeup_fd(others)
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)

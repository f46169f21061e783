"""Limits on requests before they reach the app: the size of a body, and the time it takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from flaxbert.server.errors import ApiError
from flaxbert.server.service import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

Observe = Callable[[str, str, int, float], None]

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
"""The methods that are reported; a client can send any word."""

DRAINED = 8
"""A body that is too large is read, up to this multiple of the limit, before the response: many
clients read no response while they write."""


CLIENT_GONE = 499
"""The status that is reported if the client closes the connection first, as nginx does."""


class _ClientGoneError(Exception):
    """The client has closed the connection before its body arrived."""


class Guard:
    """An ASGI app that reads each body within the limits, calls another app, and measures it."""

    def __init__(self, app: App, limits: Limits, paths: Collection[str], observe: Observe):
        """Create the app.

        Args:
          app: the app to call.
          limits: the limits.
          paths: the paths that are reported to `observe`; all others are "other".
          observe: called with the path, method, status and seconds of each request.
        """
        self._app, self._limits, self._paths, self._observe = app, limits, paths, observe

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._checked(scope, receive, watched)
        except _ClientGoneError:
            status = CLIENT_GONE  # nobody waits for a response
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._observe(path, method, status, time.monotonic() - start)

    async def _checked(self, scope: Any, receive: Receive, send: Send) -> None:
        headers = {key.lower(): value for key, value in scope["headers"]}
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await self._read(headers, receive)
        except TimeoutError:
            seconds = self._limits.body_seconds
            await _refuse(send, ApiError(408, f"The body did not arrive within {seconds:g} s."))
        except ApiError as error:
            await _refuse(send, error)
        else:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the body.

        Raises:
          ApiError: if it is too large, or its type is not JSON.
          _ClientGoneError: if the client has closed the connection.
        """
        most, body, size = self._limits.body_bytes, bytearray(), 0
        announced = int(headers.get(b"content-length", b"0"))  # digits only: h11 checks it
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        if announced <= most or not waits:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGoneError
                size += len(message["body"])
                if size <= most:
                    body += message["body"]
                if not message.get("more_body") or size > DRAINED * most:
                    break
        if max(size, announced) > most:
            raise ApiError(413, f"The body is larger than {most:,} bytes; send fewer inputs.")
        media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if body and media != b"application/json":
            raise ApiError(415)
        return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a function that returns a body that was read, and then what follows it."""
    read = False

    async def replay() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send, error: ApiError) -> None:
    """Send an error, and close the connection, whose body may not have been read."""
    body = error.encoded()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Protocol(H11Protocol):  # type: ignore[misc]
    """A connection with limits on the time for headers, and for reading a response.

    uvicorn itself waits without a limit, so a client could hold connections open.
    """

    seconds: float
    """Both limits."""

    late: asyncio.TimerHandle | None = None
    """The timer of the request whose headers are incomplete."""
    unread: asyncio.TimerHandle | None = None
    """The timer of the response that the client does not read."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()
        self._stop_waiting()

    def pause_writing(self) -> None:
        """Close the connection soon unless the client reads, because buffers are full."""
        super().pause_writing()
        self.unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None

    def _watch(self) -> None:
        """Start the timer, or stop it while a request is answered."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            self._stop_watching()
        elif self.late is None:
            self.late = self.loop.call_later(self.seconds, self._close_late)

    def _stop_watching(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def _close_late(self) -> None:
        self._end(ApiError(408, f"The headers did not arrive within {self.seconds:g} s."))

    def send_400_response(self, msg: str) -> None:
        self._end(ApiError(400, "This is not a valid HTTP request.", code="malformed_request"))

    def _end(self, error: ApiError) -> None:
        """Write a response without h11, whose state may not allow one, and close."""
        self._stop_watching()
        body = error.encoded()
        head = (
            f"HTTP/1.1 {error.status} {error.code}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(head.encode() + body)
        self.transport.close()


def make_protocol(seconds: float) -> type[Protocol]:
    """Return the protocol with its limits."""
    return type("LimitedProtocol", (Protocol,), {"seconds": seconds})

"""The life of a server: its socket, its signals, and its end."""

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import uvicorn

from flaxbert.errors import ConfigError
from flaxbert.server.app import make_app
from flaxbert.server.limits import make_protocol
from flaxbert.server.service import Service, State

GRACE_SECONDS = 5
"""Time for responses to reach their clients, beyond the limit of a request."""

IDLE_SECONDS = 30
"""A connection without a request is closed after this time."""

BACKLOG = 1024
"""Connections that may wait until the server accepts them."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
      host: a name or address of this machine.
      port: a port; 0 chooses a free one.

    Raises:
      ConfigError: if the port is in use, or the address is none of this machine's.
    """
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        if os.name == "posix":  # on Windows this would allow two servers on one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # a second server fails now, not after it has loaded its model
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        fix = "Give --host an address of this machine, such as 127.0.0.1 or 0.0.0.0."
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            fix = "Choose another --port (0 for any free one), or end the program that uses it."
        raise ConfigError(f"--host={host} --port={port}: {reason}. {fix}") from None
    return bound


class Server:
    """A service at an address, from `run` until a signal or `stop`."""

    def __init__(self, service: Service, bound: socket.socket, *, access_log: bool = False):
        """Create a server.

        Args:
          service: what it serves.
          bound: the socket; see `bind`.
          access_log: whether each request is logged to `uvicorn.access`.
        """
        self.service, self._socket, self._error = service, bound, list[Exception]()
        limits = service.limits
        config = uvicorn.Config(
            make_app(service),
            http=make_protocol(limits.body_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=access_log,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=int(limits.seconds + limits.body_seconds) + GRACE_SECONDS,
        )
        self._server = _Uvicorn(config)

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is called; then answer what is in flight, and return.

        Args:
          on_ready: called from another thread when all programs are compiled.

        Raises:
          Exception: the error that compiling raised.
        """

        def prepared(error: Exception | None) -> None:
            if error is not None:
                self._error.append(error)
                self.stop()
            elif self.service.state is State.READY:
                on_ready()

        self.service.prepare_in_background(prepared)
        self._server.run(sockets=[self._socket])
        self.service.close()
        if self._error:
            raise self._error[0]

    def stop(self) -> None:
        """Accept no further connections, and end `run` when all requests are answered."""
        self.service.stop()
        self._server.should_exit = True


class _Uvicorn(uvicorn.Server):  # type: ignore[misc]
    """uvicorn without its handlers of signals, which end the process by the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Signals:
    """Ends the process on SIGINT and SIGTERM: gracefully if it serves, at once the second time."""

    def __init__(self) -> None:
        self._stop: Callable[[], None] | None = None
        self._count = 0

    def listen(self) -> None:
        """Take over both signals; call it in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def serving(self, stop: Callable[[], None]) -> None:
        """Call `stop` at the first signal from now on."""
        self._stop = stop

    def _handle(self, number: int, frame: Any) -> None:
        self._count += 1
        if self._count > 1:
            os._exit(128 + number)
        elif self._stop is None:  # nothing is served yet
            os._exit(0)
        else:
            self._stop()


def end_process(code: int) -> NoReturn:
    """End the process without waiting for threads: one may compile for minutes."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

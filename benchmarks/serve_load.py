"""Load a server with many clients at once, and compare it with one client.

    python benchmarks/serve_load.py runs/quickstart
    python benchmarks/serve_load.py runs/quickstart --clients=50 --seconds=60

This starts `flaxbert serve` on a free port of this machine. First one client sends one text after
another, then all clients do, each over its own connection. The clients are another process, which
shares the processors with the server. The table has throughput, errors and latencies. The exit
code is 1 if there was an error, or if the clients together reached less than --ratio times the
throughput of one.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

PLACES = ("food", "room", "film", "book", "service", "music", "garden", "view")
OPINIONS = ("great", "awful", "fine", "boring", "lovely", "far too loud", "better than I thought")
ENDINGS = ("", " I will come again.", " My friends said the same, although they had paid less.")
TEXTS = [f"The {p} was {o}.{e}" for e in ENDINGS for o in OPINIONS for p in PLACES]
"""Sentences of 6 to 20 tokens."""

WARM_UP = 3
"""Seconds of load before the measurement."""


@dataclasses.dataclass
class Load:
    """What some clients measured."""

    clients: int
    seconds: float = 0.0
    latencies: list[float] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies in milliseconds."""
        ordered = sorted(self.latencies) or [float("nan")]
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Client:
    """One connection that is kept alive; asyncio costs less of the processors than threads."""

    def __init__(self, port: int):
        self._port = port

    async def connect(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def predict(self, text: str) -> None:
        """Send a text, and check the answer.

        Raises:
          ValueError: for any other answer.
        """
        body = json.dumps({"inputs": [text]}).encode()
        head = (
            "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        if not answer.startswith(b"http/1.1 200"):
            raise ValueError(f"{answer.splitlines()[0].decode()}: {content.decode()}")
        if json.loads(content)["predictions"][0]["text"] != text:
            raise ValueError("the prediction is for another text")

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def measure(port: int, clients: int, seconds: float) -> Load:
    """Send texts from several clients for some time, one after another from each."""
    load = Load(clients)

    async def work(number: int, end: float, into: Load) -> None:
        client = Client(port)
        await client.connect()
        turn = number * 7
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                await client.predict(TEXTS[turn % len(TEXTS)])
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                into.errors.append(f"{type(error).__name__}: {error}")
                client.close()
                await client.connect()
            else:
                into.latencies.append(time.perf_counter() - start)
            turn += 1
        client.close()

    for into, duration in ((Load(clients), WARM_UP), (load, seconds)):
        start = time.monotonic()
        workers = (work(number, start + duration, into) for number in range(clients))
        await asyncio.gather(*workers)
        into.seconds = time.monotonic() - start
    return load


def start_server(run: str, flags: Sequence[str]) -> tuple[subprocess.Popen[str], int]:
    """Start a server on a free port; return it and the port once it is ready."""
    command = [sys.executable, "-m", "flaxbert", "serve", run, "--port=0", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("Serving "):
            address = line.rpartition("http://127.0.0.1:")[2]
            return server, int(address.partition(" ")[0])
    raise SystemExit(server.wait() or 1)


def main() -> int:
    """Measure, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="workdir of a run of classification")
    parser.add_argument("--clients", type=int, default=50, help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=60, help="of the load [%(default)s]")
    parser.add_argument("--ratio", type=float, default=3, help="to reach [%(default)s]")
    given, flags = parser.parse_known_args()
    server, port = start_server(given.run, flags)
    try:
        loads = [asyncio.run(measure(port, 1, min(20, given.seconds)))]
        loads.append(asyncio.run(measure(port, given.clients, given.seconds)))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(120)
    show(loads)
    ratio = loads[1].throughput / loads[0].throughput
    failed = sum(len(load.errors) for load in loads)
    print(f"ratio {ratio:.1f}, errors {failed}, exit code of the server {code}")
    print(f"load average of the machine: {os.getloadavg()[0]:.1f}")
    for error in loads[1].errors[:5]:
        print(error, file=sys.stderr)
    return int(failed > 0 or ratio < given.ratio or code != 0)


def show(loads: Sequence[Load]) -> None:
    """Print a line for each load."""
    names = ("clients", "requests", "errors", "requests/s", "p50 ms", "p95 ms", "p99 ms")
    print("".join(f"{name:>12}" for name in names))
    for load in loads:
        counts = (load.clients, len(load.latencies), len(load.errors))
        times = (load.throughput, *map(load.percentile, (0.5, 0.95, 0.99)))
        print("".join(f"{n:>12}" for n in counts) + "".join(f"{x:>12.1f}" for x in times))


if __name__ == "__main__":
    sys.exit(main())

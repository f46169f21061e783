r"""Serve a model over HTTP: a JSON API, metrics, and a page to try it.

usage: flaxbert serve RUN [--host=HOST] [--port=PORT] [--max-length=TOKENS]
                      [--batch-size=INPUTS] [--max-wait-ms=MS] [--queue=INPUTS]
                      [--timeout=SECONDS] [--max-body=BYTES] [--access-log]

for example:
  flaxbert serve runs/quickstart
  curl -d '{"inputs": ["A good film."]}' -H 'Content-Type: application/json' \
      http://127.0.0.1:8000/v1/predict

RUN is the workdir of a finished run, its export, or any Hugging Face directory or hub id of a model
with an output layer. A directory may be at a URL, such as gs://BUCKET/DIR. Open the address in a
browser to try the model. GET /openapi.json describes the API, and docs/serving.md everything else.
The server needs: pip install "flaxbert[serve]".

On SIGTERM or Ctrl-C the server accepts no further requests, answers those in flight, and exits with
code 0. A second signal ends it at once.

exit codes:
  0   stopped by a signal
  1   internal error
  2   bad usage, no model that can be served, or the port is in use
"""

import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxbert.commands import failures, help_text
from flaxbert.errors import ConfigError

PACKAGES = ("fastapi", "uvicorn", "pydantic", "prometheus_client")
"""The packages of the extra `serve`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = help_text.parser("serve", __doc__)
    parser.add_argument("run", metavar="RUN", help="workdir of a run, or a model")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at [%(default)s]")
    add = parser.add_argument
    add("--port", type=int, default=8000, help="port; 0 chooses a free one [%(default)s]")
    add("--max-length", type=int, help="longest text in tokens [that of the run]")
    add("--batch-size", type=int, default=32, help="inputs computed together [%(default)s]")
    add("--max-wait-ms", type=float, default=2, help="time to wait for a batch [%(default)s]")
    add("--queue", type=int, default=1024, help="inputs that may wait [%(default)s]")
    add("--timeout", type=float, default=30, help="seconds for a response [%(default)s]")
    add("--max-body", type=int, default=2**20, help="bytes of a request [%(default)s]")
    add("--access-log", action="store_true", help="log each request to stderr")
    given = parser.parse_args(argv)
    try:
        _check(given)
        serve(given)
    except Exception as error:
        return failures.report(error)
    return 0


DAY = 86_400
"""Seconds; no wait needs to be longer, and clocks cannot wait without end."""


def _check(given: Any) -> None:
    """Check the flags, and that the extra is installed.

    Raises:
      ConfigError: naming the flag and the valid values.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: not installed. The server needs the extra `serve`: "
            'pip install "flaxbert[serve]".'
        )
    lowest = {
        "--batch-size": (given.batch_size, 1),
        "--max-wait-ms": (given.max_wait_ms, 0),
        "--queue": (given.queue, 1),
        "--timeout": (given.timeout, 0.001),
        "--max-body": (given.max_body, 1),
        "--max-length": (given.max_length, 3),
    }
    for flag, (value, least) in lowest.items():
        if value is not None and not value >= least:
            raise ConfigError(f"{flag}={value}: expected at least {least}.")
    highest = {"--max-wait-ms": (given.max_wait_ms, 1000 * DAY), "--timeout": (given.timeout, DAY)}
    for flag, (value, most) in highest.items():
        if value > most:
            raise ConfigError(f"{flag}={value}: expected at most {most}.")
    if not 0 <= given.port < 2**16:
        raise ConfigError(f"--port={given.port}: expected a number from 0 to 65535.")


def serve(given: Any) -> None:
    """Load the model, and serve it until a signal, which ends the process with code 0.

    Raises:
      ConfigError, WeightsError, HubError: if there is no such model, or the port is in use.
    """
    from flaxbert.server import serving

    bound = serving.bind(given.host, given.port)
    signals = serving.Signals()
    signals.listen()
    _log_to_stderr(access=given.access_log)

    from flaxbert.pipeline.predictor import load
    from flaxbert.runtime import cpu_memory, devices
    from flaxbert.server.service import Limits, Service

    cpu_memory.reuse()
    predictor = load(given.run, max_length=given.max_length)
    limits = Limits(
        batch_size=given.batch_size,
        wait_ms=given.max_wait_ms,
        queue=given.queue,
        seconds=given.timeout,
        body_bytes=given.max_body,
    )
    service = Service(_name_of(given.run), predictor, limits)
    server = serving.Server(service, bound, access_log=given.access_log)
    signals.serving(server.stop)
    host = f"[{given.host}]" if ":" in given.host else given.host
    address = f"http://{host}:{bound.getsockname()[1]}"
    about = [predictor.pipeline.task_name, ", ".join(service.label_names), devices.summary()]
    what = "; ".join(part for part in about if part)

    def announce() -> None:
        print(f"Serving {given.run} at {address} ({what})", flush=True)

    server.run(announce)
    print("stopped", flush=True)
    serving.end_process(0)


def _name_of(run: str) -> str:
    """Return the name of a model without the directories above it, which clients need not see."""
    from flaxbert.data.stores import is_url

    if is_url(run):
        return run.rstrip("/").removesuffix("/export").rpartition("/")[2]
    path = Path(run).expanduser()
    if not path.is_dir():
        return run
    path = path.resolve()
    return path.parent.name if path.name == "export" else path.name


def _log_to_stderr(*, access: bool) -> None:
    """Log flaxbert's messages, uvicorn's errors and, if asked for, each request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    levels = {"flaxbert": logging.INFO, "uvicorn.error": logging.ERROR}
    if access:
        levels["uvicorn.access"] = logging.INFO
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)

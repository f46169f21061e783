"""Standard output and standard error that outlive their reader, and the format of log lines."""

import io
import logging
import sys
from typing import Any

from flaxbert.errors import clip


def outlive() -> None:
    """Replace stdout and stderr by streams that drop what they cannot write."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, resilient_stream(number))


class _Resilient(io.FileIO):
    """A file descriptor that drops what it cannot write, for example after its terminal closed."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def resilient_stream(number: int) -> io.TextIOWrapper:
    """Return stdout (1) or stderr (2) as a stream that raises no error when its reader is gone.

    A run continues after a lost connection or a closed pipe.
    """
    raw = io.BufferedWriter(_Resilient(number, "w", closefd=False))
    stream = sys.__stderr__ if number == 2 else sys.__stdout__
    encoding = stream.encoding if stream is not None else "utf-8"
    return io.TextIOWrapper(
        raw,
        encoding,
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=number == 2,
    )


class Clipped(logging.Formatter):
    """Formats log lines, no longer than a screen: they may quote a user's file."""

    def format(self, record: logging.LogRecord) -> str:
        return clip(super().format(record))

"""The report of an error that ends a command."""

import contextlib
import sys
import traceback

from flaxbert.errors import (
    ConfigError,
    DataError,
    DivergedError,
    HubError,
    OutOfMemoryError,
    Preempted,
    RemoteError,
    RunStopped,
    WeightsError,
    WorkdirError,
    exit_code,
)
from flaxbert.messages.language import language, tr

HELP = "docs/es/troubleshooting.md"
"""The page about errors for readers of Spanish."""


def report(error: Exception, place: str = "writing to --workdir") -> int:
    """Print an error and return the exit code: one message if it is expected, else a traceback.

    The message is English, and ends with the name of the error's class, so that it can be searched
    for. In another language a line before it says what kind of error it is.

    Args:
      error: what ended the command.
      place: where the error happened, for errors of the operating system that do not name a file,
        such as a full disk.
    """
    if isinstance(error, Preempted):
        print(error, file=sys.stderr)
    elif isinstance(error, RunStopped):
        _introduce(error)
        print(f"error: {error} [{type(error).__name__}]", file=sys.stderr)
    elif isinstance(error, OSError) and error.strerror is not None:
        print(f"error: {error.filename or place}: {error.strerror}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return exit_code(error)


def _introduce(error: RunStopped) -> None:
    """Print the kind of an error in the user's language, unless that is English."""
    with contextlib.suppress(ConfigError):  # the error may be about the language itself
        if language() != "en":
            print(f"{_kind(error)} {tr('Help: {page}', page=HELP)}", file=sys.stderr)


def _kind(error: RunStopped) -> str:
    """Return what kind of error it is."""
    match error:
        case ConfigError():
            return tr("Something in the configuration or the command is not valid.")
        case DataError():
            return tr("A data file is missing, or something in it is not valid.")
        case WeightsError():
            return tr("The weights or the config.json of the model do not fit.")
        case RemoteError():
            return tr("Something at a URL could not be fetched.")
        case HubError():
            return tr("Something could not be fetched from the Hugging Face Hub.")
        case WorkdirError():
            return tr("There is a problem with the directory of the run.")
        case OutOfMemoryError():
            return tr("The memory of the device is too small.")
        case DivergedError():
            return tr("The training diverged: a number is not finite.")
    return tr("The command cannot go on.")

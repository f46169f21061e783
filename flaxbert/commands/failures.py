"""How a command reports the error that ends it."""

import sys
import traceback

from flaxbert.errors import Preempted, RunStopped, exit_code


def report(error: Exception, place: str = "writing to --workdir") -> int:
    """Print an error and return the exit code: one message if it is expected, else a traceback.

    Args:
      error: what ended the command.
      place: where the error happened, for errors of the operating system that do not name a file,
        such as a full disk.
    """
    if isinstance(error, Preempted):
        print(error, file=sys.stderr)
    elif isinstance(error, RunStopped):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, OSError) and error.strerror is not None:
        print(f"error: {error.filename or place}: {error.strerror}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return exit_code(error)

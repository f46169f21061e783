"""Errors that a user can mend: each ends a command with one message and its exit code."""

import re
from collections.abc import Sequence


def some(items: Sequence[str], most: int = 8) -> str:
    """Join items for a message; of many the first few, so that it is no longer than a screen."""
    few = ", ".join(items[:most])
    return few if len(items) <= most else f"{few} and {len(items) - most} more"


SCREEN = 4000
"""Characters of a message: no more than fit on a screen, whatever a user's file holds."""


def clip(text: str, most: int = SCREEN) -> str:
    """Return a text for people, without its middle if it is long: its end may say how to fix it."""
    if len(text) <= most:
        return text
    head, tail = text[: most * 3 // 4], text[-(most // 4) :]
    return f"{head} ... ({len(text) - len(head) - len(tail):,} characters more) ... {tail}"


class UserError(Exception):
    """Bad usage, configuration or input; the message names the place and the mend."""

    exit_code = 2

    def __str__(self) -> str:
        return clip(super().__str__())


class ConfigError(UserError):
    """An unknown key, a bad value, or an impossible combination of values."""


class DataError(UserError):
    """A data file or data set that is absent, unreadable or malformed.

    Attributes:
      cause: what malformed rows with the same mistake share, such as one label; "" if unknown.
    """

    def __init__(self, message: str, cause: str = ""):
        super().__init__(message)
        self.cause = cause


class WeightsError(UserError):
    """A checkpoint whose tensors or config.json do not fit the model."""


class HubError(UserError):
    """A model or data set that could not be fetched from the Hugging Face Hub."""


class WorkdirError(UserError):
    """A workdir that is in use, cannot be written, or holds no sound checkpoint any more."""


class HostsError(UserError):
    """Hosts of one run that differ, or another host that has stopped."""

    def __init__(self, message: str, code: int = UserError.exit_code):
        super().__init__(message)
        self.exit_code = code


class OutOfMemoryError(UserError):
    """A device that has too little memory for a batch."""


class DivergedError(UserError):
    """Training has come to a loss or a gradient that is not finite."""

    exit_code = 3


class Preempted(UserError):  # noqa: N818 (not an error: the same command continues)
    """The run was told to stop, and has saved; the same command continues it."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of a process that an error ends; 1 for a fault of the program."""
    if isinstance(error, UserError):
        return error.exit_code
    return UserError.exit_code if isinstance(error, OSError) and error.strerror else 1


def describe(error: BaseException) -> str:
    """Return the message of an error, for the hosts that did not meet it."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= 2000 else f"{text[:2000]} ..."


def url_problem(name: str, path: object) -> str:
    """Return what is wrong with a URL where a path belongs; "" for a path.

    A URL is gs://bucket/run and the like, and what pathlib makes of it, gs:/bucket/run.
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        return ""
    return (
        f"{name}={path}: a path of this machine is needed, not a URL. Mount the bucket (gcsfuse "
        "for gs://) or copy the files, and give that path; give a hub id without its address"
    )


def check_local(name: str, path: object) -> None:
    """Check that a path is one of this machine.

    Raises:
      ConfigError: for a URL.
    """
    if problem := url_problem(name, path):
        raise ConfigError(f"{problem}.")


MOST_NAMES, LONGEST_NAME, LONGEST_VALUE = 20, 60, 200


def shortened(names: Sequence[str]) -> list[str]:
    """Names for a message: a whole file in one line has a million columns."""
    few = [n if len(n) <= LONGEST_NAME else f"{n[:LONGEST_NAME]}..." for n in names[:MOST_NAMES]]
    return [*few, f"... {len(names) - len(few)} more"] if len(names) > len(few) else few

"""Errors that a user can mend: each ends a command with one message and its exit code."""

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


class DivergedError(UserError):
    """Training has come to a loss or a gradient that is not finite."""

    exit_code = 3


class Preempted(UserError):  # noqa: N818 (not an error: the same command continues)
    """The run was told to stop, and has saved; the same command continues it."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again."""

"""User-facing errors, which end a command with one message and an exit code."""

import re
from collections.abc import Sequence


def some(items: Sequence[str], most: int = 8) -> str:
    """Join items for a message: the first `most`, and the number of the others."""
    few = ", ".join(items[:most])
    return few if len(items) <= most else f"{few} and {len(items) - most} more"


SCREEN = 4000
"""Maximum length of a message in characters, so that it fits on a screen."""


def clip(text: str, most: int = SCREEN) -> str:
    """Return a message, shortened in the middle if it is long.

    The end is kept, since it may say how to fix the error.
    """
    if len(text) <= most:
        return text
    head, tail = text[: most * 3 // 4], text[-(most // 4) :]
    return f"{head} ... ({len(text) - len(head) - len(tail):,} characters more) ... {tail}"


class RunStopped(Exception):
    """The reason why a command ends, which is reported in one message without a traceback."""

    exit_code: int

    def __str__(self) -> str:
        return clip(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback (IPython calls it)."""
        return [f"{type(self).__name__}: {self}"]


class Preempted(RunStopped):
    """A signal stopped the run, and its state is saved; the same command resumes it."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again."""

    def _render_traceback_(self) -> list[str]:
        return [f"{self}.", "In a notebook: run this cell again to continue."]


class UserError(RunStopped):
    """Invalid usage, configuration or input; the message says where, and how to fix it."""

    exit_code = 2


class ConfigError(UserError):
    """A key is unknown, a value is invalid, or values contradict each other."""


class DataError(UserError):
    """A data file or data set is missing, unreadable or malformed.

    Attributes:
      cause: what several malformed rows have in common, such as an unknown label; else "".
    """

    def __init__(self, message: str, cause: str = ""):
        super().__init__(message)
        self.cause = cause


class WeightsError(UserError):
    """The tensors or the config.json of a checkpoint do not fit the model."""


class HubError(UserError):
    """A model or data set could not be fetched from the Hugging Face Hub."""


class RemoteError(HubError):
    """A file at a URL, in a bucket or on a web server, could not be fetched."""


class WorkdirError(UserError):
    """A workdir is in use, cannot be written, or has no intact checkpoint."""


class ExportError(UserError):
    """An exported model does not compute what the model that it was made from does."""

    exit_code = 1


class HostsError(UserError):
    """The hosts of a run have different inputs, or another host has stopped."""

    def __init__(self, message: str, code: int = UserError.exit_code):
        super().__init__(message)
        self.exit_code = code


class CheckFailedError(RunStopped):
    """A check of a run has another result than it must have."""

    exit_code = 1


class OutOfMemoryError(UserError):
    """A device has too little memory for a batch."""


class DivergedError(UserError):
    """A loss or a gradient is not finite."""

    exit_code = 3


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error; 1 for an internal error."""
    if isinstance(error, RunStopped):
        return error.exit_code
    return UserError.exit_code if isinstance(error, OSError) and error.strerror else 1


def describe(error: BaseException) -> str:
    """Return the message of an error, to show it on the other hosts."""
    text = str(error) if isinstance(error, RunStopped) else f"{type(error).__name__}: {error}"
    return text if len(text) <= 2000 else f"{text[:2000]} ..."


def url_problem(name: str, path: object) -> str:
    """Return the problem if a path is a URL, else "".

    pathlib shortens gs://bucket/run to gs:/bucket/run, so that is a URL too.
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        return ""
    return (
        f"{name}={path}: expected a local path, not a URL. Mount the bucket (gcsfuse for gs://) or "
        "copy the files, and give the local path. For the hub, give the id, not its address"
    )


def input_problem(name: str, source: object) -> str:
    """Return the problem if data or a model cannot be read from a URL of this kind, else ""."""
    text = str(source)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)(.*)", text)
    if match:  # pathlib shortens gs://bucket to gs:/bucket
        return f"{name}={text}: a URL has two slashes after the colon: {match[1]}://{match[2]}"
    scheme, _, _ = text.partition("://")
    if scheme == "file":
        return f"{name}={text}: give the path, without file://"
    if scheme == "hf" or (HUB_PAGE.match(text) and "/resolve/" not in text):
        return f"{name}={text}: for the hub, give the id, such as NAMESPACE/NAME, not its address"
    return ""


HUB_PAGE = re.compile(r"https?://(www\.)?(huggingface\.co|hf\.co)/")


def check_local(name: str, path: object) -> None:
    """Check that a path is local.

    Raises:
      ConfigError: for a URL.
    """
    if problem := url_problem(name, path):
        raise ConfigError(f"{problem}.")


MOST_NAMES, LONGEST_NAME, LONGEST_VALUE = 20, 60, 200


def shortened(names: Sequence[str]) -> list[str]:
    """Return names for a message: the first few, each of a readable length.

    In a file without line breaks, the first line may have a million columns.
    """
    few = [n if len(n) <= LONGEST_NAME else f"{n[:LONGEST_NAME]}..." for n in names[:MOST_NAMES]]
    return [*few, f"... {len(names) - len(few)} more"] if len(names) > len(few) else few

"""Requests to stores of files, through fsspec: with retries, and errors that say what to do."""

import contextlib
import difflib
import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from flaxbert import hub, packaged
from flaxbert.errors import RemoteError, RunStopped, some

log = logging.getLogger("flaxbert")

T = TypeVar("T")

WAITS = (1.0, 4.0, 16.0)
"""Seconds before each further attempt. gcsfs and s3fs have made several before they raise an error,
aiohttp has not."""

TRANSIENT = {408, 429, 500, 502, 503, 504}
"""Status codes after which a request is repeated."""

CLIENTS = {"aiohttp", "aiobotocore", "botocore", "requests", "urllib3"}
"""Libraries whose errors without a status code are those of a connection."""

DENIED = {401, 403}
ABSENT = {404, 410}

NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
    *("DefaultCredentialsError", "RefreshError"),
}
"""Names of the errors of botocore and google-auth without valid credentials."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the local file system."""

WEB = ("http", "https")
"""Schemes of web servers, which list no directories, and whose URLs may hold `?`."""

EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3", "http": "http", "https": "http"}
"""The extra that installs what reads a scheme."""

ACCESS = {
    "gcs": "Log in with `gcloud auth application-default login`, or give the machine's service "
    "account the role Storage Object Viewer",
    "s3": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket "
    "set FSSPEC_S3_ANON=true",
    "http": "Check the address; one that was signed may have expired",
}
"""How to get access, by extra."""


def is_url(spec: str) -> bool:
    r"""Return whether a text is a URL; neither C:\data nor package://NAME is one."""
    return re.match(r"(?!package:)[A-Za-z][A-Za-z0-9+.-]+://", spec) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, such as gs."""
    return url.partition("://")[0].lower()


def settings(name: str) -> dict[str, Any]:
    """Return fsspec's settings of all clients for a kind of store, such as gcs; may be changed."""
    import fsspec

    changeable: dict[str, Any] = fsspec.config.conf.setdefault(name, {})
    return changeable


def open_store(url: str) -> tuple[Any, str]:
    """Return fsspec's object for a store, and the path in it.

    Raises:
      RemoteError: if the scheme is unknown, or what reads it is not installed or fails.
    """
    import fsspec

    scheme = scheme_of(url)
    try:
        # Listings that are kept would hide changes.
        return fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        fix = f'pip install "flaxbert[{extra}]"' if extra else hub.reason(error)
        raise RemoteError(
            f"{url}: the package that reads {scheme}:// is not installed: {fix}."
        ) from None
    except ValueError as error:
        raise RemoteError(f"{url}: cannot be read ({hub.reason(error)}).") from None
    except Exception as error:  # such as a missing file of credentials
        raise RemoteError(_explain(url, error)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence gcsfs, which logs every error with a traceback before it raises it."""
    client = logging.getLogger("gcsfs")
    level = client.level
    client.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        client.setLevel(level)


def attempt(url: str, operation: Callable[[], T], what: str = "fetched") -> T:
    """Return the result of an operation on a store, which is repeated if its error may pass.

    Args:
      url: the file or directory.
      operation: makes the request.
      what: what it does to the file, for the message: "could not be fetched".

    Raises:
      RemoteError: with what is wrong and how to fix it.
    """
    for wait in (*WAITS, None):
        try:
            return operation()
        except RunStopped:
            raise
        except Exception as error:  # stores raise errors of many libraries
            if wait is None or not _may_pass(error):
                raise RemoteError(_explain(url, error, what)) from error
            log.warning(f"{url}: {_reason(error)}; trying again in {wait:.0f} s")
            time.sleep(wait * random.uniform(0.5, 1.0))  # not all hosts at the same time
    raise AssertionError("the last attempt returns or raises")


def neighbors(store: Any, parent: str, url: str = "") -> str:
    """Return what there is in a directory, for a message: first names that are similar to a URL."""
    try:
        names = store.ls(store._strip_protocol(parent), detail=False)
    except Exception:  # no such bucket, or one that cannot be listed
        return f", nor can {parent} be listed; check the names of the bucket and the directories"
    names = sorted(name.rstrip("/").rpartition("/")[2] for name in names)
    similar = difflib.get_close_matches(url.rstrip("/").rpartition("/")[2], names, cutoff=0.5)
    return f"; {parent} has {some(similar or names)}" if names else f"; {parent} is empty"


def unwritable(url: str, error: OSError) -> RemoteError:
    """Return the error for a copy that cannot be written to the cache."""
    return RemoteError(
        f"{error.filename or packaged.cache_home()}: the copy of {url} cannot be written "
        f"({error.strerror or error}). Set XDG_CACHE_HOME to a directory with room for it."
    )


def _may_pass(error: Exception) -> bool:
    """Return whether the same operation may succeed later."""
    if statuses := _statuses(error):
        return bool(statuses & TRANSIENT)
    if _is_denied(error) or _is_local(error):
        return False
    causes = list(hub.chain(error))
    lost = any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes)
    modules = {type(cause).__module__.partition(".")[0] for cause in causes}
    return lost or bool(modules & CLIENTS)


def _explain(url: str, error: Exception, what: str = "fetched") -> str:
    """Return what is wrong and how to fix it."""
    extra, reason = EXTRAS.get(scheme_of(url), ""), _reason(error)
    if isinstance(error, OSError) and _is_local(error):
        return str(unwritable(url, error))
    if _is_denied(error):
        advice = ACCESS.get(extra, f"Check the credentials for {scheme_of(url)}://")
        return f"{url}: access is denied ({reason}). {advice}."
    if extra == "http" and _statuses(error) & ABSENT:
        return f"{url}: the server has no such file. Check the address."
    # For web servers, fsspec raises FileNotFoundError whatever went wrong.
    if extra != "http" and any(isinstance(cause, FileNotFoundError) for cause in hub.chain(error)):
        parent = url.rstrip("/").rpartition("/")[0] + "/"
        store, _ = open_store(url)
        return f"{url}: no such file or directory{neighbors(store, parent, url)}."
    return (
        f"{url}: could not be {what} ({reason}). Check the address and the network, and repeat "
        "the command."
    )


def _is_local(error: Exception) -> bool:
    """Return whether an error is of the file system that copies are written to."""
    cache = packaged.cache_home()
    return isinstance(error, OSError) and (
        error.errno in NO_ROOM or str(error.filename or "").startswith(f"{cache}")
    )


def _is_denied(error: Exception) -> bool:
    causes = list(hub.chain(error))
    return (
        any(isinstance(cause, PermissionError) for cause in causes)
        or not NO_CREDENTIALS.isdisjoint(type(cause).__name__ for cause in causes)
        or not DENIED.isdisjoint(_statuses(error))
        or str(error).startswith("Forbidden")  # gcsfs
    )


def _statuses(error: Exception) -> set[int]:
    """Return the status codes in an error of a store, and in those that led to it."""
    codes = set[int]()
    for cause in hub.chain(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            codes.add(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        else:  # aiohttp, gcsfs
            codes.add(getattr(cause, "status", None) or getattr(cause, "code", None) or 0)
    return {code for code in codes if isinstance(code, int) and 100 <= code < 600}


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__:  # fsspec's for web servers
        error = error.__cause__
    return hub.reason(error).rstrip(".")

"""Local copies of files at URLs: gs://, s3://, https://, and what else fsspec reads.

A copy is in the cache (`flaxbert/inputs` in $XDG_CACHE_HOME or ~/.cache), under a hash of its URL
and of the version that the store reports: a generation, an ETag or a time. So an unchanged object
is fetched once, and a changed one again. Copies that no run has read for 30 days are deleted.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import difflib
import errno
import glob
import hashlib
import json
import logging
import os
import random
import re
import shutil
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flaxbert import hub, packaged
from flaxbert.data import feature_cache
from flaxbert.errors import DataError, RemoteError, RunStopped, some

log = logging.getLogger("flaxbert")

T = TypeVar("T")

WAITS = (1.0, 4.0, 16.0)
"""Seconds before each further try, after an error that may pass. gcsfs and s3fs have retried too
before they raise it."""

THREADS = 8
"""Files that are fetched at the same time."""

LARGE = 10_000_000
"""Bytes from which a terminal shows a bar."""

TRANSIENT = {408, 429, 500, 502, 503, 504}
"""Status codes of errors that may pass."""

VERSIONS = (
    *("generation", "etag", "content-md5", "digest", "md5hash", "crc32c"),
    *("last-modified", "lastmodified", "updated", "mtime", "modified", "created"),
)
"""What stores report of an object that changes with its content, the best first."""

WEB = ("http", "https")
"""Schemes of web servers, which list no directories, and whose URLs may hold `?`."""

EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3", "http": "http", "https": "http"}
"""The extra that installs what reads a scheme."""

CREDENTIALS = {
    "gcs": "Log in with `gcloud auth application-default login`, or give the machine's service "
    "account the role Storage Object Viewer",
    "s3": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket "
    "set FSSPEC_S3_ANON=true",
    "http": "Check the address; one that was signed may have expired",
}
"""How to get access, by extra."""

NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
    *("DefaultCredentialsError", "RefreshError"),
}
"""Classes of the errors of botocore and google-auth without (valid) credentials."""

if TYPE_CHECKING:
    _Path = Path
else:  # before Python 3.12, only the class of the platform can be extended
    _Path = type(Path())


class LocalCopy(_Path):
    """The local copy of a file at a URL: it opens as the copy, and prints as the URL.

    So messages, the places of examples and fingerprints name the URL, on every machine.
    """

    url = ""

    def __str__(self) -> str:
        return self.url or super().__str__()

    def __fspath__(self) -> str:
        return super().__str__()


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a store, as it is listed."""

    url: str
    path: str
    """How fsspec's class for the store names it."""
    size: int | None
    version: str | None
    """What changes with its content; None if the store reports nothing of this kind."""


def is_url(spec: str) -> bool:
    r"""Return whether a text is a URL; neither C:\data nor package://NAME is one."""
    return re.match(r"(?!package:)[A-Za-z][A-Za-z0-9+.-]+://", spec) is not None


def is_pattern(spec: str) -> bool:
    """Return whether a URL stands for all files that match it."""
    return glob.has_magic(spec) and _scheme(spec) not in WEB


def local(spec: str) -> Path:
    """Return the path of a file to read: a local one, or the copy of the one at a URL.

    Raises:
      RemoteError: see `local_copy`.
    """
    return local_copy(spec) if is_url(spec) else packaged.local(spec)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence gcsfs, which logs every error with a traceback before it raises it."""
    client = logging.getLogger("gcsfs")
    level = client.level
    client.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        client.setLevel(level)


@_quiet()
def is_file(spec: str) -> bool:
    """Return whether there is a file at a path or URL; False if a store does not answer."""
    if not is_url(spec):
        return packaged.local(spec).is_file()
    with contextlib.suppress(RemoteError):
        store, path = _store(spec)
        return bool(store.isfile(path))
    return False


@_quiet()
def local_copy(url: str) -> LocalCopy:
    """Return the local copy of a file, which is fetched unless the cache has this version of it.

    Raises:
      RemoteError: if it cannot be fetched: there is no such file, access is denied, the package
        that reads such URLs is not installed, or the store does not answer.
      DataError: if it is a directory.
    """
    store, path = _store(url)
    info = _attempt(url, lambda: store.info(path))
    if info["type"] != "file":
        raise DataError(f"{url}: not a file; for a directory's files: {url.rstrip('/')}/*.tsv")
    return _copies(store, url, [_file(url, info)])[0]


@_quiet()
def local_copies(pattern: str) -> list[LocalCopy]:
    """Return the local copies of all files that match, such as gs://bucket/*.jsonl, in order.

    Raises:
      RemoteError: see `local_copy`.
      DataError: if no file matches.
    """
    store, path = _store(pattern)
    if store.isfile(path):  # the characters belong to its name
        return [local_copy(pattern)]
    matches = _attempt(pattern, lambda: store.glob(path, detail=True))
    # A store names buckets and keys in its own way: append what follows the part without magic.
    start = re.split(r"[*?[]", pattern)[0].rpartition("/")[0] + "/"
    prefix = len(store._strip_protocol(start).rstrip("/"))
    files = [
        _file(f"{start}{name[prefix:].lstrip('/')}", info)
        for name, info in sorted(matches.items())
        if info["type"] == "file"
    ]
    if not files:
        raise DataError(f"{pattern}: no file matches{_neighbors(store, start)}.")
    return _copies(store, pattern, files)


@_quiet()
def listing(url: str) -> dict[str, File | None]:
    """Return the files in a directory by name, and None for each of its directories.

    Raises:
      RemoteError: if there is no such directory, or as `local_copy` does.
    """
    if _scheme(url) in WEB:
        raise RemoteError(
            f"{url}: the directories of web servers cannot be listed. Copy the files to a "
            "directory, and give its path."
        )
    store, path = _store(url)
    infos = _attempt(url, lambda: store.ls(path, detail=True))
    names = {info["name"].rstrip("/").rpartition("/")[2]: info for info in infos}
    return {
        name: _file(f"{url}/{name}", info) if info["type"] == "file" else None
        for name, info in names.items()
        if info["name"].strip("/") != path.strip("/")  # some stores list an object for it
    }


@_quiet()
def tree(url: str) -> dict[str, File | None]:
    """Return all files below a directory, by their path in it.

    Raises:
      RemoteError: see `listing`.
    """
    store, path = _store(url)
    infos = _attempt(url, lambda: store.find(path, detail=True))
    start = len(path.strip("/")) + 1
    names = {name.strip("/")[start:]: info for name, info in infos.items()}
    return {
        name: _file(f"{url}/{name}", info)
        for name, info in names.items()
        if name and info["type"] == "file"
    }


@_quiet()
def directory_copy(url: str, files: Mapping[str, File]) -> Path:
    """Return a local directory with copies of some files.

    Args:
      url: where they are.
      files: {path in the directory: file of `listing` or `tree`}.

    Raises:
      RemoteError: see `local_copy`.
    """
    store, _ = _store(url)
    return _stored(store, url, [files])[0]


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _store(url: str) -> tuple[Any, str]:
    """Return fsspec's object for a store, and the path in it.

    Raises:
      RemoteError: if the scheme is unknown, or what reads it is not installed or fails.
    """
    import fsspec

    scheme = _scheme(url)
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


def _file(url: str, info: Mapping[str, Any]) -> File:
    encoded = info.get("contentEncoding")  # gcsfs decompresses it
    return File(url, info["name"], None if encoded else info.get("size"), _version(info))


def _version(info: Mapping[str, Any]) -> str | None:
    known = {key.lower(): value for key, value in info.items() if value is not None}
    key = next((key for key in VERSIONS if key in known), None)
    if key is None:
        return None
    value = known[key]
    if isinstance(value, datetime.datetime):
        value = value.timestamp()
    return f"{key} {value} size {known.get('size')}"


def _copies(store: Any, what: str, files: Sequence[File]) -> list[LocalCopy]:
    names = [_name(file.url) for file in files]
    wanted = [{name: file} for name, file in zip(names, files, strict=True)]
    copies = []
    for entry, name, file in zip(_stored(store, what, wanted), names, files, strict=True):
        copy = LocalCopy(entry / name)
        copy.url = file.url
        copies.append(copy)
    return copies


def _name(url: str) -> str:
    """Return the name of a copy, whose ending gives its format."""
    path = urllib.parse.urlsplit(url).path if _scheme(url) in WEB else url
    return re.sub(r"[^\w.-]", "_", path.rstrip("/").rpartition("/")[2])[-100:] or "file"


# --- the cache ---------------------------------------------------------------------------------


def _stored(store: Any, what: str, wanted: Sequence[Mapping[str, File]]) -> list[Path]:
    """Return the directories of the cache that hold sets of files; fetch those that are missing."""
    home = feature_cache.cache_home()
    if home is None:
        raise RemoteError(f"{what}: there is no home directory for its copy; set XDG_CACHE_HOME.")
    entries = [home / "inputs" / _key(files) for files in wanted]
    missing = []
    for entry, files in zip(entries, wanted, strict=True):
        if not entry.is_dir():
            missing.append((entry, files))
        else:
            with contextlib.suppress(OSError):  # a cache of another user
                os.utime(entry)  # `delete_unused` goes by this time
    if missing:
        try:
            _fetch(store, what, missing)
            feature_cache.delete_unused(home / "inputs")
        except OSError as error:
            raise _unwritable(what, error) from None
    return entries


def _key(files: Mapping[str, File]) -> str:
    # A file without a version may have changed: it gets a name that no other call gives it.
    parts = {name: [file.url, file.version or uuid.uuid4().hex] for name, file in files.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _unwritable(what: str, error: OSError) -> RemoteError:
    return RemoteError(
        f"{error.filename or feature_cache.cache_home()}: the copy of {what} cannot be written "
        f"({error.strerror or error}). Set XDG_CACHE_HOME to a directory with room for it."
    )


def _fetch(store: Any, what: str, entries: Sequence[tuple[Path, Mapping[str, File]]]) -> None:
    """Fetch files into new directories of the cache, several at a time."""
    files = [file for _, group in entries for file in group.values()]
    total = sum(file.size or 0 for file in files)
    count = f"{len(files)} files, " if len(files) > 1 else ""
    log.info(f"{what}: fetching {count}{total / 1e6:,.1f} MB")
    with _bar(what, total) as advance, concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(_make, store, entry, group, advance) for entry, group in entries]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


Advance = Callable[[str, int], None]
"""Takes the URL of a file, and how many of its bytes have arrived."""


@contextlib.contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    """Show a bar on a terminal, if there is much to fetch."""
    import rich.console
    import rich.progress

    arrived = dict[str, int]()
    bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
        disable=total < LARGE or not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(_name(what), total=total)

        def advance(url: str, count: int) -> None:
            arrived[url] = count
            bar.update(task, completed=sum(arrived.values()))

        yield advance


def _make(store: Any, entry: Path, files: Mapping[str, File], advance: Advance) -> None:
    """Make a directory with copies of files, or nothing."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=feature_cache.PARTIAL, dir=entry.parent))
    try:
        for name, file in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _download(store, file, partial / name, advance)
        partial.chmod(0o755)
        try:
            os.rename(partial, entry)
        except OSError:
            if not entry.is_dir():  # else another process has fetched the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(store: Any, file: File, target: Path, advance: Advance) -> None:
    """Fetch a file completely.

    Raises:
      RemoteError: if it cannot be fetched, or changes while it is.
    """
    from fsspec.callbacks import Callback

    def once() -> None:
        # One for each try, since it counts the bytes.
        hooks = {"bar": lambda size, value, **_: advance(file.url, value)}
        store.get_file(file.path, str(target), callback=Callback(hooks=hooks))
        size = target.stat().st_size
        if file.version is not None and _version(store.info(file.path)) != file.version:
            raise RemoteError(
                f"{file.url}: changed while it was fetched. Repeat the command when nothing "
                "writes to it."
            )
        if file.size is not None and size != file.size:
            raise ConnectionError(f"only {size:,} of {file.size:,} bytes arrived")

    _attempt(file.url, once)


# --- errors ------------------------------------------------------------------------------------


def _attempt(url: str, operation: Callable[[], T]) -> T:
    """Return the result of an operation on a store, which is repeated if its error may pass.

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
                raise RemoteError(_explain(url, error)) from error
            log.warning(f"{url}: {_reason(error)}; trying again in {wait:.0f} s")
            time.sleep(wait * random.uniform(0.5, 1.0))  # not all hosts at the same time
    raise AssertionError("the last try returns or raises")


def _may_pass(error: Exception) -> bool:
    """Return whether the same operation may succeed later."""
    if statuses := _statuses(error):
        return bool(statuses & TRANSIENT)
    causes = list(hub.chain(error))
    lost = any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes)
    clients = {type(cause).__module__.partition(".")[0] for cause in causes}
    return lost or bool(clients & {"aiohttp", "requests"})


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


def _explain(url: str, error: Exception) -> str:
    """Return what is wrong and how to fix it."""
    causes = list(hub.chain(error))
    extra = EXTRAS.get(_scheme(url), "")
    cache = str(feature_cache.cache_home())
    if isinstance(error, OSError) and (
        error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        or str(error.filename).startswith(cache)
    ):
        return str(_unwritable(url, error))
    names = {type(cause).__name__ for cause in causes}
    denied = any(isinstance(cause, PermissionError) for cause in causes)
    denied |= bool(names & NO_CREDENTIALS or _statuses(error) & {401, 403})
    if denied or str(error).startswith("Forbidden"):  # gcsfs
        advice = CREDENTIALS.get(extra, f"Check the credentials for {_scheme(url)}://")
        return f"{url}: access is denied ({_reason(error)}). {advice}."
    if extra == "http" and _statuses(error) & {404, 410}:
        return f"{url}: the server has no such file. Check the address."
    if extra != "http" and any(isinstance(cause, FileNotFoundError) for cause in causes):
        parent = url.rstrip("/").rpartition("/")[0] + "/"
        store, _ = _store(url)
        return f"{url}: no such file or directory{_neighbors(store, parent, url)}."
    return (
        f"{url}: could not be fetched ({_reason(error)}). Check the address and the network, and "
        "repeat the command."
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__:  # fsspec's for web servers
        error = error.__cause__
    return hub.reason(error).rstrip(".")


def _neighbors(store: Any, parent: str, url: str = "") -> str:
    """Return what there is in a directory, for a message: first names that are similar to a URL."""
    try:
        names = store.ls(store._strip_protocol(parent), detail=False)
    except Exception:  # no such bucket, or one that cannot be listed
        return f", nor can {parent} be listed; check the names of the bucket and the directories"
    names = sorted(name.rstrip("/").rpartition("/")[2] for name in names)
    similar = difflib.get_close_matches(url.rstrip("/").rpartition("/")[2], names, cutoff=0.5)
    return f"; {parent} has {some(similar or names)}" if names else f"; {parent} is empty"

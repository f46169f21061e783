"""Local copies of files at URLs: gs://, s3://, https://, and what else fsspec reads.

A copy is in the cache (`flaxbert/inputs` in $XDG_CACHE_HOME or ~/.cache), under a hash of its URL
and of the version that the store reports: a generation, an ETag or a time. So an unchanged object
is fetched once, and a changed one again. Copies that no run has read for 30 days are deleted.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import urllib.parse
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxbert import packaged
from flaxbert.data import feature_cache, stores
from flaxbert.errors import DataError, RemoteError

log = logging.getLogger("flaxbert")

THREADS = 8
"""Files that are fetched at the same time."""

LARGE = 10_000_000
"""Bytes from which a terminal shows a bar."""

VERSIONS = (
    *("generation", "etag", "content-md5", "digest", "md5hash", "crc32c"),
    *("last-modified", "lastmodified", "updated", "mtime", "modified", "created"),
)
"""What stores report of an object that changes with its content, the best first."""

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


def is_pattern(spec: str) -> bool:
    """Return whether a URL stands for all files that match it."""
    return glob.has_magic(spec) and stores.scheme_of(spec) not in stores.WEB


def local(spec: str) -> Path:
    """Return the path of a file to read: a local one, or the copy of the one at a URL.

    Raises:
      RemoteError: see `local_copy`.
    """
    return local_copy(spec) if stores.is_url(spec) else packaged.local(spec)


@stores.quiet()
def is_file(spec: str) -> bool:
    """Return whether there is a file at a path or URL; False if a store does not answer."""
    if not stores.is_url(spec):
        return packaged.local(spec).is_file()
    with contextlib.suppress(RemoteError):
        store, path = stores.open_store(spec)
        return bool(store.isfile(path))
    return False


@stores.quiet()
def local_copy(url: str) -> LocalCopy:
    """Return the local copy of a file, which is fetched unless the cache has this version of it.

    Raises:
      RemoteError: if it cannot be fetched: there is no such file, access is denied, the package
        that reads such URLs is not installed, or the store does not answer.
      DataError: if it is a directory.
    """
    store, path = stores.open_store(url)
    info = stores.attempt(url, lambda: store.info(path))
    if info["type"] == "directory":
        raise DataError(f"{url}: not a file; for a directory's files: {url.rstrip('/')}/*.tsv")
    return _copies(store, url, [_file(url, info)])[0]


@stores.quiet()
def local_copies(pattern: str) -> list[LocalCopy]:
    """Return the local copies of all files that match, such as gs://bucket/*.jsonl, in order.

    Raises:
      RemoteError: see `local_copy`.
      DataError: if no file matches.
    """
    store, path = stores.open_store(pattern)
    if store.isfile(path):  # the characters belong to its name
        return [local_copy(pattern)]
    matches = stores.attempt(pattern, lambda: store.glob(path, detail=True))
    # A store names buckets and keys in its own way: append what follows the part without magic.
    start = re.split(r"[*?[]", pattern)[0].rpartition("/")[0] + "/"
    prefix = len(store._strip_protocol(start).rstrip("/"))
    files = [
        _file(f"{start}{name[prefix:].lstrip('/')}", info)
        for name, info in sorted(matches.items())
        if info["type"] != "directory"
    ]
    if not files:
        raise DataError(f"{pattern}: no file matches{stores.neighbors(store, start)}.")
    return _copies(store, pattern, files)


@stores.quiet()
def listing(url: str) -> Mapping[str, File | None]:
    """Return the files in a directory by name, and None for each of its directories.

    Raises:
      RemoteError: if there is no such directory, or as `local_copy` does.
    """
    if stores.scheme_of(url) in stores.WEB:
        raise RemoteError(
            f"{url}: the directories of web servers cannot be listed. Copy the files to a "
            "directory, and give its path."
        )
    store, path = stores.open_store(url)
    infos = stores.attempt(url, lambda: store.ls(path, detail=True))
    names = {info["name"].rstrip("/").rpartition("/")[2]: info for info in infos}
    return {
        name: None if info["type"] == "directory" else _file(f"{url}/{name}", info)
        for name, info in names.items()
        if info["name"].strip("/") != path.strip("/")  # some stores list an object for it
    }


@stores.quiet()
def tree(url: str) -> dict[str, File]:
    """Return all files below a directory, by their path in it.

    Raises:
      RemoteError: see `listing`.
    """
    store, path = stores.open_store(url)
    infos = stores.attempt(url, lambda: store.find(path, detail=True))
    start = len(path.strip("/")) + 1
    names = {name.strip("/")[start:]: info for name, info in infos.items()}
    return {
        name: _file(f"{url}/{name}", info)
        for name, info in names.items()
        if name and info["type"] != "directory"
    }


@stores.quiet()
def directory_copy(url: str, files: Mapping[str, File], folders: Collection[str] = ()) -> Path:
    """Return a local directory with copies of some files.

    Args:
      url: where they are.
      files: {path in the directory: file of `listing` or `tree`}.
      folders: paths of empty directories in it.

    Raises:
      RemoteError: see `local_copy`.
    """
    store, _ = stores.open_store(url)
    return _stored(store, url, [_Entry(url, files, tuple(folders))])[0]


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


def _copies(store: Any, url: str, files: Sequence[File]) -> list[LocalCopy]:
    wanted = [_Entry(file.url, {_name(file.url): file}) for file in files]
    copies = []
    for directory, file in zip(_stored(store, url, wanted), files, strict=True):
        copy = LocalCopy(directory / _name(file.url))
        copy.url = file.url
        copies.append(copy)
    return copies


def _name(url: str) -> str:
    """Return the name of a copy, whose ending gives its format."""
    path = urllib.parse.urlsplit(url).path if stores.scheme_of(url) in stores.WEB else url
    return re.sub(r"[^\w.-]", "_", path.rstrip("/").rpartition("/")[2])[-100:] or "file"


# --- the cache ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Entry:
    """The content of a directory of the cache."""

    url: str
    files: Mapping[str, File]
    """{path in the directory: file}"""
    folders: tuple[str, ...] = ()
    """Paths of empty directories."""

    @property
    def name(self) -> str:
        """The name of the directory, which messages about models show."""
        # A file without a version may have changed: it gets a name that no other call gives it.
        files = {
            name: [file.url, file.version or uuid.uuid4().hex] for name, file in self.files.items()
        }
        key = json.dumps([self.url, files, self.folders], sort_keys=True)
        shown = re.sub("[^a-zA-Z0-9.]+", "-", self.url)[-60:].lstrip("-.")
        return f"{shown}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def is_in(self, directory: Path) -> bool:
        """Return whether a directory has all of this; if it lacks some, it is deleted."""
        if not directory.is_dir():
            return False
        paths = {directory / name: file.size for name, file in self.files.items()}
        if not all(
            path.is_file() and size in (None, path.stat().st_size) for path, size in paths.items()
        ):
            shutil.rmtree(directory)
            return False
        with contextlib.suppress(OSError):  # a cache of another user
            os.utime(directory)  # `delete_unused` goes by this time
        return True


def _stored(store: Any, url: str, entries: Sequence[_Entry]) -> list[Path]:
    """Return the directories of the cache with these entries; fetch those that are missing."""
    home = packaged.cache_home()
    if home is None:
        raise RemoteError(f"{url}: there is no home directory for its copy; set XDG_CACHE_HOME.")
    directories = [home / "inputs" / entry.name for entry in entries]
    pairs = list(zip(directories, entries, strict=True))
    try:
        if missing := [(path, entry) for path, entry in pairs if not entry.is_in(path)]:
            _fetch(store, url, missing)
            feature_cache.delete_unused(home / "inputs")
    except OSError as error:
        raise stores.unwritable(url, error) from None
    return directories


def _fetch(store: Any, url: str, entries: Sequence[tuple[Path, _Entry]]) -> None:
    """Fetch files into new directories of the cache, several at a time."""
    files = [file for _, entry in entries for file in entry.files.values()]
    total = sum(file.size or 0 for file in files)
    count = f"{len(files)} files, " if len(files) > 1 else ""
    log.info(f"{url}: fetching {count}{total / 1e6:,.1f} MB")
    with _bar(url, total, [file.url for file in files]) as advance:
        if len(entries) == 1:  # Ctrl-C need not wait for a thread
            _make(store, *entries[0], advance)
            return
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(_make, store, path, entry, advance) for path, entry in entries]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


Advance = Callable[[str, int], None]
"""Takes the URL of a file, and how many of its bytes have arrived."""


@contextlib.contextmanager
def _bar(url: str, total: int, urls: Sequence[str]) -> Iterator[Advance]:
    """Show a bar on a terminal, if there is much to fetch."""
    import rich.console
    import rich.progress

    arrived = dict.fromkeys(urls, 0)  # threads change values, but add no keys
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
        task = bar.add_task(_name(url), total=total)

        def advance(url: str, count: int) -> None:
            arrived[url] = count
            bar.update(task, completed=sum(arrived.values()))

        yield advance


def _make(store: Any, directory: Path, entry: _Entry, advance: Advance) -> None:
    """Make a directory of the cache, or nothing."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=feature_cache.PARTIAL, dir=directory.parent))
    try:
        for folder in entry.folders:
            (partial / folder).mkdir(parents=True)
        for name, file in entry.files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _download(store, file, partial / name, advance)
        partial.chmod(0o755)
        try:
            os.rename(partial, directory)
        except OSError:
            if not directory.is_dir():  # else another process has fetched the same
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
        # One for each attempt, since it counts the bytes.
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

    stores.attempt(file.url, once)

"""Files in buckets, gs://BUCKET/PATH and s3://BUCKET/PATH: read, written, listed and locked."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from flaxbert.data import stores
from flaxbert.errors import ConfigError, RemoteError, WorkdirError, check_local

_Value = TypeVar("_Value")

LARGE = 50 * 2**20
"""Bytes above which a file is uploaded in parts, and not read into memory as a whole."""


def is_remote(path: object) -> bool:
    """Return whether a path is in a bucket; pathlib's gs:/bucket/run for gs://bucket/run is too."""
    return re.match(r"(gs|s3):/", str(path)) is not None


def as_path(text: str | Path, name: str = "--workdir") -> Path:
    """Return a path: a `pathlib.Path`, or in a bucket an `epath.Path`, which has its interface.

    Args:
      text: a path, gs://BUCKET/PATH or s3://BUCKET/PATH.
      name: the flag or argument, for the message.

    Raises:
      ConfigError: for a bucket without a path, and for other URLs.
    """
    if not is_remote(text):
        check_local(name, text)
        return Path(text)
    from etils import epath

    scheme, _, rest = str(text).partition(":")
    if "/" not in rest.strip("/"):
        raise ConfigError(f"{name}={text}: expected {scheme}://BUCKET/PATH.")
    return cast(Path, epath.Path(f"{scheme}://{rest.strip('/')}"))


def read(url: Path) -> bytes | None:
    """Return the content of a file; None if there is none.

    Raises:
      WorkdirError: if it cannot be read, as in all functions of this module.
    """
    return _attempt("read", url, lambda store: store.cat_file(str(url)), missing=None)


def write(url: Path, content: bytes) -> None:
    """Write a file with one request: a reader sees the old content or the new one."""
    _attempt("written", url, lambda store: store.pipe_file(str(url), content))


def create(url: Path, content: bytes) -> bool:
    """Write a file unless it exists; return whether it has this content now.

    The content should be unique to the caller. If the answer to a request is lost and the client
    repeats it, the store says that the file exists, although the caller has written it.
    """

    def put(store: Any) -> bool:
        try:
            store.pipe_file(str(url), content, mode="create")
        except Exception:
            present = read(url)
            if present is None:
                raise
            return present == content
        return True

    return bool(_attempt("written", url, put))


def upload(file: Path, url: Path) -> None:
    """Write a local file with one request, or in parts that appear together."""

    def put(store: Any) -> None:
        # A log may grow while it is read, and the parts of a large file must add up.
        if file.stat().st_size > LARGE:
            store.put_file(str(file), str(url))
        else:
            store.pipe_file(str(url), file.read_bytes())

    _attempt("written", url, put)


def download(url: Path, file: Path) -> None:
    """Write the content of a file in a bucket to a local file.

    Raises:
      FileNotFoundError: if there is none.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _attempt("read", url, lambda store: store.get_file(str(url), str(file)))


def files(url: Path) -> dict[str, str | None]:
    """Return {path relative to `url`: MD5 in base64} of all files below it.

    The MD5 is None if the store has none, as for files that were uploaded in parts.
    """

    def find(store: Any) -> dict[str, Any]:
        store.invalidate_cache()  # TensorStore writes next to this client
        found: dict[str, Any] = store.find(str(url), detail=True)
        return found

    start = str(url).partition("://")[2].rstrip("/") + "/"
    found = _attempt("listed", url, find, missing={})
    return {
        name.removeprefix("/").removeprefix(start): about.get("md5Hash")
        for name, about in found.items()
        if name.removeprefix("/").startswith(start)
    }


def delete(url: Path) -> None:
    """Delete a file, if it exists."""
    _attempt("deleted", url, lambda store: store.rm_file(str(url)), missing=None)


def delete_all(url: Path) -> None:
    """Delete all files below a path."""
    for name in files(url):
        delete(url / name)


def md5(file: Path) -> str:
    """Return the MD5 of a local file in base64, as stores give it."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
    return b64encode(digest.digest()).decode()


_RAISE = object()


def _attempt(
    what: str, url: Path, action: Callable[[Any], _Value], *, missing: Any = _RAISE
) -> _Value:
    """Return what `action` returns; see `stores.attempt`.

    Args:
      what: what the action does to the file, for the message.
      url: the file.
      action: receives the store, as fsspec's file system.
      missing: the result if there is no such file; by default it is an error.

    Raises:
      FileNotFoundError: if there is no such file and no `missing`.
      WorkdirError: for all other errors.
    """
    # Orbax and etils make clients of their own, with these settings. With a cache they would not
    # list what TensorStore wrote.
    name = stores.EXTRAS[stores.scheme_of(str(url))]
    stores.settings(name).setdefault("use_listings_cache", False)

    def run() -> Any:
        try:
            return action(store)
        except FileNotFoundError:
            return missing

    try:
        with stores.quiet():
            store, _ = stores.open_store(str(url))
            result = stores.attempt(str(url), run, what)
    except RemoteError as error:
        raise WorkdirError(
            f"{error} A workdir needs the rights to read, write, list and delete. What was saved "
            "is intact: run the same command again when this is fixed."
        ) from error
    if result is _RAISE:
        raise FileNotFoundError(str(url))
    return cast(_Value, result)

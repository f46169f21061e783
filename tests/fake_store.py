"""A store of objects in this process, at store://BUCKET/KEY, with faults that tests inject."""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from flaxbert.data import stores


class StatusError(Exception):
    """An error with a status code, as gcsfs raises it."""

    def __init__(self, code: int):
        super().__init__(f"the store says {code}")
        self.code = code


@dataclasses.dataclass
class Store:
    """What a store holds, and what happened to it."""

    files: "StoreFiles"
    root: str = "store://bucket"
    faults: list[Exception | None] = dataclasses.field(default_factory=list)
    """Raised by the next requests, in order; None lets one pass."""
    fetched: list[str] = dataclasses.field(default_factory=list)
    """The names of the files whose content was fetched."""
    cut: int | None = None
    """Bytes of a file that arrive before the connection is lost."""
    unversioned: bool = False

    def put(self, name: str, content: str | bytes) -> str:
        """Store an object, and return its URL."""
        content = content.encode() if isinstance(content, str) else content
        self.files.pipe_file(f"/bucket/{name}", content)
        self.files.generations[f"/bucket/{name}"] = next(self.files.numbers)
        return f"{self.root}/{name}"

    def put_directory(self, name: str, directory: Path) -> str:
        """Store the files of a directory, and return its URL."""
        for path in directory.rglob("*"):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(directory).as_posix()}", path.read_bytes())
        return f"{self.root}/{name}"

    def request(self) -> None:
        """Raise the next fault."""
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault


class StoreFiles(MemoryFileSystem):
    """The store as fsspec sees it: each write makes a new generation."""

    protocol = "store"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    generations: ClassVar[dict[str, int]] = {}
    numbers = itertools.count(1)
    current: ClassVar[Store]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("store://"))

    def _described(self, info: dict[str, Any]) -> dict[str, Any]:
        info = {key: value for key, value in info.items() if key != "created"}
        if info["type"] == "file" and not self.current.unversioned:
            info["generation"] = self.generations[info["name"]]
        return info

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self.current.request()
        return self._described(super().info(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.current.request()
        infos = [self._described(info) for info in super().ls(path, detail=True)]
        return infos if detail else sorted(info["name"] for info in infos)

    def find(self, path: str, **kwargs: Any) -> Any:
        self.current.request()
        found = super().find(path, **kwargs)
        if not kwargs.get("detail"):
            return found
        return {name: self._described(info) for name, info in found.items()}

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        self.current.request()
        self.current.fetched.append(rpath.rpartition("/")[2])
        if self.current.cut is not None:
            Path(lpath).write_bytes(self.cat_file(rpath)[: self.current.cut])
            self.current.cut = None
            return
        super().get_file(rpath, lpath, **kwargs)


@contextmanager
def opened(cache: Path) -> Iterator[Store]:
    """Make an empty store, with an empty cache and without waits."""
    StoreFiles.store.clear()
    StoreFiles.pseudo_dirs[:] = [""]
    StoreFiles.generations.clear()
    fsspec.register_implementation("store", StoreFiles, clobber=True)
    StoreFiles.current = Store(StoreFiles())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(stores.time, "sleep", lambda seconds: None)
        yield StoreFiles.current

"""The files of a workdir in a bucket, kept in a local directory while a command works with them.

A store has no appending, no renaming of directories and no locks. So a command works with local
files, and uploads those that have changed: each with one request, which is atomic. Only checkpoints
are written elsewhere (runtime/checkpoint.py).
"""

import contextlib
import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flaxbert.errors import WorkdirError
from flaxbert.runtime import multihost, storage
from flaxbert.runtime.lease import Lease

log = logging.getLogger("flaxbert")

DIRECTORIES = ("export", ".model")
"""Directories that readers see completely or not at all."""

CHECKPOINTS = ("checkpoints", "best")
"""Directories that runtime/checkpoint.py writes itself."""

RESUMED = ("config.json", "metrics.jsonl", "results.json", "trackers")
"""Files and directories that a run continues with, besides its checkpoints and .model."""

WRITTEN_ONLY = ("tensorboard", "profile")
"""Directories that no command reads."""

LAST = "results.json"
"""The file that is uploaded last: a workdir with it has all files of a finished run."""

METADATA = "metadata.json"
"""The file with the `Metadata` of a checkpoint, which reports read too."""

RETRIES = 3
"""Attempts to read a directory that another command replaces meanwhile."""


class Workdir:
    """The workdir of a run; here a local one. As a text, it is the path that the user gave.

    Attributes:
      home: where checkpoints are, and what messages name.
      local: a local directory with all other files.
    """

    def __init__(self, home: Path, local: Path):
        self.home, self.local = home, local

    def __str__(self) -> str:
        return str(self.home)

    def upload(self) -> None:
        """Write what has changed in `local` to `home`, if that is elsewhere; all hosts call it."""

    def shown(self, path: Path) -> str:
        """Return a path with `home` in the place of `local`, as it is on all hosts."""
        inside = self.local != self.home and path.is_relative_to(self.local)
        return str(self.home / path.relative_to(self.local) if inside else path)

    def fetch_metadata(self) -> None:
        """Copy the metadata of checkpoints to `local`, if they are elsewhere: reports read it."""


class Mirror(Workdir):
    """A workdir in a bucket, with local copies of its files."""

    def __init__(self, home: Path, local: Path, lease: Lease | None = None):
        super().__init__(home, local)
        self._lease = lease
        self._uploaded: dict[str, tuple[int, int]] = {}
        """{file: (time of change, size)} of local files that `home` has."""

    def fetch(self, *, all_files: bool) -> None:
        """Copy files from the bucket: all that a command may read, or those to resume with."""
        directories = DIRECTORIES if all_files else (".model",)
        for name in directories:
            _fetch_directory(self.home, name, self.local / name)
        for name in storage.files(self.home):
            top = _top(name)
            if top in RESUMED or (all_files and _is_read(top)):
                self._download(name)
        if all_files:
            self.fetch_metadata()
        self._uploaded = self._signatures()

    def upload(self) -> None:
        """Upload the local files that have changed; the first host does, and all hosts call it.

        Raises:
          WorkdirError: if a file cannot be written, or another run has taken the workdir.
        """
        with multihost.fail_together():
            if multihost.is_lead_host():
                self.upload_alone()

    def upload_alone(self) -> None:
        """Upload as `upload` does, without other hosts: directories first, results.json last."""
        if self._lease is not None:
            self._lease.check()
        present = self._signatures()
        changed = [name for name in present if present[name] != self._uploaded.get(name)]
        for directory in DIRECTORIES:
            if any(_top(name) == directory for name in changed):
                _publish(self.local / directory, self.home, directory)
        for name in sorted(changed, key=lambda name: name == LAST):
            if _top(name) not in DIRECTORIES:
                with contextlib.suppress(FileNotFoundError):  # a temporary file of a tracker
                    storage.upload(self.local / name, self.home / name)
            self._uploaded[name] = present[name]

    def fetch_metadata(self) -> None:
        for name in storage.files(self.home / "checkpoints"):
            if name.endswith(f"/{METADATA}"):
                self._download(f"checkpoints/{name}")

    def _download(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            storage.download(self.home / name, self.local / name)

    def _signatures(self) -> dict[str, tuple[int, int]]:
        """Return {relative name: (time of change, size)} of all local files but checkpoints."""
        signatures = {}
        for path in sorted(self.local.rglob("*")):
            name = path.relative_to(self.local)
            partial = any(part.endswith((".partial", ".old")) for part in name.parts)
            if name.parts[0] in CHECKPOINTS or partial or path.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError):  # a temporary file of a tracker
                if path.is_file():
                    about = path.stat()
                    signatures[name.as_posix()] = about.st_mtime_ns, about.st_size
        return signatures


def _top(name: str) -> str:
    return name.partition("/")[0]


def _is_read(top: str) -> bool:
    """Return whether a command may read files of this directory or name, as single files."""
    directories = {*CHECKPOINTS, *WRITTEN_ONLY, *DIRECTORIES}
    return top.removesuffix(".new") not in directories and not top.startswith(".")


@contextlib.contextmanager
def opened(path: Path, lease: Lease | None = None, *, all_files: bool = True) -> Iterator[Workdir]:
    """Yield a workdir; if it is in a bucket, upload at the end what has changed.

    With several hosts, all have the files, and the first one uploads.

    Args:
      path: the workdir.
      lease: must be held when files are uploaded.
      all_files: see `Mirror.fetch`.
    """
    if not storage.is_remote(path):
        yield Workdir(path, path)
        return
    # Named as in the bucket, because trackers and reports show the name.
    with tempfile.TemporaryDirectory(prefix="flaxbert-", ignore_cleanup_errors=True) as temporary:
        mirror = Mirror(path, Path(temporary) / path.name, lease)
        mirror.local.mkdir()
        with multihost.fail_together():
            mirror.fetch(all_files=all_files)
        try:
            yield mirror
        except BaseException:
            with contextlib.suppress(WorkdirError):  # the first error is the one to report
                if multihost.is_lead_host():
                    mirror.upload_alone()
            raise
        mirror.upload()


# --- directories ---------------------------------------------------------------------------------
#
# .export.json says which directory holds the export, and lists its files. It is written last, so
# a reader never sees half an export. A new export that replaces another one is uploaded twice:
# first next to it, to export.new/, so that readers have a complete one at any time.


def _publish(local: Path, home: Path, name: str) -> None:
    """Upload a directory so that readers see the previous one or this one."""
    manifest = {
        path.relative_to(local).as_posix(): storage.md5(path)
        for path in sorted(local.rglob("*"))
        if path.is_file()
    }
    pointer, spare = _pointer(home, name), f"{name}.new"
    if pointer != _Pointer(name, manifest):
        if pointer.directory is None:
            _point(home, name, _Pointer(None, {}))  # not a copy that the user uploaded
        elif pointer.directory == name:
            _upload_directory(local, home / spare, manifest)
            _point(home, name, _Pointer(spare, manifest))
        _upload_directory(local, home / name, manifest)
        _point(home, name, _Pointer(name, manifest))
    storage.delete_all(home / spare)


def _upload_directory(local: Path, url: Path, manifest: Mapping[str, str]) -> None:
    for file in manifest:
        storage.upload(local / file, url / file)
    for file in storage.files(url):
        if file not in manifest:
            storage.delete(url / file)


def _fetch_directory(home: Path, name: str, local: Path) -> None:
    """Copy a directory from the bucket, if there is a complete one.

    Raises:
      WorkdirError: if its files are not those that its pointer lists.
    """
    for _ in range(RETRIES):
        pointer = _pointer(home, name)
        if pointer.directory is None:
            return
        url = home / pointer.directory
        wrong = _download_directory(url, pointer.files, local)
        if not wrong:
            return
        shutil.rmtree(local, ignore_errors=True)
    raise WorkdirError(
        f"{url / wrong} is missing or has changed since it was written. If a run is replacing "
        "this directory, try again; else copy it from elsewhere, and delete "
        f"{home / pointer_name(name)}."
    )


def _download_directory(url: Path, manifest: Mapping[str, str], local: Path) -> str:
    """Copy files from the bucket; return the first that is missing or differs, else ""."""
    for file, digest in manifest.items():
        try:
            storage.download(url / file, local / file)
        except FileNotFoundError:
            return file
        if digest and storage.md5(local / file) != digest:
            return file
    return ""


@dataclasses.dataclass(frozen=True)
class _Pointer:
    """What .NAME.json says."""

    directory: str | None
    """The complete directory; None if there is none."""
    files: dict[str, str]
    """{file: MD5} of it; "" for a file that may have any content."""


def pointer_name(name: str) -> str:
    """Return the file that says where a directory, such as `export`, is complete."""
    return f".{name.removeprefix('.')}.json"


def _pointer(home: Path, name: str) -> _Pointer:
    content = storage.read(home / pointer_name(name))
    if content is not None:
        fields: dict[str, Any] = json.loads(content)
        return _Pointer(**fields)
    copied = storage.files(home / name)  # of a workdir that the user has copied to the bucket
    return _Pointer(name, dict.fromkeys(copied, "")) if copied else _Pointer(None, {})


def _point(home: Path, name: str, pointer: _Pointer) -> None:
    storage.write(
        home / pointer_name(name), json.dumps(dataclasses.asdict(pointer), indent=1).encode()
    )

"""Copies of checkpoints in a bucket that Orbax cannot write to."""

import json
import shutil
import tempfile
import weakref
from collections.abc import Collection
from pathlib import Path

from flaxbert.runtime import storage

COMPLETE = "complete.json"
"""The list of a checkpoint's files. It is uploaded last: without it a copy is not complete."""


class Copies:
    """The checkpoints below a URL, and a temporary directory in which Orbax works."""

    def __init__(self, url: Path):
        self._url, self._directory = url, Path(tempfile.mkdtemp(prefix="flaxbert-checkpoints-"))
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)

    def fetch(self) -> Path:
        """Copy all complete checkpoints to the temporary directory, and return it."""
        for step in self._steps():
            source, target = self._url / str(step), self._directory / str(step)
            listed = storage.read(source / COMPLETE)
            for name in json.loads(listed) if listed else ():
                storage.download(source / name, target / name)
        return self._directory

    def upload(self, directory: Path, step: int, most: int | None) -> None:
        """Upload a checkpoint, and then delete all but the newest ones.

        Args:
          directory: its files.
          step: its step.
          most: the number of checkpoints to keep; None for all.
        """
        url = self._url / str(step)
        names = [
            path.relative_to(directory).as_posix()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        ]
        for name in names:
            storage.upload(directory / name, url / name)
        storage.write(url / COMPLETE, json.dumps(names, indent=1).encode())
        kept = sorted(self._steps())[-most if most else 0 :]
        self._delete(self._steps(complete=False) - set(kept))

    def delete(self, step: int) -> None:
        """Delete a checkpoint."""
        self._delete([step])

    def _delete(self, steps: Collection[int]) -> None:
        for step in steps:
            storage.delete(self._url / str(step) / COMPLETE)  # first, while all others are there
            storage.delete_all(self._url / str(step))

    def _steps(self, *, complete: bool = True) -> set[int]:
        """Return the steps with a complete copy, or all that have any file."""
        paths = [Path(name) for name in storage.files(self._url)]
        return {
            int(path.parts[0])
            for path in paths
            if path.parts[0].isdecimal() and (path.parts[1:] == (COMPLETE,) or not complete)
        }

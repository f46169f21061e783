"""The parts of a long output, which a command that was stopped continues.

Each finished part is a file in a directory of the workdir, and a manifest lists them with a digest
of the input that each was made from. The first host writes; all hosts hold the same manifest.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaxbert.errors import some
from flaxbert.runtime import files, multihost

log = logging.getLogger("flaxbert")

PREFIX = ".predictions-"
"""The beginning of the names of directories with parts."""

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Part:
    """An entry of the manifest."""

    digest: str
    """Of the input."""
    records: int
    malformed: int
    """Rows of the input that were left out."""


class Parts:
    """The finished parts of one output.

    Attributes:
      directory: holds the parts and the manifest.
    """

    def __init__(self, directory: Path, finished: Mapping[int, Part]):
        """Create the parts of a directory; see `open`."""
        self.directory, self._finished = directory, dict(finished)

    @classmethod
    def open(cls, workdir: Path, key: Mapping[str, Any]) -> "Parts":
        """Return the parts that an earlier command with the same key has finished.

        Args:
          workdir: holds the directory of the parts.
          key: everything but the input that the output depends on, of JSON's types.
        """
        text = json.dumps(key, sort_keys=True, default=str)
        directory = workdir / f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        manifest: dict[str, Any] = {}
        with multihost.fail_together():
            if multihost.is_lead_host():
                with contextlib.suppress(FileNotFoundError, ValueError):
                    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        received = json.loads(multihost.send_from_host0(json.dumps(manifest))())
        parts = cls(directory, {int(n): Part(**entry) for n, entry in received.items()})
        if multihost.is_lead_host() and received:
            log.info(f"{directory}: continuing after {len(received)} finished parts")
        return parts

    @property
    def records(self) -> int:
        """The number of records of all finished parts."""
        return sum(part.records for part in self._finished.values())

    @property
    def malformed(self) -> int:
        """The number of rows that were left out."""
        return sum(part.malformed for part in self._finished.values())

    def holds(self, number: int, digest: str) -> bool:
        """Return whether a part is finished, for the same input."""
        return number in self._finished and self._finished[number].digest == digest

    def add(
        self, number: int, digest: str, records: Iterable[Mapping[str, Any]], malformed: int
    ) -> None:
        """Write a part and then the manifest; call it on the first host.

        Args:
          number: of the part, from 0.
          digest: of its input.
          records: are written as they come.
          malformed: rows of its input that were left out.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        count = 0

        def counted() -> Iterable[Mapping[str, Any]]:
            nonlocal count
            for record in records:
                count += 1
                yield record

        files.write_jsonl(self._path(number), counted())
        self._finished[number] = Part(digest, count, malformed)
        manifest = {str(n): dataclasses.asdict(part) for n, part in self._finished.items()}
        files.write_json(self.directory / MANIFEST, manifest)

    def read(self, number: int) -> list[dict[str, Any]]:
        """Return the records of a part."""
        with self._path(number).open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def join(self, count: int, path: Path) -> None:
        """Write the first `count` parts to `path`, in order; remove all parts in the workdir."""
        self._finished = {n: part for n, part in self._finished.items() if n < count}
        missing = [str(number) for number in range(count) if number not in self._finished]
        if missing:
            raise ValueError(f"{self.directory}: parts {some(missing)} are missing")
        with files.atomic_file(path) as file:
            for number in range(count):
                with self._path(number).open(encoding="utf-8") as part:
                    shutil.copyfileobj(part, file, 2**20)
        for directory in self.directory.parent.glob(f"{PREFIX}*"):  # also of other inputs
            shutil.rmtree(directory, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06}.jsonl"

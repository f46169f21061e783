"""The parts of a long output, which a command that was stopped continues.

Each finished part is a file in a directory of the workdir, and a manifest lists them with a digest
of the input that each was made from. The first host writes. The other hosts hold the manifest that
the command began with.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaxbert.runtime import files, multihost, storage
from flaxbert.runtime.mirror import Workdir

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
    """The finished parts of one output."""

    def __init__(self, directory: Path, url: Path | None, finished: Mapping[int, Part]):
        """Create the parts of a directory; see `open`.

        Args:
          directory: holds the parts and, unless there is a `url`, the manifest.
          url: a directory in a bucket with all parts and the manifest; `directory` then has copies.
          finished: the content of the manifest.
        """
        self._directory, self._url, self._finished = directory, url, dict(finished)

    @classmethod
    def open(cls, place: Workdir, key: Mapping[str, Any]) -> "Parts":
        """Return the parts that an earlier command with the same key has finished.

        Args:
          place: the workdir, which holds the directory of the parts.
          key: everything but the input that the output depends on, of JSON's types.
        """
        # Earlier versions named parts by number alone: theirs are not continued.
        text = json.dumps({"parts": "by input", **key}, sort_keys=True, default=str)
        name = f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if place.home == place.local:
            parts = cls(place.local / name, None, {})
        else:  # next to the copy of the workdir, which is uploaded as a whole
            parts = cls(place.local.parent / name, place.home / name, {})
        with multihost.fail_together():
            manifest = parts._read_manifest() if multihost.is_lead_host() else ""
        entries = json.loads(multihost.send_from_host0(manifest)())
        parts._finished = {int(number): Part(**entry) for number, entry in entries.items()}
        if multihost.is_lead_host() and entries:
            log.info(f"{place.home / name}: continuing after {len(entries)} finished parts")
        return parts

    @property
    def records(self) -> int:
        """The number of records of all parts."""
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
        self._directory.mkdir(parents=True, exist_ok=True)
        count = 0

        def counted() -> Iterable[Mapping[str, Any]]:
            nonlocal count
            for record in records:
                count += 1
                yield record

        file = self._directory / _name(number, digest)
        files.write_jsonl(file, counted())
        self._finished[number] = Part(digest, count, malformed)
        manifest = {str(n): dataclasses.asdict(part) for n, part in self._finished.items()}
        if self._url is None:
            files.write_json(self._directory / MANIFEST, manifest)
        else:
            storage.upload(file, self._url / file.name)
            storage.write(self._url / MANIFEST, json.dumps(manifest).encode())

    def read(self, number: int) -> list[dict[str, Any]]:
        """Return the records of a part."""
        with self._local(number).open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def join(self, count: int, path: Path) -> None:
        """Write the first `count` parts to `path`, in order; any others are of an older input."""
        self._finished = {number: self._finished[number] for number in range(count)}
        with files.atomic_file(path) as file:
            for number in range(count):
                with self._local(number).open(encoding="utf-8") as part:
                    shutil.copyfileobj(part, file, 2**20)

    def delete(self) -> None:
        """Delete the parts, and in a local workdir those of other keys too."""
        if self._url is not None:
            storage.delete_all(self._url)
        for directory in self._directory.parent.glob(f"{PREFIX}*"):
            shutil.rmtree(directory, ignore_errors=True)

    def _local(self, number: int) -> Path:
        file = self._directory / _name(number, self._finished[number].digest)
        if self._url is not None and not file.exists():
            storage.download(self._url / file.name, file)
        return file

    def _read_manifest(self) -> str:
        """Return the text of the manifest; that of an empty one if there is none, or no JSON."""
        try:
            if self._url is not None:
                text = (storage.read(self._url / MANIFEST) or b"{}").decode()
            else:
                text = (self._directory / MANIFEST).read_text(encoding="utf-8")
            return text if json.loads(text) else "{}"
        except (FileNotFoundError, ValueError):
            return "{}"


def _name(number: int, digest: str) -> str:
    """Return the name of a part's file; a part of another input does not replace it."""
    return f"{number:06}-{digest[:16]}.jsonl"

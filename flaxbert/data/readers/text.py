"""Plain text: each paragraph is a record. The records of large files are kept on disk."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxbert.config import DataConfig
from flaxbert.data import feature_cache
from flaxbert.data.growing import GrowingArrays
from flaxbert.data.readers.encodings import codec
from flaxbert.data.table import Record, RecordOrIssue

BLOCK = 256
"""Records that are stored together, and read together."""


class StoredRows(Sequence[Record]):
    """Records that are stored as bytes, in a file if there are many, and made when they are read.

    They cannot be added to once they have been read.
    """

    def __init__(self, data: DataConfig) -> None:
        """Create an empty sequence.

        Args:
          data: `feature_cache` names the directory of the file.
        """
        self._stored = GrowingArrays(feature_cache.scratch(data.feature_cache))
        self._starts, self._pending = [0], list[Any]()
        self._content: np.ndarray | None = None
        self._latest: tuple[int, list[Record]] = -1, []
        self._count = 0

    def extend(self, rows: Iterable[Record]) -> None:
        """Add records.

        Raises:
          DataError: if they cannot be stored.
        """
        for row in rows:
            self.append(row)

    def append(self, row: Record) -> None:
        """Add a record; see `extend`."""
        assert self._content is None
        self._count += 1
        self._pending.append((row.values, row.origin, row.lines))
        if len(self._pending) == BLOCK:
            self._store()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        number, place = divmod(range(len(self))[index], BLOCK)
        return self._block(number)[place]

    def __iter__(self) -> Iterator[Record]:
        for number in range(-(-len(self) // BLOCK)):
            yield from self._block(number)

    def _store(self) -> None:
        # A pattern may match Parquet files too, whose dates and decimals become text.
        text = json.dumps(self._pending, default=str)
        content = np.frombuffer(text.encode(), np.uint8)
        self._stored.add(content=content)
        self._starts.append(self._starts[-1] + len(content))
        self._pending.clear()

    def _block(self, number: int) -> list[Record]:
        if self._content is None:
            self._store()
            self._content = self._stored.joined()["content"]
        if self._latest[0] != number:
            content = self._content[self._starts[number] : self._starts[number + 1]]
            rows = json.loads(bytes(content))
            self._latest = (
                number,
                [Record(values, origin, tuple(lines)) for values, origin, lines in rows],
            )
        return self._latest[1]


def _read_txt(path: Path, data: DataConfig) -> RecordOrIssue:
    """Read paragraphs, which end at a blank line, as in BERT's own data and in books."""
    lines: list[str] = []
    start = 1
    with open(path, encoding=codec(data.encoding)) as file:
        for number, line in enumerate(itertools.chain(file, [""]), start=1):
            if line.strip():
                start = start if lines else number
                lines.append(line.strip())
            elif lines:
                yield Record({"text": "\n".join(lines), "file": str(path)}, f"{path}:{start}")
                lines = []

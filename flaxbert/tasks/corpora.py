"""Corpora: documents of plain text, from the records of any source.

A corpus may be larger than memory. So documents and their paragraphs are made from the records
whenever they are read, and a document costs a few bytes otherwise.
"""

import array
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flaxbert.config import DataConfig
from flaxbert.data.checks import Example
from flaxbert.data.table import Reading, Record, Table


class StoredTexts(Sequence[str]):
    """The texts of some records, read whenever they are needed.

    Two of them are equal if their texts are.
    """

    def __init__(self, rows: Sequence[Record], numbers: Sequence[int], column: str) -> None:
        """Refer to texts.

        Args:
          rows: all records.
          numbers: the numbers of those that hold the texts.
          column: the column of the text.
        """
        self._rows, self._numbers, self._column = rows, numbers, column

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return StoredTexts(self._rows, self._numbers[index], self._column)
        return self._rows[self._numbers[index]].text(self._column)

    def __iter__(self) -> Iterator[str]:
        for number in self._numbers:
            yield self._rows[number].text(self._column)

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the texts, in hexadecimal."""
        digest = hashlib.sha256()
        for text in self:
            content = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(content)} ".encode() + content)
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredTexts) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclasses.dataclass(frozen=True)
class DocumentExample(Example):
    """A document, as its paragraphs."""

    name: str
    paragraphs: Sequence[str]
    slice: str | None
    origin: str

    @property
    def texts(self) -> Sequence[str]:
        """The paragraphs."""
        return self.paragraphs


class Documents(Sequence[DocumentExample]):
    """The documents of a corpus, each made when it is read."""

    def __init__(
        self,
        rows: Sequence[Record],
        numbers: Sequence[int],
        starts: Sequence[int],
        *,
        text: str,
        document: str | None,
        slices: str | None,
    ) -> None:
        """Refer to documents.

        Args:
          rows: all records.
          numbers: the numbers of the records of all documents, document by document.
          starts: where each document begins in `numbers`, and the end of the last.
          text: the column of the text.
          document: the column of the document's name, if any.
          slices: the column of slices, if any.
        """
        self._rows, self._numbers, self._starts = rows, numbers, starts
        self._text, self._document, self._slices = text, document, slices

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        numbers = self._numbers[self._starts[place] : self._starts[place + 1]]
        first = self._rows[numbers[0]]
        name = _name(first, self._document)
        return DocumentExample(
            first.origin if name is None else name,
            StoredTexts(self._rows, numbers, self._text),
            first.slice(self._slices),
            first.origin,
        )


def read_documents(
    table: Table, data: DataConfig, *, text: str, document: str | None, optional: str
) -> Reading[DocumentExample]:
    """Read documents, in the order of their first records; one without a name is a document.

    Args:
      table: the records, each a paragraph.
      data: the column of slices, and how malformed records are treated.
      text: the column of the text.
      document: the column that is equal within a document; None if each record is one.
      optional: a column of the document that tables may lack.

    Raises:
      DataError: for a column that is absent, or a malformed record.
    """
    columns = {text: "options.text"}
    if document and document != optional:
        columns[document] = "options.document"
    table.require(columns, slices=data.slices)
    owners = array.array("q")  # of each record: the number of its document, -1 if it is malformed
    named: dict[str, int] = {}
    count = 0

    def paragraph(row: Record) -> None:
        nonlocal count
        owners.append(-1)
        row.text(text)
        row.slice(data.slices)
        name = _name(row, document)
        owners[-1] = count if name is None else named.setdefault(name, count)
        count += owners[-1] == count

    paragraphs = table.read(paragraph, data.on_bad_row)
    valid = np.greater_equal(owners, 0)
    starts = array.array("q", [0, *np.cumsum(np.bincount(np.asarray(owners)[valid]))])
    numbers: Sequence[int] = range(len(owners))
    if not valid.all() or np.any(np.diff(owners) < 0):  # a document's records are not together
        order = np.argsort(owners, kind="stable")[np.count_nonzero(~valid) :]
        numbers = array.array("q", order.tobytes())
    return paragraphs.with_items(
        Documents(table.rows, numbers, starts, text=text, document=document, slices=data.slices)
    )


def _name(row: Record, document: str | None) -> str | None:
    """Return the name of a record's document; None if the record is one."""
    value = row.values.get(document or "")
    # NaN, which a Parquet file may hold for a null, differs from itself.
    return None if value in (None, "") or value != value else str(value)

"""Corpora: documents of plain text, from the records of any source."""

import dataclasses

from flaxbert.config import DataConfig
from flaxbert.data.checks import Example
from flaxbert.data.table import Reading, Record, Table


@dataclasses.dataclass(frozen=True)
class DocumentExample(Example):
    """A document, as its paragraphs."""

    name: str
    paragraphs: tuple[str, ...]
    slice: str | None
    origin: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The paragraphs."""
        return self.paragraphs


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

    def paragraph(row: Record) -> DocumentExample:
        value, content = row.values.get(document or ""), row.text(text)
        # NaN, which a Parquet file may hold for a null, differs from itself.
        nameless = value in (None, "") or value != value
        name = row.origin if nameless else str(value)
        return DocumentExample(name, (content,), row.slice(data.slices), row.origin)

    paragraphs = table.read(paragraph, data.on_bad_row)
    groups: dict[str, list[DocumentExample]] = {}
    for example in paragraphs:
        groups.setdefault(example.name, []).append(example)
    documents = [
        dataclasses.replace(group[0], paragraphs=tuple(part.paragraphs[0] for part in group))
        for group in groups.values()
    ]
    return paragraphs.with_items(documents)

"""Tables of delimited text: comma- and tab-separated files, and those with other separators."""

import collections
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from flaxbert.config import SEPARATORS, DataConfig
from flaxbert.data import conll
from flaxbert.data.encodings import codec
from flaxbert.data.table import Found, Row, shortened
from flaxbert.errors import DataError

LARGEST_CELL = 2**31 - 1
"""Characters: csv's own limit is 131,072, fewer than a long document has; this is the highest."""

Records = Iterator[tuple[int, list[str] | str]]
"""Of a file of columns: the line that each begins in, and its cells or what is wrong with it."""


def rows(path: Path, data: DataConfig, form: str) -> Found:
    """Read a delimited file.

    Args:
      path: a text file.
      data: `columns` of a file without a header, `separator`, `quoting` and `encoding`.
      form: "csv" or "tsv": the separator and the quoting that are usual.
    """
    usual = "," if form == "csv" else "\t"
    separator = SEPARATORS.get(data.separator or "", data.separator or usual)
    quoted = form == "csv" if data.quoting == "auto" else data.quoting == "yes"
    read = _quoted_records if quoted else _raw_records
    return _rows(path, read(path, separator, codec(data.encoding)), data)


def _quoted_records(path: Path, separator: str, encoding: str) -> Records:
    csv.field_size_limit(LARGEST_CELL)  # csv keeps it for the process, not for a reader
    with open(path, encoding=encoding, newline="\n") as file:
        reader = csv.reader(file, strict=True, delimiter=separator)
        while True:
            begin = reader.line_num + 1  # a record of several lines is found by its first
            try:
                yield begin, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "new-line" not in str(error):  # a quote: the lines behind it may be cells
                    raise DataError(f"{path}:{begin}: {error}.") from None
                yield begin, conll.LONE_RETURN


def _raw_records(path: Path, separator: str, encoding: str) -> Records:
    """GLUE's form: a quote is just a character."""
    with open(path, encoding=encoding, newline="\n") as file:
        for number, ended in enumerate(file, start=1):
            line = ended.removesuffix("\n").removesuffix("\r")
            cells = line.split(separator) if line else []
            yield number, conll.LONE_RETURN if "\r" in line else cells


def _rows(path: Path, records: Records, data: DataConfig) -> Found:
    first = next(records, (1, list[str]()))
    named = "the first line names"
    if data.columns:
        header: list[str] = list(data.columns)
        records, named = itertools.chain([first], records), "data.columns names"
    elif isinstance(first[1], str):
        raise DataError(f"{path}:{first[0]}: {first[1]}.")
    else:
        header = first[1]
    repeated = [name for name, count in collections.Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{path}:1: columns named twice: {shortened(sorted(repeated))}.")
    blank: list[Row] = []
    for begin, cells in records:
        origin = f"{path}:{begin}"
        if not cells:
            # In one column an empty text, or the rows behind it would shift; not at the end.
            blank += [Row({name: ""}, origin) for name in header if len(header) == 1]
            continue
        yield from blank
        blank = []
        if isinstance(cells, str):
            yield DataError(f"{origin}: {cells}.")
        elif len(cells) != len(header):
            yield DataError(
                f"{origin}: {len(cells)} columns, but {named} {len(header)} "
                f"({', '.join(shortened(header))})."
            )
        else:
            yield Row(dict(zip(header, cells, strict=True)), origin)

"""Tables of delimited text: comma- and tab-separated files, and those with other separators.

The format of a file is detected where that is certain, and an issue reports it; otherwise
`data.separator`, `data.quoting` and `data.columns` give it.
"""

import collections
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from flaxbert.config import SEPARATORS, DataConfig
from flaxbert.data.checks import READ_AS, Issue, is_number
from flaxbert.data.readers import conll
from flaxbert.data.readers.encodings import codec
from flaxbert.data.table import Record, RecordOrIssue, shown
from flaxbert.errors import DataError, shortened

LARGEST_CELL = 2**31 - 1
"""Characters of a cell. csv's default limit is 131,072, less than a long document; this is the
highest."""

SAMPLE = 200
"""Number of records by which the separator is chosen."""

Cells = list[str] | str
"""The cells of a record, or what is wrong with it."""

Records = Iterator[tuple[int, Cells]]
"""The line where each record begins, and its cells."""

NAMES = {separator: name for name, separator in SEPARATORS.items() if name.isalpha()}
UNNAMED = re.compile(r"|Unnamed: \d+")
"""Matches the name of a column without a name; the second form is what pandas writes."""


DRAWN = re.compile(r"((?:[^\n]*\n){0,2}?)(?=[^\n]*--)(?=[^\n]*[|+])[-:|+ ]+\r?(?:\n|\Z)")
"""Matches a line of dashes among the first three, as in tables of Markdown and of databases."""


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The separator and the quoting of a file."""

    separator: str
    quoting: str
    """As in `data.quoting`: yes, no, or escaped."""
    spaced: bool = False
    """Whether a space follows each separator."""

    def records(self, text: str, path: Path) -> Records:
        """Split a file's text into records.

        Raises:
          DataError: for a quote that is not closed, or closed within a cell.
        """
        lines = io.StringIO(text, newline="\n")
        if self.quoting == "no":
            return _raw_records(lines, self.separator)
        return _quoted_records(lines, self, path)

    def widths(self, text: str, path: Path) -> list[int]:
        """Return how many columns each of the first records has, -1 if malformed; [] if unknown."""
        try:
            sample = list(itertools.islice(self.records(text, path), SAMPLE))
        except DataError:
            return []
        records = [cells for _, cells in sample[_leading(sample) :] if cells]
        return [-1 if isinstance(cells, str) else len(cells) for cells in records]

    def fits(self, text: str, path: Path, width: int) -> bool:
        """Return whether most of the first records have the same number of columns, two or more.

        Args:
          text: the content of the file.
          path: its path.
          width: the number of columns; 0 for that of the first record.
        """
        widths = self.widths(text, path)
        width = width or (widths[0] if widths else 0)
        return width > 1 and 2 * widths.count(width) > len(widths)


def form_of(text: str, path: Path, data: DataConfig) -> str | None:
    """Return csv or tsv if the first lines of a file are a table, else None.

    Args:
      text: the beginning of the file, up to the end of a line.
      path: its path.
      data: `columns`, `separator` and `quoting`.
    """
    separator = _separator(text, path, data, "\t")
    quoting = "no" if separator == "\t" else _quoting(text, path, data, separator)
    dialect = Dialect(separator, quoting if data.quoting == "auto" else data.quoting)
    if not dialect.fits(text, path, len(data.columns)):
        return None
    return "tsv" if separator == "\t" else "csv"


def rows(path: Path, data: DataConfig, usual: str) -> RecordOrIssue:
    """Read a delimited file.

    Args:
      path: a text file.
      data: `columns` of a file without a header, `separator`, `quoting` and `encoding`.
      usual: the separator that the file's name stands for.
    """
    # Not read_text, which takes a lone \r for the end of a line.
    text, data, first = _without_declaration(path.read_bytes().decode(codec(data.encoding)), data)
    if drawn := re.match(DRAWN, text):
        line = text.count("\n", 0, drawn.end(1)) + first
        raise DataError(
            f"{path}:{line}: a line of dashes, as below the header of a Markdown table. Remove it "
            "and the pipes around the rows, or save the table as CSV."
        )
    dialect = _dialect(text, path, data, usual)
    separator, spaced = dialect.separator, dialect.spaced
    if data.separator is None and separator != usual:
        what = f"{NAMES[separator]}s separate the columns here, not {NAMES[usual]}s"
        fix = f"If that is wrong, set --config.data.separator={NAMES[usual]}"
        yield Issue(READ_AS, f"{path}:{first}", f"{what}. {fix}")
    if data.quoting == "auto" and dialect.quoting != ("no" if separator == "\t" else "yes"):
        how = {
            "yes": "double quotes enclose cells, as a CSV writer leaves them: these are removed",
            "no": "double quotes are text: they do not enclose cells",
            "escaped": 'quotes within cells are written \\": the backslashes are removed',
        }[dialect.quoting]
        other = "no" if separator == "\t" else "yes"
        fix = f"If that is wrong, set --config.data.quoting={other}"
        yield Issue(READ_AS, f"{path}:{first}", f"{how}. {fix}")
    if data.quoting == "auto" and dialect.quoting == "no" and separator == "\t":
        count, line = _enclosed(text)
        if count:
            cells = "cell begins and ends" if count == 1 else "cells begin and end"
            what = f"{count} {cells} with a double quote, which is text here; if quotes enclose"
            option = "--config.data.quoting=yes"
            yield Issue(READ_AS, f"{path}:{line + first - 1}", f"{what} cells, set {option}")
    if spaced and dialect.quoting != "no":
        what = f"a space follows each {NAMES.get(separator, separator)} of the first line"
        yield Issue(READ_AS, f"{path}:{first}", f"{what}: it is no part of the cells")
    records = ((line + first - 1, cells) for line, cells in dialect.records(text, path))
    yield from _rows(path, records, data, dialect)


def _without_declaration(text: str, data: DataConfig) -> tuple[str, DataConfig, int]:
    """Return a text without Excel's own first line, which names the separator."""
    if declared := re.match(r"sep=([^\w\s]|\t)\r?\n", text):
        data = dataclasses.replace(data, separator=data.separator or declared[1])
        return text[declared.end() :], data, 2
    return text, data, 1


def _dialect(text: str, path: Path, data: DataConfig, usual: str) -> Dialect:
    """Return the separator and the quoting that the configuration or the content gives."""
    separator = _separator(text, path, data, usual)
    quoting = _quoting(text, path, data, separator)
    return Dialect(separator, quoting, _is_spaced(text, separator))


def first_records(text: str, path: Path, data: DataConfig) -> list[list[str]]:
    """Return the first well-formed records of a file, with its header if it has one.

    Args:
      text: the content of the file.
      path: its path, for messages.
      data: `separator` and `quoting`, where they are known.

    Raises:
      DataError: if the separator is ambiguous.
    """
    usual = "," if data.format == "csv" else "\t"
    text, data, _ = _without_declaration(text, data)
    sample = list(itertools.islice(_dialect(text, path, data, usual).records(text, path), SAMPLE))
    return [cells for _, cells in sample[_leading(sample) :] if cells and isinstance(cells, list)]


def _separator(text: str, path: Path, data: DataConfig, usual: str) -> str:
    """Return the configured separator, or the one that gives all records as many columns.

    If none does, some records are malformed: then it is the usual one, unless exactly one other
    fits most records.

    Raises:
      DataError: if several do.
    """
    if data.separator is not None:
        return SEPARATORS.get(data.separator, data.separator)
    if len(data.columns) == 1:
        return usual
    width = len(data.columns)

    def dialects(separator: str, ways: Sequence[str]) -> list[Dialect]:
        return [Dialect(separator, w) for w in (ways if data.quoting == "auto" else [data.quoting])]

    def fits_all(separator: str, ways: Sequence[str]) -> bool:
        counts = (set(dialect.widths(text, path)) for dialect in dialects(separator, ways))
        return any(len(n) == 1 and max(n) > 1 and max(n) == (width or max(n)) for n in counts)

    def fits_most(separator: str) -> bool:
        return any(
            dialect.fits(text, path, width) for dialect in dialects(separator, ["yes", "no"])
        )

    if usual == "\t" and fits_all(
        usual, ["no", "yes", "escaped"]
    ):  # no text has a tab in every row
        return usual
    present = [separator for separator in NAMES if separator in text]
    matches = [separator for separator in present if fits_all(separator, ["yes", "escaped"])]
    # Quotes may be text, except where commas separate the columns.
    matches = matches or [mark for mark in present if mark != "," and fits_all(mark, ["no"])]
    if len(matches) > 1:
        named = [NAMES[separator] for separator in matches]
        raise DataError(
            f"{path}: {' or '.join(f'{name}s' for name in named)} may separate the columns: all of "
            f"the first rows have as many. Set --config.data.separator={' or ='.join(named)}."
        )
    if matches:
        return matches[0]
    header = text.lstrip("\r\n").partition("\n")[0]
    if usual in header if not width else fits_most(usual):
        return usual
    others = [other for other in NAMES if other != usual and other in header and fits_most(other)]
    return others[0] if len(others) == 1 else usual


def _quoting(text: str, path: Path, data: DataConfig, separator: str) -> str:
    """Return how cells are quoted; with other separators than tabs, quotes are the default."""
    if data.quoting != "auto":
        return data.quoting
    if separator == "\t":
        ways = ["yes"] + ["escaped"] * ('\\"' in text) if re.search(r'(^|\t)"', text, re.M) else []
        named = not data.columns
        return next((way for way in ways if _is_quoted(text, separator, way, named=named)), "no")
    others = ["escaped"] * ('\\"' in text) + ["no"] * (separator != ",")
    if others and '"' in text and not _consistent(text, Dialect(separator, "yes"), path):
        fitting = (way for way in others if _consistent(text, Dialect(separator, way), path))
        return next(fitting, "yes")
    return "yes"


def _is_spaced(text: str, separator: str) -> bool:
    """Return whether a space follows each separator of the first line."""
    cells = text.lstrip("\r\n").partition("\n")[0].split(separator)
    return len(cells) > 1 and all(cell[:1] == " " and cell.strip() for cell in cells[1:])


def _consistent(text: str, dialect: Dialect, path: Path) -> bool:
    """Return whether all records have the same number of columns."""
    try:
        cells = [cells for _, cells in dialect.records(text, path) if cells]
    except DataError:
        return False
    return len({len(row) if isinstance(row, list) else -1 for row in cells}) == 1


def _is_quoted(text: str, separator: str, quoting: str, *, named: bool) -> bool:
    """Return whether quotes enclose cells: each is fully quoted or not at all, and some need it.

    In files whose quotes are text, such as GLUE's, some occur within cells or unpaired.

    Args:
      text: the content of the file.
      separator: separates the columns.
      quoting: how quotes within quotes are written, "yes" or "escaped".
      named: whether the first line names the columns.
    """
    records = _cells(text, separator, quoting)
    if not records or len({len(cells) for cells in records[1:]} | {len(records[-1])}) > 1:
        return False
    width = len(records[-1])
    # R writes no name above the numbers of its rows.
    if len(records[0]) not in ((width, width - 1) if named else (width,)):
        return False
    if named and all(quoted for quoted, _ in records[0]):
        return True
    lines = [line.count(separator) for line in text.split("\n") if line.strip("\r")]
    special = ['\\"' if quoting == "escaped" else '""']
    if len(set(lines)) > 1:  # else a quote in one line may close one in another by chance
        special += [separator, "\n"]
    inside = [value for cells in records for quoted, value in cells if quoted]
    if any(mark in value for value in inside for mark in special):
        return True
    rows = records[1:] if named else records
    columns = list(zip(*rows, strict=True))
    texts = [
        [quoted for quoted, _ in column]
        for column in columns
        if not all(not value or is_number(value) for _, value in column)
    ]
    return len(rows) > 1 and len(texts) > 1 and all(map(all, texts))


def _cells(text: str, separator: str, quoting: str) -> list[list[tuple[bool, str]]] | None:
    """Return the cells of each record as (quoted, content); None if a quote is unpaired."""
    content = {"yes": r'[^"]*(?:""[^"]*)*', "escaped": r'[^"\\]*(?:\\.[^"\\]*)*'}[quoting]
    mark = re.escape(separator)
    cell = re.compile(rf'(?:"({content})"\r?|([^"{mark}\n]*))({mark}|\n|\Z)', re.DOTALL)
    records: list[list[tuple[bool, str]]] = [[]]
    place = 0
    while place < len(text):
        match = cell.match(text, place)
        if match is None:
            return None
        quoted = match[1] is not None
        records[-1].append((quoted, match[1] if quoted else match[2]))
        if match[3] == "\n":
            records.append([])
        place = match.end()
    return [cells for cells in records if cells and cells not in BLANK]


BLANK = ([(False, "")], [(False, "\r")])
"""The cells of an empty line."""


def _enclosed(text: str) -> tuple[int, int]:
    """Count the cells between tabs that double quotes enclose; return the line of the first too."""
    matches = list(re.finditer(r'(?:^|\t)"[^\t\n]*"(?=\t|\r?$)', text, re.MULTILINE))
    return len(matches), text.count("\n", 0, matches[0].end()) + 1 if matches else 0


def _quoted_records(lines: Iterator[str], dialect: Dialect, path: Path) -> Records:
    csv.field_size_limit(LARGEST_CELL)  # csv stores it for the process, not for a reader
    escaped = dialect.quoting == "escaped"
    reader = csv.reader(
        lines,
        strict=True,
        delimiter=dialect.separator,
        doublequote=not escaped,
        escapechar="\\" if escaped else None,
        skipinitialspace=dialect.spaced,
    )
    while True:
        begin = reader.line_num + 1  # a record of several lines is named by its first
        try:
            yield begin, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "new-line" not in str(error):  # a quote: the lines after it may be cells
                raise DataError(
                    f"{path}:{begin}: {error}: a cell begins with a double quote, but does not end "
                    'with one. Write quotes within quotes twice (""). If they are written \\", set '
                    "--config.data.quoting=escaped; if quotes are text, --config.data.quoting=no."
                ) from None
            yield begin, conll.LONE_RETURN


def _raw_records(lines: Iterator[str], separator: str) -> Records:
    """Split lines in GLUE's form, where a quote is an ordinary character."""
    for number, ended in enumerate(lines, start=1):
        line = ended.removesuffix("\n").removesuffix("\r")
        cells = line.split(separator) if line else []
        yield number, conll.LONE_RETURN if "\r" in line else cells


@dataclasses.dataclass(frozen=True)
class Header:
    """The names of the columns; "" for columns without a name, which are left out."""

    names: list[str]
    source: str = "the first line names"
    index: bool = False
    """Whether rows begin with a number that has no name, as R writes them."""

    def cells(self, cells: list[str]) -> list[str]:
        """Return the cells of a row, as many as names if the row is valid."""
        cells = cells[1:] if self.index else cells
        missing = self.names[len(cells) :]
        return cells if any(missing) else [*cells, *missing]


def _rows(path: Path, records: Records, data: DataConfig, dialect: Dialect) -> RecordOrIssue:
    sample = list(itertools.islice(records, SAMPLE))
    comments = _leading(sample)
    if any(cells for _, cells in sample[:comments]):
        what = "comments before the first row are left out"
        yield Issue(READ_AS, f"{path}:{sample[0][0]}", what)
    del sample[:comments]
    begin, first = sample[0] if sample else (1, list[str]())
    place = f"{path}:{begin}"
    once: dict[int, str] = {}
    if data.columns:
        header = Header(list(data.columns), "data.columns names")
        if first == header.names:
            del sample[0]
            what = "the first line names the columns as data.columns does; it is not a row"
            yield Issue(READ_AS, place, what)
        else:
            once = _only_in_first([cells for _, cells in sample], len(header.names))
    elif isinstance(first, str):
        raise DataError(f"{place}: {first}.")
    else:
        del sample[:1]
        header = _header(first, [cells for _, cells in sample])
    named = collections.Counter(name for name in header.names if name)
    if repeated := sorted(name for name, count in named.items() if count > 1):
        raise DataError(f"{place}: columns named twice: {shortened(repeated)}. Rename one of each.")
    if header.index:
        what = "rows begin with a number that the first line has no name for; it is left out"
        yield Issue(READ_AS, place, what)
    nameless = [column for column, name in enumerate(header.names) if not name]
    filled: list[str] = []
    blank: list[Record] = []
    for number, (begin, cells) in enumerate(itertools.chain(sample, records)):
        origin = f"{path}:{begin}"
        if not cells:
            # With one column, a blank line before the end is an empty text: later rows would shift.
            blank += [Record({name: ""}, origin) for name in header.names if len(header.names) == 1]
            continue
        yield from blank
        blank = []
        if isinstance(cells, str):
            yield DataError(f"{origin}: {cells}.")
        elif len(whole := header.cells(cells)) != len(header.names):
            yield DataError(f"{origin}: {_other_width(len(cells), header, dialect)}")
        else:
            if once and number:
                once = {column: cell for column, cell in once.items() if whole[column] != cell}
            filled += [origin] if any(whole[column].strip() for column in nameless) else []
            values = zip(header.names, whole, strict=True)
            yield Record({name: value for name, value in values if name}, origin)
    if once:
        column, cell = min(once.items())
        what = (
            f"{header.names[column]} is {shown(cell)} in this row alone: if it names the columns, "
            "remove it, or leave --config.data.columns out"
        )
        yield Issue(READ_AS, place, what)
    if nameless and not header.index:
        count = len(nameless)
        what = f"{count} {'column' if count == 1 else 'columns'} without a name left out"
        if filled and not _numbered(header, sample, nameless):
            what += f"; rows with something there: {len(filled)}, the first {filled[0]}"
        yield Issue(READ_AS, place, what)


def _only_in_first(sample: Sequence[Cells], width: int) -> dict[int, str]:
    """Return cells of the first row that may be names of columns: {column: cell}.

    The values of such a column recur, but its first cell does not, and is not a number.
    """
    whole = [cells for cells in sample if isinstance(cells, list) and len(cells) == width]
    if not whole or whole[0] is not sample[0]:
        return {}
    first, *rows = whole
    columns = [[cells[column] for cells in rows] for column in range(width)]
    return {
        column: first[column]
        for column, values in enumerate(columns)
        if 1 < 2 * len(set(values)) <= len(values)
        and first[column] not in values
        and not is_number(first[column])
    }


def _leading(sample: Sequence[tuple[int, Cells]]) -> int:
    """Count the records before the header that are blank, or comments unlike most records."""
    widths = collections.Counter(len(cells) for _, cells in sample if isinstance(cells, list))
    usual = max(widths, key=lambda width: widths[width], default=0)
    for number, (_, cells) in enumerate(sample):
        if cells and not (cells[0].startswith("#") and len(cells) != usual):
            return number
    return 0


def _header(first: list[str], sample: Sequence[Cells]) -> Header:
    """Read the names of columns; rows may have one more cell: a number first, or an empty last."""
    names = ["" if UNNAMED.fullmatch(name.strip()) else name.strip() for name in first]
    rows = [cells for cells in sample if cells]
    if rows and all(isinstance(cells, list) and len(cells) == len(names) + 1 for cells in rows):
        if not any(cells[-1] for cells in rows):
            return Header([*names, ""])
        if _counts([cells[0] for cells in rows]):
            return Header(names, index=True)
    return Header(names)


def _counts(cells: Sequence[str]) -> bool:
    """Return whether cells are consecutive numbers."""
    start = int(cells[0]) if cells[0].isdecimal() else 0
    return list(cells) == [str(start + number) for number in range(len(cells))]


def _numbered(header: Header, sample: Sequence[tuple[int, Cells]], nameless: list[int]) -> bool:
    """Return whether the columns without a name hold only an index."""
    rows = [header.cells(cells) for _, cells in sample if isinstance(cells, list) and cells]
    rows = [cells for cells in rows if len(cells) == len(header.names)]
    return all(_counts([cells[column] for cells in rows]) for column in nameless if rows)


def _other_width(width: int, header: Header, dialect: Dialect) -> str:
    names = header.names
    problem = f"{width} columns, but {header.source} {len(names)} ({', '.join(shortened(names))})."
    if dialect.quoting == "no":
        return (
            f"{problem} Quotes are text here; if they enclose cells, set --config.data.quoting=yes"
            ', or escaped if those within cells are written \\".'
        )
    if width > len(names):
        separators = f"{NAMES.get(dialect.separator, 'separator')}s"
        return f"{problem} A cell that holds {separators} must be in double quotes."
    return problem

"""The records of a data source, and the items that a task reads from them."""

import ast
import collections
import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from flaxbert.data.checks import MALFORMED, Issue, count_malformed, is_number
from flaxbert.errors import LONGEST_VALUE, DataError, shortened

T = TypeVar("T")
U = TypeVar("U")


ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d*)?|None|True|False"""
PRINTED = re.compile(rf"\s*(?:{ITEM})?(?:(?:\s*,\s*|\s+)(?:{ITEM}))*\s*,?\s*")
"""Matches the inside of a list as Python or NumPy (without commas) prints it."""


LIST = re.compile(
    r"\s*(\[.*\]|\{\s*['\"].*['\")]\s*\}|\(.*\)|[a-zA-Z.]+\(\s*([\[({].*)?\))\s*", re.DOTALL
)
"""Matches a printed list, set of texts, tuple, or call such as array([...])."""

CALL = re.compile(r"(?:np\.|numpy\.)?(?:array|str_|bool_|u?int\d+|float\d+)|set|frozenset")
"""Matches the functions that printed values of Python and NumPy call."""


def unprinted(value: Any) -> Any:
    """Return the list that a cell's text prints, such as ['a'] or array(['a']); else the value.

    Tuples and sets of texts become lists.
    """
    if not isinstance(value, str) or not LIST.fullmatch(value):
        return value
    text = value.strip()
    inside = text[1:-1]
    try:
        # NumPy prints no commas, and Python would join texts without them: 'a' 'b' is 'ab'.
        if text[0] in "[{" and PRINTED.fullmatch(inside):
            text = f"[{', '.join(re.findall(ITEM, inside))}]"
        read = parsed(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value
    return list(read) if isinstance(read, list | tuple) else value


def parsed(text: str) -> Any:
    """Parse a text that is JSON, or a value printed by Python or NumPy.

    Raises:
      ValueError, SyntaxError, RecursionError, MemoryError, TypeError: for anything else.
    """
    try:
        return json.loads(text)
    except ValueError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown escapes
            return ast.literal_eval(_Plain().visit(ast.parse(text.strip(), mode="eval")))


class _Plain(ast.NodeTransformer):
    """Turns array([...], dtype=...), np.str_('a') and sets into lists and values."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not CALL.fullmatch(ast.unparse(node.func)) or len(node.args) > 1:
            return node
        return self.visit(node.args[0]) if node.args else ast.List([], ast.Load())

    def visit_Set(self, node: ast.Set) -> ast.AST:
        return self.visit(ast.List(node.elts, ast.Load()))


def shown(value: Any) -> str:
    """Return a value for a message, shortened: after a missing quote it may be half a file."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


@dataclasses.dataclass(frozen=True)
class Record:
    """One record, and its place for messages, such as train.tsv:17."""

    values: dict[str, Any]
    origin: str
    lines: Sequence[int] = ()
    """The lines of the words, in a column file, whose records are sentences."""

    def place(self, word: int) -> str:
        """Return the place of a word: in a column file it has a line of its own."""
        if self.lines:
            return f"{self.origin.rpartition(':')[0]}:{self.lines[word]}"
        return self.origin

    def text(self, column: str) -> str:
        """Return the value of a column that must be text.

        Raises:
          DataError: for anything else, such as a null.
        """
        value = self.values.get(column)
        if not isinstance(value, str):
            raise DataError(f"{self.origin}: {column} is {shown(value)}; expected a text.")
        return value

    def slice(self, column: str | None) -> str | None:
        """Return the value of the `data.slices` column, if one is named.

        In a column with a value for each word (.conll), all values of a sentence must be equal.

        Raises:
          DataError: if they differ.
        """
        value = self.values.get(column) if column else None
        if isinstance(value, list):
            if any(item != value[0] for item in value):
                several = sorted({str(item) for item in value})
                raise DataError(f"{self.origin}: {column} has several values: {shown(several)}")
            value = value[0] if value else None
        return None if value is None else str(value)


MOST, MOST_LABELS, FEW = 0.5, 0.05, 3
"""Largest shares of lines or rows that `data.on_bad_row=skip` leaves out, in all and because of
unknown or missing labels; and a number that it leaves out whatever the share. One unknown label in
more rows than that is a class, however rare it is."""

MISSING = "a missing label"
"""The cause that rows without a label share."""


def refuse_systematic(errors: Sequence[DataError], total: int, what: str) -> None:
    """Refuse to skip systematic mistakes: that would change what the model learns.

    Args:
      errors: the errors of all malformed lines or rows.
      total: the number of lines or rows.
      what: "lines" or "rows".

    Raises:
      DataError: the first error, with the number of similar ones.
    """
    causes = collections.Counter(error.cause for error in errors if error.cause)
    label, count = max(
        ((cause, count) for cause, count in causes.items() if cause != MISSING),
        key=lambda pair: pair[1],
        default=("", 0),
    )
    if count > FEW:
        alike = [error for error in errors if error.cause == label]
        why = f" for one cause, {label}"
    elif causes.total() > max(FEW, MOST_LABELS * total):
        alike = [error for error in errors if error.cause]
        why = " for unknown or missing labels"
    elif len(errors) > max(FEW, MOST * total):
        alike, why = list(errors), ""
    else:
        return
    raise DataError(
        f"{alike[0]} {len(alike)} of {total} {what} are malformed{why}: too many to be single "
        "mistakes, which data.on_bad_row=skip is for."
    )


RecordOrIssue = Iterator[Record | DataError | Issue]
"""Yields of a reader: records, errors of malformed lines, and issues about how a file is read."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The records of a source, and the names behind integer labels where the source has them."""

    source: str
    rows: Sequence[Record]
    label_names: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    issues: tuple[Issue, ...] = ()
    """What the reader left out, and how it read the file if not as the name says."""
    commit: str | None = None
    """The commit of a hub data set."""

    @property
    def malformed(self) -> int:
        """The number of lines that the reader left out (`data.on_bad_row=skip`)."""
        return count_malformed(self.issues)

    def read(self, make: Callable[[Record], T], on_bad_row: str) -> "Reading[T]":
        """Make an item of each record; see `Reading.map`."""
        everything = Reading(self.source, self.rows, (), self.label_names, len(self.rows))
        return everything.map(make, on_bad_row)

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order of their first rows."""
        return list(dict.fromkeys(name for row in self.rows for name in row.values))

    def require(self, columns: Mapping[str, str], *, slices: str | None = None) -> None:
        """Check that columns exist; rows that lack one are for `make` of `read` to refuse.

        Args:
          columns: {column: the config key for its name; "" if the name is fixed}.
          slices: the column of data.slices, if any.

        Raises:
          DataError: with the absent column, the existing ones, and the key to set.
        """
        if not self.rows:
            raise DataError(f"{self.source}: holds no rows.")
        known = self.columns
        for column, key in {**columns, **({slices: "data.slices"} if slices else {})}.items():
            if column not in known:
                raise DataError(
                    f"{self.source}: no column {column!r}; its columns are {shortened(known)}. "
                    f"{self._advice(column, key, columns)}"
                )

    def _advice(self, column: str, key: str, columns: Mapping[str, str]) -> str:
        """Return how to fix a missing column."""
        known = self.columns
        if names := self._names_of_columns(columns):
            return (
                "The first line seems to hold data, not names; to name the columns: "
                f"--config.data.columns={','.join(names)}."
            )
        alike = [name for name in known if name.strip().casefold() == column.strip().casefold()]
        if alike and key:
            return f"Did you mean {alike[0]!r}? --config.{key}={alike[0]}"
        if known == ["text", "file"]:  # from readers/text.py
            return (
                "A .txt file is read as prose, for pre-training; a table is read with "
                "--config.data.format=tsv (or csv), words and tags with --config.data.format=conll."
            )
        rename = f"Name yours with --config.{key}=COLUMN" if key else "Rename yours"
        return (
            f"{rename} (a first line must name them; for a file without one: "
            f"--config.data.columns={','.join(columns)})."
        )

    def _names_of_columns(self, columns: Mapping[str, str]) -> list[str] | None:
        """Return names for a file without a header; None if its first line may be one.

        It is not a header if a name is among the values of its column, or a number above numbers.
        """
        known, needed = self.columns, list(columns)
        values = {name: [row.values.get(name) for row in self.rows] for name in known}
        if len(known) < len(needed) or not all(
            isinstance(value, str) for column in values.values() for value in column
        ):
            return None
        texts: dict[str, list[str]] = {name: list(map(str, values[name])) for name in known}
        labels = [
            name
            for name in known
            if name in texts[name] or all(map(is_number, [name, *texts[name]]))
        ]
        if not labels:
            return None
        label = min(labels, key=lambda name: (name not in texts[name], len(set(texts[name]))))
        wanted = [column for column, key in columns.items() if key != "options.label"]
        lengths = {name: sum(map(len, texts[name])) for name in known if name != label}
        longest = sorted(lengths, key=lambda name: lengths[name], reverse=True)[: len(wanted)]
        roles = dict(zip(sorted(longest, key=known.index), wanted, strict=False))
        if len(wanted) < len(needed):
            roles[label] = next(column for column in columns if column not in wanted)
        return [roles.get(name, f"column{number}") for number, name in enumerate(known, start=1)]


class NoValidRowsError(DataError):
    """A table whose records are all malformed; `issues` says what is wrong with each."""

    def __init__(self, message: str, issues: Sequence[Issue]):
        super().__init__(message)
        self.issues = issues


@dataclasses.dataclass(frozen=True)
class Reading(Sequence[T]):
    """The items that a task read from a table, in order, and the issues of other records.

    It is a sequence of its items.
    """

    source: str
    items: Sequence[T]
    issues: tuple[Issue, ...] = ()
    """What was left out or is doubtful; the table's own issues are not among them."""
    label_names: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    """The table's names behind integer labels: {column: names}."""
    total: int = 0
    """The number of records in the table."""
    errors: tuple[DataError, ...] = ()
    """The errors of the malformed records."""

    @property
    def malformed(self) -> int:
        """The number of records and answers that were left out (`data.on_bad_row=skip`)."""
        return count_malformed(self.issues)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def with_items(self, items: Sequence[U]) -> "Reading[U]":
        """Return other items, made of these, with the same issues."""
        return Reading(self.source, items, self.issues, self.label_names, self.total, self.errors)

    def with_issues(self, issues: Iterable[Issue]) -> "Reading[T]":
        """Return the same items with further issues."""
        return dataclasses.replace(self, issues=(*self.issues, *issues))

    def map(self, make: Callable[[T], U], on_bad_row: str) -> "Reading[U]":
        """Return what `make` returns for each item.

        Args:
          make: raises DataError for an item that is malformed.
          on_bad_row: "error" raises the first of these errors; "skip" leaves such items out and
            adds an issue for each.

        Raises:
          DataError: see `on_bad_row`; if too many are malformed.
          NoValidRowsError: if all are.
        """
        items: list[U] = []
        errors: list[DataError] = []
        for item in self.items:
            try:
                items.append(make(item))
            except DataError as error:
                if on_bad_row != "skip":
                    raise
                errors.append(error)
        refuse_systematic([*self.errors, *errors], self.total, "rows")
        group = self.source, "malformed rows skipped"
        skipped = (Issue(MALFORMED, "", str(error), group) for error in errors)
        issues = (*self.issues, *skipped)
        if not items:
            raise NoValidRowsError(f"{self.source}: no valid rows.", issues)
        return Reading(
            self.source, items, issues, self.label_names, self.total, (*self.errors, *errors)
        )

"""Sets of labels in the forms that tables have them: lists, texts with separators, flags."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from flaxbert.config import option
from flaxbert.data.checks import READ_AS, Issue
from flaxbert.data.table import Record, Table, shown, unprinted
from flaxbert.errors import DataError, shortened
from flaxbert.tasks import label_names as names
from flaxbert.tasks import texts


@dataclasses.dataclass
class LabelSetOptions(texts.TextOptions):
    """Columns of the text and of the labels."""

    label: str = option(
        "labels", "column of the labels: a list, or a text with a separator", column=True
    )
    separator: str = option(",", "between labels where the column is text", column=True)
    label_columns: tuple[str, ...] = option(
        (), "columns of 0 and 1, one a label, in place of the column of labels", column=True
    )

    @property
    def columns_of_labels(self) -> dict[str, str]:
        """The column of labels, or one for each."""
        if self.label_columns:
            return dict.fromkeys(self.label_columns, "options.label_columns")
        return super().columns_of_labels


BARE = re.compile(r"\s*[\[{](.*)[\]}]\s*", re.DOTALL)
"""A list whose elements are not quoted, as databases print it: [joy, love], {joy,love}."""

BROKEN = re.compile(
    r"[\[{].*(['\"]|\.\.\.).*[\]}]|(\w+\()?[\[({]+\s*['\"].*|\w+\([\[({].*", re.DOTALL
)
"""What a list, tuple, set or array looks like that is printed in part, or in another way."""


def reader(
    table: Table, options: LabelSetOptions, labels: Sequence[str] | None
) -> Callable[[Record], list[Any]]:
    """Choose how the labels of a row are read: from a column of lists, or from flags.

    Args:
      table: all rows, by which flags are told from indices.
      options: of the task.
      labels: names in the order of flags; empty if not known yet.

    Raises:
      DataError: for flags of other labels than these.
    """
    if options.label_columns:
        return lambda row: _named_flags(row, options.label_columns)
    width = 0 if options.label in table.label_names else _width_of_flags(table, options)
    if not width:
        _refuse_joined_flags(table, options)
        return lambda row: _no_flags(row, _values(row, options), options)
    place = f"{table.rows[0].origin}: {options.label}"
    if not labels:
        raise DataError(
            f"{place} is {shown(table.rows[0].values[options.label])}: {width} flags of 0 and 1, "
            "as in all rows. Name their labels in order: --config.options.labels=NAME,NAME,..."
        )
    if width != len(labels):
        raise DataError(
            f"{place} has {width} flags of 0 and 1, but there are {len(labels)} labels: "
            f"{shortened(labels)}. Name those of the flags: --config.options.labels."
        )
    what = f"is read as flags, one a label: {', '.join(shortened(labels))}"
    table.remark(Issue(READ_AS, table.source, f"{options.label} {what}"))
    return lambda row: [
        name for name, flag in zip(labels, _flags(_values(row, options)), strict=True) if flag
    ]


def _named_flags(row: Record, columns: Sequence[str]) -> list[str]:
    given = {column: names.flag(row.values.get(column)) for column in columns}
    for column, flag in given.items():
        if flag is None:
            raise DataError(
                f"{row.origin}: {column} is {shown(row.values.get(column))}; expected 0 or 1."
            )
    return [column for column, flag in given.items() if flag]


def _flags(values: Sequence[Any]) -> list[bool | None]:
    return [names.flag(value) for value in values]


def _width_of_flags(table: Table, options: LabelSetOptions) -> int:
    """How many flags each row has; 0 if what rows hold are no flags.

    [0, 1] may be the indices of two labels; [1, 0], [0, 0] and all that is longer are flags.

    Raises:
      DataError: where all rows are [0, 1], or as many, so that there is no telling.
    """
    rows = []
    for row in table.rows:
        try:
            rows.append(_values(row, options))
        except DataError:
            continue
    width = len(rows[0]) if rows else 0
    flags = [_flags(values) for values in rows]
    if width < 2 or any(len(each) != width or None in each for each in flags):
        return 0
    if any(each != [False, True] for each in flags):
        return width
    if len(rows) > 1:
        raise DataError(
            f"{table.rows[0].origin}: {options.label} is "
            f"{shown(table.rows[0].values.get(options.label))}, as in all rows: flags, or indices "
            "of both labels? List the labels that apply by name."
        )
    return 0


JOINED = re.compile(r"[01]{2,}|[01]([^\w\s]|\s+)[01](?:\1[01])*")
"""Flags in a text, with a separator between them or none."""


def _refuse_joined_flags(table: Table, options: LabelSetOptions) -> None:
    """Refuse flags with another separator than the labels', or without any.

    Raises:
      DataError: if all texts are such flags, as many in each.
    """
    cells = [row.values.get(options.label) for row in table.rows]
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    if any(cell is not None and not isinstance(cell, str) for cell in cells):
        return
    matches = [JOINED.fullmatch(text) for text in texts]
    marks = {match and match[1] for match in matches}
    if None in matches or len(marks) != 1 or len(set(map(len, texts))) != 1:
        return
    (mark,) = marks
    # Without a zero in front 10 and 11 may be numbers of labels.
    if mark == options.separator or (mark is None and all(text[0] == "1" for text in texts)):
        return
    fix = f"set --config.options.separator={mark!r}" if mark else "write commas between them"
    raise DataError(
        f"{table.rows[0].origin}: {options.label} is {shown(cells[0])}; all rows have as many "
        f"flags of 0 and 1. To read each as a label's, {fix}."
    )


def _values(row: Record, options: LabelSetOptions) -> list[Any]:
    """The labels of a row, as they stand there."""
    value = unprinted(row.values.get(options.label))
    if isinstance(value, str):
        if BROKEN.fullmatch(value.strip()):
            raise DataError(
                f"{row.origin}: {options.label} is {shown(value)}: a printed list that cannot be "
                f"read. Write the labels with {options.separator!r} between them."
            )
        bare = BARE.fullmatch(value)
        value = bare[1] if bare else value
        return [part.strip() for part in value.split(options.separator) if part.strip()]
    values = list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(names.as_int(v), str | int) for v in values):
        raise DataError(
            f"{row.origin}: {options.label} is {shown(value)}; expected a list of labels, or a "
            f"text with {options.separator!r} between them."
        )
    return values


def _no_flags(row: Record, values: Sequence[Any], options: LabelSetOptions) -> list[Any]:
    """Return labels that are no flags: these have numbers twice.

    Raises:
      DataError: for flags in a row, but not in all.
    """
    numbers = [name for name in map(str, map(names.as_int, values)) if name.isdecimal()]
    if any(isinstance(value, bool) for value in values) or len(set(numbers)) < len(numbers):
        raise DataError(
            f"{row.origin}: {options.label} is {shown(row.values.get(options.label))}, with a "
            "number twice or a boolean. Flags of 0 and 1 are read where all rows have one for each "
            "label; else list the labels that apply, by name or by index from 0."
        )
    return list(values)


def remark_separators(labels: set[str], options: LabelSetOptions, table: Table) -> None:
    """Report labels that seem to be several, with another separator between them."""
    for separator in ";|/":
        several = [label for label in labels if separator in label]
        parts = [part.strip() for label in several for part in label.split(separator)]
        if several and (len(set(parts)) < len(parts) or not labels.isdisjoint(parts)):
            what = (
                f"label {shown(min(several))} seems to be several: --config.options.separator="
                f"{separator!r} splits them"
            )
            table.remark(Issue("separator", table.source, what))

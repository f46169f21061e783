"""Sets of labels, written as lists, as texts with separators, or as flags."""

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from flaxbert.config import DataConfig, option
from flaxbert.data.checks import READ_AS, Issue
from flaxbert.data.table import Reading, Record, shown, unprinted
from flaxbert.errors import ConfigError, DataError, shortened
from flaxbert.tasks import label_names as names
from flaxbert.tasks.texts import TextExample, TextOptions


@dataclasses.dataclass
class LabelSetOptions(TextOptions):
    """Columns of the text and of the labels."""

    label: str = option(
        "labels", "column of the labels, a list or a text with a separator", column=True
    )
    separator: str = option(",", "separator between labels, if the column is text", column=True)
    label_columns: tuple[str, ...] = option(
        (), "columns of 0 and 1, one per label, instead of options.label", column=True
    )

    def check(self, data: DataConfig) -> None:
        """Check the options, including the separator."""
        super().check(data)
        if not self.separator:
            raise ConfigError(
                "options.separator='': expected the text between two labels, such as ','"
            )

    @property
    def columns_of_labels(self) -> dict[str, str]:
        """The column of labels, or the columns of flags."""
        if self.label_columns:
            return dict.fromkeys(self.label_columns, "options.label_columns")
        return super().columns_of_labels


BARE = re.compile(r"\s*[\[{](.*)[\]}]\s*", re.DOTALL)
"""Matches a list without quotes, as databases print it: [joy, love], {joy,love}."""

BROKEN = re.compile(
    r"[\[{].*(['\"]|\.\.\.).*[\]}]|(\w+\()?[\[({]+\s*['\"].*|\w+\([\[({].*", re.DOTALL
)
"""Matches a list, tuple, set or array that is printed in part, or in another way."""


@dataclasses.dataclass(frozen=True)
class LabelCell:
    """The labels of a record as its cell spells them; they may be flags.

    With `options.label_columns` they are already names.
    """

    value: Any
    """The cell, for messages."""
    labels: list[Any]


def read_cell(record: Record, options: LabelSetOptions) -> LabelCell:
    """Read the labels of a record.

    Raises:
      DataError: for a cell that is no list, and no text with separators; for other flags than 0
        and 1.
    """
    if options.label_columns:
        return LabelCell(None, _named_flags(record, options.label_columns))
    return LabelCell(record.values.get(options.label), _values(record, options))


def label_lists(
    examples: Reading[TextExample], options: LabelSetOptions, labels: Sequence[str], on_bad_row: str
) -> Reading[TextExample]:
    """Return the examples with the lists of their labels, as names or indices, in place of cells.

    Args:
      examples: all examples of a table, which show whether 0 and 1 are flags or indices.
      options: the options of the task.
      labels: names in the order of flags; empty if not known yet.
      on_bad_row: see `Reading.map`.

    Raises:
      DataError: for flags of other labels than these.
    """
    if options.label_columns:
        return examples.map(lambda example: example.with_label(example.label.labels), on_bad_row)
    width = 0 if options.label in examples.label_names else _width_of_flags(examples, options)
    if not width:
        _refuse_joined_flags(examples, options)
        return examples.map(
            lambda example: example.with_label(_no_flags(example, options)), on_bad_row
        )
    place, cell = f"{examples[0].origin}: {options.label}", examples[0].label.value
    if not labels:
        raise DataError(
            f"{place} is {shown(cell)}: {width} flags of 0 and 1, "
            "as in all rows. Name their labels in order: --config.options.labels=NAME,NAME,..."
        )
    if width != len(labels):
        raise DataError(
            f"{place} has {width} flags of 0 and 1, but there are {len(labels)} labels: "
            f"{shortened(labels)}. Name those of the flags: --config.options.labels."
        )
    what = f"is read as flags, one per label: {', '.join(shortened(labels))}"
    note = Issue(READ_AS, examples.source, f"{options.label} {what}")

    def flagged(example: TextExample) -> TextExample:
        pairs = zip(labels, _flags(example.label.labels), strict=True)
        return example.with_label([name for name, flag in pairs if flag])

    return examples.map(flagged, on_bad_row).with_issues([note])


def _named_flags(record: Record, columns: Sequence[str]) -> list[str]:
    given = {column: names.flag(record.values.get(column)) for column in columns}
    for column, flag in given.items():
        if flag is None:
            raise DataError(
                f"{record.origin}: {column} is {shown(record.values.get(column))}; expected 0 or 1."
            )
    return [column for column, flag in given.items() if flag]


def _flags(values: Sequence[Any]) -> list[bool | None]:
    return [names.flag(value) for value in values]


def _width_of_flags(examples: Reading[TextExample], options: LabelSetOptions) -> int:
    """Return how many flags each record has; 0 if its labels are no flags.

    [0, 1] may be the indices of two labels; [1, 0], [0, 0] and all that is longer are flags.

    Raises:
      DataError: if all records are [0, 1], which may be either.
    """
    flags = [_flags(example.label.labels) for example in examples]
    width = len(flags[0])
    if width < 2 or any(len(row) != width or None in row for row in flags):
        return 0
    if any(row != [False, True] for row in flags):
        return width
    if len(flags) > 1:
        raise DataError(
            f"{examples[0].origin}: {options.label} is {shown(examples[0].label.value)}, as in all "
            "rows: flags, or indices of both labels? List the labels that apply by name."
        )
    return 0


JOINED = re.compile(r"[01]{2,}|[01]([^\w\s]|\s+)[01](?:\1[01])*")
"""Matches flags in a text, with or without a separator."""


def _refuse_joined_flags(examples: Reading[TextExample], options: LabelSetOptions) -> None:
    """Refuse flags with another separator than that of the labels, or without one.

    Raises:
      DataError: if all texts are such flags, and equally many.
    """
    cells = [example.label.value for example in examples]
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
        f"{examples[0].origin}: {options.label} is {shown(cells[0])}; all rows have as many "
        f"flags of 0 and 1. To read each as a label's, {fix}."
    )


def _values(record: Record, options: LabelSetOptions) -> list[Any]:
    """Return the labels of a record, as they stand there."""
    value = unprinted(record.values.get(options.label))
    if isinstance(value, str):
        if BROKEN.fullmatch(value.strip()):
            raise DataError(
                f"{record.origin}: {options.label} is {shown(value)}: a printed list that cannot "
                f"be read. Write the labels with {options.separator!r} between them."
            )
        bare = BARE.fullmatch(value)
        value = bare[1] if bare else value
        return [part.strip() for part in value.split(options.separator) if part.strip()]
    values = list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(names.as_int(v), str | int) for v in values):
        raise DataError(
            f"{record.origin}: {options.label} is {shown(value)}; expected a list of labels, or a "
            f"text with {options.separator!r} between them."
        )
    return values


def _no_flags(example: TextExample, options: LabelSetOptions) -> list[Any]:
    """Return labels that are no flags.

    Raises:
      DataError: for flags in a record, but not in all: they have a number twice, or a boolean.
    """
    labels = example.label.labels
    numbers = [name for name in map(str, map(names.as_int, labels)) if name.isdecimal()]
    if any(isinstance(label, bool) for label in labels) or len(set(numbers)) < len(numbers):
        raise DataError(
            f"{example.origin}: {options.label} is {shown(example.label.value)}, with a "
            "number twice or a boolean. Flags of 0 and 1 are read where all rows have one for each "
            "label; else list the labels that apply, by name or by index from 0."
        )
    return list(labels)


def check_separators(
    labels: Collection[str], options: LabelSetOptions, source: str
) -> Iterator[Issue]:
    """Report labels that seem to be several, with another separator between them."""
    for separator in ";|/":
        several = [label for label in labels if separator in label]
        parts = [part.strip() for label in several for part in label.split(separator)]
        if several and (len(set(parts)) < len(parts) or not set(labels).isdisjoint(parts)):
            what = (
                f"label {shown(min(several))} seems to be several: --config.options.separator="
                f"{separator!r} splits them"
            )
            yield Issue("separator", source, what)

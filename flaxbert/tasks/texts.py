"""Texts and pairs of texts: their columns, examples, and texts longer than the model."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from flaxbert.config import DataConfig, option
from flaxbert.data import windows
from flaxbert.data.checks import Example
from flaxbert.data.encoding import Encoded, encode, encode_head_and_tail
from flaxbert.data.features import Features
from flaxbert.data.table import Reading, Record, Table, shown, unprinted
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks.base import TaskOptions, refuse_too_long

LONG = ("head", "head_tail", "windows")

SUM_ERROR = 1e-3
"""Largest error of the sum of a teacher's probabilities, which may be rounded."""


@dataclasses.dataclass
class TextOptions(TaskOptions):
    """Columns, and the treatment of long texts."""

    text: str = option("text", "column of the text", column=True)
    pair: str | None = option(None, "column of the second text, for sentence pairs", column=True)
    label: str = option("label", "column of the label", column=True)
    long_texts: str = option(
        "head",
        "texts over max_length: head keeps the start; head_tail (single texts) keeps a quarter of "
        "the start and three of the end; windows averages the logits of overlapping windows",
    )

    @property
    def columns_of_labels(self) -> dict[str, str]:
        """Columns that labels are read from: {column: the key that names it}."""
        return {self.label: "options.label"}

    def check(self, data: DataConfig) -> None:
        """Check the options, as far as this is possible without the data.

        Raises:
          ConfigError: naming the key and the valid values.
        """
        if self.long_texts not in LONG:
            raise ConfigError(
                f"options.long_texts={self.long_texts!r}: expected one of {', '.join(LONG)}"
            )
        if self.long_texts == "head_tail" and self.pair is not None:
            raise ConfigError(
                "options.long_texts=head_tail is for single texts; take head or windows"
            )
        if self.long_texts == "windows":
            windows.check(data.max_length, data.overlap)


@dataclasses.dataclass(frozen=True)
class TextExample(Example):
    """One text or pair; the task decides what `label` holds. It is None if unlabeled."""

    text: str
    pair: str | None
    label: Any
    slice: str | None
    origin: str
    weight: float | None = None
    """Its weight in the loss (`data.weight`)."""
    teacher: tuple[float, ...] | None = None
    """Probabilities of the labels that are learned in place of the label (`data.teacher`)."""

    @property
    def supervision(self) -> Hashable:
        """The weight and the teacher's probabilities; None if there are neither."""
        plain = self.weight is None and self.teacher is None
        return None if plain else (self.weight, self.teacher)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, or both texts."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    @property
    def target(self) -> Hashable:
        """The label, as the task resolves it: an index, flags or a number."""
        label: Hashable = self.label
        return label

    @property
    def labels(self) -> tuple[int, ...]:
        """The indices of the labels."""
        if isinstance(self.label, tuple):
            return tuple(number for number, flag in enumerate(self.label) if flag)
        return (self.label,) if isinstance(self.label, int) else ()

    def with_label(self, label: Any) -> "TextExample":
        """Return the example with another label."""
        return dataclasses.replace(self, label=label)

    def record(self) -> dict[str, str]:
        """Return the entries that a prediction for this example begins with."""
        return {"text": self.text, **({} if self.pair is None else {"pair": self.pair})}


def require(table: Table, options: TextOptions, data: DataConfig, *, labeled: bool) -> None:
    """Check that all columns exist.

    Raises:
      DataError: with the absent column, and the key to set.
    """
    columns = {options.text: "options.text"}
    if options.pair is not None:
        columns[options.pair] = "options.pair"
    if labeled:
        columns |= options.columns_of_labels
    table.require(columns, slices=data.slices if labeled else None)


def read(
    table: Table, options: TextOptions, data: DataConfig, label: Callable[[Record], Any] | None
) -> Reading[TextExample]:
    """Read texts, and with `label` the label of each record; None leaves labels out.

    Raises:
      DataError: with file and line, and how to fix it.
    """
    require(table, options, data, labeled=label is not None)
    # Only training needs these columns, so other tables may lack them.
    known = table.columns if label is not None and (data.weight or data.teacher) else ()
    weight = data.weight if data.weight in known else None
    teacher = data.teacher if data.teacher in known else None

    def example(row: Record) -> TextExample:
        return TextExample(
            text=row.text(options.text),
            pair=None if options.pair is None else row.text(options.pair),
            label=None if label is None else label(row),
            slice=None if label is None else row.slice(data.slices),
            origin=row.origin,
            weight=None if weight is None else _weight(row, weight),
            teacher=None if teacher is None else _probabilities(row, teacher),
        )

    return table.read(example, data.on_bad_row)


def _weight(row: Record, column: str) -> float:
    """Return the weight of a record.

    Raises:
      DataError: if it is no number from 0.
    """
    value = as_number(row.values.get(column))
    if not 0 <= value < math.inf:
        raise DataError(
            f"{row.origin}: {column} is {shown(row.values.get(column))}; expected a number from 0."
        )
    return value


def _probabilities(row: Record, column: str) -> tuple[float, ...]:
    """Return the probabilities of the labels of a record.

    Raises:
      DataError: if they are no list of numbers from 0 whose sum is 1.
    """
    given = unprinted(row.values.get(column))
    values = [as_number(value) for value in given] if isinstance(given, list | tuple) else []
    if not values or not min(values) >= 0 or not abs(sum(values) - 1) <= SUM_ERROR:
        raise DataError(
            f"{row.origin}: {column} is {shown(row.values.get(column))}; expected a list of "
            "probabilities whose sum is 1, one for each label."
        )
    return tuple(values)


def as_number(value: Any) -> float:
    """Return a value of a record as a number; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _per_sequence(examples: Sequence[TextExample], index: np.ndarray) -> dict[str, Any]:
    """Return the label of each sequence, and its weight and teacher where there are any."""
    values: dict[str, list[Any]] = {"label": [example.label for example in examples]}
    if examples and examples[0].weight is not None:
        values["example_weight"] = [example.weight for example in examples]
    if examples and examples[0].teacher is not None:
        values["teacher"] = [example.teacher for example in examples]
    return {name: [column[i] for i in index.tolist()] for name, column in values.items()}


def featurize(
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    options: TextOptions,
    data: DataConfig,
    *,
    labeled: bool,
) -> Features:
    """Tokenize [CLS] text [SEP] or [CLS] text [SEP] pair [SEP]; `label` has one per sequence."""
    dropped: dict[int, str] = {}
    if options.long_texts == "windows" and examples and examples[0].pair is not None:
        firsts = [example.text for example in examples]
        lengths = {"max_length": data.max_length, "overlap": data.overlap}
        too_long = windows.too_long(firsts, "the first text", tokenizer, **lengths)
        dropped = refuse_too_long(examples, too_long, data.on_bad_row)
        examples = [example for i, example in enumerate(examples) if i not in dropped]
    tokenize = {"head": _cut, "head_tail": _head_and_tail, "windows": _windows}
    encoded = tokenize[options.long_texts](examples, tokenizer, data)
    index = encoded.example_index
    return Features.build(
        encoded.per_token,
        lengths=encoded.lengths,
        example_index=index,
        feature_index=index,
        per_sequence=_per_sequence(examples, index) if labeled else {},
        truncated=encoded.truncated,
        dropped=dropped,
    )


def _texts(examples: Sequence[TextExample]) -> tuple[list[str], list[str] | None]:
    paired = bool(examples) and examples[0].pair is not None
    return [e.text for e in examples], [e.pair or "" for e in examples] if paired else None


def _cut(examples: Sequence[TextExample], tokenizer: Tokenizer, data: DataConfig) -> Encoded:
    # Of a pair, the longer text is cut first.
    return encode(tokenizer, *_texts(examples), max_length=data.max_length)


def _head_and_tail(
    examples: Sequence[TextExample], tokenizer: Tokenizer, data: DataConfig
) -> Encoded:
    return encode_head_and_tail(tokenizer, _texts(examples)[0], data.max_length)


def _windows(examples: Sequence[TextExample], tokenizer: Tokenizer, data: DataConfig) -> Encoded:
    texts, pairs = _texts(examples)
    return encode(
        tokenizer,
        texts,
        pairs,
        truncation="only_first" if pairs is None else "only_second",
        max_length=data.max_length,
        overlap=data.overlap,
    )

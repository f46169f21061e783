"""Label names: where they come from, and how values of records are read as labels."""

import functools
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flaxbert.data.checks import is_number
from flaxbert.data.table import MISSING, Table, shown, unprinted
from flaxbert.errors import ConfigError, DataError, shortened

log = logging.getLogger("flaxbert")


class Labels(tuple[str, ...]):
    """Label names in order, with a fast lookup by name: every record needs it."""

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self)}

    @functools.cached_property
    def numbered(self) -> bool:
        """Whether some are numbers themselves, such as 2 or 1.5."""
        return any(map(is_number, self))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def index(self, name: Any, *bounds: Any) -> int:
        """Return the place of a name, as `tuple.index` does."""
        place = None if bounds else self._places.get(name)
        return super().index(name, *bounds) if place is None else place


def resolve(
    given: Sequence[str],
    names: Sequence[str] | None,
    seen: Iterable[str] | None,
    hf_config: Mapping[str, Any],
) -> Labels:
    """Return label names in order: the options', the data set's, the checkpoint's or those seen.

    A checkpoint's trained output layer has an order. Unless the options give another, that order is
    used if its names include all others.

    Args:
      given: the names of the options; empty if not set.
      names: the data set's names behind its integers, if it has them.
      seen: the labels of the training data; None in evaluation and prediction.
      hf_config: the checkpoint's config.json.

    Raises:
      ConfigError: for duplicate names, fewer than two, or other names than the checkpoint's.
    """
    written, stored = _checkpoint_names(hf_config), checkpoint_labels(hf_config)
    if given:
        labels = tuple(given)
    elif seen is None:
        labels = written  # also LABEL_0, LABEL_1, ...: a model may be trained on such names
    elif names is not None:
        labels = tuple(names)
    else:
        distinct = set(seen)
        digits = all(_number(name) is not None for name in distinct)
        labels = tuple(sorted(distinct, key=int if digits else None))
    if not given and set(labels) <= set(stored):
        labels = stored
    if len(labels) < 2:
        raise ConfigError(
            f"two labels or more are needed; there are {list(labels)}. Give them with "
            "--config.options.labels, or training data that has them."
        )
    if len(set(labels)) != len(labels):
        raise ConfigError(f"options.labels={labels!r}: a name occurs twice")
    if stored and labels != stored:
        fix = "Leave --config.options.labels out to take these; in training, " if given else ""
        raise ConfigError(
            f"labels {list(labels)}, but the checkpoint's output layer has {list(stored)}, in this "
            f"order. {fix}--config.model.reinit_head=true starts a new output layer."
        )
    return Labels(labels)


def _checkpoint_names(hf_config: Mapping[str, Any]) -> tuple[str, ...]:
    names = hf_config.get("id2label") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def checkpoint_labels(hf_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a checkpoint's label names; () for the default names LABEL_0, LABEL_1, ..."""
    labels = _checkpoint_names(hf_config)
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(labels)) else labels


WHOLE = re.compile(r"-?\d{1,15}\.0+")


def as_int(value: Any) -> Any:
    """Return 1.0 as 1, other values unchanged: pandas turns integers with a null into floats."""
    if isinstance(value, str) and WHOLE.fullmatch(value):
        return value.partition(".")[0]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _element(value: Any) -> Any:
    """Return the only element of a (printed) list of one; other values unchanged."""
    value = unprinted(value)
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def single(value: Any, labels: Sequence[str] = ()) -> Any:
    """Return a label: the only element of a list of one; 1.0 as 1 unless "1.0" is in `labels`."""
    value = _element(value)
    reduced = as_int(value)
    return str(value) if reduced is not value and str(value) in labels else reduced


def _number(name: str) -> int | None:
    """Return the integer that a name writes; None for other names, or hundreds of digits."""
    return int(name) if name.isdecimal() and len(name) < 100 else None


def to_index(value: Any, labels: Sequence[str], names: Sequence[str] | None, origin: str) -> int:
    """Return the index of a label, which is a name or an integer, in `labels`.

    An integer is an index into `names`, the data set's, if it has any: their order may differ.
    Otherwise it is an index into the labels, unless these are numbers themselves.

    Raises:
      DataError: for any other value.
    """
    labels = labels if isinstance(labels, Labels) else Labels(labels)
    # Integers of a data set with names stand for these, whatever the labels are.
    value = single(value, () if names is not None and not isinstance(value, str) else labels)
    name = str(value) if isinstance(value, str | int) else ""
    number = _number(name)
    if isinstance(value, int) and number is not None and names is not None and number < len(names):
        name, number = names[number], None
    if name in labels:
        return labels.index(name)
    if number is not None and not labels.numbered and number < len(labels):
        return number
    cause = f"label {shown(value)}"
    if name == "-1":
        advice = "Test sets are published with -1 for labels that are withheld: take another split."
    elif isinstance(value, list | tuple | dict):
        advice = "For several labels in a row: --config.task=multi_label."
    elif value is None or value == "" or value != value:
        advice, cause = "The label is missing: fill it in, or remove the row.", MISSING
    else:
        advice = "Fix the row, or list all labels with --config.options.labels."
        if number is None and is_number(value):
            advice += " Numbers to predict: --config.task=regression."
    raise DataError(
        f"{origin}: label {shown(value)} is none of {shortened(labels)}. {advice}",
        cause=cause,
    )


def refuse_counted_from_one(
    values: Iterable[Any], labels: Sequence[str], names: Sequence[str] | None, source: str
) -> None:
    """Refuse integer labels that are counted from 1 where their names are counted from 0.

    Raises:
      DataError: for such labels.
    """
    if names is not None:
        integers = {value for value in map(single, values) if type(value) is int}
        refuse_from_one(integers, names, source)
    elif written := _written_integers(values, labels):
        refuse_from_one(written, labels, source)


def log_integer_labels(
    values: Iterable[Any], labels: Sequence[str], names: Sequence[str] | None, source: str
) -> None:
    """Log what integers are read as, where neither the labels nor the data set say so."""
    if names is None and _written_integers(values, labels):
        meaning = ", ".join(f"{i} = {label}" for i, label in enumerate(shortened(labels)))
        log.info(f"{source}: integer labels are read as {meaning}")


def _written_integers(values: Iterable[Any], labels: Sequence[str]) -> set[int]:
    """Return the integers among labels; none if the names are numbers themselves."""
    written = {n for value in values if (n := _number(str(single(value)))) is not None}
    return set() if any(map(is_number, labels)) else written


def refuse_from_one(numbers: Collection[int], names: Sequence[str], source: str) -> None:
    """Refuse integers that are counted from 1 where `names` are counted from 0.

    Raises:
      DataError: if the number of names is among them, and 0 is not.
    """
    count = len(names)
    if len(numbers) > 1 and min(numbers) >= 1 and max(numbers) == count:
        meaning = ", ".join(f"{i} = {name}" for i, name in enumerate(shortened(names)))
        raise DataError(
            f"{source}: labels are counted from 1 (1 to {count}), but integers stand for "
            f"{count} names counted from 0 ({meaning}). Write the names in place of the integers, "
            "or subtract 1."
        )


def flag_columns(table: Table) -> list[str]:
    """Return the columns that hold only 0 and 1, if there are several: each may be a label."""
    columns = [
        name
        for name in table.columns
        if {flag(row.values.get(name)) for row in table.rows} == {False, True}
    ]
    return columns if len(columns) > 1 else []


def flag(value: Any) -> bool | None:
    """Return the value of a flag such as 1, 0.0, "1" or "True"; None for other values."""
    return {"0": False, "false": False, "1": True, "true": True}.get(str(as_int(value)).casefold())


def refuse_flag_columns(table: Table, label: str, task: str = "") -> None:
    """Refuse a table that lacks the column of labels, but has columns of flags.

    Raises:
      DataError: with the options to set: `task`, if given, and the columns.
    """
    if label not in table.columns and (flags := flag_columns(table)):
        raise DataError(
            f"{table.source}: no column {label!r}, but {len(flags)} columns hold 0 and 1 alone. If "
            f"each is a label: {task}--config.options.label_columns={','.join(shortened(flags))}."
        )


def hf_label_maps(labels: Sequence[str]) -> dict[str, Any]:
    """Return label maps for config.json, as the pipelines of transformers read them."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }

"""Label names: where they come from, and how a row's value is read as one of them."""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flaxbert.data.table import shown
from flaxbert.errors import ConfigError, DataError

log = logging.getLogger("flaxbert")


class Labels(tuple[str, ...]):
    """Label names in order, found by name at once: they are asked for in every row."""

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self)}

    @functools.cached_property
    def numbered(self) -> bool:
        """Whether some are numbers themselves."""
        return any(name.isdecimal() for name in self)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def index(self, name: Any, *bounds: Any) -> int:
        """Return the place of a name, as `tuple.index` does."""
        place = None if bounds else self._places.get(name)
        return super().index(name, *bounds) if place is None else place


def choose(
    given: Sequence[str],
    names: Sequence[str] | None,
    seen: Iterable[str] | None,
    hf_config: Mapping[str, Any],
) -> Labels:
    """Label names in order: from the options, the data set, the checkpoint, or the training rows.

    A checkpoint's trained output layer has an order. Unless the options say otherwise it is taken
    where its names cover the others.

    Args:
      given: from the options; empty if not set.
      names: of a data set that knows the names behind its integers.
      seen: labels of the training rows; None in evaluation and prediction.
      hf_config: the checkpoint's config.json.

    Raises:
      ConfigError: for a name that occurs twice, fewer than two, or others than the checkpoint's.
    """
    own = _checkpoint_names(hf_config)
    if given:
        labels = tuple(given)
    elif seen is None:
        labels = own
    elif names is not None:
        labels = tuple(names)
    else:
        found = set(seen)
        digits = all(_number(name) is not None for name in found)
        labels = tuple(sorted(found, key=int if digits else None))
    if not given and set(labels) <= set(own):
        labels = own
    if len(labels) < 2:
        raise ConfigError(
            f"two labels or more are needed; found {list(labels)}. Give them with "
            "--config.options.labels, or training data that has them."
        )
    if len(set(labels)) != len(labels):
        raise ConfigError(f"options.labels={labels!r}: a name occurs twice")
    if own and labels != own:
        raise ConfigError(
            f"labels {list(labels)}, but the checkpoint's output layer has {list(own)}, in this "
            "order. Leave --config.options.labels out to take these; in training, "
            "--config.model.fresh_head=true starts a new output layer."
        )
    return Labels(labels)


def _checkpoint_names(hf_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Label names that somebody gave; not transformers' placeholders LABEL_0, LABEL_1, ..."""
    names = hf_config.get("id2label") or {}
    ordered = tuple(str(names[key]) for key in sorted(names, key=int))
    return () if ordered == tuple(f"LABEL_{i}" for i in range(len(ordered))) else ordered


def whole(value: Any) -> Any:
    """1.0 as 1, anything else as it is: a column of integers with a null holds floats in pandas."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(name: str) -> int | None:
    """The number that a name writes; one of hundreds of digits is a name."""
    return int(name) if name.isdecimal() and len(name) < 100 else None


def index(value: Any, labels: Sequence[str], names: Sequence[str] | None, origin: str) -> int:
    """Index of a label among `labels`: a name or an integer.

    An integer is an index into `names`, the data set's own, if it has them (their order need not
    be ours); else into the labels, unless these are numbers themselves.

    Raises:
      DataError: for anything else.
    """
    labels = labels if isinstance(labels, Labels) else Labels(labels)
    value = whole(value)
    name = str(value) if isinstance(value, str | int) else ""
    number = _number(name)
    if isinstance(value, int) and number is not None and names is not None and number < len(names):
        name, number = names[number], None
    if name in labels:
        return labels.index(name)
    if number is not None and not labels.numbered and number < len(labels):
        return number
    raise DataError(
        f"{origin}: label {shown(value)} is none of {list(labels)}. Mend the row, or list all "
        "labels with --config.options.labels. (Numbers to predict: --config.task=regression; "
        "several labels a row: multi_label.)"
    )


def tell_integers(
    values: Iterable[Any], labels: Sequence[str], names: Sequence[str] | None, source: str
) -> None:
    """Log what integers are read as, where neither the labels nor the data set say so."""
    numbered = any(str(whole(value)).isdecimal() for value in values)
    if numbered and names is None and not any(label.isdecimal() for label in labels):
        meaning = ", ".join(f"{i} = {label}" for i, label in enumerate(labels))
        log.info(f"{source}: integer labels are read as {meaning}")


def maps(labels: Sequence[str]) -> dict[str, Any]:
    """Label maps of config.json, as transformers' pipelines read them."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }

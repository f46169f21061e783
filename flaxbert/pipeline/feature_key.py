"""The key of features in the cache: a hash of everything that they depend on."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flaxbert.data import tokenization
from flaxbert.data.feature_cache import FORMAT
from flaxbert.data.tokenization import Tokenizer
from flaxbert.tasks.base import Task
from flaxbert.tasks.corpora import StoredTexts

PACKAGE = Path(__file__).parents[1]

OTHER_KEYS = (
    *("train", "eval", "predict", "format", "columns", "separator", "quoting", "encoding"),
    *("slices", "threshold_split", "packing", "row_length", "feature_cache"),
)
"""Keys of the data section that decide which examples there are, or what is done with features."""

LOSS_KEYS = ("class_weights", "balanced_class_weights", "focal_gamma", "label_smoothing")
"""Options and fields of tasks that decide about the loss alone."""

CHUNK = 1000
"""Examples that are hashed at a time."""


def feature_key(
    task: Task, examples: Sequence[Any], tokenizer: Tokenizer, *, labeled: bool
) -> str | None:
    """Return the SHA-256 of what `task.featurize` depends on, in hexadecimal.

    It covers the content of the examples, the task with its options and labels, the tokenizer, and
    the code. None if an example or an option has a value that is none of JSON's types.
    """
    names = [field.name for field in dataclasses.fields(task) if field.name not in LOSS_KEYS]
    settings = {name: getattr(task, name) for name in names}
    data = dataclasses.asdict(task.data)
    settings["data"] = {key: value for key, value in data.items() if key not in OTHER_KEYS}
    if dataclasses.is_dataclass(task.options) and not isinstance(task.options, type):
        options = dataclasses.asdict(task.options)
        settings["options"] = {key: value for key, value in options.items() if key not in LOSS_KEYS}
    kinds = [kind for kind in type(task).__mro__ if kind is not object]
    digest = hashlib.sha256()
    try:
        digest.update(
            json.dumps(
                {
                    "format": FORMAT,
                    "code": [_package_code(), *map(_code, kinds)],
                    "libraries": list(map(importlib.metadata.version, ("tokenizers", "numpy"))),
                    "task": f"{type(task).__module__}.{type(task).__qualname__}",
                    "settings": settings,
                    "tokenizer": tokenization.fingerprint(tokenizer),
                    "labeled": labeled,
                },
                sort_keys=True,
            ).encode()
        )
        for first in range(0, len(examples), CHUNK):
            values = map(_values, examples[first : first + CHUNK])
            digest.update(json.dumps(list(values), default=_digest).encode())
    except (TypeError, OSError):
        return None
    return digest.hexdigest()


def _values(example: Any) -> Any:
    kind: Any = type(example)
    return _getter(kind)(example)


def _digest(value: Any) -> str:
    """Return the hash of texts that are read from disk whenever they are needed.

    Raises:
      TypeError: for any other value that is none of JSON's types.
    """
    if isinstance(value, StoredTexts):
        return value.digest
    raise TypeError(f"no exact text of {type(value)}")


@functools.cache
def _getter(kind: Any) -> Callable[[Any], Any]:
    """Return a function of an example of a class that returns the values of its fields."""
    return operator.attrgetter(*(field.name for field in dataclasses.fields(kind)))


@functools.cache
def _package_code() -> str:
    """Return a hash of the library's code that makes features."""
    files = [*sorted((PACKAGE / "data").glob("*.py")), *sorted((PACKAGE / "tasks").glob("*.py"))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


@functools.cache
def _code(kind: type) -> str:
    """Return a hash of the file that defines a class: a task may be a program's own."""
    return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()

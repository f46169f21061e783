"""Features: the units that a step trains on, stored in flat arrays of tokenized sequences.

M sequences belong to N features, and these to examples. All arrays are numpy arrays, so features
can be saved and memory-mapped.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

BLOCK = 2**20
"""Values that are hashed at a time, which bounds the memory."""


class Note(NamedTuple):
    """A line for the log about the features of a data set."""

    level: int
    """One of logging's."""
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """N features of one or more tokenized sequences each, M sequences in all.

    Most features are one sequence: a text, a pair, a window of a long document. The choices of a
    question, or the windows whose logits are averaged, are one feature of several sequences: they
    share a step and a loss. The names inside the dicts reach the model and the task's loss
    unchanged, as fields of `Batch` or entries of its `extra`.
    """

    lengths: np.ndarray
    """[M] int32, tokens of each sequence."""
    per_token: dict[str, np.ndarray]
    """[total tokens] values per token, all sequences end to end. Holds `input_ids`."""
    token_indices: dict[str, np.ndarray]
    """[M] token positions in the sequence, such as `cls_position`; packing shifts them."""
    per_sequence: dict[str, np.ndarray]
    """[M, ...] values per sequence, such as `label`."""
    example_index: np.ndarray
    """[M] index of the example that a sequence was made from."""
    feature_index: np.ndarray
    """[M] index of the feature that a sequence belongs to: 0 to N - 1, ascending."""
    truncated: Sequence[int] = ()
    """Indices of the examples that lost text to `max_length`."""
    unreachable: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    """Examples on which no prediction can be right, such as answers in no window:
    {kind: {example index: reason}}."""
    dropped: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Examples that were left out because they do not fit: {example index: reason}."""
    notes: Sequence[Note] = ()
    """What the log should say about them."""

    @classmethod
    def build(
        cls,
        per_token: Mapping[str, Any],
        *,
        lengths: np.ndarray | None = None,
        example_index: Sequence[int] | np.ndarray | None = None,
        feature_index: Sequence[int] | np.ndarray | None = None,
        token_indices: Mapping[str, Any] | None = None,
        per_sequence: Mapping[str, Any] | None = None,
        truncated: Sequence[int] = (),
        unreachable: Mapping[str, Mapping[int, str]] | None = None,
        dropped: Mapping[int, str] | None = None,
        notes: Sequence[Note] = (),
    ) -> "Features":
        """Build features from flat arrays, or from lists with one entry per sequence.

        `cls_position` is 0 unless given. Values per sequence become int32, or float32 if they hold
        fractions; `example_index` and `feature_index` count the sequences unless given. With
        `lengths`, values per token are arrays [total tokens], else a list for each sequence.
        """
        if lengths is None:
            lengths = np.array([len(ids) for ids in per_token["input_ids"]], np.int32)
            total = int(lengths.sum())
            per_token = {name: _flat(rows, total) for name, rows in per_token.items()}
        count = len(lengths)
        places = {"cls_position": np.zeros(count, np.int32)} | dict(token_indices or {})
        numbers = np.arange(count)
        return cls(
            lengths=np.asarray(lengths, np.int32),
            per_token={name: np.asarray(rows, np.int32) for name, rows in per_token.items()},
            token_indices={name: np.asarray(value, np.int32) for name, value in places.items()},
            per_sequence={name: _narrow(value) for name, value in (per_sequence or {}).items()},
            example_index=(
                numbers if example_index is None else np.asarray(example_index, np.int64)
            ),
            feature_index=(
                numbers if feature_index is None else np.asarray(feature_index, np.int64)
            ),
            truncated=truncated,
            unreachable=unreachable or {},
            dropped=dropped or {},
            notes=notes,
        )

    def __len__(self) -> int:
        return int(self.feature_index[-1]) + 1 if len(self.feature_index) else 0

    @property
    def truncated_count(self) -> int:
        """The number of examples that lost text to `max_length`."""
        return len(self.truncated)

    @property
    def grouped(self) -> bool:
        """Whether some feature has several sequences."""
        return len(self) != len(self.lengths)

    def counts(self, split: str) -> dict[str, float]:
        """Return the number of unreachable examples by kind, for the results of a split."""
        return {
            f"data/{split}/{kind.replace(' ', '_')}": float(len(reasons))
            for kind, reasons in self.unreachable.items()
        }

    def sequences(self, feature: int) -> range:
        """Return the indices of a feature's sequences."""
        return range(int(self.feature_start[feature]), int(self.feature_start[feature + 1]))

    @functools.cached_property
    def feature_start(self) -> np.ndarray:
        """[N + 1] the first sequence of each feature, and M."""
        return np.searchsorted(self.feature_index, np.arange(len(self) + 1))

    def per_feature(self, values: np.ndarray) -> np.ndarray:
        """Return values [N, ...] per feature of [M, ...], equal for all sequences of a feature."""
        return values[self.feature_start[:-1]]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """[N] tokens of each feature."""
        return np.bincount(self.feature_index, self.lengths, len(self)).astype(np.int64)

    @functools.cached_property
    def sequence_start(self) -> np.ndarray:
        """[M + 1] where each sequence begins in the flat arrays, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def fingerprint(self) -> str:
        """Return the SHA-256 of all arrays with their names, in hexadecimal."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        parts = {
            "lengths": self.lengths,
            "example_index": self.example_index,
            "feature_index": self.feature_index,
        }
        parts |= self.per_token | self.token_indices | self.per_sequence
        for name in sorted(parts):
            digest.update(f"{name} {parts[name].shape} {parts[name].dtype}".encode())
            for first in range(0, len(parts[name]), BLOCK):
                digest.update(np.ascontiguousarray(parts[name][first : first + BLOCK]).data)
        return digest.hexdigest()

    def sequences_of(self, first: int, end: int) -> slice:
        """Return the sequences of the examples from `first` to `end`; examples must ascend."""
        start, stop = np.searchsorted(self.example_index, [first, end]).tolist()
        return slice(start, stop)

    def part(self, first: int, end: int) -> "Features":
        """Return the features of the examples from `first` to `end`, counted from `first`."""
        here = self.sequences_of(first, end)
        tokens = slice(int(self.sequence_start[here.start]), int(self.sequence_start[here.stop]))
        feature_index = self.feature_index[here]
        return Features(
            lengths=self.lengths[here],
            per_token={name: values[tokens] for name, values in self.per_token.items()},
            token_indices={name: values[here] for name, values in self.token_indices.items()},
            per_sequence={name: values[here] for name, values in self.per_sequence.items()},
            example_index=self.example_index[here] - first,
            feature_index=feature_index - (feature_index[0] if len(feature_index) else 0),
        )

    def places_of(self, sequences: np.ndarray) -> np.ndarray:
        """Return the places in the flat arrays of the tokens of sequences [S], end to end."""
        lengths = self.lengths[sequences].astype(np.int64)
        shifts = self.sequence_start[sequences] - (np.cumsum(lengths) - lengths)
        return np.repeat(shifts, lengths) + np.arange(lengths.sum())

    def tokens_of(self, sequence: int) -> dict[str, np.ndarray]:
        """Return the stored token arrays of a sequence, [length] each."""
        here = slice(self.sequence_start[sequence], self.sequence_start[sequence + 1])
        return {name: values[here] for name, values in self.per_token.items()}


def fingerprint_of(examples: Iterable[Any], labels: Sequence[str] = ()) -> str:
    """Return the SHA-256, in hexadecimal, of the parts of examples that a run uses.

    Args:
      examples: examples of a task; their `texts`, `target`, `slice` and `supervision` are hashed.
      labels: the label names behind the numbers in `target`.
    """
    digest = hashlib.sha256(f"{list(labels)!r}\n".encode())
    for example in examples:
        # The tuple (texts, target, slice) as it is printed, but a text at a time: those of a
        # document may be larger than memory. Line ends inside a text are escaped.
        digest.update(b"((")
        count = 0
        for count, text in enumerate(example.texts, 1):
            digest.update((f", {text!r}" if count > 1 else repr(text)).encode())
        end = ",)" if count == 1 else ")"
        digest.update(f"{end}, {example.target!r}, {example.slice!r})\n".encode())
        if example.supervision is not None:
            digest.update(f"{example.supervision!r}\n".encode())
    return digest.hexdigest()


def _flat(rows: list[list[int]], total: int) -> np.ndarray:
    return np.fromiter((value for values in rows for value in values), np.int32, total)


def _narrow(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32, copy=False)

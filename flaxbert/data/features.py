"""Features: what a step trains on, made of tokenised sequences, stored flat."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Draw = Callable[[dict[str, np.ndarray], int, int], dict[str, np.ndarray]]
"""(token arrays of a sequence, its number, epoch) -> those that take the stored ones' place."""


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """N features of one or more tokenised sequences each, M sequences in all.

    Most features are one sequence: a text, a pair, a window of a long document. The choices of a
    question, or the windows whose scores are pooled, are one feature of several: they share a step
    and a loss. The names inside the dicts reach the model and the task's loss unchanged.
    """

    lengths: np.ndarray
    """[M] int32, tokens of each sequence."""
    tokens: dict[str, np.ndarray]
    """One value a token, all sequences end to end: [sum(lengths)]. Holds `input_ids`."""
    positions: dict[str, np.ndarray]
    """[M] places inside the sequence, such as `cls_position` ([CLS]); packing shifts them."""
    slots: dict[str, np.ndarray]
    """[M, ...] one value a sequence, such as `label`."""
    example: np.ndarray
    """[M] index of the example that a sequence was made from."""
    feature: np.ndarray
    """[M] the feature that a sequence belongs to: 0 to N - 1, ascending."""
    cut: Sequence[int] = ()
    """Indices of the examples that lost text to `max_length`."""
    lost: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    """What no prediction can be right on, such as answers in no window: {kind: {example: what}}."""
    dropped: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Examples without features because they are too long: {index: what is wrong}. All other
    indices count the examples that remain."""
    draw: Draw | None = None
    """Draws a sequence's tokens anew each epoch, such as its masked ones; a pure function."""

    @classmethod
    def build(
        cls,
        tokens: dict[str, list[list[int]]],
        *,
        example: Sequence[int] | np.ndarray | None = None,
        feature: Sequence[int] | np.ndarray | None = None,
        positions: dict[str, list[int]] | None = None,
        slots: dict[str, Any] | None = None,
        cut: Sequence[int] = (),
        lost: Mapping[str, Mapping[int, str]] | None = None,
        dropped: Mapping[int, str] | None = None,
        draw: Draw | None = None,
    ) -> "Features":
        """From lists, one entry a sequence. Adds `cls_position` at 0 unless given.

        Slots become int32, or float32 if they hold fractions; `example` and `feature` count the
        sequences unless given.
        """
        lengths = np.array([len(ids) for ids in tokens["input_ids"]], np.int32)
        count = len(lengths)
        placed = {"cls_position": [0] * count} | (positions or {})
        return cls(
            lengths=lengths,
            tokens={name: _flat(lists, int(lengths.sum())) for name, lists in tokens.items()},
            positions={name: np.asarray(value, np.int32) for name, value in placed.items()},
            slots={name: _narrow(value) for name, value in (slots or {}).items()},
            example=np.arange(count) if example is None else np.asarray(example, np.int64),
            feature=np.arange(count) if feature is None else np.asarray(feature, np.int64),
            cut=cut,
            lost=lost or {},
            dropped=dropped or {},
            draw=draw,
        )

    def __len__(self) -> int:
        return int(self.feature[-1]) + 1 if len(self.feature) else 0

    @property
    def truncated(self) -> int:
        """How many examples lost text to `max_length`."""
        return len(self.cut)

    @property
    def grouped(self) -> bool:
        """Whether some feature has several sequences."""
        return len(self) != len(self.lengths)

    @property
    def idle(self) -> str | None:
        """Why nothing here counts in a loss, so that training learns nothing; None if it does.

        Looks at the arrays that tasks weigh their losses by.
        """
        if "start" in self.positions and (self.positions["start"] < 0).all():
            return "no window contains a complete answer; raise data.max_length or data.overlap"
        if "first" in self.tokens and not self.tokens["first"].any():
            return "no word has a visible character"
        drawn = (self.tokens_of(n, 0).get("masked") for n in range(len(self.lengths)))
        if self.draw and not any(masked is None or masked.any() for masked in drawn):
            return "no word can be masked: all tokens are special, or words have too many pieces"
        return None

    def counts(self, key: str) -> dict[str, float]:
        """How many examples are lost, by the kind, for the results of a split of the data."""
        return {
            f"data/{key}/{kind.replace(' ', '_')}": float(len(places))
            for kind, places in self.lost.items()
        }

    def sequences(self, feature: int) -> range:
        """The sequences of a feature."""
        return range(int(self.first[feature]), int(self.first[feature + 1]))

    @functools.cached_property
    def first(self) -> np.ndarray:
        """[N + 1] the first sequence of each feature, and M."""
        return np.searchsorted(self.feature, np.arange(len(self) + 1))

    def per_feature(self, values: np.ndarray) -> np.ndarray:
        """[N, ...] of values [M, ...] that are equal for all sequences of a feature."""
        return values[self.first[:-1]]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """[N] tokens of each feature."""
        return np.bincount(self.feature, self.lengths, len(self)).astype(np.int64)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """[M + 1] where each sequence begins in the flat arrays, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def fingerprint(self) -> str:
        """SHA-256 of all arrays with their names, in hexadecimal."""
        digest = hashlib.sha256()
        parts = {"lengths": self.lengths, "example": self.example, "feature": self.feature}
        parts |= self.tokens | self.positions | self.slots
        for name in sorted(parts):
            digest.update(f"{name} {parts[name].shape} {parts[name].dtype}".encode())
            digest.update(np.ascontiguousarray(parts[name]).data)
        return digest.hexdigest()

    def tokens_of(self, sequence: int, epoch: int) -> dict[str, np.ndarray]:
        """The token arrays of a sequence as `epoch` sees them, [length] each."""
        here = slice(self.starts[sequence], self.starts[sequence + 1])
        stored = {name: values[here] for name, values in self.tokens.items()}
        drawn = {} if self.draw is None else self.draw(stored, sequence, epoch)
        return stored | drawn


def fingerprint_of(examples: Iterable[Any], labels: Sequence[str] = ()) -> str:
    """SHA-256 of what evaluation goes by and features do not hold, in hexadecimal.

    Args:
      examples: of a task; their `content`, `gold` and `slice` count, their `origin` does not.
      labels: what the numbers in `gold` stand for.
    """
    digest = hashlib.sha256(f"{list(labels)!r}\n".encode())
    for example in examples:
        parts = (example.texts, example.target, example.slice)
        digest.update(f"{parts!r}\n".encode())  # a text's own line ends are escaped
    return digest.hexdigest()


def _flat(lists: list[list[int]], total: int) -> np.ndarray:
    return np.fromiter((value for values in lists for value in values), np.int32, total)


def _narrow(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)

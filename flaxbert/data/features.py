"""Features: tokenised sequences of different lengths, stored flat."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """N tokenised sequences. One text, one pair, or one window of a long document each.

    The names inside the dicts reach the model and the task's loss unchanged.
    """

    lengths: np.ndarray
    """[N] int32, tokens of each feature."""
    tokens: dict[str, np.ndarray]
    """One value a token, all features end to end: [sum(lengths)]. Holds `input_ids`."""
    positions: dict[str, np.ndarray]
    """[N] places inside the feature, such as `anchor` ([CLS]); packing shifts them."""
    slots: dict[str, np.ndarray]
    """[N, ...] one value a feature, such as `label`."""
    example: np.ndarray
    """[N] index of the example that a feature was made from."""
    truncated: int = 0
    """Examples that lost text to `max_length`."""

    @classmethod
    def build(
        cls,
        tokens: dict[str, list[list[int]]],
        *,
        example: list[int] | np.ndarray | None = None,
        positions: dict[str, list[int]] | None = None,
        slots: dict[str, list[int]] | None = None,
        truncated: int = 0,
    ) -> "Features":
        """From lists, one entry a feature. Adds `anchor` at 0 unless given."""
        lengths = np.array([len(ids) for ids in tokens["input_ids"]], np.int32)
        count = len(lengths)
        placed = {"anchor": [0] * count} | (positions or {})
        return cls(
            lengths=lengths,
            tokens={name: _flat(lists, int(lengths.sum())) for name, lists in tokens.items()},
            positions={name: np.asarray(value, np.int32) for name, value in placed.items()},
            slots={name: np.asarray(value, np.int32) for name, value in (slots or {}).items()},
            example=np.arange(count) if example is None else np.asarray(example, np.int64),
            truncated=truncated,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """[N + 1] where each feature begins in the flat arrays, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])


def _flat(lists: list[list[int]], total: int) -> np.ndarray:
    return np.fromiter((value for values in lists for value in values), np.int32, total)

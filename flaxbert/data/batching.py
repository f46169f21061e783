"""Batches: from features to arrays of few static shapes, the same for every run and host.

Which features share a step follows from (seed, epoch); how they lie in rows follows from their
lengths. So every host knows the whole plan and builds only its own rows.
"""

import dataclasses
import functools
import math

import numpy as np

from flaxbert.data.features import Features
from flaxbert.data.order import permutation
from flaxbert.data.packing import Row, choose_row_counts, pack

Batch = dict[str, np.ndarray]

MAX_SHAPES = 3
"""Compiled batch heights for training, and again for evaluation: six programs at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a data set, by step number.

    Attributes:
      features: what is batched.
      batch_size: features a step, over all devices and hosts.
      row_length: tokens of a row (T).
      segments: most features in a row (K); 1 switches packing off.
      row_multiple: the number of rows (R) is a multiple of this.
      steps: steps that this run may take; shapes are chosen so that all of them fit.
      seed: shuffles each epoch; None keeps the order (evaluation).
    """

    features: Features
    batch_size: int
    row_length: int
    segments: int
    row_multiple: int
    steps: int
    seed: int | None = None

    def __post_init__(self) -> None:
        longest = int(self.features.lengths.max(initial=0))
        if longest > self.row_length:
            raise ValueError(f"a feature of {longest} tokens, but rows of {self.row_length}")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.features) / self.batch_size)

    def step_features(self, step: int) -> np.ndarray:
        """Indices of the features that step number `step` (from 0) trains on."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    @functools.lru_cache(maxsize=2)  # noqa: B019 (an epoch's order; the data set outlives it)
    def _order(self, epoch: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(len(self.features))
        return permutation(len(self.features), self.seed, epoch)

    def rows(self, step: int) -> list[Row]:
        """The features of each row of a step, without the empty rows that fill it up."""
        members = self.step_features(step)
        rows = pack(self.features.lengths[members].tolist(), self.row_length, self.segments)
        return [[int(members[item]) for item in row] for row in rows]

    @functools.cached_property
    def row_counts(self) -> list[int]:
        """The batch heights (R) in use, ascending."""
        needed = [len(self.rows(step)) for step in range(self.steps)]
        return choose_row_counts(needed or [1], self.row_multiple, MAX_SHAPES)

    def full_rows(self, step: int) -> list[Row]:
        """The rows of a step and, at the end, the empty ones that make up its height (R)."""
        rows = self.rows(step)
        height = next(count for count in self.row_counts if count >= len(rows))
        return rows + [[] for _ in range(height - len(rows))]

    def build(self, rows: list[Row]) -> Batch:
        """Arrays of some rows of a step; an empty list is an empty row.

        Returns:
          [R, T]: `input_ids`, the features' other token arrays, `position_ids`, and `segment_ids`
          (0 padding, k the k-th segment). [R, K]: `weight` (1 for a feature, 0 for an empty slot),
          the features' slots, and their positions, counted from the start of the row.
        """
        features, starts = self.features, self.features.starts
        grid = (len(rows), self.row_length)
        names = [*features.tokens, "position_ids", "segment_ids"]
        batch: Batch = {name: np.zeros(grid, np.int32) for name in names}
        slots = (len(rows), self.segments)
        batch["weight"] = np.zeros(slots, np.float32)
        for name in features.positions:
            batch[name] = np.zeros(slots, np.int32)
        for name, values in features.slots.items():
            batch[name] = np.zeros(slots + values.shape[1:], values.dtype)
        for r, row in enumerate(rows):
            offset = 0
            for k, feature in enumerate(row):
                length = int(features.lengths[feature])
                here, there = slice(offset, offset + length), starts[feature]
                for name, values in features.tokens.items():
                    batch[name][r, here] = values[there : there + length]
                batch["position_ids"][r, here] = np.arange(length)
                batch["segment_ids"][r, here] = k + 1
                batch["weight"][r, k] = 1.0
                for name, values in features.positions.items():
                    batch[name][r, k] = values[feature] + offset
                for name, values in features.slots.items():
                    batch[name][r, k] = values[feature]
                offset += length
        return batch

    def padding_share(self) -> float:
        """Share of computed token places, over all steps, that hold no token."""
        real = computed = 0
        for step in range(self.steps):
            real += int(self.features.lengths[self.step_features(step)].sum())
            computed += len(self.full_rows(step)) * self.row_length
        return 1.0 - real / computed if computed else 0.0

"""Batches: from features to arrays of few static shapes, the same for every run and host.

Which features share a step follows from (seed, epoch); how they lie in rows follows from their
lengths. So every host knows the whole plan and builds only its own rows.
"""

import dataclasses
import functools
import math

import numpy as np

from flaxbert.data.features import Features
from flaxbert.data.packing import PackedRow, choose_bucket_sizes, pack
from flaxbert.data.shuffle import permutation

Batch = dict[str, np.ndarray]

MAX_SHAPES = 4
"""Compiled batch heights for training, and again for evaluation: eight programs at most."""

PROGRAM_TOKENS = 2500
"""Token places that a further program must save to be worth compiling: it keeps runs of a few
seconds to one program. Two CPU cores compute about as many while they compile it."""

PROGRAM_SHARE = 0.01
"""Share of a run's rows that a further program must save as well."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a data set, by step number.

    Attributes:
      features: what is batched.
      batch_size: features a step, over all devices and hosts.
      row_length: tokens of a row (T).
      segments: most sequences in a row (K); 1 switches packing off.
      shards: parts that devices divide the rows in: R is a multiple of `shards * parts`.
      steps: steps that this run may take; shapes are chosen so that all of them fit.
      seed: shuffles each epoch; None keeps the order (evaluation).
      parts: micro-batches that a step is computed in (`train.accumulation_steps`); all sequences
        of a feature lie in the same one.
    """

    features: Features
    batch_size: int
    row_length: int
    segments: int
    shards: int
    steps: int
    seed: int | None = None
    parts: int = 1

    def __post_init__(self) -> None:
        longest = int(self.features.lengths.max(initial=0))
        if longest > self.row_length:
            raise ValueError(f"a sequence of {longest} tokens, but rows of {self.row_length}")

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

    def _part_features(self, step: int) -> list[np.ndarray]:
        members = self.step_features(step)
        return [members[part :: self.parts] for part in range(self.parts)]

    def rows(self, step: int) -> list[PackedRow]:
        """The sequences of each row of a step, without the empty rows that fill it up."""
        return [row for rows in self._part_rows(step) for row in rows]

    def _part_rows(self, step: int) -> list[list[PackedRow]]:
        parts = []
        for members in self._part_features(step):
            sequences = [s for feature in members for s in self.features.sequences(feature)]
            lengths = self.features.lengths[sequences].tolist()
            packed = pack(lengths, self.row_length, self.segments)
            parts.append([[sequences[item] for item in row] for row in packed])
        return parts

    @functools.cached_property
    def bucket_sizes(self) -> list[int]:
        """The batch heights (R) in use, ascending."""
        needed = [self.parts * max(map(len, self._part_rows(step))) for step in range(self.steps)]
        multiple = self.shards * self.parts
        price = max(PROGRAM_TOKENS / self.row_length, PROGRAM_SHARE * sum(needed))
        return choose_bucket_sizes(needed or [1], multiple, MAX_SHAPES, price)

    def full_rows(self, step: int) -> list[PackedRow]:
        """The rows of a step, with the empty ones that make up its height (R).

        Ordered as [shards, parts, rows of both]: each device cuts its own rows into parts.
        """
        parts = self._part_rows(step)
        most = self.parts * max(map(len, parts))
        height = next(count for count in self.bucket_sizes if count >= most) // self.parts
        filled = [[*rows, *([[]] * (height - len(rows)))] for rows in parts]
        share = height // self.shards
        cuts = [slice(shard * share, (shard + 1) * share) for shard in range(self.shards)]
        return [row for cut in cuts for rows in filled for row in rows[cut]]

    def build(self, rows: list[PackedRow], step: int = 0) -> Batch:
        """Arrays of some rows of a step; an empty list is an empty row.

        Returns:
          [R, T]: `input_ids`, the features' other token arrays, `position_ids`, and `segment_ids`
          (0 padding, k the k-th segment). [R, K]: `weight` (1 for a sequence, or its share of a
          feature of several; 0 for an empty slot), the features' slots, and their positions,
          counted from the start of the row; if features have several sequences, `group`, which is
          equal for those of one feature and below the number of slots.
        """
        features, epoch = self.features, step // max(1, self.steps_per_epoch)
        grid, slots = (len(rows), self.row_length), (len(rows), self.segments)
        names = [*features.tokens, "position_ids", "segment_ids"]
        batch: Batch = {name: np.zeros(grid, np.int32) for name in names}
        batch["weight"] = np.zeros(slots, np.float32)
        for name in features.positions:
            batch[name] = np.zeros(slots, np.int32)
        for name, values in features.slots.items():
            batch[name] = np.zeros(slots + values.shape[1:], values.dtype)
        group = {}
        if features.grouped:
            batch["group"] = np.zeros(slots, np.int32)
            parts = self._part_features(step)
            group = {int(f): number for members in parts for number, f in enumerate(members)}
        for r, row in enumerate(rows):
            offset = 0
            for k, sequence in enumerate(row):
                length, feature = int(features.lengths[sequence]), int(features.feature[sequence])
                here = slice(offset, offset + length)
                for name, values in features.tokens_of(sequence, epoch).items():
                    batch[name][r, here] = values
                batch["position_ids"][r, here] = np.arange(length)
                batch["segment_ids"][r, here] = k + 1
                batch["weight"][r, k] = 1.0 / len(features.sequences(feature))
                for name, values in features.positions.items():
                    batch[name][r, k] = values[sequence] + offset
                for name, values in features.slots.items():
                    batch[name][r, k] = values[sequence]
                if group:
                    batch["group"][r, k] = group[feature]
                offset += length
        return batch

    def padding_share(self) -> float:
        """Share of computed token places, over all steps, that hold no token."""
        real = computed = 0
        for step in range(self.steps):
            real += int(self.features.sizes[self.step_features(step)].sum())
            computed += len(self.full_rows(step)) * self.row_length
        return 1.0 - real / computed if computed else 0.0

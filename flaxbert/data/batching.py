"""Batches: from features to arrays of few static shapes, the same for every run and host.

The features of a step are a function of (seed, epoch), and their places in the rows a function of
their lengths. So every host computes the same plan, and builds only its own rows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from flaxbert.data.features import Features
from flaxbert.data.packing import PackedRow, choose_bucket_sizes, pack
from flaxbert.data.shuffle import permutation
from flaxbert.types import Batch, TaskOutputs

Resample = Callable[[Features, np.ndarray, int], dict[str, np.ndarray]]
"""(features, indices of sequences [S], epoch) -> the arrays that replace the stored ones, with the
tokens of these sequences end to end. What is drawn for one does not depend on the others."""

MAX_SHAPES = 4
"""Largest number of buckets for training, and again for evaluation: eight programs at most."""

MIN_TOKENS_SAVED = 2500
"""Token positions that another program must save to be worth its compilation. Two CPU cores compute
about as many in the time of a compilation. Runs of a few seconds have one program."""

MIN_SHARE_SAVED = 0.01
"""Share of a run's rows that another program must save in addition."""


@dataclasses.dataclass(frozen=True)
class _PackedStep:
    """The sequences of a step, in the order of their rows."""

    sequences: np.ndarray
    """[sequences of the step] int32."""
    row_ends: np.ndarray
    """[rows] int32: where each row ends in `sequences`."""
    microbatch_ends: np.ndarray
    """[micro-batches] int32: where the rows of each end in `row_ends`."""

    @classmethod
    def of(cls, microbatches: Sequence[Sequence[PackedRow]]) -> "_PackedStep":
        """Store the rows of each micro-batch compactly: a long run has millions of sequences."""
        rows = [row for part in microbatches for row in part]
        return cls(
            np.array([sequence for row in rows for sequence in row], np.int32),
            np.cumsum([len(row) for row in rows], dtype=np.int32),
            np.cumsum([len(part) for part in microbatches], dtype=np.int32),
        )

    def microbatches(self) -> list[list[PackedRow]]:
        """Return the rows of each micro-batch."""
        rows = [part.tolist() for part in np.split(self.sequences, self.row_ends[:-1])]
        ends = self.microbatch_ends.tolist()
        return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a data set, by step number. Packing is planned once, when first needed.

    Attributes:
      features: the features to batch.
      batch_size: features per step, over all devices and hosts.
      row_length: tokens per row (T).
      segments: largest number of sequences in a row (K); 1 switches packing off.
      data_parallelism: the number of devices that divide the rows: R is a multiple of
        `data_parallelism * microbatches`.
      steps: steps of the whole schedule: bucket sizes are chosen so that all of them fit.
      seed: shuffles each epoch; None keeps the order (evaluation).
      microbatches: parts that a step is computed in (`train.accumulation_steps`); all sequences of
        a feature lie in the same one.
      resample: a pure function that draws new token arrays in each epoch, such as masked words.
      power_of_two_buckets: round the rows of a step up to powers of two, times the multiple,
        instead of choosing bucket sizes for these features: requests of any size then share few
        programs.
    """

    features: Features
    batch_size: int
    row_length: int
    segments: int
    data_parallelism: int
    steps: int
    seed: int | None = None
    microbatches: int = 1
    resample: Resample | None = None
    power_of_two_buckets: bool = False

    def __post_init__(self) -> None:
        longest = int(self.features.lengths.max(initial=0))
        if longest > self.row_length:
            raise ValueError(f"a sequence of {longest} tokens, but rows of {self.row_length}")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.features) / self.batch_size)

    # --- the plan: features of steps, and their rows ---------------------------------------------

    def step_features(self, step: int) -> np.ndarray:
        """Return the indices of the features of step number `step` (from 0)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    @functools.lru_cache(maxsize=2)  # noqa: B019 (an epoch's order; the data set outlives it)
    def _order(self, epoch: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(len(self.features))
        return permutation(len(self.features), self.seed, epoch)

    def _microbatch_features(self, step: int) -> list[np.ndarray]:
        members = self.step_features(step)
        return [members[part :: self.microbatches] for part in range(self.microbatches)]

    def _pack(self, step: int) -> _PackedStep:
        parts = []
        for members in self._microbatch_features(step):
            sequences = [s for feature in members for s in self.features.sequences(feature)]
            lengths = self.features.lengths[sequences].tolist()
            packed = pack(lengths, self.row_length, self.segments)
            parts.append([[sequences[item] for item in row] for row in packed])
        return _PackedStep.of(parts)

    @functools.cached_property
    def _packed_steps(self) -> list[_PackedStep]:
        return [self._pack(step) for step in range(self.steps)]

    def _packed(self, step: int) -> _PackedStep:
        return self._packed_steps[step] if step < self.steps else self._pack(step)

    def _rows_needed(self, packed: _PackedStep) -> int:
        """Return how many rows a step needs; all its micro-batches have the same number."""
        return self.microbatches * int(np.diff(packed.microbatch_ends, prepend=0).max())

    @functools.cached_property
    def bucket_sizes(self) -> list[int]:
        """The numbers of rows (R) that batches have, ascending."""
        needed = [self._rows_needed(packed) for packed in self._packed_steps]
        multiple = self.data_parallelism * self.microbatches
        if self.power_of_two_buckets:
            units = {max(1, math.ceil(rows / multiple)) for rows in needed or [1]}
            return sorted({multiple * 2 ** (unit - 1).bit_length() for unit in units})
        compile_cost = max(MIN_TOKENS_SAVED / self.row_length, MIN_SHARE_SAVED * sum(needed))
        return choose_bucket_sizes(needed or [1], multiple, MAX_SHAPES, compile_cost)

    @property
    def largest_shape(self) -> tuple[int, int]:
        """(R, T) of the largest batch."""
        return max(self.bucket_sizes), self.row_length

    def rows(self, step: int) -> list[PackedRow]:
        """Return the sequences of each row of a step, without the empty rows that pad it."""
        return [row for rows in self._packed(step).microbatches() for row in rows]

    def padded_rows(self, step: int) -> list[PackedRow]:
        """Return the rows of a step, with empty ones up to its bucket size (R).

        Ordered as [data parallelism, micro-batches, rows of both]: each device divides its own rows
        into micro-batches.
        """
        packed = self._packed(step)
        parts, most = packed.microbatches(), self._rows_needed(packed)
        size = next(size for size in self.bucket_sizes if size >= most) // self.microbatches
        filled = [[*rows, *([] for _ in range(size - len(rows)))] for rows in parts]
        share = size // self.data_parallelism
        cuts = [slice(n * share, (n + 1) * share) for n in range(self.data_parallelism)]
        return [row for cut in cuts for rows in filled for row in rows[cut]]

    def padding_share(self) -> float:
        """Return the share of computed token places, over all steps, that hold no token."""
        real = computed = 0
        for step in range(self.steps):
            real += int(self.features.sizes[self.step_features(step)].sum())
            most = self._rows_needed(self._packed(step))
            rows = next(size for size in self.bucket_sizes if size >= most)
            computed += rows * self.row_length
        return 1.0 - real / computed if computed else 0.0

    # --- arrays ----------------------------------------------------------------------------------

    def build(self, rows: Sequence[PackedRow], step: int = 0) -> Batch:
        """Build the arrays (numpy) of some rows of a step; an empty list is an empty row.

        Returns:
          A batch with R = len(rows). Places inside sequences (`Features.token_indices`) are counted
          from the start of the row.
        """
        features, epoch = self.features, step // max(1, self.steps_per_epoch)
        grid, slots = (len(rows), self.row_length), (len(rows), self.segments)
        names = [*features.per_token, "position_ids", "segment_ids"]
        arrays: dict[str, np.ndarray] = {name: np.zeros(grid, np.int32) for name in names}
        arrays["weight"] = np.zeros(slots, np.float32)
        arrays["sequence_index"] = np.zeros(slots, np.int32)
        for name in features.token_indices:
            arrays[name] = np.zeros(slots, np.int32)
        for name, values in features.per_sequence.items():
            arrays[name] = np.zeros(slots + values.shape[1:], values.dtype)
        group = self._group_numbers(step)
        if group:
            arrays["group"] = np.zeros(slots, np.int32)
        drawn, begin = self._drawn(rows, epoch), 0
        for r, row in enumerate(rows):
            offset = 0
            for k, sequence in enumerate(row):
                length = int(features.lengths[sequence])
                feature = int(features.feature_index[sequence])
                here = slice(offset, offset + length)
                for name, values in features.tokens_of(sequence).items():
                    arrays[name][r, here] = values
                for name, values in drawn.items():
                    arrays[name][r, here] = values[begin : begin + length]
                begin += length
                arrays["position_ids"][r, here] = np.arange(length)
                arrays["segment_ids"][r, here] = k + 1
                arrays["sequence_index"][r, k] = sequence
                arrays["weight"][r, k] = 1.0 / len(features.sequences(feature))
                for name, values in features.token_indices.items():
                    arrays[name][r, k] = values[sequence] + offset
                for name, values in features.per_sequence.items():
                    arrays[name][r, k] = values[sequence]
                if group:
                    arrays["group"][r, k] = group[feature]
                offset += length
        return Batch.from_arrays(arrays)

    def unpack(self, rows: Sequence[PackedRow], outputs: TaskOutputs, into: TaskOutputs) -> None:
        """Store the outputs for rows in the order of the features: the inverse of `build`.

        Args:
          rows: the rows that `build` received.
          outputs: their outputs on the host, [R, K, ...] and [R, T, ...].
          into: receives the outputs, [M, ...] per sequence and [total tokens, ...] per token, in
            the order of `features`; missing arrays are created with zeros.
        """
        features = self.features
        for name, values in outputs.per_sequence.items():
            if name not in into.per_sequence:
                into.per_sequence[name] = _zeros(len(features.lengths), values)
        for name, values in outputs.per_token.items():
            if name not in into.per_token:
                into.per_token[name] = _zeros(int(features.lengths.sum()), values)
        for r, row in enumerate(rows):
            offset = 0
            for k, sequence in enumerate(row):
                length = int(features.lengths[sequence])
                start = int(features.sequence_start[sequence])
                for name, values in outputs.per_sequence.items():
                    into.per_sequence[name][sequence] = values[r, k]
                for name, values in outputs.per_token.items():
                    here = values[r, offset : offset + length]
                    into.per_token[name][start : start + length] = here
                offset += length

    def _drawn(self, rows: Sequence[PackedRow], epoch: int) -> dict[str, np.ndarray]:
        """Return the token arrays that are drawn anew, for the sequences of all rows end to end."""
        sequences = np.array([sequence for row in rows for sequence in row], np.int64)
        return {} if self.resample is None else self.resample(self.features, sequences, epoch)

    def _group_numbers(self, step: int) -> dict[int, int]:
        """Return a number for each feature of a step, from 0 in each micro-batch."""
        if not self.features.grouped:
            return {}
        parts = self._microbatch_features(step)
        return {int(feature): number for part in parts for number, feature in enumerate(part)}


def _zeros(size: int, values: np.ndarray) -> np.ndarray:
    return np.zeros((size, *values.shape[2:]), values.dtype)

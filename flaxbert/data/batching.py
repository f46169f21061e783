"""Batches: from features to arrays of few static shapes, the same for every run and host.

The features of a step are a function of (seed, epoch), and their places in the rows a function of
their lengths. So every host computes the same plan, and builds only its own rows.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from flaxbert.data.features import Features
from flaxbert.data.growing import TEMPORARY, GrowingArrays
from flaxbert.data.packing import PackedRow, ShapeCosts, choose_bucket_sizes, pack
from flaxbert.data.shuffle import permutation
from flaxbert.types import Batch, TaskOutputs

Resample = Callable[[Features, np.ndarray, int], dict[str, np.ndarray]]
"""(features, indices of sequences [S], epoch) -> the arrays that replace the stored ones, with the
tokens of these sequences end to end. What is drawn for one does not depend on the others."""

MAX_SHAPES = 6
"""Largest number of buckets for training, and again for evaluation: twelve programs at most."""

CANDIDATES = 8
"""Row lengths that are compared, from the longest sequence to twice its length."""

PLANNED = 2**16
"""Sequences, or rows, that are planned at a time, which bounds the memory."""

SAMPLE = 20_000
"""Sequences that row lengths are compared on, in at most SAMPLE_STEPS steps."""
SAMPLE_STEPS = 64


@dataclasses.dataclass(frozen=True)
class _PackedSteps:
    """The rows of consecutive steps, compactly: a long run has millions of sequences.

    Each step is a group of rows for each micro-batch.
    """

    sequences: np.ndarray
    """[sequences of all steps] int32, in the order of their rows."""
    row_start: np.ndarray
    """[rows + 1] where each row begins in `sequences`, and the end of the last."""
    group_start: np.ndarray
    """[groups + 1] where each group begins in the rows, and the end of the last."""

    @property
    def longest_row(self) -> int:
        """The largest number of sequences in a row."""
        parts = range(0, len(self.row_start) - 1, PLANNED)
        return max(
            (int(np.diff(self.row_start[part : part + PLANNED + 1]).max()) for part in parts),
            default=1,
        )

    def group(self, number: int) -> list[PackedRow]:
        """Return the rows of a group."""
        first, last = self.group_start[number : number + 2]
        starts = self.row_start[first : last + 1].tolist()
        return [self.sequences[start:end].tolist() for start, end in itertools.pairwise(starts)]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a data set, by step number. Packing is planned once, when first needed.

    Attributes:
      features: the features to batch.
      batch_size: features per step, over all devices and hosts.
      row_length: tokens per row (T).
      segments: largest number of sequences that may share a row; 1 switches packing off.
      data_parallelism: the number of devices that divide the rows: R is a multiple of
        `data_parallelism * microbatches`.
      steps: steps of the whole schedule: bucket sizes are chosen so that all of them fit.
      seed: shuffles each epoch; None keeps the order (evaluation).
      microbatches: parts that a step is computed in (`train.accumulation_steps`); all sequences of
        a feature lie in the same one.
      resample: a pure function that draws new token arrays in each epoch, such as masked words.
      costs: the costs of programs and of attention, which bucket sizes are chosen by.
      power_of_two_buckets: round the rows of a step up to powers of two, times the multiple,
        instead of choosing bucket sizes for these features, and leave room for `segments`
        sequences in each row: requests of any size then share few programs.
      sizes: bucket sizes to use instead of choosing them; if they are too small, the largest is
        doubled. Each row has room for `segments` sequences.
      left_out: names of values per token that these batches do not hold, because no program reads
        them.
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
    costs: ShapeCosts = dataclasses.field(default_factory=ShapeCosts)
    power_of_two_buckets: bool = False
    sizes: tuple[int, ...] = ()
    left_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        longest = int(self.features.lengths.max(initial=0))
        if longest > self.row_length:
            raise ValueError(f"a sequence of {longest} tokens, but rows of {self.row_length}")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.features) / self.batch_size)

    @property
    def multiple(self) -> int:
        """R is a multiple of this."""
        return self.data_parallelism * self.microbatches

    # --- the plan: features of steps, and their rows ---------------------------------------------

    def step_features(self, step: int) -> np.ndarray:
        """Return the indices of the features of step number `step` (from 0)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    @functools.cached_property
    def _order(self) -> Callable[[int], np.ndarray]:
        """The order of the features in an epoch; that of two epochs is kept."""
        count, seed = len(self.features), self.seed

        @functools.lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            return np.arange(count) if seed is None else permutation(count, seed, epoch)

        return order

    def _longest_first(self, steps: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sequences of steps, group by group, the longest of each group first.

        A group is a micro-batch of a step: features 0, n, 2n, ... of the step are in its first one.

        Returns:
          [sequences] their indices, and [groups + 1] where each group begins, and the end.
        """
        members = [self.step_features(step) for step in steps]
        sizes = [len(features) for features in members]
        place = np.concatenate([np.arange(0), *map(np.arange, sizes)]) % self.microbatches
        group = np.repeat(np.arange(len(sizes)) * self.microbatches, sizes) + place
        features = np.concatenate([np.arange(0), *members])
        first = self.features.feature_start[features]
        counts = self.features.feature_start[features + 1] - first
        sequences = _ranges(first, counts)
        group = np.repeat(group, counts)
        shorter = self.row_length - self.features.lengths[sequences]
        order = np.argsort(group * (self.row_length + 1) + shorter, kind="stable")
        groups = np.arange(len(sizes) * self.microbatches + 1)
        return sequences[order], np.searchsorted(group[order], groups)

    def _pack(self, steps: Iterable[int], segments: int) -> _PackedSteps:
        sequences, starts = self._longest_first(steps)
        lengths = self.features.lengths[sequences]
        rows, counts = _pack_groups(lengths, starts, self.row_length, segments)
        group_start = np.append(0, np.cumsum(counts))
        numbers = rows + np.repeat(group_start[:-1], np.diff(starts))
        sizes = np.bincount(numbers, minlength=group_start[-1])
        in_rows = sequences[np.argsort(numbers, kind="stable")].astype(np.int32)
        return _PackedSteps(in_rows, np.append(0, np.cumsum(sizes)), group_start)

    @functools.cached_property
    def _plan(self) -> _PackedSteps:
        """The rows of all steps, made block by block: lists of them need far more memory."""
        arrays = GrowingArrays(TEMPORARY)
        count, sequences, rows = max(1, PLANNED // self.batch_size), 0, 0
        for first in range(0, max(1, self.steps), count):
            block = self._pack(range(first, min(first + count, self.steps)), self.segments)
            last = first + count >= self.steps  # only the last block ends with its end
            arrays.add(
                sequences=block.sequences,
                row_start=sequences + (block.row_start if last else block.row_start[:-1]),
                group_start=rows + (block.group_start if last else block.group_start[:-1]),
            )
            sequences, rows = sequences + len(block.sequences), rows + len(block.row_start) - 1
        return _PackedSteps(**arrays.joined())

    def _microbatch_rows(self, step: int) -> list[list[PackedRow]]:
        """Return the rows of each micro-batch of a step, without empty ones."""
        if step < self.steps:
            packed, first = self._plan, step * self.microbatches
        else:  # beyond the schedule
            packed, first = self._pack([step], self.slots), 0
        return [packed.group(first + part) for part in range(self.microbatches)]

    @functools.cached_property
    def _needed(self) -> np.ndarray:
        """[steps] the rows that each step needs."""
        return self._rows_of_steps(np.diff(self._plan.group_start))

    def _rows_of_steps(self, rows: np.ndarray) -> np.ndarray:
        """Return [steps] of [groups]: all micro-batches of a step have the same number of rows."""
        return self.microbatches * rows.reshape(-1, self.microbatches).max(1, initial=0)

    @functools.cached_property
    def slots(self) -> int:
        """The number of sequences that each row of a batch has places for (K)."""
        fixed = self.power_of_two_buckets or self.sizes
        return self.segments if fixed else self._plan.longest_row

    @functools.cached_property
    def bucket_sizes(self) -> list[int]:
        """The numbers of rows (R) that batches have, ascending."""
        needed = self._needed if len(self._needed) else np.ones(1, int)
        if self.power_of_two_buckets:
            units = {max(1, math.ceil(rows / self.multiple)) for rows in needed.tolist()}
            return sorted({self.multiple * 2 ** (unit - 1).bit_length() for unit in units})
        if self.sizes:
            sizes = list(self.sizes)
            while sizes[-1] < needed.max():
                sizes.append(2 * sizes[-1])
            return sizes
        cost = self.costs.program / self.costs.of_rows(1, self.row_length)
        return choose_bucket_sizes(needed, self.multiple, MAX_SHAPES, cost)

    def bucket_counts(self, steps: int) -> dict[int, int]:
        """Return {bucket size: number of steps} of the first `steps` steps, ascending."""
        sizes = _rounded_up(self._needed[:steps], self.bucket_sizes).tolist()
        return dict(sorted(Counter(sizes).items()))

    @property
    def largest_shape(self) -> tuple[int, int]:
        """(R, T) of the largest batch."""
        return max(self.bucket_sizes), self.row_length

    def rows(self, step: int) -> list[PackedRow]:
        """Return the sequences of each row of a step, without the empty rows that pad it."""
        return [row for rows in self._microbatch_rows(step) for row in rows]

    def padded_rows(self, step: int) -> list[PackedRow]:
        """Return the rows of a step, with empty ones up to its bucket size (R).

        Ordered as [data parallelism, micro-batches, rows of both]: each device divides its own rows
        into micro-batches.
        """
        parts = self._microbatch_rows(step)
        most = self.microbatches * max(map(len, parts))
        # A step beyond the schedule may need more rows than any in it.
        larger = math.ceil(most / self.multiple) * self.multiple
        size = next((size for size in self.bucket_sizes if size >= most), larger)
        size //= self.microbatches
        filled = [[*rows, *([] for _ in range(size - len(rows)))] for rows in parts]
        share = size // self.data_parallelism
        cuts = [slice(n * share, (n + 1) * share) for n in range(self.data_parallelism)]
        return [row for cut in cuts for rows in filled for row in rows[cut]]

    def padding_share(self) -> float:
        """Return the share of computed token places, over all steps, that hold no token."""
        planned, lengths = self._plan.sequences, self.features.lengths
        parts = range(0, len(planned), PLANNED)
        real = sum(int(lengths[planned[part : part + PLANNED]].sum()) for part in parts)
        rows = int(_rounded_up(self._needed, self.bucket_sizes).sum())
        computed = rows * self.row_length
        return 1.0 - real / computed if computed else 0.0

    def with_cheapest_row_length(self) -> "Batches":
        """Return the same batches in rows of the length that costs least on a sample of steps.

        Short rows cost less attention, and more of them fit the tokens of a step more closely. Long
        rows pay where a step is only a few rows for each device.
        """
        tile, costs = self.costs.tile, self.costs
        lowest = max(1, math.ceil(int(self.features.lengths.max(initial=0)) / tile))
        tiles = np.linspace(lowest, 2 * lowest, CANDIDATES).round().astype(int)
        candidates = sorted({int(count) * tile for count in tiles})
        last = min(self.steps, self.steps_per_epoch) - 1
        count = max(1, min(SAMPLE_STEPS, SAMPLE // self.batch_size))
        sample = np.unique(np.linspace(0, last, count).astype(int)).tolist() if last >= 0 else []
        sequences, starts = self._longest_first(sample)
        lengths = self.features.lengths[sequences]
        program = costs.program * len(sample) / max(1, self.steps)

        def cost(row_length: int) -> float:
            _, rows = _pack_groups(lengths, starts, row_length, self.segments)
            needed, row = self._rows_of_steps(rows), costs.of_rows(1, row_length)
            sizes = choose_bucket_sizes(needed, self.multiple, MAX_SHAPES, program / row)
            return row * int(_rounded_up(needed, sizes).sum()) + program * len(sizes)

        best = min(candidates, key=cost) if sample else candidates[0]
        return dataclasses.replace(self, row_length=best)

    def shaped_like(self, other: "Batches") -> "Batches":
        """Return the same batches in the shapes of others, so that they share programs.

        If a sequence is longer than the rows of `other`, the rows stay as long as they are here.
        """
        longest = int(self.features.lengths.max(initial=0))
        return dataclasses.replace(
            self,
            row_length=self.row_length if longest > other.row_length else other.row_length,
            segments=other.slots,
            sizes=tuple(other.bucket_sizes),
        )

    # --- arrays ----------------------------------------------------------------------------------

    def build(self, rows: Sequence[PackedRow], step: int = 0) -> Batch:
        """Build the arrays (numpy) of some rows of a step; an empty list is an empty row.

        Returns:
          A batch with R = len(rows). Places inside sequences (`Features.token_indices`) are counted
          from the start of the row.
        """
        features, epoch = self.features, step // max(1, self.steps_per_epoch)
        at = _Places.of(rows, features, self.row_length)
        sequences, slots = at.sequences, (len(rows), self.slots)

        def by_token(values: np.ndarray) -> np.ndarray:
            grid = np.zeros(len(rows) * self.row_length, np.int32)
            grid[at.in_grid] = values
            return grid.reshape(len(rows), self.row_length)

        def by_sequence(values: np.ndarray, dtype: Any = np.int32) -> np.ndarray:
            array = np.zeros(slots + values.shape[1:], dtype)
            array[at.row, at.slot] = values
            return array

        arrays = {name: by_token(part) for name, part in self._tokens(at, epoch).items()}
        arrays["position_ids"] = by_token(_ranges(np.zeros_like(at.lengths), at.lengths))
        arrays["segment_ids"] = by_token(np.repeat(at.slot + 1, at.lengths))
        arrays["sequence_index"] = by_sequence(sequences)
        feature = features.feature_index[sequences]
        arrays["weight"] = by_sequence(1.0 / np.diff(features.feature_start)[feature], np.float32)
        for name, values in features.token_indices.items():
            arrays[name] = by_sequence(values[sequences] + at.offset)
        for name, values in features.per_sequence.items():
            arrays[name] = by_sequence(values[sequences], values.dtype)
        if features.grouped:
            arrays["group"] = by_sequence(self._group_numbers(feature, step))
        return Batch.from_arrays(arrays)

    def unpack(self, rows: Sequence[PackedRow], outputs: TaskOutputs, into: TaskOutputs) -> None:
        """Store the outputs for rows in the order of the features: the inverse of `build`.

        Args:
          rows: the rows that `build` received.
          outputs: their outputs on the host, [R, K, ...] and [R, T, ...].
          into: receives the outputs, [M, ...] per sequence and [total tokens, ...] per token, in
            the order of `features`; missing arrays are created with zeros.
        """
        at = _Places.of(rows, self.features, self.row_length)
        for name, values in outputs.per_sequence.items():
            if name not in into.per_sequence:
                into.per_sequence[name] = _zeros(len(self.features.lengths), values)
            into.per_sequence[name][at.sequences] = values[at.row, at.slot]
        for name, values in outputs.per_token.items():
            if name not in into.per_token:
                into.per_token[name] = _zeros(int(self.features.sequence_start[-1]), values)
            in_grid = values.reshape(-1, *values.shape[2:])[at.in_grid]
            into.per_token[name][at.in_features] = in_grid

    def _tokens(self, at: "_Places", epoch: int) -> dict[str, np.ndarray]:
        """Return the token arrays of sequences, end to end."""
        tokens = {
            name: values[at.in_features]
            for name, values in self.features.per_token.items()
            if name not in self.left_out
        }
        if self.resample is None:
            return tokens
        return tokens | self.resample(self.features, at.sequences, epoch)

    def _group_numbers(self, features: np.ndarray, step: int) -> np.ndarray:
        """Return a number for each of a step's features, from 0 in each micro-batch."""
        members = self.step_features(step)
        order = np.argsort(members)
        return order[np.searchsorted(members, features, sorter=order)] // self.microbatches


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where the n sequences of some rows lie, and their tokens in all."""

    sequences: np.ndarray
    """[n] their indices."""
    lengths: np.ndarray
    """[n] their tokens."""
    row: np.ndarray
    """[n] the number of the row."""
    slot: np.ndarray
    """[n] the place among the sequences of the row, from 0."""
    offset: np.ndarray
    """[n] the tokens before it in the row."""
    in_features: np.ndarray
    """[tokens] the places of their tokens in the flat arrays of the features."""
    in_grid: np.ndarray
    """[tokens] the places of their tokens in [R * T]."""

    @classmethod
    def of(cls, rows: Sequence[PackedRow], features: Features, row_length: int) -> "_Places":
        """Return the places of the sequences of rows."""
        counts = np.array([len(row) for row in rows], np.int64)
        sequences = np.fromiter(itertools.chain(*rows), np.int64, int(counts.sum()))
        row = np.repeat(np.arange(len(rows)), counts)
        lengths = features.lengths[sequences].astype(np.int64)
        end = np.cumsum(lengths)
        tokens = np.bincount(row, lengths, len(rows)).astype(np.int64)
        offset = end - lengths - (np.cumsum(tokens) - tokens)[row]
        in_features = features.places_of(sequences)
        in_grid = _ranges(row * row_length + offset, lengths)
        slot = _ranges(np.zeros_like(counts), counts)
        return cls(sequences, lengths, row, slot, offset, in_features, in_grid)


def _pack_groups(
    lengths: np.ndarray, starts: np.ndarray, row_length: int, segments: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pack the sequences of each group into rows of their own.

    Args:
      lengths: [sequences] their tokens, group by group.
      starts: [groups + 1] where each group begins, and the end of the last.
      row_length: capacity of a row in tokens.
      segments: capacity of a row in sequences.

    Returns:
      [sequences] the row of each in its group, and [groups] the number of rows.
    """
    all_lengths, rows, counts = lengths.tolist(), list[int](), list[int]()
    for start, end in itertools.pairwise(starts.tolist()):
        packed = pack(all_lengths[start:end], row_length, segments)
        rows += packed
        counts.append(max(packed, default=-1) + 1)
    return np.array(rows, np.int64), np.array(counts, np.int64)


def _rounded_up(needed: np.ndarray, bucket_sizes: Sequence[int]) -> np.ndarray:
    """Return the smallest bucket size that holds each need."""
    sizes = np.array(bucket_sizes)
    return sizes[np.searchsorted(sizes, needed)]


def _ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the numbers from each `first`, `counts` of them, end to end."""
    before = np.cumsum(counts) - counts
    return np.repeat(first - before, counts) + np.arange(counts.sum())


def _zeros(size: int, values: np.ndarray) -> np.ndarray:
    return np.zeros((size, *values.shape[2:]), values.dtype)

"""Types that several layers share: batches, outputs, sums of losses and parameter trees.

Shape letters: see models/layers.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

Metrics = dict[str, float]
"""{name: value}; slices are named `metric/SLICE`."""

Prediction = dict[str, Any]
"""The prediction for one example, of JSON's types: a line of predictions.jsonl."""

Params = dict[str, Any]
"""A nested dict of arrays, shaped as `Model.shapes`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A sum of weighted values, and the sum of their weights.

    Sums over micro-batches, devices and steps add up with `+`; the mean is divided once, at the
    end, so it does not depend on how the values were split.
    """

    total: Any
    """Scalar."""
    weight: Any
    """Scalar."""

    def __add__(self, other: "WeightedSum") -> "WeightedSum":
        """Return the sum over both."""
        return WeightedSum(self.total + other.total, self.weight + other.weight)

    @property
    def mean(self) -> Any:
        """Return total / weight; 0 if the weight is 0, because the total is 0 then."""
        return self.total / (self.weight + (self.weight == 0))


Losses = dict[str, WeightedSum]
"""A task's losses by name; their means are added."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The arrays of one step: R packed rows of T tokens, each with room for K sequences.

    A sequence is a segment of a row. Unused positions are 0 in every array, so a row without
    sequences adds nothing to any loss.
    """

    input_ids: Any
    """[R, T] int32."""
    segment_ids: Any
    """[R, T] int32: 0 for padding, k for the k-th sequence of the row."""
    position_ids: Any
    """[R, T] int32, from 0 in each sequence; None counts from the start of the row."""
    cls_position: Any
    """[R, K] int32: the position of each sequence's [CLS] in the row."""
    weight: Any = None
    """[R, K] float32: 1 / n for each of a feature's n sequences; 0 for unused slots."""
    token_type_ids: Any = None
    """[R, T] int32: 0 for the first text, 1 for the second."""
    label: Any = None
    """[R, K, ...] a label per sequence, or [R, T] a label per token; None without labels."""
    group: Any = None
    """[R, K] int32: a number below R * K, equal for the sequences of one feature; None if each
    feature is one sequence."""
    sequence_index: Any = None
    """[R, K] int32: the index of each sequence in its data set, which dropout depends on; None
    numbers them here."""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further arrays of the task, [R, T] or [R, K, ...], such as `start`."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Batch":
        """Return a batch of named arrays; those without a field of their own go to `extra`."""
        names = {field.name for field in dataclasses.fields(cls)} - {"extra"}
        fields = {name: values for name, values in arrays.items() if name in names}
        extra = {name: values for name, values in arrays.items() if name not in names}
        return cls(**fields, extra=extra)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TaskOutputs:
    """The part of a head's outputs that a task makes its predictions from.

    On the device the leading axes are [R, K] and [R, T], as in `Batch`; on the host, after
    `Batches.unpack`, they are those of `Features`.
    """

    per_sequence: dict[str, Any] = dataclasses.field(default_factory=dict)
    """[R, K, ...] on the device, [M, ...] on the host."""
    per_token: dict[str, Any] = dataclasses.field(default_factory=dict)
    """[R, T, ...] on the device, [total tokens, ...] on the host."""

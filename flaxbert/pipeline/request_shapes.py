"""The batch shapes of requests: a few that are compiled before the first request.

Token places double from one shape to the next. A request of one short sentence is computed in one
short row, and many texts in full rows, which packing fills.
"""

import dataclasses

import numpy as np

from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import sharding

SHORTEST_ROW = 16
"""Lower bound of the length of rows."""

STEP = 4
"""The ratio between neighboring row lengths; rows of 1 and 2 times a length are in between."""


@dataclasses.dataclass(frozen=True)
class RequestShapes:
    """The batch shapes in which a pipeline computes requests.

    Attributes:
      pipeline: task, tokenizer and model.
      batch_size: the largest number of sequences that are computed at once, rounded up to a power
        of two times the number of devices.
    """

    pipeline: Pipeline
    batch_size: int

    @property
    def row_lengths(self) -> list[int]:
        """Return the lengths of rows (T), ascending; the last one holds the longest text."""
        lengths = [self.pipeline.row_length]
        while lengths[0] % STEP == 0 and lengths[0] // STEP >= SHORTEST_ROW:
            lengths.insert(0, lengths[0] // STEP)
        return lengths

    def rows(self, row_length: int) -> list[int]:
        """Return the numbers of rows (R) of a length, ascending.

        Packed short rows are used for few texts only, because more of them fill a longer row.
        """
        devices = sharding.data_parallelism(self.pipeline.mesh)
        most = max(1, -(-self.batch_size // devices))
        sizes = [devices * 2**n for n in range((most - 1).bit_length() + 1)]
        short = row_length < self.row_lengths[-1] and self.pipeline.data.packing
        return sizes[:2] if short else sizes

    def batches(self, features: Features, row_length: int) -> Batches:
        """Plan the batches of features in rows of one length.

        The sequences of a feature, such as the choices of a question, share a step, so fewer such
        features are computed at once.
        """
        data = dataclasses.replace(self.pipeline.data, row_length=row_length)
        pipeline = dataclasses.replace(self.pipeline, data=data)
        sequences = int(np.diff(features.feature_start).max(initial=1))
        size = max(1, self.batch_size // sequences)
        return pipeline.batches(features, batch_size=size, power_of_two_buckets=True)

    def cheapest(self, features: Features) -> Batches:
        """Return the batches of features in those rows whose computation costs least."""
        longest = int(features.lengths.max(initial=1))
        plans = [self.batches(features, n) for n in self.row_lengths if n >= longest]
        fitting = [p for p in plans if set(p.bucket_sizes) <= set(self.rows(p.row_length))]
        return min(fitting or plans[-1:], key=_cost)


def _cost(batches: Batches) -> float:
    """Return the estimated time of all steps, in token positions; see ShapeCosts."""
    rows = sum(len(batches.padded_rows(step)) for step in range(batches.steps))
    return batches.costs.of_rows(rows, batches.row_length)


def without_tokens(features: Features, row_length: int) -> Features:
    """Return features for empty batches, with the same arrays, that fit rows of a length."""
    return dataclasses.replace(features, lengths=np.minimum(features.lengths, row_length))

"""Bootstrap intervals agree with the formula for a proportion, for few examples and for many."""

import numpy as np
import pytest

from flaxbert.metrics.classification import wilson
from flaxbert.metrics.resampling import GROUPS, group_sums, intervals


def share(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {"share": sums[..., 0] / sums[..., 1]}


@pytest.mark.parametrize("count", [200, 20 * GROUPS + 7])
def test_interval_of_a_share_is_that_of_the_formula(count: int) -> None:
    correct = np.random.default_rng(1).random(count) < 0.7
    sums = group_sums(np.stack([correct, np.ones(count)], axis=1))
    assert len(sums) == min(count, GROUPS)
    assert sums.sum(axis=0).tolist() == [correct.sum(), count]
    low, high = intervals(sums, share)["share"]
    expected = wilson(float(correct.sum()), count)
    width = expected[1] - expected[0]
    assert abs(low - expected[0]) < 0.15 * width
    assert abs(high - expected[1]) < 0.15 * width
    assert intervals(sums, share)["share"] == (low, high)


def test_one_example_has_no_interval() -> None:
    assert intervals(group_sums(np.ones((1, 2))), share) == {}
    assert intervals(group_sums(np.ones((0, 2))), share) == {}

"""Reliability diagrams and calibration errors, computed by hand."""

import numpy as np
import pytest

from flaxbert.metrics.calibration import (
    excess_confidence,
    expected_calibration_error,
    reliability,
)


def test_calibration_error_is_the_weighted_distance_of_the_bins() -> None:
    bins = reliability(np.array([0.95, 0.95, 0.95, 0.95, 0.6]), np.array([1, 1, 1, 0, 0], bool))
    assert [part.size for part in bins] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 4]
    assert bins[9].accuracy == 0.75
    assert expected_calibration_error(bins) == pytest.approx((4 * 0.2 + 1 * 0.6) / 5)
    assert excess_confidence(bins) == pytest.approx((4 * 0.2 + 1 * 0.6) / 5)


def test_probabilities_on_an_edge_belong_to_the_lower_bin() -> None:
    bins = reliability(np.array([0.0, 0.5, 1.0]), np.ones(3, bool), bins=2)
    assert [part.size for part in bins] == [2, 1]


def test_no_predictions_are_no_error() -> None:
    assert expected_calibration_error(reliability(np.zeros(0), np.zeros(0, bool))) == 0.0

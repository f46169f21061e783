"""Confident learning: a flipped label is a suspect, a doubtful example is not."""

import numpy as np

from flaxbert.metrics.label_errors import suspects, thresholds

PROBABILITIES = np.array(
    [[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.1, 0.9], [0.3, 0.7], [0.95, 0.05], [0.45, 0.55]]
)
GIVEN = np.array([0, 0, 0, 1, 1, 1, 0])


def test_thresholds_are_the_mean_probability_of_each_label() -> None:
    means = [(0.9 + 0.8 + 0.55 + 0.45) / 4, (0.9 + 0.7 + 0.05) / 3]
    np.testing.assert_allclose(thresholds(PROBABILITIES, GIVEN), means)
    # No example has the third label, and no probability reaches its threshold.
    wide = np.pad(PROBABILITIES, ((0, 0), (0, 1)))
    assert thresholds(wide, GIVEN)[2] == 1.0


def test_suspects_are_confidently_of_another_label_the_surest_first() -> None:
    result = suspects(PROBABILITIES, GIVEN)
    # Example 5 is of label 0 with 0.95; example 6 reaches the threshold of label 1, at 0.55.
    assert result.examples.tolist() == [5, 6]
    assert result.likely.tolist() == [0, 1]


def test_suspects_have_flipped_labels() -> None:
    generator = np.random.default_rng(0)
    real = generator.integers(3, size=600)
    logits = generator.normal(size=(600, 3)) + 3 * np.eye(3)[real]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = generator.choice(600, 30, replace=False)
    given = real.copy()
    given[flipped] = (real[flipped] + 1) % 3
    ranked = suspects(probabilities, given).examples
    assert len(ranked) >= 15
    assert len(set(ranked) & set(flipped)) >= 0.9 * len(ranked)


def test_without_examples_there_are_no_suspects() -> None:
    assert len(suspects(np.zeros((0, 2)), np.zeros(0, int)).examples) == 0

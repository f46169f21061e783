"""Sums of weighted values add up to the same mean, however they were split."""

import jax
import jax.numpy as jnp
import pytest

from flaxbert.types import WeightedSum


def test_sums_add_totals_and_weights():
    assert WeightedSum(3.0, 2.0) + WeightedSum(5.0, 0.5) == WeightedSum(8.0, 2.5)


def test_mean_does_not_depend_on_the_split():
    values, weights = [4.0, 1.0, 7.0, 2.0], [1.0, 0.5, 0.25, 2.0]
    parts = [WeightedSum(v * w, w) for v, w in zip(values, weights, strict=True)]
    whole = sum(parts, WeightedSum(0.0, 0.0))
    halves = (parts[0] + parts[3]) + (parts[1] + parts[2])
    expected = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    assert whole.mean == pytest.approx(expected)
    assert halves.mean == pytest.approx(expected)
    # The mean of the two halves' means is another number.
    means = ((parts[0] + parts[3]).mean + (parts[1] + parts[2]).mean) / 2
    assert means != pytest.approx(expected)


def test_mean_of_nothing_is_zero_on_host_and_device():
    assert WeightedSum(0.0, 0.0).mean == 0
    zero = jnp.zeros([])
    mean, gradient = jax.value_and_grad(lambda total: WeightedSum(total, zero).mean)(zero)
    assert float(mean) == 0
    assert jnp.isfinite(gradient)


def test_sum_is_a_tree_of_its_total_and_weight():
    sums = {"loss": WeightedSum(jnp.ones([]), jnp.full([], 2.0))}
    assert [float(leaf) for leaf in jax.tree.leaves(sums)] == [1.0, 2.0]
    doubled = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree))(sums)
    assert isinstance(doubled["loss"], WeightedSum)
    assert float(doubled["loss"].mean) == 0.5

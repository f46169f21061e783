"""Comparison within a tolerance t: max|a - b| <= t * max|b| for each tensor."""

from typing import Any

import jax
import numpy as np

OUTPUTS, GRADIENTS = 1e-5, 1e-4  # float32; see docs/architecture.md

GRADIENT_FLOOR = 1e-4
"""The scale of a gradient is at least this share of the norm of all gradients: that of the key bias
in attention is mathematically zero, so its computed value is only rounding."""


def assert_close(ours: Any, theirs: Any, tol: float = OUTPUTS) -> None:
    """Compare an array, or all arrays of a tree; `theirs` sets the scale."""
    for name, a, b in _pairs(ours, theirs):
        _assert_within(name, a, b, tol, _largest(b))


def assert_grads_close(ours: Any, theirs: Any, tol: float = GRADIENTS) -> None:
    """Compare all gradients of one loss, as a tree."""
    pairs = _pairs(ours, theirs)
    floor = GRADIENT_FLOOR * float(np.sqrt(sum(np.sum(b**2) for _, _, b in pairs)))
    for name, a, b in pairs:
        _assert_within(name, a, b, tol, max(_largest(b), floor))


def _pairs(ours: Any, theirs: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (path, ours, theirs) in float64; structures and shapes must be equal."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    pairs = []
    leaves = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    for (path, a), b in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, f"{name}: shapes {a.shape} and {b.shape}"
        assert np.all(np.isfinite(b)), f"{name}: the reference is not finite"
        pairs.append((name, a, b))
    return pairs


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0.0))


def _assert_within(name: str, a: np.ndarray, b: np.ndarray, tol: float, scale: float) -> None:
    worst = _largest(a - b)  # NaN if `a` has any, which fails below
    assert worst <= tol * scale, f"{name}: off by {worst:.2e}, {tol:g} of {scale:.3g} is allowed"

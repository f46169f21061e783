"""Frozen parameters (`optim.freeze`): the step computes neither a gradient nor a moment of them.

The parameters are split into two trees of the same structure, each with None for the leaves of the
other. JAX takes None for an empty tree, so gradients, moments, updates and their all-reduce exist
for the trained part alone, and layers below the lowest trained one have no backward pass.
"""

import difflib
import logging
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from flaxbert.errors import ConfigError
from flaxbert.types import Params

log = logging.getLogger("flaxbert")


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a parameter's path, or all of the path up to some slash."""
    return re.fullmatch(f"(?:{pattern})(?:/.*)?", name) is not None


def split(params: Params, patterns: Sequence[str]) -> tuple[Params, Params]:
    """Return (the trained part, the frozen part) of a tree of parameters; see above."""

    def part(frozen: bool) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if is_frozen(path) == frozen else None, params
        )

    def is_frozen(path: tuple[Any, ...]) -> bool:
        return any(_matches(pattern, _name(path)) for pattern in patterns)

    return part(frozen=False), part(frozen=True)


def merge(trained: Params, frozen: Params) -> Params:
    """Return the tree that `split` split; a leaf of both parts is taken from the first."""
    merged: Params = jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf,
        trained,
        frozen,
        is_leaf=lambda leaf: leaf is None,
    )
    return merged


def check(patterns: Sequence[str], shapes: Params) -> None:
    """Check that every pattern matches a parameter, and log how many parameters are trained.

    Args:
      patterns: `optim.freeze`.
      shapes: `Model.shapes`.

    Raises:
      ConfigError: for a pattern that matches nothing, or if nothing is left to train.
    """
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    for pattern in patterns:
        if not any(_matches(pattern, name) for name in names):
            raise ConfigError(
                f"optim.freeze: {pattern!r} matches no parameter. {_near(pattern, names)}"
            )
    trained, _ = split(shapes, patterns)
    count, whole = (
        sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
        for tree in (trained, shapes)
    )
    if not count:
        raise ConfigError(
            f"optim.freeze={tuple(patterns)!r} leaves nothing to train; leave a pattern out."
        )
    if patterns:
        log.info(f"training {count:,} of {whole:,} parameters; the others are frozen")


def _near(pattern: str, names: Sequence[str]) -> str:
    """Return the paths that look like a pattern, for its error."""
    parts = [name.split("/") for name in names]
    starts = dict.fromkeys(
        "/".join(part[:end]) for part in parts for end in range(1, len(part) + 1)
    )
    close = difflib.get_close_matches(pattern, starts, n=4, cutoff=0.6)
    return (
        f"Did you mean {' or '.join(map(repr, close))}?"
        if close
        else f"Paths begin with {', '.join(start for start in starts if start.count('/') == 1)}."
    )

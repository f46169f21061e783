"""Ahead-of-time compilation: one program for every bucket size, for any kind of batch."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from flaxbert.runtime.compilation import start_compiling


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch as a dataclass with two arrays."""

    input_ids: jax.Array
    extra: dict[str, jax.Array]


def as_dict(rows: int) -> dict[str, jax.Array]:
    return {"input_ids": jnp.ones((rows, 4)), "weight": jnp.ones(rows)}


def as_dataclass(rows: int) -> Batch:
    return Batch(jnp.ones((rows, 4)), {"weight": jnp.ones(rows)})


@pytest.mark.parametrize("make_batch", [as_dict, as_dataclass])
def test_programs_are_selected_by_rows_and_never_compile_again(make_batch):
    traces = []

    def total(scale, batch):
        leaves = jax.tree.leaves(batch)
        traces.append(leaves[0].shape[0])
        return scale * sum(leaf.sum() for leaf in leaves)

    step = start_compiling(jax.jit(total), jnp.float32(2), [2, 8], make_batch)()
    assert traces == [2, 8]
    assert [float(step(jnp.float32(3), make_batch(rows))) for rows in (8, 2, 8)] == [120, 30, 120]
    assert traces == [2, 8]
    with pytest.raises(KeyError):
        step(jnp.float32(3), make_batch(4))

"""What changes from step to step, and so what a checkpoint holds."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxbert.runtime import sharding
from flaxbert.types import Params

Sums = dict[str, Array]

SUMS = ("examples", "tokens", "grad_norm", "lowest_grad_norm", "steps")
"""Beside each objective's losses and weights."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Order, dropout and learning rate follow from `step`, so nothing else need be kept."""

    step: Array
    """Optimizer steps taken, int32."""
    params: Params
    opt_state: Any
    sums: Sums
    """Over the steps since the last line of metrics.jsonl: a resumed run logs the same line."""
    skipped: Array
    """Steps that changed nothing, since their loss or gradient was not finite, int32."""


def create(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: Any,
    loss_names: Sequence[str] = ("loss",),
) -> TrainState:
    """Step 0 from host parameters, each array placed where training wants it."""
    init = _initialiser(optimizer, loss_names)
    placed = sharding.shard_params(params, mesh)
    # Without out_shardings, jit would leave the optimizer's moments on one device.
    places = sharding.param_shardings(jax.eval_shape(init, placed), mesh)
    return jax.jit(init, out_shardings=places)(placed)


def shapes(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: Any,
    loss_names: Sequence[str] = ("loss",),
) -> TrainState:
    """What `create` gives, as `jax.ShapeDtypeStruct`s that say where each array belongs.

    `params` are shapes too, such as `Model.shapes`: nothing is read or allocated.
    """
    state = jax.eval_shape(_initialiser(optimizer, loss_names), params)
    places = sharding.param_shardings(state, mesh)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        places,
    )


def _initialiser(
    optimizer: optax.GradientTransformation, loss_names: Sequence[str]
) -> Callable[[Params], TrainState]:
    names = [*SUMS, *loss_names, *(f"{name}/weight" for name in loss_names)]

    def init(params: Params) -> TrainState:
        sums = {name: jnp.zeros([], jnp.float32) for name in names}
        zero = jnp.zeros([], jnp.int32)
        return TrainState(zero, params, optimizer.init(params), sums, zero)

    return init

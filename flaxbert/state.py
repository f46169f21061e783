"""What changes from step to step, and so what a checkpoint holds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxbert import sharding
from flaxbert.models.model import Params

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
    objectives: Sequence[str] = ("loss",),
) -> TrainState:
    """Step 0 from host parameters, each array placed where training wants it."""
    names = [*SUMS, *objectives, *(f"{name}/weight" for name in objectives)]
    placed = sharding.put_params(params, mesh)

    def init(params: Params) -> TrainState:
        sums = {name: jnp.zeros([], jnp.float32) for name in names}
        zero = jnp.zeros([], jnp.int32)
        return TrainState(zero, params, optimizer.init(params), sums, zero)

    # Without out_shardings, jit would leave the optimizer's moments on one device.
    places = sharding.tree_shardings(jax.eval_shape(init, placed), mesh)
    return jax.jit(init, out_shardings=places)(placed)

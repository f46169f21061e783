"""The training state: everything that changes from step to step, and that a checkpoint holds."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxbert.runtime import sharding
from flaxbert.training.optim import averaged_params
from flaxbert.types import Losses, Params, WeightedSum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepSums:
    """Sums over steps, from which a line of metrics.jsonl takes its means. All are scalars."""

    losses: Losses
    examples: Array
    """Features, float32."""
    tokens: Array
    """Tokens, without padding."""
    grad_norm: Array
    """Norm of the gradient before clipping, added over steps."""
    first_layer_grad_norm: Array
    """The same for the encoder's first layer; if it vanishes, the encoder does not learn."""
    steps: Array

    def __add__(self, other: "StepSums") -> "StepSums":
        """Return the sums over both."""
        sums: StepSums = jax.tree.map(operator.add, self, other)
        return sums

    @classmethod
    def zeros(cls, loss_names: Sequence[str]) -> "StepSums":
        """Return the sums before the first step."""
        zero = jnp.zeros([], jnp.float32)
        losses = {name: WeightedSum(zero, zero) for name in loss_names}
        return cls(losses, zero, zero, zero, zero, zero)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    The order of the data, dropout and the learning rate are functions of `step`.
    """

    step: Array
    """Optimizer steps taken, int32."""
    params: Params
    opt_state: Any
    sums: StepSums
    """Sums since the last line of metrics.jsonl, so that a resumed run logs the same next line."""
    skipped: Array
    """Steps that changed nothing because their loss or gradient was not finite, int32."""

    @property
    def averaged(self) -> Params:
        """The parameters to evaluate and export: their moving average if `train.ema` is set."""
        params: Params = averaged_params(self.params, self.opt_state)
        return params


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: sharding.Mesh,
    loss_names: Sequence[str] = ("loss",),
) -> TrainState:
    """Return the state at step 0, each array placed as training needs it.

    Args:
      params: parameters on the host.
      optimizer: initializes the optimizer state.
      mesh: the devices.
      loss_names: names of the task's losses.
    """
    init = _initializer(optimizer, loss_names)
    placed = sharding.shard_params(params, mesh)
    # Without out_shardings, jit would leave the optimizer's moments on one device.
    places = sharding.param_shardings(jax.eval_shape(init, placed), mesh)
    return jax.jit(init, out_shardings=places)(placed)


def state_shapes(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: sharding.Mesh,
    loss_names: Sequence[str] = ("loss",),
) -> TrainState:
    """Return the result of `init_state` as `jax.ShapeDtypeStruct`s with shardings.

    `params` are shapes too, such as `Model.shapes`; nothing is read or allocated.
    """
    state = jax.eval_shape(_initializer(optimizer, loss_names), params)
    places = sharding.param_shardings(state, mesh)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        places,
    )


def _initializer(
    optimizer: optax.GradientTransformation, loss_names: Sequence[str]
) -> Callable[[Params], TrainState]:
    def init(params: Params) -> TrainState:
        zero = jnp.zeros([], jnp.int32)
        sums = StepSums.zeros(loss_names)
        return TrainState(zero, params, optimizer.init(params), sums, zero)

    return init

"""The jit-compiled forward step of evaluation and prediction."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.tasks.base import Task
from flaxbert.types import Batch, Losses, Params, TaskOutputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutputs:
    """The results of a forward step that the host reads."""

    outputs: TaskOutputs
    finite: Array
    """[R] bool: whether all outputs for a row are finite, also those that the task ignores."""
    losses: Losses
    """Empty without labels."""


PredictStep = Callable[[Params, Batch], StepOutputs]


def make_predict_step(
    model: Model, task: Task, mesh: sharding.Mesh, *, labeled: bool
) -> PredictStep:
    """Return the jitted step `(params, batch) -> StepOutputs`, without dropout."""

    def predict_step(params: Params, batch: Batch) -> StepOutputs:
        outputs = model(params, batch)
        rows = batch.input_ids.shape[0]
        finite = jnp.ones(rows, bool)
        for values in outputs.values():
            if jnp.issubdtype(values.dtype, jnp.floating):
                finite &= jnp.isfinite(values).reshape(rows, -1).all(axis=1)
        losses = task.loss(outputs, batch) if labeled else {}
        return StepOutputs(task.predict(outputs, batch), finite, losses)

    return jax.jit(predict_step, out_shardings=sharding.replicated(mesh))

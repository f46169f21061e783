"""The jit-compiled forward step of evaluation and prediction."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.tasks.base import Task
from flaxbert.types import DeviceBatch, Losses, Params

PredictStep = Callable[[Params, DeviceBatch], tuple[Any, Losses]]


def make_predict_step(model: Model, task: Task, mesh: Any, *, labeled: bool) -> PredictStep:
    """Forward step, `(params, batch) -> (task.predict's arrays, task.loss's sums)`, no dropout.

    `finite` [R] joins the arrays: whether all outputs of a row are. What a task makes of them,
    such as the best label, may not show it.
    """

    def predict_step(params: Params, batch: DeviceBatch) -> tuple[Any, Losses]:
        outputs = model(params, batch)
        found = task.loss(outputs, batch) if labeled else {}
        rows = batch["input_ids"].shape[0]
        finite = jnp.ones(rows, bool)
        for values in outputs.values():
            if jnp.issubdtype(values.dtype, jnp.floating):
                finite &= jnp.isfinite(values).reshape(rows, -1).all(axis=1)
        return {**task.predict(outputs, batch), "finite": finite}, found

    return jax.jit(predict_step, out_shardings=sharding.replicated(mesh))

"""The jit-compiled steps: one optimizer step, one evaluation step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.tasks.base import Task
from flaxbert.training.optim import global_norm
from flaxbert.training.state import Sums, TrainState
from flaxbert.types import DeviceBatch, Params

TrainStep = Callable[[TrainState, DeviceBatch], tuple[TrainState, Sums]]

TINY = 1e-20
"""Stands for a weight of zero: a batch without anything to learn gives a loss of 0, not NaN."""


def make_loss(model: Model, task: Task) -> Callable[..., tuple[Array, Sums]]:
    """(params, batch, key, weights) -> the loss, and the sums that means over steps are made of.

    The loss is the sum of the task's objectives, each its losses' sum divided by its weight:
    `weights` where given (a part of a batch is divided by the whole batch's), else its own.
    """

    def loss(
        params: Params, batch: DeviceBatch, key: Array | None, weights: Sums | None = None
    ) -> tuple[Array, Sums]:
        found = task.loss(model(params, batch, key=key), batch)
        sums = {
            "examples": jnp.sum(batch["weight"]),
            "tokens": jnp.sum(batch["segment_ids"] > 0).astype(jnp.float32),
        }
        total = jnp.zeros([], jnp.float32)
        for name, (value, weight) in found.items():
            sums |= {name: value, f"{name}/weight": weight}
            total += value / jnp.maximum((weights or sums)[f"{name}/weight"], TINY)
        return total, sums

    return loss


def make_train_step(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Any,
    *,
    accumulation_steps: int,
    seed: int,
    log_every: int,
) -> TrainStep:
    """Compile-ready train step, `(state, batch) -> (state, sums)`; the old state is donated.

    The sums run over the steps since the last multiple of `log_every`. A step whose loss or
    gradient is not finite leaves all but `step` as it was, and is counted: the sums' `skipped` is
    the count since the run began.

    Args:
      model: encoder and head.
      task: gives the loss.
      optimizer: from `optim.make_optimizer`.
      state: for its shardings.
      mesh: the mesh.
      accumulation_steps: micro-batches that a batch is computed in. The loss of each is divided by
        the whole batch's weights, so the result is that of one.
      seed: of dropout; the key of a step is a pure function of (seed, step, part).
      log_every: steps that a line of metrics.jsonl sums up.
    """
    loss = make_loss(model, task)
    update = optax.with_extra_args_support(optimizer).update  # any may be given the step
    shards = sharding.data_parallelism(mesh)

    def gradients(
        params: Params, batch: DeviceBatch, key: Array, weights: Sums | None = None
    ) -> tuple[Params, Sums]:
        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, key, weights)
        return grads, sums

    def parts(x: Array) -> Array:
        # [R, ...] -> [A, R / A, ...]. Each device divides its own rows: no traffic between them.
        rows = x.reshape(shards, accumulation_steps, -1, *x.shape[1:])
        return rows.swapaxes(0, 1).reshape(accumulation_steps, -1, *x.shape[1:])

    def train_step(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if accumulation_steps == 1:
            grads, sums = gradients(state.params, batch, key)
        else:
            # Weights follow from the batch alone: the compiler drops the model from this line.
            _, weights = loss(state.params, batch, None)

            def part(carry: Any, part_batch: tuple[Array, DeviceBatch]) -> tuple[Any, None]:
                index, rows = part_batch
                part_key = jax.random.fold_in(key, index)
                found = gradients(state.params, rows, part_key, weights)
                return jax.tree.map(jnp.add, carry, found), None

            split = jax.tree.map(parts, dict(batch))
            one = jax.tree.map(lambda x: x[0], split)
            shapes = jax.eval_shape(gradients, state.params, one, key)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            (grads, sums), _ = jax.lax.scan(part, zeros, (jnp.arange(accumulation_steps), split))
        updates, opt_state = update(grads, state.opt_state, state.params, step=state.step)
        params = optax.apply_updates(state.params, updates)
        sums |= {
            "grad_norm": global_norm(grads),
            "lowest_grad_norm": global_norm(first_layer(grads)),
            "steps": jnp.ones([], jnp.float32),
        }
        # Decided here, on the device: the steps that follow are on their way when the host hears.
        sound = jnp.isfinite(sum(sums.values()))

        def chosen(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)

        carried = jnp.where(state.step % log_every == 0, 0.0, 1.0)
        before = {name: carried * state.sums[name] for name in sums}
        sums = chosen({name: before[name] + value for name, value in sums.items()}, before)
        skipped = state.skipped + (1 - sound.astype(jnp.int32))
        params = chosen(params, state.params)
        opt_state = chosen(opt_state, state.opt_state)
        seen = sums | {"skipped": skipped.astype(jnp.float32)}
        return TrainState(state.step + 1, params, opt_state, sums, skipped), seen

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(sharding.param_shardings(state, mesh), sharding.batch_sharding(mesh)),
        out_shardings=(sharding.param_shardings(state, mesh), sharding.replicated(mesh)),
    )


def first_layer(grads: Params) -> Params:
    """The gradients of the encoder's first layer: where they vanish, nothing below learns."""
    layers: Params = grads["encoder"]["layers"]
    first: Params = layers[min(layers)]
    return first

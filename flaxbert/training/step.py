"""The jit-compiled optimizer step."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from flaxbert.config import OptimConfig, TrainConfig
from flaxbert.models.dropout import dropout_key
from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.tasks.base import Task
from flaxbert.training import freezing
from flaxbert.training.optim import global_norm
from flaxbert.training.state import StepSums, TrainState
from flaxbert.types import Batch, Losses, Params, WeightedSum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepReport:
    """The results of a step that the host reads. The next step does not reuse their memory."""

    sums: StepSums
    """Sums since the last line of metrics.jsonl."""
    skipped: Array
    """Steps that changed nothing since the run began, int32."""


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepReport]]

BatchSums = tuple[Losses, Array, Array]
"""Losses, examples and tokens of a batch."""


def make_loss(model: Model, task: Task) -> Callable[..., tuple[Array, BatchSums]]:
    """Return the function `(params, batch, key, whole) -> (loss, sums)`.

    The loss is the sum of the means of the task's losses. For a micro-batch, `whole` holds the
    losses of the whole batch: its weights are the denominators of the means.
    """

    def loss(
        params: Params, batch: Batch, key: Array | None, whole: Losses | None = None
    ) -> tuple[Array, BatchSums]:
        outputs = model(params, batch, key=key)
        with jax.named_scope("loss"):
            losses = task.loss(outputs, batch)
        total = jnp.zeros([], jnp.float32)
        for name, part in losses.items():
            total += WeightedSum(part.total, (whole or losses)[name].weight).mean
        tokens = jnp.sum(batch.segment_ids > 0).astype(jnp.float32)
        return total, (losses, jnp.sum(batch.weight), tokens)

    return loss


def _with_frozen(
    loss: Callable[..., tuple[Array, BatchSums]], frozen: Params
) -> Callable[..., tuple[Array, BatchSums]]:
    """Return a loss as a function of the trained parameters alone."""

    def of_trained(trained: Params, *rest: Any) -> tuple[Array, BatchSums]:
        return loss(freezing.merge(trained, frozen), *rest)

    return of_trained


def make_gradients(
    loss: Callable[..., tuple[Array, BatchSums]], accumulation_steps: int, mesh: sharding.Mesh
) -> Callable[[Params, Batch, Array], tuple[Params, BatchSums]]:
    """Return the function `(params, batch, key) -> (gradients, sums)`, over all micro-batches.

    Args:
      loss: from `make_loss`.
      accumulation_steps: number of micro-batches that a batch is computed in, one after another.
      mesh: the devices.
    """

    def gradients(
        params: Params, batch: Batch, key: Array, whole: Losses | None = None
    ) -> tuple[Params, BatchSums]:
        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, key, whole)
        return sharding.divided(grads, mesh), sums

    def accumulated(params: Params, batch: Batch, key: Array) -> tuple[Params, BatchSums]:
        # Weights depend on the batch alone, so the compiler removes the model from this line.
        _, (whole, _, _) = loss(params, batch, None)

        def add(carry: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, gradients(params, part, key, whole)), None

        devices = sharding.data_parallelism(mesh)
        parts = split_batch(batch, parts=accumulation_steps, data_parallelism=devices)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradients, params, first, key)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, parts)
        return total

    return gradients if accumulation_steps == 1 else accumulated


def step_of_run(
    model: Model,
    task: Task,
    mesh: sharding.Mesh,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    *,
    train: TrainConfig,
    optim: OptimConfig,
) -> TrainStep:
    """Return the step with the settings of a configuration; see `make_train_step`.

    Args:
      model: encoder and head.
      task: defines the loss.
      mesh: the devices.
      optimizer: from `optim.make_optimizer`.
      state: a state with the shardings of training, or its shapes.
      train: micro-batches, seed, and steps between log lines.
      optim: the parameters that are not trained.
    """
    return make_train_step(
        model,
        task,
        optimizer,
        state,
        mesh,
        accumulation_steps=train.microbatches,
        seed=train.seed,
        log_every=train.log_every,
        freeze=optim.freeze,
    )


def make_train_step(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: sharding.Mesh,
    *,
    accumulation_steps: int,
    seed: int,
    log_every: int,
    freeze: Sequence[str] = (),
) -> TrainStep:
    """Return the jitted step `(state, batch) -> (state, report)`; the old state is donated.

    A step that is not finite changes nothing but `step` and `skipped`.

    Args:
      model: encoder and head.
      task: defines the loss.
      optimizer: from `optim.make_optimizer`.
      state: a state with the shardings of training.
      mesh: the devices.
      accumulation_steps: number of micro-batches that a batch is computed in. The loss of each is
        divided by the whole batch's weights, so their number does not change the result.
      seed: seed of dropout, which is a function of (seed, step, sequence, position, unit).
      log_every: steps between lines of metrics.jsonl; the sums restart after each.
      freeze: patterns of the parameters that are not trained (see freezing.py).
    """
    loss = make_loss(model, task)
    update = optax.with_extra_args_support(optimizer).update  # any may be given the step

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepReport]:
        key = dropout_key(seed, state.step)
        trained, frozen = freezing.split(state.params, freeze)
        compute_gradients = make_gradients(_with_frozen(loss, frozen), accumulation_steps, mesh)
        grads, (losses, examples, tokens) = compute_gradients(trained, batch, key)
        updates, opt_state = update(grads, state.opt_state, trained, step=state.step)
        params = optax.apply_updates(trained, updates)
        sums = StepSums(
            losses,
            examples,
            tokens,
            grad_norm=global_norm(grads),
            first_layer_grad_norm=global_norm(model.first_layer(grads)),
            steps=jnp.ones([], jnp.float32),
        )
        # Decided on the device: the following steps are already queued when the host reads this.
        finite = jnp.isfinite(sum(jax.tree.leaves(sums)))
        continues = jnp.where(state.step % log_every == 0, 0.0, 1.0)
        before = jax.tree.map(lambda value: continues * value, state.sums)
        keep = functools.partial(keep_if, finite)
        sums = keep(before + sums, before)
        skipped = state.skipped + (1 - finite.astype(jnp.int32))
        params, opt_state = keep(params, trained), keep(opt_state, state.opt_state)
        params = freezing.merge(params, frozen)
        new = TrainState(state.step + 1, params, opt_state, sums, skipped)
        return new, StepReport(sums, skipped)

    return _jit(train_step, state, mesh)


def _jit(train_step: TrainStep, state: TrainState, mesh: sharding.Mesh) -> TrainStep:
    places, everywhere = sharding.param_shardings(state, mesh), sharding.replicated(mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(places, sharding.batch_sharding(mesh)),
        out_shardings=(places, everywhere),
        compiler_options=compiler_options(mesh),
    )


def compiler_options(mesh: sharding.Mesh) -> dict[str, bool]:
    """Return XLA's options for the train step on these devices.

    By default XLA copies both moments of every parameter on CPUs before it writes the new ones,
    because the update of the parameter reads the old ones. With an analysis that is the default on
    other devices, it sees that the update comes first.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_copy_insertion_use_region_analysis": True} if on_cpu else {}


def keep_if(condition: Array, new: Any, old: Any) -> Any:
    """Return `new` where a scalar condition holds, else `old`; both are equal trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def split_batch(batch: Batch, *, parts: int, data_parallelism: int) -> Batch:
    """Split [R, ...] arrays into micro-batches, [parts, R / parts, ...].

    Each device splits its own rows, so no row moves to another device (see `Batches.padded_rows`).
    """

    def split(x: Array) -> Array:
        rows = x.reshape(data_parallelism, parts, -1, *x.shape[1:])
        return rows.swapaxes(0, 1).reshape(parts, -1, *x.shape[1:])

    divided: Batch = jax.tree.map(split, batch)
    return divided

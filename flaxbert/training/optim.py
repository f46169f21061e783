"""The optimizer: AdamW with linear warm-up and a decay, the usual choice for fine-tuning BERT.

Original: `AdamWeightDecayOptimizer` of google-research/bert; decoupled decay: Loshchilov and Hutter
2019, arXiv:1711.05101. One choice differs: the original leaves out Adam's bias correction, which
makes fine-tuning on small data sets unstable (Mosbach et al. 2021, arXiv:2006.04884; Zhang et al.
2021, arXiv:2006.05987), so it is on unless `optim.bias_correction=false`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from flaxbert.config import OptimConfig
from flaxbert.errors import ConfigError
from flaxbert.training import freezing

Schedule = Callable[[Any], Any]


def warmup_steps(config: OptimConfig, total_steps: int) -> int:
    """Return the steps of warm-up: a `warmup` below 1 is a share of all steps, rounded up.

    The warm-up ends before the last step. A run of one step has no warm-up: the learning rate of
    its only step would be 0.
    """
    share = config.warmup < 1
    wanted = math.ceil(config.warmup * total_steps) if share else round(config.warmup)
    return min(wanted, max(0, total_steps - 1))


def make_schedule(config: OptimConfig, total_steps: int) -> Schedule:
    """Return the learning rate as a function of the optimizer step, from 0.

    It rises from 0 at step 0 to the peak at step `warmup`, then falls to 0 at `total_steps` (so the
    last step, `total_steps - 1`, still learns), or stays (`optim.schedule`). For a step on the
    host, it is computed there: on the device it would wait for the steps in its queue.
    """
    warmup = warmup_steps(config, total_steps)

    def rate(step: Any) -> Any:
        rising = step / max(1, warmup)
        left = (total_steps - step) / max(1, total_steps - warmup)
        if not isinstance(step, jax.Array):
            share = np.float32(rising if step < warmup else _decayed(config, left, np))
            return np.float32(config.learning_rate) * np.clip(share, np.float32(0), np.float32(1))
        falling = _decayed(config, left, jnp)
        return config.learning_rate * jnp.clip(jnp.where(step < warmup, rising, falling), 0.0, 1.0)

    return rate


def _decayed(config: OptimConfig, left: Any, numpy: Any) -> Any:
    """Return the learning rate after the warm-up, as a share of its peak.

    Half a cosine: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Args:
      config: names the schedule.
      left: the share of the steps after the warm-up that is left; more than 1 during the warm-up.
      numpy: the library that computes it, NumPy or `jax.numpy`.
    """
    match config.schedule:
        case "cosine":
            return 0.5 - 0.5 * numpy.cos(math.pi * left)
        case "polynomial":
            return numpy.maximum(left, 0.0) ** config.power
        case "constant":
            return numpy.ones_like(left)
    return left


def decay_mask(params: Any) -> Any:
    """Return a tree that is True for kernels and embedding tables, else False."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
    )


def _clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """Return the multiplication of all gradients by min(1, most / global norm).

    Optax's own divides every gradient by the norm. XLA does not compute a division twice, so it
    stores the clipped gradients; it computes this product where it is needed.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        norm = global_norm(updates)
        factor = jnp.where(norm > most, most / norm, 1.0)
        return jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _adam_without_bias_correction(config: OptimConfig) -> optax.GradientTransformation:
    """Return the transformation m / (sqrt(v) + eps) of the raw moments, as in the original BERT."""

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, config.b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, config.b2, 2)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.eps), mu, nu)
        return updates, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(init, update)


def _scale_by_rate(schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Return the multiplication by minus the learning rate of `step`, a keyword of `update`.

    Optax's own transformation counts its updates instead. A skipped step is not an update, so
    that count would fall behind the step numbers of the log and the schedule. The state keeps
    Optax's form, so that older checkpoints can be restored.
    """

    def update(
        updates: Any, state: Any, params: Any = None, *, step: Any, **_: Any
    ) -> tuple[Any, Any]:
        del params
        rate = -schedule(step)
        updates = jax.tree.map(lambda u: rate.astype(u.dtype) * u, updates)
        return updates, optax.ScaleByScheduleState(state.count + 1)

    def init(_: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


def layer_factors(params: Any, decay: float) -> Any:
    """Return a tree of the factors of the learning rate (`optim.layer_decay`).

    The output layer and the top layer of the encoder have 1, each layer below `decay` times that of
    the layer above, and the embeddings `decay` times that of the first layer. Layer-wise rates:
    Howard and Ruder 2018, arXiv:1801.06146; from the top layer down: Zhang et al. 2021,
    arXiv:2006.05987. (ELECTRA, Clark et al. 2020, arXiv:2003.10555, begins two powers lower.)
    """
    layers = len(params.get("encoder", {}).get("layers", ()))

    def factor(path: tuple[Any, ...], _: Any) -> float:
        match [key.key for key in path[:3]]:
            case ["encoder", "embeddings", *_]:
                return decay**layers
            case ["encoder", "layers", int(layer)]:
                return decay ** (layers - 1 - layer)
        return 1.0

    return jax.tree_util.tree_map_with_path(factor, params)


def _scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Return the multiplication of all updates by `layer_factors`."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factors = layer_factors(params, decay)
        return jax.tree.map(lambda u, factor: factor * u, updates, factors), state

    return optax.GradientTransformation(optax.init_empty_state, update)


class MovingAverage(NamedTuple):
    """The optimizer state that holds the moving average of the trained parameters."""

    average: Any


def _average(decay: float) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that changes no update, and averages the updated parameters.

    The average of step t (Polyak and Juditsky 1992, with exponential weights) has the decay
    min(decay, (1 + t) / (10 + t)), the usual warm-up: a short run would else keep averaging in the
    parameters that it began with.
    """

    def update(
        updates: Any, state: MovingAverage, params: Any = None, *, step: Any, **_: Any
    ) -> tuple[Any, MovingAverage]:
        weight = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda old, now: old + weight * (now - old), state.average, new)
        return updates, MovingAverage(average)

    def init(params: Any) -> MovingAverage:
        return MovingAverage(jax.tree.map(jnp.copy, params))  # a buffer is donated only once

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_params(params: Any, opt_state: Any) -> Any:
    """Return the parameters to evaluate and export: their moving average if there is one.

    Frozen parameters have none: theirs would be the same.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, MovingAverage))
    averages = [leaf.average for leaf in leaves if isinstance(leaf, MovingAverage)]
    return freezing.merge(averages[0], params) if averages else params


def require_float32(param_dtype: str) -> None:
    """Check the type of the parameters (`model.param_dtype`).

    Raises:
      ConfigError: unless it is float32.
    """
    if param_dtype != "float32":
        raise ConfigError(
            f"model.param_dtype={param_dtype!r}: training needs float32. An update of AdamW is "
            "smaller than half the spacing of bfloat16, so most parameters would never change. For "
            "arithmetic in bfloat16 set model.dtype=bfloat16 and leave this key out."
        )


def make_optimizer(
    config: OptimConfig, total_steps: int, ema: float = 0.0
) -> tuple[optax.GradientTransformationExtraArgs, Schedule]:
    """Return the Optax chain and its learning-rate schedule, for a run of `total_steps`.

    The chain's `init` takes all parameters, and has a state for those that are not frozen. Its
    `update` takes gradients and parameters without the frozen ones (see freezing.py), and the
    number of the optimizer step, from 0, as `step=`.

    Args:
      config: the schedule, AdamW, and the parameters that are frozen.
      total_steps: steps of the schedule.
      ema: decay of the moving average of the parameters (`train.ema`); 0 for none.
    """
    schedule = make_schedule(config, total_steps)
    clip = _clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.bias_correction:
        adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    else:
        adam = _adam_without_bias_correction(config)
    parts = [
        clip,
        adam,
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        _scale_by_layer(config.layer_decay) if config.layer_decay != 1 else None,
        _scale_by_rate(schedule),
        _average(ema) if ema else None,
    ]
    chain = optax.chain(*(part for part in parts if part is not None))

    def init(params: Any) -> Any:
        return chain.init(freezing.split(params, config.freeze)[0])

    update = jax.named_scope("optimizer")(chain.update)
    return optax.GradientTransformationExtraArgs(init, update), schedule


def global_norm(tree: Any) -> Array:
    """Return the Euclidean norm of all leaves together."""
    return optax.tree.norm(tree)

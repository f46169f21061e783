"""The number of micro-batches of a step: the one asked for, or the smallest that fits memory."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import optax

from flaxbert.config import Config
from flaxbert.data.batching import Batches
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import memory, multihost
from flaxbert.runtime.compilation import Step, start_compiling
from flaxbert.training.attention_choice import with_fitting_attention
from flaxbert.training.data import TrainingData
from flaxbert.training.state import TrainState, state_shapes
from flaxbert.training.step import step_of_run

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What depends on the number of micro-batches, before any weights are on the devices."""

    config: Config
    """With that number in place of `auto`."""
    pipeline: Pipeline
    """With a way to compute attention in micro-batches of this size."""
    data: TrainingData
    programs: Mapping[int, Any]
    """{number of rows: program} of the training step that were compiled to find the number."""


def prepare(
    config: Config,
    pipeline: Pipeline,
    data: TrainingData,
    optimizer: optax.GradientTransformation,
    attention: str | None,
) -> Prepared:
    """Choose the number of micro-batches if it is `auto`, and the way to compute attention.

    The number is the first of 1, 2, 4, ... whose largest program fits the memory of the devices, by
    the count of the compiler. Batches are planned again for each; nothing is read or tokenized. All
    hosts must call this; they choose a number that fits on all of them.

    Args:
      config: the configuration; a run that resumes has its number in place of `auto`.
      pipeline: task and model.
      data: the data sets, with the training batches planned for one number.
      optimizer: from `optim.make_optimizer`.
      attention: see `with_fitting_attention`.

    Raises:
      OutOfMemoryError: if no number fits, even with one row on each device at a time.
    """
    if config.train.accumulation_steps != "auto":
        batches, parts = data.train.batches, config.train.microbatches
        fitting = with_fitting_attention(pipeline, batches.largest_shape, parts, attention)
        return Prepared(config, fitting, data, {})
    usage = None
    for parts, batches in candidates(pipeline, data.train.batches):
        now = config.with_accumulation_steps(parts)
        fitting = with_fitting_attention(pipeline, batches.largest_shape, parts, attention)
        with multihost.fail_together():
            step, usage = attempt(now, fitting, optimizer, batches)
        last = not divisible(batches, batches.largest_shape[0])
        enough = usage is None or usage.fits or last
        fits = _on_all_hosts(step is not None and enough)
        _log(batches, usage, fits=fits)
        if fits and step is not None:
            train = dataclasses.replace(data.train, batches=batches)
            whole = dataclasses.replace(data, train=train)
            return Prepared(now, fitting, whole, step.programs)
    what = f"compiling the training step, even with train.accumulation_steps={parts},"
    with memory.explain_exhaustion(what, memory.SMALLER, batches.largest_shape):
        raise memory.TooLargeError(usage)


def candidates(
    pipeline: Pipeline, batches: Batches, after: int = 0
) -> Iterator[tuple[int, Batches]]:
    """Yield numbers of micro-batches, each twice the one before, with the batches planned for it.

    Args:
      pipeline: plans the batches.
      batches: the batches for the number `after`.
      after: the number before the first; 0 begins with 1.
    """
    parts = after
    while not parts or divisible(batches, batches.largest_shape[0]):
        parts = 2 * parts or 1
        batches = pipeline.in_microbatches(batches, parts)
        yield parts, batches


def divisible(batches: Batches, rows: int) -> bool:
    """Return whether micro-batches can be halved: they have several rows on each device.

    Args:
      batches: planned for a number of micro-batches.
      rows: R of the largest batch, over all devices.
    """
    return rows > batches.multiple and 2 * batches.microbatches <= batches.batch_size


def attempt(
    config: Config,
    pipeline: Pipeline,
    optimizer: optax.GradientTransformation,
    batches: Batches,
) -> tuple[Step | None, memory.Usage | None]:
    """Compile the training step for the largest batch, without a state on the devices.

    Returns:
      The step, None if it needs more memory than a device has; and its memory, None if the compiler
      counts nothing.
    """
    state = state_shapes(pipeline.model.shapes, optimizer, pipeline.mesh, pipeline.task.loss_names)
    loader, rows = Loader(batches, pipeline.mesh), max(batches.bucket_sizes)
    try:
        step = start_train_step(config, pipeline, optimizer, state, loader, [rows])()
    except (jax.errors.JaxRuntimeError, memory.TooLargeError) as error:
        if not memory.is_exhausted(error):
            raise
        return None, memory.usage_in(error, state)
    return step, step.usage


def advice(
    config: Config,
    pipeline: Pipeline,
    optimizer: optax.GradientTransformation,
    batches: Batches,
) -> str:
    """Return a larger number of micro-batches that fits, with the memory that it needs.

    Args:
      config: the configuration, whose number does not fit.
      pipeline: task and model.
      optimizer: from `optim.make_optimizer`.
      batches: the training batches.

    Returns:
      Such as "train.accumulation_steps=4, which needs 9.1 of 15.7 GiB"; "" if no number fits.
    """
    log.info("out of device memory; compiling for larger train.accumulation_steps, to name one")
    for parts, planned in candidates(pipeline, batches, after=config.train.microbatches):
        now = config.with_accumulation_steps(parts)
        step, usage = attempt(now, pipeline, optimizer, planned)
        if step is not None and usage is not None and usage.fits:
            return f"train.accumulation_steps={parts}, which needs {usage}"
    return ""


def start_train_step(
    config: Config,
    pipeline: Pipeline,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    loader: Loader,
    sizes: Sequence[int],
    compiled: Mapping[int, Any] | None = None,
) -> Callable[[], Step]:
    """Start to compile the training step for some numbers of rows; see `start_compiling`.

    Args:
      config: seed, micro-batches and frozen parameters.
      pipeline: task and model.
      optimizer: from `optim.make_optimizer`.
      state: the state, or its shapes.
      loader: makes empty batches.
      sizes: the numbers of rows.
      compiled: the programs that there are already.
    """
    parts = pipeline.model, pipeline.task, pipeline.mesh
    step = step_of_run(*parts, optimizer, state, train=config.train, optim=config.optim)
    return start_compiling(step, state, sizes, loader.empty, compiled)


def _on_all_hosts(fits: bool) -> bool:
    return set(multihost.all_gather(str(fits))) == {str(True)}


def _log(batches: Batches, usage: memory.Usage | None, *, fits: bool) -> None:
    if not multihost.is_lead_host():
        return
    rows, length = batches.largest_shape
    need = "the compiler does not say how much memory it needs"
    if usage is not None:
        need = f"it needs {usage} of memory on each device{usage.parts}"
    log.info(
        f"train.accumulation_steps={batches.microbatches} {'fits' if fits else 'does not fit'}: "
        f"in batches of up to {rows} rows x {length} tokens {need}"
    )

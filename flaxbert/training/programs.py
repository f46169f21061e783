"""The programs of a run: the training step and the evaluations, for every batch size."""

import functools
import logging
import time

import jax
import optax

from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import memory, sharding
from flaxbert.runtime.ledger import Ledger
from flaxbert.training.microbatches import Prepared, advice, start_train_step
from flaxbert.training.plan import Plan
from flaxbert.training.run import Evaluators
from flaxbert.training.state import TrainState
from flaxbert.training.step import TrainStep

log = logging.getLogger("flaxbert")


def compile_programs(
    prepared: Prepared,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    loader: Loader,
    evaluators: Evaluators,
    plan: Plan,
    ledger: Ledger,
) -> tuple[TrainStep | None, float]:
    """Compile the train step and the evaluations, in parallel.

    Args:
      prepared: configuration and model, with the programs that there are already.
      optimizer: from `optim.make_optimizer`.
      state: the state on the devices.
      loader: the training batches.
      evaluators: compile their own programs.
      plan: says whether a step is left to take.
      ledger: counts the programs, for the log.

    Returns:
      The step, None if no step is left to take; and the seconds it took.
    """
    start = time.perf_counter()
    batches, shape = loader.batches, loader.batches.largest_shape
    config, pipeline = prepared.config, prepared.pipeline
    _log_division(pipeline)
    explained = functools.partial(
        memory.explain_exhaustion,
        "compiling the training step",
        memory.SMALLER,
        shape,
        arguments=state,
        advise=lambda _: advice(config, pipeline, optimizer, batches),
    )
    finish_step = None
    if int(state.step) < plan.stop_step:
        sizes, ready = batches.bucket_sizes, prepared.programs
        with explained():
            finish_step = start_train_step(config, pipeline, optimizer, state, loader, sizes, ready)
    finish_evaluations = evaluators.start_compiling(state.params)
    with explained():
        train_step = finish_step() if finish_step is not None else None
    finish_evaluations()
    seconds = time.perf_counter() - start
    log.info(
        f"compiled for {jax.device_count()} {jax.devices()[0].platform} device(s): rows of "
        f"{batches.row_length} tokens, {batches.bucket_sizes} a step, {seconds:.0f} s; "
        f"{ledger.summary()}"
    )
    return train_step, seconds


def _log_division(pipeline: Pipeline) -> None:
    """Log how several devices share the work."""
    devices, shared = pipeline.mesh.size, sharding.fsdp(pipeline.mesh)
    encoder = pipeline.model.config
    sums = encoder.reduce_dtype if encoder.dtype == "bfloat16" else "float32"
    if devices > 1:
        copies = f"{shared} share each copy" if shared > 1 else "each has a copy"
        log.info(
            f"{devices} devices divide the rows of a batch; {copies} of the parameters and moments "
            f"(train.fsdp={shared}), and gradients are summed in {sums} (train.reduce_dtype)"
        )

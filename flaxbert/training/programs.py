"""The programs of a run: the training step and the evaluations, for every batch size."""

import functools
import logging
import time

import jax
import optax

from flaxbert.config import OptimConfig, TrainConfig
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import memory, sharding
from flaxbert.runtime.compilation import start_compiling
from flaxbert.runtime.ledger import Ledger
from flaxbert.training.plan import Plan
from flaxbert.training.run import Evaluators
from flaxbert.training.state import TrainState
from flaxbert.training.step import TrainStep, make_train_step

log = logging.getLogger("flaxbert")


def compile_programs(
    config: TrainConfig,
    optim: OptimConfig,
    pipeline: Pipeline,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    loader: Loader,
    evaluators: Evaluators,
    plan: Plan,
    ledger: Ledger,
) -> tuple[TrainStep | None, float]:
    """Compile the train step and the evaluations, in parallel.

    Returns:
      The step, None if no step is left to take; and the seconds it took.
    """
    start = time.perf_counter()
    _log_division(pipeline)
    batches, shape = loader.batches, loader.batches.largest_shape
    explained = functools.partial(
        memory.explain_exhaustion, "compiling the training step", memory.TRAINING, shape
    )
    finish_step = None
    if int(state.step) < plan.stop_step:
        step = make_train_step(
            pipeline.model,
            pipeline.task,
            optimizer,
            state,
            pipeline.mesh,
            accumulation_steps=config.accumulation_steps,
            seed=config.seed,
            log_every=config.log_every,
            freeze=optim.freeze,
        )
        with explained():
            finish_step = start_compiling(step, state, batches.bucket_sizes, loader.empty)
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

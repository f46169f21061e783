"""A training step, compiled for devices that need not be here, and what the compiler says of it."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax

from flaxbert.config import OptimConfig, TrainConfig
from flaxbert.models.model import Model
from flaxbert.planning import flops, hlo
from flaxbert.runtime import memory, sharding
from flaxbert.tasks.base import Task
from flaxbert.training import freezing
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import TrainState, state_shapes
from flaxbert.training.step import step_of_run
from flaxbert.types import Batch

UPDATE_FLOPS = 31
"""Operations of AdamW and its checks for each parameter, as the compiler counts them. They are not
part of the loop over micro-batches."""

Arrays = Mapping[str, Any]
"""Named arrays of a batch, or their shapes: [R, ...] over all devices."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is known of any step. All figures are those of one device, and of one optimizer step."""

    rows: int
    """R, over all devices."""
    row_length: int
    parameters: int
    """Bytes of the parameters."""
    optimizer: int
    """Bytes of the optimizer state."""
    gradients: int
    """Bytes of the gradients of the trained parameters."""
    activations: int
    """Bytes of everything else: activations, the batch, and what XLA keeps meanwhile."""
    peak: int
    """Bytes that the program needs at once."""
    model_flops: float
    """Analytic count of forward and backward pass, without recomputation."""
    seconds: float
    """Time that compiling took."""

    @property
    def held(self) -> int:
        """Bytes of parameters, optimizer state and gradients."""
        return self.parameters + self.optimizer + self.gradients


@dataclasses.dataclass(frozen=True)
class Exhausted(Sizes):
    """A step that the compiler refuses, because a device has too little memory."""


@dataclasses.dataclass(frozen=True)
class Analysis(Sizes):
    """A compiled step."""

    compiled_flops: float
    """The compiler's count, with all micro-batches. Of other loops it counts the body once. The
    compiler for GPUs that are not here has no count; then these are the matrix products."""
    accessed: float
    """Bytes accessed, as the compiler counts them; on TPUs accesses to VMEM are included. Without
    its count, the same as `traffic`."""
    traffic: float
    """Bytes that instructions read from HBM and write to it."""
    collectives: Mapping[str, tuple[int, int]]
    """{kind: (count, bytes)}; see `hlo.collectives`."""

    @property
    def flops(self) -> float:
        """Floating-point operations: the compiler's count, or the analytic one where it is more."""
        return max(self.compiled_flops, self.model_flops)


def lower_step(
    model: Model,
    task: Task,
    mesh: sharding.Mesh,
    arrays: Arrays,
    *,
    train: TrainConfig,
    optim: OptimConfig,
    steps: int,
) -> tuple[Any, TrainState]:
    """Return the traced step of a run, ready to compile, and the shapes of its state.

    Args:
      model: encoder and output layer.
      task: gives the loss.
      mesh: the devices.
      arrays: a batch.
      train: micro-batches and seed, as in the run.
      optim: the optimizer, as in the run.
      steps: steps of the learning-rate schedule.
    """
    optimizer, _ = make_optimizer(optim, steps, train.ema)
    state = state_shapes(model.shapes, optimizer, mesh, task.loss_names)
    step = step_of_run(model, task, mesh, optimizer, state, train=train, optim=optim)
    rows = sharding.batch_sharding(mesh)

    def shape(array: Any) -> Any:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)

    batch = Batch.from_arrays({name: shape(array) for name, array in arrays.items()})
    return step.lower(state, batch), state  # type: ignore[attr-defined]


def analyze(
    model: Model,
    task: Task,
    mesh: sharding.Mesh,
    arrays: Arrays,
    *,
    train: TrainConfig,
    optim: OptimConfig,
    steps: int,
) -> Analysis | Exhausted:
    """Compile a step and return its figures; see `lower_step`. This takes seconds to minutes."""
    start = time.perf_counter()
    lowered, state = lower_step(model, task, mesh, arrays, train=train, optim=optim, steps=steps)
    rows, length = arrays["input_ids"].shape
    trained, _ = freezing.split(state.params, optim.freeze)
    sizes = {
        "rows": rows,
        "row_length": length,
        "parameters": memory.bytes_on_device(state.params),
        "optimizer": memory.bytes_on_device(state.opt_state),
        "gradients": memory.bytes_on_device(trained),
        "model_flops": flops.training_flops(model, arrays) / mesh.size,
    }
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_exhausted(error):
            raise
        return _exhausted(error, sizes, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    text, peak = compiled.as_text(), memory.needed_bytes(compiled)
    held = sizes["parameters"] + sizes["optimizer"] + sizes["gradients"]
    traffic = float(sum(part.hbm for part in hlo.traffic(text).values()))
    if costs := compiled.cost_analysis():
        parts = train.microbatches  # micro-batches are a loop, whose body is counted once
        repeated = (parts - 1) * UPDATE_FLOPS * sizes["gradients"] / 4  # float32
        counted = parts * costs["flops"] - repeated
        accessed = parts * costs["bytes accessed"] + hlo.uncounted_kernel_bytes(text)
    else:  # the compiler for GPUs that are not here
        counted = hlo.product_flops(text)
        accessed = traffic
        if hlo.GPU_KERNEL in text:
            counted += 3 * rows * flops.attention_flops(model, length) / mesh.size
    return Analysis(
        **sizes,
        activations=max(0, peak - held),
        peak=peak,
        compiled_flops=counted,
        accessed=accessed,
        traffic=traffic,
        collectives=hlo.collectives(text),
        seconds=seconds,
    )


def _exhausted(error: Exception, sizes: Mapping[str, Any], seconds: float) -> Exhausted:
    """Return what is known of a step that does not fit, from the compiler's message."""
    usage = memory.usage_in(error)
    held = sizes["parameters"] + sizes["optimizer"] + sizes["gradients"]
    peak = 0 if usage is None else usage.total
    return Exhausted(
        **sizes, activations=max(0, peak - held), peak=max(peak, held), seconds=seconds
    )

"""Compile a training step for a TPU slice or a GPU that is not present, and read the program.

The tests of the compiled programs and `tpu_traffic.py` share this module.
"""

import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from flaxbert.config import OptimConfig
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import state_shapes
from flaxbert.training.step import make_train_step
from flaxbert.types import Batch

H100 = Path(__file__).parent.parent / "tests/golden/h100_target.txtpb"


def tpu_devices(slice_name: str, *, slices: int = 1) -> list[Any]:
    """Return the chips of one or more equal TPU slices, such as v5e:2x4; needs libtpu."""
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is used, so processes may compile side by side
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=slice_name, num_slices=slices
    )
    return list(topology.devices)


def v5e_devices() -> list[Any]:
    """Return eight chips of a TPU v5e; needs libtpu."""
    return tpu_devices("v5e:2x4")


def h100_devices() -> list[Any]:
    """Return eight H100 of one host; needs jax's plugin for CUDA 12."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name="1x1x8",
        topology="1x1x8",
        target_config=H100.read_text(encoding="utf-8"),
    )
    return list(topology.devices)


BY_TOKEN = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
BY_SEGMENT = ("cls_position", "sequence_index")


def compile_step(
    task: Any,
    config: dict[str, Any],
    devices: list[Any],
    *,
    by_token: tuple[str, ...] = (),
    by_segment: tuple[str, ...] = (),
    rows: int = 32,
    length: int = 384,
    segments: int = 8,
    fsdp: int = 1,
    **runtime: Any,
) -> Any:
    """Return the compiled program of a training step in bfloat16, with dropout.

    Args:
      task: gives the output layer and the loss.
      config: a parsed config.json.
      devices: devices that share the rows.
      by_token: names of the task's arrays [R, T].
      by_segment: names of the task's arrays [R, K].
      rows: R, over all devices.
      length: T.
      segments: K.
      fsdp: devices that share one copy of the parameters.
      runtime: fields of the encoder's configuration, such as `remat`.
    """
    mesh = sharding.make_mesh(devices, fsdp=fsdp)
    encoder = read_config(config, dtype="bfloat16", attention="kernel", **runtime)
    model = Model.create(encoder, task.make_head)
    optimizer, _ = make_optimizer(OptimConfig(), 100)
    state = state_shapes(model.shapes, optimizer, mesh, task.loss_names)
    train_step = make_train_step(
        model, task, optimizer, state, mesh, accumulation_steps=1, seed=0, log_every=10
    )

    def array(size: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((rows, size), dtype, sharding=sharding.batch_sharding(mesh))

    batch = {name: array(length) for name in (*BY_TOKEN, *by_token)}
    batch |= {name: array(segments) for name in (*BY_SEGMENT, *by_segment)}
    batch["weight"] = array(segments, jnp.float32)
    return train_step.lower(state, Batch.from_arrays(batch)).compile()


def compiled_step(task: Any, config: dict[str, Any], devices: list[Any], **sizes: Any) -> str:
    """Return the optimized HLO of a training step; see `compile_step`."""
    program: str = compile_step(task, config, devices, **sizes).as_text()
    return program


def bfloat16_sums(program: str) -> list[str]:
    """Return the lines of optimized HLO that sum in bfloat16: over positions, tokens or devices.

    A maximum, such as that of a softmax, is not a sum.
    """
    adders = {
        name
        for name, body in re.findall(r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}", program, re.M | re.S)
        if re.search(r"ROOT [^\n]* add\(", body)
    }
    operation = re.compile(
        r"= \(?[^=\n]*?bf16[^=\n]*? (?:scatter|reduce|all-reduce|reduce-scatter|all-reduce-start)"
        r"\([^\n]*to_apply=%?([\w.-]+)"
    )
    return [
        line.strip()
        for line in program.splitlines()
        if (match := operation.search(line)) and match.group(1) in adders
    ]

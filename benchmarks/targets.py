"""Compile a training step for a TPU slice or a GPU that is not present, and read the program.

The tests of the compiled programs and `tpu_traffic.py` share this module.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from flaxbert.config import OptimConfig, TrainConfig
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.planning import topology
from flaxbert.planning.step import lower_step
from flaxbert.runtime import sharding


def tpu_devices(slice_name: str, *, slices: int = 1) -> list[Any]:
    """Return the chips of one or more equal TPU slices, such as v5e:2x4; needs libtpu."""
    return list(topology.tpu(slice_name, slices=slices).devices)


def v5e_devices() -> list[Any]:
    """Return eight chips of a TPU v5e; needs libtpu."""
    return tpu_devices("v5e:2x4")


def h100_devices() -> list[Any]:
    """Return eight H100 of one host; needs jax's plugin for CUDA 12."""
    return list(topology.gpus("h100", 8).devices)


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

    def array(size: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((rows, size), dtype)

    batch = {name: array(length) for name in (*BY_TOKEN, *by_token)}
    batch |= {name: array(segments) for name in (*BY_SEGMENT, *by_segment)}
    batch["weight"] = array(segments, jnp.float32)
    lowered, _ = lower_step(
        model, task, mesh, batch, train=TrainConfig(), optim=OptimConfig(), steps=100
    )
    return lowered.compile()


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

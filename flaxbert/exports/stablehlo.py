"""A model as a StableHLO program, serialized by `jax.export`, for batches of any shape.

The parameters are arguments of the program and in a file of their own: there they are not limited
to the 2 GB of a serialized program, and no compiler folds them as constants.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from flaxbert.errors import ConfigError
from flaxbert.exports.onnx_graph import input_names
from flaxbert.exports.runtime import STABLEHLO, Arrays, Run
from flaxbert.models.model import Model
from flaxbert.types import Batch, Params

WEIGHTS = "weights.npz"
PLATFORMS = ("cpu", "cuda", "tpu")

Forward = Callable[[Params, dict[str, Any]], dict[str, Array]]


def forward(model: Model) -> Forward:
    """Return the function of parameters and named inputs that an export computes.

    Inputs are int32 [R, T], for multiple choice [questions, choices, T]. Outputs are float32: as in
    transformers, `logits` [R, C], [R, T, C] or [questions, choices], or `start_logits` and
    `end_logits` [R, T].
    """
    names = [*model.head.hf_token_outputs, *model.head.hf_sequence_outputs]

    def run(params: Params, inputs: dict[str, Any]) -> dict[str, Array]:
        shape = inputs["input_ids"].shape
        rows = {name: x.reshape(-1, shape[-1]) for name, x in inputs.items()}
        ids = rows["input_ids"]
        batch = Batch(
            input_ids=ids,
            segment_ids=(rows["attention_mask"] > 0).astype(jnp.int32),
            position_ids=None,
            cls_position=jnp.zeros((ids.shape[0], 1), jnp.int32),
            token_type_ids=rows.get("token_type_ids"),
        )
        outputs = model(params, batch)
        if model.head.hf_rows_are_choices:
            return {name: outputs[name].reshape(shape[:-1]) for name in names}
        sequences = model.head.hf_sequence_outputs  # one in a row
        return {name: outputs[name][:, 0] if name in sequences else outputs[name] for name in names}

    return run


def require_flatbuffers() -> None:
    """Check that programs can be stored and read.

    Raises:
      ConfigError: if the package flatbuffers is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError(
            "StableHLO needs the package flatbuffers, with which JAX stores programs; install it: "
            'pip install "flaxbert[stablehlo]"'
        )


def write(model: Model, params: Params, directory: Path) -> None:
    """Write model.stablehlo and weights.npz.

    Args:
      model: encoder and output layer.
      params: float32 parameters on the host, with the structure of `model.shapes`.
      directory: receives the files.

    Raises:
      ConfigError: without the package flatbuffers.
    """
    require_flatbuffers()
    flat = flatten(params)
    axes = "batch, choices, length" if model.head.hf_rows_are_choices else "batch, length"
    shape = export.symbolic_shape(axes, constraints=[f"length <= {model.config.max_positions}"])
    inputs = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in input_names(model.config)}
    run, structure = forward(model), jax.tree.structure(params)

    def program(params: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Array]:
        return run(jax.tree.unflatten(structure, [params[name] for name in flat]), inputs)

    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}
    with jax.default_matmul_precision("float32"):  # it becomes a part of the program
        exported = export.export(jax.jit(program), platforms=PLATFORMS)(shapes, inputs)
    (directory / STABLEHLO).write_bytes(exported.serialize())
    arrays: Any = flat  # savez has typed arguments of its own
    np.savez(directory / WEIGHTS, **arrays)


def flatten(params: Params) -> dict[str, np.ndarray]:
    """Return the parameters by name, such as encoder.layers.0.output.bias."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }


def runner(directory: Path) -> Run:
    """Return the function that runs the program of an export on JAX's default device.

    Raises:
      ConfigError: without the package flatbuffers.
    """
    require_flatbuffers()
    exported = export.deserialize(bytearray((directory / STABLEHLO).read_bytes()))
    with np.load(directory / WEIGHTS, allow_pickle=False) as file:
        params = jax.device_put(dict(file))
    call = jax.jit(exported.call)

    def run(inputs: Arrays) -> Arrays:
        outputs = call(params, {name: x.astype(np.int32) for name, x in inputs.items()})
        return {name: np.asarray(x) for name, x in outputs.items()}

    return run

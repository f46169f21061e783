"""Devices: the mesh, where each array lives, and host arrays to global ones and back.

The only module that knows `jax.sharding`. One mesh axis, `data`: a batch's rows are divided over
it, parameters are copied to every device. The same program runs on one CPU and on a TPU slice.

It is also the only one that communicates with other hosts. They exchange strings through the
key-value store of JAX's coordination service, which the first host serves: it works before a device
is used, from any thread, and while a device waits for a host that will not come.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA = "data"

# Ordered; the first pattern found in a parameter's path decides. Optimizer moments carry their
# parameter's path and so its placement.
RULES: tuple[tuple[str, PartitionSpec], ...] = ((r".*", PartitionSpec()),)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all hosts, or those given, on one data axis."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def data_parallelism(mesh: Mesh) -> int:
    """Parts that a batch's rows are divided into."""
    return mesh.shape[DATA]


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows, the leading axis, divided over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for every leaf of a tree of arrays or shapes, by the first rule that matches."""

    def place(path: tuple[Any, ...], _: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, next(spec for rule, spec in RULES if re.search(rule, name)))

    return jax.tree_util.tree_map_with_path(place, tree)


def shard_params(params: Any, mesh: Mesh) -> Any:
    """Host arrays, equal on every host, to global arrays placed by the rules."""

    def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, params, param_shardings(params, mesh))


def make_global_batch(
    rows: list[Any], build: Callable[[list[Any]], Any], mesh: Mesh
) -> dict[str, jax.Array]:
    """Build this host's share of a batch's rows, and make global arrays of all hosts' shares.

    Args:
      rows: the whole step's rows, as many as the batch is high (a multiple of the data axis).
      build: makes arrays [rows, ...] of some rows.
      mesh: the mesh.
    """
    sharding = batch_sharding(mesh)
    indices = sharding.addressable_devices_indices_map((len(rows),)).values()
    # A host's devices need not be neighbours: on a slice the mesh follows the chips' wiring.
    spans = sorted({index[0].indices(len(rows))[:2] for index in indices if index is not None})
    own = [row for first, last in spans for row in rows[first:last]]
    return {
        name: jax.make_array_from_process_local_data(sharding, local, (len(rows), *local.shape[1:]))
        for name, local in build(own).items()
    }


# --- other hosts ---------------------------------------------------------------------------------


# --- ends ----------------------------------------------------------------------------------------

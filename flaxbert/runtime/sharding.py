"""Devices: the mesh, and where each array lives.

The only module that imports `jax.sharding`. There is one mesh axis, `data`: the rows of a batch are
divided over it, and every device has a copy of the parameters. The same program runs on one CPU and
on a TPU slice.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh  # part of this module's interface

DATA = "data"

# Ordered; the first pattern found in a parameter's path decides. Optimizer moments carry their
# parameter's path and so its placement.
RULES: tuple[tuple[str, PartitionSpec], ...] = ((r".*", PartitionSpec()),)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of all devices of all hosts, or of those given, with one data axis."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def data_parallelism(mesh: Mesh) -> int:
    """Return the number of devices that divide the rows of a batch."""
    return mesh.shape[DATA]


def platform(mesh: Mesh) -> str:
    """Return the kind of the devices: cpu, gpu or tpu."""
    name: str = mesh.devices.flat[0].platform
    return name


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that divides rows, the leading axis, over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the sharding of the first matching rule for every leaf of a tree."""

    def place(path: tuple[Any, ...], _: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, next(spec for rule, spec in RULES if re.search(rule, name)))

    return jax.tree_util.tree_map_with_path(place, tree)


def shard_params(params: Any, mesh: Mesh) -> Any:
    """Place host arrays, equal on every host, as global arrays according to the rules."""

    def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, params, param_shardings(params, mesh))


def local_rows(count: int, mesh: Mesh) -> list[int]:
    """Return which of a batch's `count` rows this host's devices hold, in their order."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    # A host's devices need not be neighbors: on a slice the mesh follows the chips' wiring.
    spans = sorted({index[0].indices(count)[:2] for index in indices if index is not None})
    return [row for first, last in spans for row in range(first, last)]


def make_global_batch(local: Any, count: int, mesh: Mesh) -> Any:
    """Make global arrays, divided by rows, from the rows of each host.

    Args:
      local: a tree of host arrays [rows of this host, ...]: see `local_rows`.
      count: rows of the whole batch (R), a multiple of the data axis.
      mesh: the devices.
    """
    sharding = batch_sharding(mesh)

    def place(array: np.ndarray) -> jax.Array:
        shape = (count, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, shape)

    return jax.tree.map(place, local)

"""Devices: the mesh, and where each array lives.

The only module that imports `jax.sharding`. The mesh has two axes, `data` and `fsdp`. The rows of a
batch are divided over both. Parameters, and with them gradients, moments, moving average and
checkpoints, are divided over `fsdp` (`train.fsdp` devices) and copied over `data`: the third stage
of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). A layer gathers its parameters where it uses
them (models/layers.py:whole). With `fsdp` = 1 every device has a copy of all parameters. The same
program runs on one CPU and on a TPU slice.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh  # part of this module's interface

from flaxbert.errors import ConfigError
from flaxbert.types import Params

DATA, FSDP = "data", "fsdp"

# Ordered; the first pattern found in an array's path decides. It gives the array's axes that may be
# divided over `fsdp`; the first whose size is divisible is. Moments and the moving average carry
# their parameter's path and so its placement.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"(^|/)kernel$", (0, 1)),  # [I, O]; O of a classifier, its classes, is rarely divisible
    (r"(^|/)embedding$", (1,)),  # [V, E]; V is rarely divisible
    (r"", ()),  # biases, LayerNorm and scalars are small, and copied
)


def make_mesh(devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """Return a mesh of all devices of all hosts, or of those given, with the axes data and fsdp.

    Args:
      devices: on several TPU slices, `fsdp` stays inside of a slice if the slice's chips allow it.
      fsdp: devices that share one copy of the parameters (`train.fsdp`); -1: all.

    Raises:
      ConfigError: if `fsdp` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if fsdp != -1 and (fsdp < 1 or count % fsdp):
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise ConfigError(
            f"train.fsdp={fsdp}: does not divide the {count} device(s) of this run. Use one of "
            f"{divisors}; or -1, which stands for all."
        )
    shared = count if fsdp == -1 else fsdp
    by_slice: dict[int, list[jax.Device]] = {}
    for device in devices:
        by_slice.setdefault(getattr(device, "slice_index", 0), []).append(device)
    ordered = [_in_order(by_slice[number], shared) for number in sorted(by_slice)]
    arranged = np.concatenate(ordered).reshape(-1, shared)
    return Mesh(arranged, (DATA, FSDP), axis_types=(AxisType.Auto,) * 2)


def _in_order(devices: Sequence[jax.Device], shared: int) -> np.ndarray:
    """Return the devices of a slice, each `shared` in a row neighbors if their wiring allows."""
    count = len(devices)
    whole = ((count,), (DATA,))
    parts = ((count // shared, shared), (DATA, FSDP))
    try:
        sizes, names = parts if 1 < shared < count and count % shared == 0 else whole
        mesh = jax.make_mesh(sizes, names, devices=devices)
    except NotImplementedError:  # JAX finds no such parts in a torus, such as 32 chips of 4x4x4
        mesh = jax.make_mesh(*whole, devices=devices)
    return mesh.devices.reshape(-1)


def data_parallelism(mesh: Mesh) -> int:
    """Return the number of devices that divide the rows of a batch."""
    return mesh.size


def fsdp(mesh: Mesh) -> int:
    """Return the number of devices that share one copy of the parameters."""
    return mesh.shape[FSDP]


def platform(mesh: Mesh) -> str:
    """Return the kind of the devices: cpu, gpu or tpu."""
    name: str = mesh.devices.flat[0].platform
    return name


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that divides rows, the leading axis, over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the sharding of every leaf of a tree of arrays or shapes, by the first matching rule.

    Raises:
      ConfigError: if no axis that a rule names has a size that `train.fsdp` divides.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, _spec(name, leaf.shape, fsdp(mesh)))

    return jax.tree_util.tree_map_with_path(place, tree)


def _spec(name: str, shape: tuple[int, ...], shared: int) -> PartitionSpec:
    """Return how an array is divided over `shared` devices; see `RULES`."""
    axes = next(axes for rule, axes in RULES if re.search(rule, name))
    if shared == 1 or not axes:
        return PartitionSpec()
    for axis in axes:
        if shape[axis] % shared == 0:
            return PartitionSpec(*(FSDP if n == axis else None for n in range(axis + 1)))
    fitting = [n for n in range(1, shared) if any(shape[axis] % n == 0 for axis in axes)]
    raise ConfigError(
        f"train.fsdp={shared}: no size of {name}, {list(shape)}, is a multiple of it. Use at most "
        f"{fitting[-1]}, which divides one."
    )


def divided(grads: Params, mesh: Mesh) -> Params:
    """Constrain gradients, inside of jit, to be divided over devices as the parameters are.

    The sum over devices is then a reduce-scatter, and a device keeps its part alone.
    """
    if fsdp(mesh) == 1:
        return grads
    constrained: Params = jax.lax.with_sharding_constraint(grads, param_shardings(grads, mesh))
    return constrained


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
      count: rows of the whole batch (R), a multiple of the number of devices.
      mesh: the devices.
    """
    shapes = jax.tree.map(lambda array: (count, *array.shape[1:]), local)
    # Arrays one by one would take two to four times as long.
    return jax.make_array_from_process_local_data(batch_sharding(mesh), local, shapes)


def on_lead_host(params: Params) -> Params:
    """Return parameters as arrays of the first host's memory; all hosts must call it.

    Only one parameter at a time is whole on a device, and none if the host's own devices hold all
    parts. On other hosts the leaves of the result are None.
    """

    def fetch(array: jax.Array) -> np.ndarray | None:
        if not (array.is_fully_addressable or array.is_fully_replicated):
            place: Any = array.sharding
            array = jax.jit(_same, out_shardings=replicated(place.mesh))(array)
        array.block_until_ready()  # before the next one is gathered
        return np.asarray(array) if jax.process_index() == 0 else None

    fetched: Params = jax.tree.map(fetch, params)
    return fetched


def _same(array: jax.Array) -> jax.Array:
    return array

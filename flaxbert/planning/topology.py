"""Devices to plan for: TPU slices and GPUs that are not here, or those of this machine.

The compilers of TPUs and GPUs run without a device, if their package is installed.
"""

import dataclasses
import importlib.metadata
import importlib.resources
import os
from typing import Any

import jax
from jax.experimental import topologies

from flaxbert.errors import ConfigError
from flaxbert.planning import chips
from flaxbert.planning.chips import Chip
from flaxbert.runtime import hardware, memory

EXAMPLES = {
    "v4": "2x2x1, 2x2x4, 4x4x4",
    "v5e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
    "v5p": "2x2x1, 2x2x4, 4x4x4, 8x8x8",
    "v6e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
    "tpu7x": "2x2x1, 2x2x4, 4x4x4",
}
"""Shapes of slices that Google Cloud offers, by generation; libtpu accepts more."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to plan for."""

    name: str
    """As on the command line, such as v5e:2x4."""
    chip: Chip
    devices: tuple[Any, ...]

    @property
    def chips(self) -> float:
        """The number of chips as they are sold; JAX sees two devices in some."""
        return len(self.devices) / chips.PER_CHIP.get(self.chip.name, 1)

    @property
    def platform(self) -> str:
        """One of cpu, gpu and tpu, or cuda for a GPU that is not here."""
        name: str = self.devices[0].platform
        return name

    @property
    def room(self) -> float:
        """Bytes of a device's memory that a program may need, as in a run with `auto`."""
        share = memory.FITTING_CPU if self.chip.name == chips.CPU.name else memory.FITTING
        return share * self.chip.memory

    @property
    def dtype(self) -> str:
        """The type that `model.dtype=auto` stands for on these devices."""
        return "float32" if self.platform == "cpu" else "bfloat16"


def targets(topology: str, gpu: str, count: int) -> list[Target]:
    """Return the devices that a command line names.

    Args:
      topology: TPU slices, separated by commas; "" for none.
      gpu: a GPU of the table of chips; "" for none.
      count: number of GPUs.

    Raises:
      ConfigError: for one that does not exist, or if its compiler is not installed.
    """
    chosen = [tpu(name.strip()) for name in topology.split(",") if name.strip()]
    if gpu:
        chosen.append(gpus(gpu, count))
    return chosen or [local()]


def tpu(name: str, *, slices: int = 1) -> Target:
    """Return the devices of one or more equal TPU slices, such as v5e:2x4."""
    generation, _, shape = name.partition(":")
    if generation not in EXAMPLES:
        raise ConfigError(f"--topology={name}: no such TPU. {_examples()}")
    _require("libtpu", "tpu", f"--topology={name}")
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is used, so processes may compile side by side
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    options: dict[str, Any] = {}
    if set(shape) <= {"1", "x"}:
        options["chips_per_host_bounds"] = [1, 1, 1]
    if generation == "v4":  # both cores of a chip are one device, as on a TPU VM
        options["chip_config_name"] = "megacore"
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=name, num_slices=slices, **options
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--topology={name}: {reason}. {_examples()}") from None
    return Target(name, chips.CHIPS[generation], tuple(description.devices))


def gpus(name: str, count: int) -> Target:
    """Return that many GPUs of one kind, in hosts of eight.

    All are compiled for an H100: the compiler needs a description of the device, and that of an
    H100 is the one that comes with flaxbert. Only the peak rates and the memory are the chip's own.
    """
    if name not in chips.gpus():
        raise ConfigError(f"--gpu={name}: expected one of {', '.join(chips.gpus())}.")
    if count < 1 or (count > 8 and count % 8):
        raise ConfigError(f"--count={count}: expected 1 to 8, or a multiple of 8 (hosts of eight).")
    _require("jax-cuda12-plugin", "cuda12", f"--gpu={name}")
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    shape = f"1x{max(1, count // 8)}x{min(count, 8)}"  # slices, hosts, devices of a host
    try:
        description = topologies.get_topology_desc(
            platform="cuda", topology_name=shape, topology=shape, target_config=_h100()
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--gpu={name}: the compiler for GPUs cannot be used ({reason}). `flaxbert doctor` "
            "checks the installation."
        ) from None
    return Target(f"{name}:{count}", chips.CHIPS[name], tuple(description.devices))


def local() -> Target:
    """Return the devices that JAX uses here; those of a CPU share its memory and its rates."""
    devices = tuple(jax.devices())
    chip = chips.chip_of(devices[0].device_kind)
    if chip is chips.CPU:
        share = 1 / len(devices)
        chip = dataclasses.replace(
            chip,
            bfloat16=chip.bfloat16 * share,
            float32=chip.float32 * share,
            memory=int(chip.memory * share),
            bandwidth=chip.bandwidth * share,
        )
    # A kind of GPU comes with several sizes of memory, and machines have their own.
    chip = dataclasses.replace(chip, memory=memory.capacity() or chip.memory)
    return Target(f"{len(devices)} x {devices[0].device_kind}", chip, devices)


def _h100() -> str:
    """Return the compiler's description of an H100."""
    file = importlib.resources.files("flaxbert.planning") / "h100_target.txtpb"
    return file.read_text(encoding="utf-8")


def _examples() -> str:
    names = "; ".join(f"{name}:{shapes}" for name, shapes in EXAMPLES.items())
    return f"Names that work, GENERATION:SHAPE: {names}."


def _require(distribution: str, extra: str, flag: str) -> None:
    """Check that a compiler is installed.

    Raises:
      ConfigError: if not, with the command that installs the one of this version of jax.
    """
    if hardware.version(distribution) is None:
        pin = importlib.metadata.version("jax")
        wanted = f"jax[{extra}]=={pin}"
        raise ConfigError(
            f"{flag}: needs the compiler in {distribution}, which is not installed. Install the "
            f'one of this JAX: pip install "{wanted}". On a machine without such a device, set '
            "JAX_PLATFORMS=cpu."
        )

"""The devices that JAX uses: which they are, whether they are those asked for, their precision."""

import logging
import re

import jax

from flaxbert.errors import ConfigError
from flaxbert.messages.language import tr
from flaxbert.runtime import hardware

log = logging.getLogger("flaxbert")


def platform() -> str:
    """Return the platform of the devices that JAX uses: cpu, gpu or tpu.

    Raises:
      ConfigError: if JAX_PLATFORMS names one that JAX cannot use.
    """
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter if the plugin is not installed
        lines = str(error).strip().splitlines() or ["no plugin for it"]
        raise ConfigError(
            f"JAX_PLATFORMS={hardware.chosen()}: JAX finds no such device ({lines[0]}). Unset "
            "it to use the devices that there are. `flaxbert doctor` checks the installation."
        ) from None


def require(wanted: str) -> None:
    """Check that JAX uses a platform.

    Raises:
      ConfigError: if it uses another one, with the fix.
    """
    if (used := platform()) == wanted:
        return
    file, fix = hardware.present().get(wanted), hardware.fix(wanted)
    if wanted != "cpu" and file:
        fix = f"This machine has a {wanted.upper()} ({file}). {fix}"
    elif wanted != "cpu":
        fix = f"No {wanted.upper()} was found on this machine. If it has one: {fix}"
    raise ConfigError(
        f"--require={wanted}: JAX uses {summary()}. {fix} `flaxbert doctor` checks the "
        f"installation. To run on this {used}, leave --require out."
    )


def summary() -> str:
    """Return the number and kind of the devices of all hosts, such as `8 x TPU v5 lite`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def log_use(dtype: str) -> None:
    """Log the devices and the type of arithmetic, and warn about an accelerator left unused."""
    log.info(tr("device: {devices}, {dtype}", devices=summary(), dtype=dtype))
    if line := hardware.unused(platform()):
        log.warning(line)


def has_bfloat16(device: jax.Device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware.

    TPUs do, and NVIDIA GPUs from compute capability 8.0 (Ampere) on. Older GPUs such as V100 and T4
    emulate it, slower than float32. So do most CPUs.
    """
    # For GPUs of AMD this is a name such as gfx942.
    capability = re.fullmatch(r"(\d+)\.\d+", str(getattr(device, "compute_capability", "")))
    return device.platform == "tpu" or (capability is not None and int(capability[1]) >= 8)


def resolve_dtype(dtype: str) -> str:
    """Return the type of arithmetic: for `auto` bfloat16 where devices have it, else float32."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if has_bfloat16(jax.devices()[0]) else "float32"

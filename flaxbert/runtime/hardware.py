"""Accelerators and memory of this machine, found without JAX, and how to make JAX use them.

JAX computes on the CPU, after one warning at most, if it lacks the plugin for an accelerator.
"""

import contextlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

PLUGINS = {
    "gpu": ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin"),
    "tpu": ("libtpu",),
}
"""The distributions of which one must be installed for JAX to use an accelerator."""

EXTRAS = {"gpu": "cuda12", "tpu": "tpu"}
"""The extra of jax that installs them. CUDA 12 runs with the drivers of CUDA 13 too."""


def present(root: Path = Path("/")) -> dict[str, str]:
    """Return {platform: the file that shows it} of the accelerators of this machine.

    Args:
      root: the directory that holds dev/ and sys/.
    """
    nvidia = sorted(root.glob("dev/nvidia[0-9]*"))
    if not nvidia and (root / "dev/dxg").exists() and shutil.which("nvidia-smi"):
        nvidia = [root / "dev/dxg"]  # Linux in Windows (WSL 2)
    tpu = sorted(root.glob("dev/accel[0-9]*"))
    if not tpu and _has_google_chip(root):  # from TPU v5e on
        tpu = sorted(root.glob("dev/vfio/[0-9]*"))
    files = {"gpu": nvidia, "tpu": tpu}
    return {platform: f"/{some[0].relative_to(root)}" for platform, some in files.items() if some}


GOOGLE, NETWORK_CARD = "0x1ae0", "0x0042"
"""Google's number as a vendor of PCI devices, and that of its network card, which all its machines
have."""


def _has_google_chip(root: Path) -> bool:
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        try:
            device = vendor.with_name("device").read_text(encoding="ascii").strip()
            if vendor.read_text(encoding="ascii").strip() == GOOGLE and device != NETWORK_CARD:
                return True
        except (OSError, ValueError):  # unplugged meanwhile
            continue
    return False


CGROUP_LIMITS = (("", "memory.max"), ("memory", "memory.limit_in_bytes"))
"""(hierarchy below sys/fs/cgroup, file) with the limit of a container, in versions 2 and 1."""


def memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process may use; None if the system does not say.

    It is the memory of the machine, or the limit of the container or job if that is lower.

    Args:
      root: the directory that holds proc/ and sys/.
    """
    sizes = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            sizes += _cgroup_limits(root / "sys/fs/cgroup", *line.split(":", 2)[1:])
    return min((size for size in sizes if size > 0), default=None)


def _cgroup_limits(mount: Path, controllers: str, path: str) -> Iterator[int]:
    """Yield the limits of a control group and of those above it, from a line of /proc/self/cgroup.

    In a container the path may be that of the host; then only the root's file exists.
    """
    for hierarchy, name in CGROUP_LIMITS:
        if hierarchy not in controllers.split(","):
            continue
        groups = [Path(path.lstrip("/")), *Path(path.lstrip("/")).parents]
        for group in groups:
            with contextlib.suppress(OSError, ValueError):  # version 2 has the word max for none
                yield int((mount / hierarchy / group / name).read_text(encoding="ascii"))


def version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def chosen() -> str:
    """Return the platforms that JAX_PLATFORMS allows, separated by commas; "" for all."""
    return os.environ.get("JAX_PLATFORMS", "").strip()


def fix(platform: str) -> str:
    """Return what to do so that JAX uses a platform: cpu, gpu or tpu."""
    if platform == "cpu":
        return "Set the environment variable JAX_PLATFORMS=cpu."
    names = chosen().replace("cuda", "gpu").replace("rocm", "gpu").split(",")
    if names != [""] and platform not in names:
        return f"Unset the environment variable JAX_PLATFORMS={chosen()}, which excludes it."
    if platform == "gpu" and sys.platform != "linux":
        return "JAX has packages for GPUs only for Linux; on Windows use WSL 2."
    if not any(map(version, PLUGINS[platform])):
        pin = f"=={found}" if (found := version("jax")) else ""
        return (
            f'Install its package: pip install "jax[{EXTRAS[platform]}]{pin}". In a notebook, '
            "restart the session afterwards."
        )
    if platform == "gpu":
        return (
            "Check with nvidia-smi that the driver works, and unset LD_LIBRARY_PATH if it names "
            "other CUDA libraries."
        )
    return (
        "Only one process can use a TPU: end the others. If there is none, libtpu may be of "
        "another release than jax."
    )


def unused(platform: str, root: Path = Path("/")) -> str:
    """Return a line about an accelerator that JAX could use, but does not; "" if there is none.

    Args:
      platform: the platform that JAX uses.
      root: see `present`.
    """
    if platform != "cpu" or chosen() == "cpu":  # what was asked for
        return ""
    lines = [
        f"this machine has a {other.upper()} ({file}), but JAX uses the CPU. {fix(other)}"
        for other, file in present(root).items()
    ]
    return " ".join(lines)

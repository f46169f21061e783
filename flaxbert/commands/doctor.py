"""Check the installation: versions, devices, and what keeps JAX from using an accelerator.

usage: flaxbert doctor

for example:
  flaxbert doctor

This prints a block to paste into a bug report; it holds no user name and no path of your home
directory. Below it are the problems that were found, each with its fix. JAX is asked for its
devices in another process, so the command works even if JAX cannot be imported.

exit codes:
  0   no problem
  2   a problem, or bad usage
  1   internal error
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flaxbert.commands.args import HELP
from flaxbert.runtime import hardware

DISTRIBUTIONS = (
    "jax",
    "jaxlib",
    *hardware.PLUGINS["gpu"],
    *hardware.PLUGINS["tpu"],
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "datasets",
    "safetensors",
    "numpy",
    "torch",
)
"""The distributions whose versions are printed."""

CHECKED = ("flaxbert", "jax", "jaxlib", *hardware.PLUGINS["gpu"], "flax", "optax")
"""Those whose requirements are compared with what is installed."""

EXTRAS = ("", "tpu", "cuda12", "cuda13", "rocm7-local")
"""The extras of JAX that name its plugins; "" for requirements without an extra."""

VARIABLES = re.compile(
    r"(JAX_|XLA_|LIBTPU_|TPU_|CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH|HF_HUB_OFFLINE|HF_HOME)"
)
"""Environment variables that change what JAX and flaxbert do."""

SECONDS = 120
"""Time for JAX to find its devices."""

# The last line that it prints is JSON.
PROGRAM = """
import json
import jax
platform = jax.default_backend()
from flaxbert.runtime import devices
limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
print(json.dumps({"platform": platform, "devices": devices.summary(),
                  "dtype": devices.resolve_dtype("auto"), "memory": limit}))
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found on the machine."""

    system: Mapping[str, str]
    """Lines about the system, {name: text}."""
    versions: Mapping[str, str]
    """Versions of the installed distributions, by name."""
    present: Mapping[str, str]
    """Accelerators of the machine; see `hardware.present`."""
    jax: Mapping[str, object] | None
    """The devices that JAX uses; None if it cannot be used."""
    error: str
    """Why JAX cannot be used, or its last warning."""
    conflicts: Sequence[str]
    """Distributions that do not fit each other."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(word in HELP for word in arguments):
        print((__doc__ or "").strip())
        return 0
    if arguments:
        print(f"error: unexpected arguments: {' '.join(arguments)}.", file=sys.stderr)
        return 2
    report = examine()
    print(anonymous("\n".join(block(report))))
    found = list(problems(report))
    for problem in found:
        print(f"\nproblem: {anonymous(problem)}")
    if not found:
        print("\nno problem found")
    return 2 if found else 0


def examine() -> Report:
    """Return what is installed on this machine, and the devices that JAX uses."""
    versions = {name: found for name in DISTRIBUTIONS if (found := hardware.version(name))}
    devices, error = ask_jax()
    present = hardware.present()
    return Report(system(present), versions, present, devices, error, list(conflicts()))


def system(present: Mapping[str, str]) -> dict[str, str]:
    """Return lines about the operating system, the processor and its memory, and the drivers."""
    lines = {
        "flaxbert": hardware.version("flaxbert") or "not installed",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processors": f"{os.cpu_count()}, {platform.machine()}",
    }
    if size := hardware.memory():
        lines["memory"] = f"{size / 2**30:.1f} GiB"
    lines["accelerators"] = ", ".join(f"{k} ({v})" for k, v in present.items()) or "none found"
    if shutil.which("nvidia-smi"):
        lines["nvidia-smi"] = nvidia_smi()
    variables = [f"{k}={v}" for k, v in sorted(os.environ.items()) if VARIABLES.match(k)]
    lines["environment"] = "\n".join(variables) or "nothing set"
    return lines


def nvidia_smi() -> str:
    """Return the GPUs and the driver that nvidia-smi lists, or its error."""
    command = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total",
        "--format=csv,noheader",
    ]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"failed ({type(error).__name__})"
    return (ended.stdout or ended.stderr).strip() or f"failed (exit code {ended.returncode})"


def ask_jax() -> tuple[dict[str, object] | None, str]:
    """Return the devices that JAX uses, and the last line of its messages.

    A separate process asks: JAX may abort, or wait for a device that another process uses.
    """
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM],  # -P: no modules of the current directory
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer after {SECONDS} s; another process may use the device"
    messages = ended.stderr.strip().splitlines()
    last = messages[-1] if messages else ""
    if ended.returncode:
        return None, last or f"its process ended with code {ended.returncode}"
    devices: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return devices, last


def conflicts() -> Iterator[str]:
    """Yield a line for each requirement of flaxbert and JAX that is not met."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield 'packaging is not installed, so versions were not compared: pip install "packaging"'
        return
    for name in CHECKED:
        for line in importlib.metadata.requires(name) or () if hardware.version(name) else ():
            requirement = Requirement(line)
            marker = requirement.marker
            extras = [e for e in EXTRAS if marker is None or marker.evaluate({"extra": e})]
            found = hardware.version(requirement.name)
            if not extras or (found is None and "" not in extras):
                continue
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                wanted = f"{requirement.name}{requirement.specifier}"
                has = f"{found} is installed" if found else "it is not installed"
                needs = f"{name} {hardware.version(name)} needs {wanted}"
                yield f'{needs}, but {has}. Install it: pip install "{wanted}"'


def block(report: Report) -> list[str]:
    """Return the lines of the block to paste."""
    lines = dict(report.system) | dict(report.versions)
    if report.jax is None:
        lines["JAX"] = f"cannot be used: {report.error}"
    else:
        lines["JAX uses"] = f"{report.jax['devices']}; model.dtype=auto is {report.jax['dtype']}"
        if isinstance(memory := report.jax["memory"], int):
            lines["device memory"] = f"{memory / 2**30:.1f} GiB"
    width = max(map(len, lines)) + 2
    indented = {name: text.replace("\n", "\n" + " " * width) for name, text in lines.items()}
    return ["```", *(f"{name:{width}}{text}" for name, text in indented.items()), "```"]


def problems(report: Report) -> Iterator[str]:
    """Yield each problem and its fix."""
    yield from report.conflicts
    if report.jax is None:
        yield f"JAX cannot be used: {report.error}. {_repair(report.versions)}"
    elif line := hardware.unused(str(report.jax["platform"])):
        yield f"{line} JAX reports: {report.error}" if report.error else line


def _repair(versions: Mapping[str, str]) -> str:
    """Return what to do if JAX cannot be imported, or finds no device."""
    if hardware.chosen():
        return f"Unset the environment variable JAX_PLATFORMS={hardware.chosen()}."
    plugins = {"libtpu": "tpu", "jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13"}
    extras = ",".join(extra for plugin, extra in plugins.items() if plugin in versions)
    package = f"jax[{extras}]" if extras else "jax"
    pin = f"=={versions['jax']}" if "jax" in versions else ""
    return f'Install it again: pip install --force-reinstall "{package}{pin}"'


def anonymous(text: str) -> str:
    """Return a text without the home directory and the name of the user."""
    home, end = Path.home(), r"(?=[/\\\s:,]|$)"
    text = re.sub(re.escape(str(home)) + end, "~", text)
    return re.sub(rf"(?<=[/\\]){re.escape(home.name)}{end}", "USER", text) if home.name else text

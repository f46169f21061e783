"""The devices in use: their precision, --require, and accelerators that JAX leaves unused."""

import dataclasses
import shutil
from pathlib import Path

import jax
import pytest
from conftest import ROOT

from flaxbert.__main__ import main
from flaxbert.commands import modes
from flaxbert.errors import ConfigError
from flaxbert.runtime import devices, hardware


@dataclasses.dataclass(frozen=True)
class Device:
    platform: str
    device_kind: str
    compute_capability: str = ""


CPU = Device("cpu", "cpu")
T4 = Device("gpu", "Tesla T4", "7.5")
A100 = Device("gpu", "NVIDIA A100-SXM4-40GB", "8.0")


def use(monkeypatch: pytest.MonkeyPatch, device: Device, count: int = 1) -> None:
    """Make JAX report other devices."""
    monkeypatch.setattr(jax, "devices", lambda: [device] * count)
    monkeypatch.setattr(jax, "device_count", lambda: count)
    monkeypatch.setattr(jax, "default_backend", lambda: device.platform)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        (CPU, "float32"),
        (T4, "float32"),
        (Device("gpu", "Tesla V100-SXM2-16GB", "7.0"), "float32"),
        (A100, "bfloat16"),
        (Device("gpu", "NVIDIA GeForce RTX 4090", "8.9"), "bfloat16"),
        (Device("gpu", "NVIDIA B200", "10.0"), "bfloat16"),
        (Device("gpu", "AMD Instinct MI250X", "gfx90a"), "float32"),
        (Device("tpu", "TPU v2"), "bfloat16"),
        (Device("tpu", "TPU v5 lite"), "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_device_has_it(
    device: Device, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, device)
    assert devices.resolve_dtype("auto") == dtype
    assert devices.resolve_dtype("float32") == "float32"
    assert devices.resolve_dtype("bfloat16") == "bfloat16"


def test_the_log_says_what_is_used_and_warns_about_what_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flaxbert")
    use(monkeypatch, CPU)
    monkeypatch.setattr(hardware, "unused", lambda platform: f"unused next to the {platform}")
    devices.log_use("float32")
    assert caplog.messages == ["device: 1 x cpu, float32", "unused next to the cpu"]


def test_summary_counts_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, A100, count=8)
    assert devices.summary() == "8 x NVIDIA A100-SXM4-40GB"


# --- --require ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval", "predict"])
def test_require_is_checked_before_anything_is_read(
    mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "present", dict)
    command = [mode, f"--config={ROOT}/configs/squad.py", f"--workdir={tmp_path}/run"]
    assert main([*command, "--config.data.train=absent.tsv", "--require=tpu"]) == 2
    message = capsys.readouterr().err
    assert "--require=tpu: JAX uses 8 x cpu. No TPU was found on this machine." in message
    assert not (tmp_path / "run").exists()


def test_require_accepts_the_platform_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []
    monkeypatch.setattr(modes, "train", lambda *_, **__: calls.append("trained"))
    command = ["train", f"--config={ROOT}/configs/squad.py", f"--workdir={tmp_path}"]
    assert main([*command, "--require=cpu"]) == 0
    assert main([*command, "--require=apu"]) == 2
    assert calls == ["trained"]


def test_a_platform_that_jax_cannot_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise RuntimeError("Unable to initialize backend 'tpu': in use\nmore")

    monkeypatch.setattr(jax, "default_backend", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    message = r"JAX_PLATFORMS=tpu: JAX finds no such device \(Unable .* in use\)\. Unset it"
    with pytest.raises(ConfigError, match=message):
        devices.platform()


# --- what the machine has ----------------------------------------------------------------------


def machine(root: Path, *files: str, **chips: str) -> Path:
    """Make /dev with files, and PCI devices of Google with these numbers."""
    for file in files:
        (root / "dev" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "dev" / file).touch()
    for name, number in chips.items():
        folder = root / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x1ae0\n", encoding="ascii")
        (folder / "device").write_text(f"{number}\n", encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("files", "chips", "expected"),
    [
        (["null", "nvidiactl", "accel/accel0"], {}, {}),
        (["nvidia1", "nvidia0"], {}, {"gpu": "/dev/nvidia0"}),
        (["accel0"], {}, {"tpu": "/dev/accel0"}),
        (["vfio/0", "vfio/vfio"], {"card": "0x0042", "chip": "0x0063"}, {"tpu": "/dev/vfio/0"}),
        (["vfio/0"], {"card": "0x0042"}, {}),  # a virtual machine with another device
        (["vfio/0"], {}, {}),
    ],
)
def test_accelerators_are_found_by_their_files(
    files: list[str], chips: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    assert hardware.present(machine(tmp_path, *files, **chips)) == expected


def test_a_gpu_in_wsl_is_found_with_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path, "dxg")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert hardware.present(root) == {}
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/lib/wsl/lib/nvidia-smi")
    assert hardware.present(root) == {"gpu": "/dev/dxg"}


@pytest.mark.parametrize(
    ("platforms", "installed", "os", "wanted", "fix"),
    [
        ("", {"jax": "0.10.2"}, "linux", "gpu", 'pip install "jax[cuda12]==0.10.2"'),
        ("", {"jax": "0.10.2"}, "linux", "tpu", 'pip install "jax[tpu]==0.10.2"'),
        ("", {}, "linux", "gpu", 'pip install "jax[cuda12]"'),
        ("", {"jax-cuda13-plugin": "0.10.2"}, "linux", "gpu", "Check with nvidia-smi"),
        ("", {"libtpu": "0.0.42"}, "linux", "tpu", "Only one process can use a TPU"),
        ("cpu", {}, "linux", "gpu", "Unset the environment variable JAX_PLATFORMS=cpu,"),
        ("cuda,cpu", {}, "linux", "gpu", "pip install"),
        ("", {}, "win32", "gpu", "on Windows use WSL 2"),
        ("", {}, "linux", "cpu", "Set the environment variable JAX_PLATFORMS=cpu."),
    ],
)
def test_the_fix_is_what_is_missing(
    platforms: str,
    installed: dict[str, str],
    os: str,
    wanted: str,
    fix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(hardware, "version", installed.get)
    monkeypatch.setattr(hardware.sys, "platform", os)
    assert fix in hardware.fix(wanted)


def test_an_unused_accelerator_is_reported_unless_the_cpu_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path, "nvidia0")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    line = hardware.unused("cpu", root)
    assert line.startswith("this machine has a GPU (/dev/nvidia0), but JAX uses the CPU. ")
    assert hardware.unused("gpu", root) == ""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert hardware.unused("cpu", root) == ""

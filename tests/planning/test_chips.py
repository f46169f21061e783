"""The chips and slices that can be planned for, and the errors for all others."""

import types

import pytest

from flaxbert.errors import ConfigError
from flaxbert.planning import chips, topology
from flaxbert.planning.chips import CHIPS
from flaxbert.runtime import hardware


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_the_rates_of_chips_are_plausible(chip: chips.Chip) -> None:
    assert 100e12 < chip.float32 <= chip.peak("bfloat16") < 2e15
    assert chip.peak("float32") == chip.float32
    assert 150 <= chip.bfloat16 / chip.bandwidth < 600  # operations per byte
    assert 10 * 2**30 < chip.memory < 200 * 2**30
    assert chip.exchange(8) == chip.interconnect < chip.bandwidth


def test_a_gpu_beyond_its_host_exchanges_over_the_network() -> None:
    assert CHIPS["h100"].exchange(8) == 450e9
    assert CHIPS["h100"].exchange(16) == 50e9
    assert CHIPS["v5e"].exchange(256) == 180e9


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("NVIDIA H100 80GB HBM3", "h100"), ("cpu", "cpu")],
)
def test_devices_of_jax_are_found_in_the_table(kind: str, name: str) -> None:
    assert chips.chip_of(kind).name == name


def test_a_device_without_known_rates_is_an_error_that_names_others() -> None:
    with pytest.raises(ConfigError, match=r"NVIDIA T4.*--topology=v5e:2x4.*a100, h100, h200"):
        chips.chip_of("NVIDIA T4")


def test_an_unknown_slice_is_an_error_that_lists_names_that_work() -> None:
    with pytest.raises(ConfigError, match=r"--topology=v9:2x2: no such TPU.*v5e:1x1, 2x2, 2x4"):
        topology.targets("v9:2x2", "", 8)


@pytest.mark.parametrize(
    ("slices", "gpu", "fix"),
    [
        ("v5e:2x4", "", r"libtpu.*pip install \"jax\[tpu\]==\d"),
        ("", "h100", r"jax-cuda12-plugin.*pip install \"jax\[cuda12\]==\d"),
    ],
)
def test_a_missing_compiler_is_an_error_with_the_command_that_installs_it(
    slices: str, gpu: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "version", lambda distribution: None)
    with pytest.raises(ConfigError, match=fix):
        topology.targets(slices, gpu, 8)


@pytest.mark.parametrize(("gpu", "count"), [("h100", 12), ("h100", 0), ("v5e", 8)])
def test_gpus_come_in_hosts_of_eight(gpu: str, count: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        topology.targets("", gpu, count)


def test_without_a_name_the_devices_of_this_machine_share_its_memory() -> None:
    (target,) = topology.targets("", "", 8)
    assert (target.chips, target.platform, target.dtype) == (8, "cpu", "float32")
    assert target.chip.bfloat16 == chips.CPU.bfloat16 / 8


def test_the_memory_of_a_gpu_of_this_machine_is_its_own(monkeypatch) -> None:
    device = types.SimpleNamespace(device_kind="NVIDIA A100-SXM4-40GB")
    monkeypatch.setattr(topology.jax, "devices", lambda: [device])
    monkeypatch.setattr(topology.memory, "capacity", lambda: 30 * 2**30)
    chip = topology.local().chip
    assert chip.memory == 30 * 2**30 < CHIPS["a100"].memory
    assert chip.bandwidth == CHIPS["a100"].bandwidth


def test_two_devices_of_some_chips_are_one_for_those_who_sell_them() -> None:
    devices = topology.local().devices
    assert topology.Target("tpu7x:2x2x1", CHIPS["tpu7x"], devices).chips == 4
    assert topology.Target("v5e:2x4", CHIPS["v5e"], devices).chips == 8


def test_the_description_of_a_gpu_is_part_of_the_package() -> None:
    assert "gpu_device_info" in topology._h100()

"""The costs of batch shapes: pure functions of the model, the platform and the devices."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flaxbert.models.layers import EncoderConfig
from flaxbert.pipeline.costs import ATTENTION, PLATFORMS, shape_costs

MINILM = EncoderConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


def mesh(platform: str, devices: int = 1) -> Any:
    """Stands for a mesh of devices that are not here."""
    device = SimpleNamespace(platform=platform)
    return SimpleNamespace(devices=np.array([device] * devices), size=devices)


def test_a_program_costs_the_positions_that_a_device_computes_meanwhile() -> None:
    # 6 layers of 12 * 384^2 weights: 2 FLOPs each forward, and 4 backward.
    flops = 6 * 6 * 12 * 384**2
    cpu = PLATFORMS["cpu"]
    assert shape_costs(MINILM, mesh("cpu")).program == pytest.approx(
        cpu.program_seconds * cpu.flops / flops
    )
    assert 1500 < shape_costs(MINILM, mesh("cpu")).program < 2000


def test_devices_compute_in_parallel_while_the_host_compiles() -> None:
    one, eight = (shape_costs(MINILM, mesh("tpu", devices)) for devices in (1, 8))
    assert eight.program == pytest.approx(8 * one.program)
    assert (eight.attention, eight.tile) == (one.attention, one.tile)


def test_attention_costs_less_next_to_wider_layers() -> None:
    # FLOPs forward of a position: 24 D^2 in products with weights, and 4 T D in attention.
    assert shape_costs(MINILM, mesh("cpu")).attention == pytest.approx(ATTENTION / (6 * 384))
    wide = dataclasses.replace(MINILM, hidden_size=768, intermediate_size=3072)
    assert shape_costs(wide, mesh("cpu")).attention == pytest.approx(ATTENTION / (6 * 768))


@pytest.mark.parametrize(("platform", "tile"), [("cpu", 8), ("gpu", 64), ("tpu", 128)])
def test_rows_fit_the_kernels_of_the_platform(platform: str, tile: int) -> None:
    assert shape_costs(MINILM, mesh(platform)).tile == tile


def test_an_unknown_platform_counts_as_a_gpu() -> None:
    assert shape_costs(MINILM, mesh("other")) == shape_costs(MINILM, mesh("gpu"))

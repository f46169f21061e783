"""Plans for TPUs and GPUs that are not here; each test needs the compiler of its chip."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from flaxbert.__main__ import main


@pytest.fixture(autouse=True)
def optimized() -> Iterator[None]:
    """Compile as in a run, not as conftest.py has it."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def planned(checkpoint: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> list[Any]:
    model = f"--config.model.init={checkpoint}", "--config.data.max_length=128", "--data=none"
    sizes = "--config.model.max_position_embeddings=128", "--json"
    main(["plan", "--config=quickstart", *model, *sizes, *flags])
    targets: list[Any] = json.loads(capsys.readouterr().out)["targets"]
    return targets


@pytest.mark.slow
def test_operations_and_memory_of_a_chip_do_not_depend_on_the_number_of_chips(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libtpu")
    plans = []
    for name, chips in (("v5e:2x4", 8), ("v5e:8x8", 64)):
        size = f"--config.train.batch_size={4 * chips}"
        plans += planned(one_layer, capsys, f"--topology={name}", size)
    few, many = plans
    assert (few["chips"], many["chips"], few["dtype"]) == (8, 64, "bfloat16")
    assert many["compiled_flops"] == pytest.approx(few["compiled_flops"], rel=0.03)
    assert many["memory"]["peak"] == pytest.approx(few["memory"]["peak"], rel=0.03)


@pytest.mark.slow
def test_slices_are_planned_side_by_side(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libtpu")
    names = ["v4:2x2x1", "v5e:1x1", "v5p:2x2x1", "v6e:2x2"]
    plans = planned(one_layer, capsys, f"--topology={','.join(names)}", "--price=1")
    assert [(one["target"], one["chips"]) for one in plans] == list(
        zip(names, (4, 1, 4, 4), strict=True)
    )
    assert all(one["fits"] for one in plans)


@pytest.mark.slow
def test_a_slice_that_cannot_be_divided_into_hosts_is_an_error(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libtpu")
    flags = f"--config.model.init={one_layer}", "--topology=v5e:3x5", "--data=none"
    assert main(["plan", "--config=quickstart", *flags]) == 2
    assert "Names that work" in capsys.readouterr().err


@pytest.mark.slow
def test_gpus_are_planned_alone_in_a_host_and_in_several(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax_cuda12_plugin")
    plans = []
    for count in (1, 8, 16):
        size = f"--config.train.batch_size={4 * count}"
        plans += planned(one_layer, capsys, "--gpu=h100", f"--count={count}", size, "--price=2")
    alone, host, hosts = plans
    assert [(one["target"], one["chips"], one["devices"]) for one in plans] == [
        ("h100:1", 1, 1),
        ("h100:8", 8, 8),
        ("h100:16", 16, 16),
    ]
    assert alone["collectives"] == {}
    for one in (host, hosts):
        assert set(one["collectives"]) == {"all-reduce"}
        sent = one["collectives"]["all-reduce"]["bytes"] - one["memory"]["gradients"]
        assert 0 <= sent < 100  # sums of losses and weights
        assert one["memory"]["peak"] == pytest.approx(host["memory"]["peak"], rel=0.03)
    assert hosts["roofline"]["exchange"] > 5 * host["roofline"]["exchange"]
    for one in plans:
        assert (one["dtype"], one["fits"]) == ("bfloat16", True)
        assert one["compiled_flops"] == pytest.approx(one["model_flops"], rel=0.03)
        assert one["bytes_accessed"] == one["hbm_traffic"] > one["memory"]["peak"] / 2


@pytest.mark.slow
def test_micro_batches_on_gpus_compute_as_much(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax_cuda12_plugin")
    flags = "--gpu=h100", "--count=1", "--config.train.batch_size=64"
    plans = []
    for parts in (1, 4):
        plans += planned(one_layer, capsys, *flags, f"--config.train.accumulation_steps={parts}")
    whole, divided = plans
    assert divided["compiled_flops"] == pytest.approx(whole["compiled_flops"], rel=0.03)
    assert divided["memory"]["activations"] < whole["memory"]["activations"]

"""Estimates from a recorded analysis: BERT-base for eight chips of a TPU v5e."""

import dataclasses
from typing import Any

import pytest

from flaxbert.planning import estimate
from flaxbert.planning.chips import CHIPS
from flaxbert.planning.step import Analysis, Exhausted, _exhausted
from flaxbert.planning.topology import Target

V5E = Target("v5e:2x4", CHIPS["v5e"], devices=(None,) * 8)
STEP = Analysis(
    rows=256,
    row_length=384,
    parameters=435_572_744,
    optimizer=871_145_496,
    gradients=435_572_744,
    activations=2_064_991_192,
    peak=3_807_282_176,
    model_flops=6_784_014_090_240.0,
    compiled_flops=6_917_311_168_512.0,
    accessed=44_758_214_656.0,
    traffic=16_511_900_300.0,
    collectives={"all-reduce": (6, 435_572_760)},
    seconds=131.3,
)


def estimated(**changes: Any) -> estimate.Estimate:
    options: dict[str, Any] = {"dtype": "bfloat16", "buckets": {256: 100}, "padding": 0.1}
    options |= {"efficiency": 0.5, "price": 1.2} | changes
    return estimate.estimate(STEP, V5E, **options)


def test_a_step_takes_at_least_the_longest_of_three_times() -> None:
    limits = estimate.roofline(STEP, V5E, "bfloat16")
    assert limits.compute == pytest.approx(6.917e12 / 197e12, rel=1e-3)
    assert limits.memory == pytest.approx(16.51e9 / 819e9, rel=1e-3)
    assert limits.exchange == pytest.approx(2 * 0.4356e9 * 7 / 8 / 180e9, rel=1e-3)
    assert (limits.bound, limits.seconds) == ("compute", limits.compute)


def test_a_smaller_batch_computes_less_but_updates_and_exchanges_as_much() -> None:
    whole, half = (estimate.roofline(STEP, V5E, "bfloat16", rows) for rows in (256, 128))
    assert half.compute == whole.compute / 2
    assert half.exchange == whole.exchange
    update = 7 * STEP.gradients / 819e9
    assert half.memory == pytest.approx(update + (whole.memory - update) / 2)


def test_the_time_of_the_job_is_that_of_all_buckets() -> None:
    took = estimated(buckets={128: 10, 256: 90})
    step = STEP.flops / 197e12 / 0.5
    assert took.step_seconds == pytest.approx(step)
    assert took.seconds == pytest.approx(95 * step)  # bound by compute in both
    assert took.cost == pytest.approx(1.2 * 8 * 95 * step / 3600)
    assert took.mfu == pytest.approx(0.5 * STEP.model_flops / STEP.compiled_flops)
    assert took.tokens_per_second == pytest.approx(0.9 * 256 * 384 / step)


def test_without_steps_or_a_price_there_is_no_total() -> None:
    took = estimated(buckets={256: 0})
    assert (took.seconds, took.cost) == (None, None)
    assert took.tokens_per_second == pytest.approx(0.9 * 256 * 384 / took.step_seconds)
    assert estimated(price=None).cost is None


def test_the_largest_batch_fills_the_memory_with_activations() -> None:
    size = estimate.largest_batch(STEP, V5E, microbatches=1, features=256)
    room = 0.95 * V5E.chip.memory - STEP.held
    assert size == 8 * int(room / (STEP.activations / 32))
    larger = dataclasses.replace(STEP, rows=size, activations=STEP.activations * size // 256)
    assert larger.held + larger.activations <= V5E.chip.memory
    packed = estimate.largest_batch(STEP, V5E, microbatches=1, features=512)
    assert packed == 2 * size


def test_the_largest_batch_of_a_small_model_is_not_zero() -> None:
    step = dataclasses.replace(STEP, rows=16, activations=0, peak=STEP.held - 2**20)
    size = estimate.largest_batch(step, V5E, microbatches=1, features=16)
    fixed = step.parameters + step.optimizer
    assert size == 8 * int((0.95 * V5E.chip.memory - fixed) / ((step.peak - fixed) / 2))


def exhausted(**changes: Any) -> Exhausted:
    fields = {field.name for field in dataclasses.fields(Exhausted)}
    step = {name: value for name, value in vars(STEP).items() if name in fields}
    return Exhausted(**step | changes)


@pytest.mark.parametrize(
    "message",
    [
        "Ran out of memory in memory space hbm. Used 24.50G of 15.75G hbm. Exceeded by 8.75G.",
        "HLO temporaries (24.50G) exceeds available HBM (15.75G).",
    ],
)
def test_the_need_of_a_program_that_is_refused_is_in_the_message(message: str) -> None:
    gib = 2**30
    sizes = {"rows": 8, "row_length": 64, "model_flops": 1.0, "parameters": 4 * gib}
    sizes |= {"optimizer": 8 * gib, "gradients": 4 * gib}
    refused = _exhausted(message, sizes, seconds=1.0)
    assert (refused.peak, refused.activations) == (24.5 * gib, 8.5 * gib)


def changes(step: Exhausted, **options: Any) -> list[str]:
    given: dict[str, Any] = {"microbatches": 1, "fsdp": 1, "remat": "none"} | options
    return list(estimate.changes(step, V5E, **given))


def test_activations_that_do_not_fit_are_computed_in_parts() -> None:
    first, second = changes(exhausted(activations=40 * 2**30))
    assert first == "train.accumulation_steps=4"
    assert second.startswith("model.remat=full")


def test_parameters_that_do_not_fit_are_divided_over_devices() -> None:
    large = exhausted(parameters=5 * 2**30, optimizer=10 * 2**30, gradients=5 * 2**30)
    assert changes(large) == ["train.fsdp=2"]
    huge = exhausted(parameters=40 * 2**30, optimizer=80 * 2**30, gradients=40 * 2**30)
    assert "more chips" in changes(huge)[0]

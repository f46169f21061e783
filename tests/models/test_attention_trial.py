"""The trial of attention kernels: wrong, failing and slow ones are not used."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from flaxbert.models import attention_trial
from flaxbert.models.attention import kernel_attention, plain_attention
from flaxbert.models.attention_trial import Shape, Trial, compare, difference, try_kernel
from flaxbert.models.bert import BertConfig
from flaxbert.models.modernbert import ModernBertConfig

SHAPE = Shape(rows=2, length=128, heads=2, width=64, dtype="float32", rate=0.1, window=None)
SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}


def timed(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[Shape]:
    """Let each pass of a way take so many seconds; return the list of the shapes timed later."""
    shapes = []

    def times(shape: Shape, ways: Any) -> dict[str, list[float]]:
        shapes.append(shape)
        return {way: [seconds[way]] for way in ways}

    monkeypatch.setattr(attention_trial, "times", times)
    return shapes


@pytest.mark.parametrize(("dtype", "window"), [("float32", None), ("bfloat16", 10)])
@pytest.mark.parametrize("kernel", ["tpu", "gpu"])
def test_a_right_kernel_is_within_what_is_allowed(kernel, window, dtype):
    shape = Shape(2, 128, 2, 64, dtype, 0.1, window)
    way = functools.partial(kernel_attention, kernel, interpret=True)
    error, allowed = difference(shape, way)
    assert 0 < error <= allowed < (1e-3 if dtype == "float32" else 0.05)


def scaled(q, k, v, **settings):
    return 1.002 * plain_attention(q, k, v, **settings)


def across_segments(q, k, v, *, segment_ids, **settings):
    return plain_attention(q, k, v, segment_ids=jnp.ones_like(segment_ids), **settings)


def other_dropout(q, k, v, *, keys, **settings):
    return plain_attention(q, k, v, keys=dataclasses.replace(keys, first=keys.second), **settings)


def not_a_number(q, k, v, **settings):
    return jnp.nan * plain_attention(q, k, v, **settings)


def without_gradient_of_keys(q, k, v, **settings):
    return plain_attention(q, jax.lax.stop_gradient(k), v, **settings)


def without_gradient_of_biases(q, k, v, *, biases, **settings):
    return plain_attention(q, k, v, biases=jax.lax.stop_gradient(biases), **settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "kernel",
    [
        across_segments,
        other_dropout,
        not_a_number,
        without_gradient_of_keys,
        without_gradient_of_biases,
    ],
)
def test_a_wrong_kernel_is_not_used(kernel, dtype, monkeypatch):
    timed(monkeypatch, kernel=1.0, plain=2.0)
    trial = compare({Shape(2, 128, 2, 64, dtype, 0.1, None): 1}, kernel)
    assert trial.failed
    assert trial.way == "plain"
    assert "values differ" in trial.reason


def test_a_small_error_shows_in_float32(monkeypatch):
    timed(monkeypatch, kernel=1.0, plain=2.0)
    assert compare({SHAPE: 1}, scaled).failed


def test_an_error_in_layers_with_a_window_shows_too(monkeypatch):
    timed(monkeypatch, kernel=1.0, plain=2.0)

    def forgets_the_window(q, k, v, *, window, **settings):
        return plain_attention(q, k, v, window=None, **settings)

    assert not compare({SHAPE: 1}, forgets_the_window).failed
    config = ModernBertConfig(
        layer_types=("full_attention", "sliding_attention", "sliding_attention"),
        local_attention=8,
        **SIZES,
    )
    trial = try_kernel(config, 2, 128, jax.devices()[0], forgets_the_window)
    assert trial is not None
    assert trial.failed


@pytest.mark.parametrize(("kernel", "plain", "way"), [(1.0, 2.0, "kernel"), (2.0, 1.0, "plain")])
def test_the_faster_way_is_chosen(kernel, plain, way, monkeypatch):
    timed(monkeypatch, kernel=kernel, plain=plain)
    trial = compare({SHAPE: 3}, plain_attention)
    assert trial.way == way
    assert not trial.failed
    assert f"{3000 * kernel:.2f} ms" in trial.reason


def test_times_are_measured():
    seconds = attention_trial.times(SHAPE, {"plain": plain_attention}, rounds=2)
    assert len(seconds["plain"]) == 2
    assert min(seconds["plain"]) > 0


def test_plain_attention_that_needs_too_much_memory_is_not_timed(monkeypatch):
    shapes = timed(monkeypatch, kernel=2.0, plain=1.0)
    long = Shape(4, 8192, 12, 64, "float32", 0.0, None)
    monkeypatch.setattr(attention_trial, "difference", lambda *_: (0.0, 1.0))
    assert compare({long: 1}, plain_attention).way == "kernel"
    assert shapes == []
    compare({Shape(999, 512, 12, 64, "float32", 0.0, None): 1}, plain_attention)
    assert [shape.rows for shape in shapes] == [85]  # 2^28 probabilities


def test_long_rows_are_compared_in_shorter_ones():
    long = Shape(4, 8192, 12, 64, "float32", 0.0, None)
    assert attention_trial.checked(long).length == 1024
    assert attention_trial.checked(SHAPE).length == 128


def test_a_kernel_that_does_not_compile_is_not_used():
    def kernel(q, k, v, **settings):
        raise NotImplementedError("no such instruction\non this chip")

    trial = try_kernel(BertConfig(**SIZES), 2, 128, jax.devices()[0], kernel)
    assert trial == Trial(
        "plain", "the kernel does not run here (no such instruction)", failed=True
    )


def test_there_is_no_trial_without_a_kernel():
    config = BertConfig(hidden_size=768, num_attention_heads=12)
    gpu = SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    assert try_kernel(config, 32, 384, jax.devices()[0]) is None  # a CPU
    assert try_kernel(config, 32, 128, gpu) is None  # short rows

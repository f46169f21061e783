"""The GPU kernels against plain attention, interpreted on a CPU; test_targets.py compiles them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attention_tpu import ROWS, packed, results
from tolerance import assert_close, assert_grads_close

from flaxbert.models import attention
from flaxbert.models.attention import attend, choose, plain_attention
from flaxbert.models.attention_gpu import gpu_attention
from flaxbert.runtime import sharding

CASES = [
    # length, heads, width, window, rate, dtype
    (64, 2, 32, None, 0.0, "float32"),
    (128, 2, 64, None, 0.1, "float32"),
    (192, 3, 32, 40, 0.5, "float32"),
    (192, 2, 64, 3, 0.0, "float32"),
    (256, 2, 64, 70, 0.1, "bfloat16"),
]


@pytest.mark.parametrize(("length", "heads", "width", "window", "rate", "dtype"), CASES)
def test_kernels_equal_plain_attention(
    length: int, heads: int, width: int, window: int | None, rate: float, dtype: str
) -> None:
    shape = (ROWS, length, heads, width)
    q, k, v = (jax.random.normal(jax.random.key(n), shape, dtype) for n in range(3))
    segment_ids, keys = packed(length)
    settings: dict[str, Any] = {"segment_ids": segment_ids, "window": window, "rate": rate}
    settings["keys"] = keys if rate else None
    ours = results(functools.partial(gpu_attention, interpret=True), q, k, v, **settings)
    plain = results(plain_attention, q, k, v, **settings)
    # One bfloat16 rounding of probabilities and outputs is 2^-8 of the value.
    assert_close(ours["out"], plain["out"], 1e-5 if dtype == "float32" else 2e-2)
    assert_grads_close(ours["grads"], plain["grads"], 1e-5 if dtype == "float32" else 2e-2)


def test_dropout_zeroes_the_same_probabilities_bit_for_bit() -> None:
    length = 64
    segment_ids, keys = packed(length, seed=1)
    q = jnp.zeros((ROWS, length, 2, length))
    # With one-hot values, the output is the matrix of probabilities itself.
    v = jnp.broadcast_to(jnp.eye(length)[:, None], q.shape)
    settings: dict[str, Any] = {"segment_ids": segment_ids, "rate": 0.3, "keys": keys}
    ours = gpu_attention(q, q, v, **settings, interpret=True)
    np.testing.assert_array_equal(ours > 0, plain_attention(q, q, v, **settings) > 0)


def test_without_keys_there_is_no_dropout() -> None:
    q = jax.random.normal(jax.random.key(0), (ROWS, 64, 1, 32))
    ids, _ = packed(64)
    ours = gpu_attention(q, q, q, ids, rate=0.5, interpret=True)
    assert_close(ours, plain_attention(q, q, q, ids))


def test_padding_and_rows_of_padding_give_finite_results() -> None:
    q = jax.random.normal(jax.random.key(0), (2, 128, 1, 32))
    segment_ids = jnp.stack([jnp.zeros(128, jnp.int32), jnp.where(jnp.arange(128) < 3, 1, 0)])
    way = functools.partial(gpu_attention, interpret=True)
    for leaf in jax.tree.leaves(results(way, q, q, q, segment_ids=segment_ids)):
        assert np.all(np.isfinite(leaf))


def test_large_scores_do_not_overflow() -> None:
    q = 100 * jax.random.normal(jax.random.key(0), (ROWS, 128, 1, 64))
    segment_ids, _ = packed(128)
    ours = gpu_attention(q, q, q, segment_ids, interpret=True)
    assert_close(ours, plain_attention(q, q, q, segment_ids))


def test_the_kernels_are_chosen_on_gpus_for_long_rows_of_fitting_widths() -> None:
    gpu = "NVIDIA H100 80GB HBM3"
    assert (
        choose("kernel", gpu, 384, 12, 64)
        == choose("kernel", gpu, 8192, 12, 32)
        == choose("kernel", gpu, 320, 5, 64)
        == choose("kernel", gpu, 512, 32, 80)
        == "gpu"
    )
    assert choose("auto", gpu, 384, 12, 64) == "plain"  # not yet measured
    assert choose("plain", gpu, 384, 12, 64) == "plain"
    assert choose("kernel", "NVIDIA A100-SXM4-80GB", 512, 12, 64) == "gpu"
    assert choose("kernel", "Tesla V100-SXM2-16GB", 384, 12, 64) == "plain"  # too old for Triton
    assert choose("kernel", "gfx942", 384, 12, 64) == "plain"  # of another vendor
    assert choose("kernel", gpu, 128, 12, 64) == "plain"  # short
    assert choose("kernel", gpu, 288, 12, 64) == "plain"  # not a multiple of 64
    assert (
        choose("kernel", gpu, 384, 12, 26) == choose("kernel", gpu, 384, 4, 256) == "plain"
    )  # other widths


def test_each_device_computes_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = sharding.make_mesh()
    q = jax.random.normal(jax.random.key(0), (8, 64, 1, 32))
    ids, keys = packed(64)
    ids, keys = jax.tree.map(lambda x: jnp.tile(x, (4, 1)), (ids, keys))
    expected = results(plain_attention, q, q, q, segment_ids=ids, rate=0.1, keys=keys)
    monkeypatch.setattr(attention, "choose", lambda *_: "gpu")
    interpreted = functools.partial(gpu_attention, interpret=True)
    monkeypatch.setattr(attention, "gpu_attention", interpreted)
    q, ids, keys = jax.device_put((q, ids, keys), sharding.batch_sharding(mesh))
    ours = results(attend, q, q, q, segment_ids=ids, rate=0.1, keys=keys)
    assert ours["out"].sharding.is_equivalent_to(sharding.batch_sharding(mesh), 3)
    assert_close(ours["out"], expected["out"])
    assert_grads_close(ours["grads"], expected["grads"], 1e-5)

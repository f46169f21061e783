"""The TPU kernel against plain attention, interpreted on a CPU; test_targets.py compiles it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from targets import BY_SEGMENT, BY_TOKEN
from test_targets import SIZES, TASKS
from tolerance import assert_close, assert_grads_close

from flaxbert.config import OptimConfig
from flaxbert.models import attention
from flaxbert.models.attention import (
    attend,
    attention_mask,
    choose,
    kernel_attention,
    kernel_width,
    plain_attention,
)
from flaxbert.models.attention_tpu import block_length, bounds, heads_of_a_group, tpu_attention
from flaxbert.models.dropout import DropoutKeys, dropout_key, fold_in, token_keys
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import state_shapes
from flaxbert.training.step import make_train_step
from flaxbert.types import Batch

ROWS = 2


def packed(length: int, seed: int = 0) -> tuple[jax.Array, DropoutKeys]:
    """Return segment ids and dropout keys [R, T] of random segments, with padding at the end."""
    rng = np.random.default_rng(seed)
    segment_ids, position_ids = np.zeros((2, ROWS, length), np.int32)
    for row in range(ROWS):
        ends = np.sort(rng.choice(np.arange(1, length - 5 * row), 4, replace=False))
        for segment, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
            segment_ids[row, start:end] = segment
            position_ids[row, start:end] = np.arange(end - start)
    index = jnp.arange(ROWS * 8).reshape(ROWS, 8)
    ids = jnp.asarray(segment_ids)
    keys = fold_in(token_keys(dropout_key(0, 3), index, ids, jnp.asarray(position_ids)), 5)
    assert keys is not None
    return ids, keys


def interpret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `attend` use the kernel on this machine."""
    monkeypatch.setattr(attention, "choose", lambda *_: "tpu")
    interpreted = functools.partial(tpu_attention, interpret=True)
    monkeypatch.setattr(attention, "tpu_attention", interpreted)


def results(way: Any, q: jax.Array, k: jax.Array, v: jax.Array, **settings: Any) -> dict[str, Any]:
    """Return attention and the gradients of a weighted sum of it, in float32."""
    inputs = {"q": q, "k": k, "v": v}
    inputs |= {"biases": settings.pop("biases")} if "biases" in settings else {}

    def loss(inputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        out = way(**inputs, **settings).astype(jnp.float32)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    return {"out": out, "grads": jax.tree.map(lambda x: x.astype(jnp.float32), grads)}


CASES = [
    # length, heads, width, window, rate, dtype
    (128, 2, 64, None, 0.0, "float32"),
    (128, 4, 32, 10, 0.1, "float32"),
    (256, 2, 64, None, 0.1, "float32"),
    (384, 8, 32, None, 0.1, "float32"),
    (384, 4, 64, 40, 0.0, "float32"),
    (512, 2, 64, 64, 0.5, "float32"),
    pytest.param(640, 2, 64, None, 0.1, "float32", marks=pytest.mark.slow),
    pytest.param(1024, 2, 64, None, 0.1, "float32", marks=pytest.mark.slow),
    (1024, 4, 32, 64, 0.1, "float32"),
    (256, 3, 40, None, 0.1, "float32"),
    (384, 2, 64, None, 0.1, "bfloat16"),
    (1024, 2, 64, 64, 0.0, "bfloat16"),
]


@pytest.mark.parametrize(("length", "heads", "width", "window", "rate", "dtype"), CASES)
def test_kernel_equals_plain_attention(
    length: int, heads: int, width: int, window: int | None, rate: float, dtype: str
) -> None:
    shape = (ROWS, length, heads, width)
    q, k, v = (jax.random.normal(jax.random.key(n), shape, dtype) for n in range(3))
    segment_ids, keys = packed(length)
    settings: dict[str, Any] = {"segment_ids": segment_ids, "window": window, "rate": rate}
    settings["keys"] = keys if rate else None
    ours = results(functools.partial(tpu_attention, interpret=True), q, k, v, **settings)
    plain = results(plain_attention, q, k, v, **settings)
    # One bfloat16 rounding of probabilities and outputs is 2^-8 of the value.
    assert_close(ours["out"], plain["out"], 1e-5 if dtype == "float32" else 2e-2)
    assert_grads_close(ours["grads"], plain["grads"], 1e-5 if dtype == "float32" else 2e-2)


@pytest.mark.parametrize("length", [256, pytest.param(1024, marks=pytest.mark.slow)])
def test_dropout_zeroes_the_same_probabilities_bit_for_bit(length: int) -> None:
    segment_ids, keys = packed(length, seed=1)
    q = jnp.zeros((ROWS, length, 2, length))
    # With one-hot values, the output is the matrix of probabilities itself.
    v = jnp.broadcast_to(jnp.eye(length)[:, None], q.shape)
    settings: dict[str, Any] = {"segment_ids": segment_ids, "rate": 0.3, "keys": keys}
    ours = tpu_attention(q, q, v, **settings, interpret=True)
    np.testing.assert_array_equal(ours > 0, plain_attention(q, q, v, **settings) > 0)


def test_padding_and_rows_of_padding_give_finite_results() -> None:
    q = jax.random.normal(jax.random.key(0), (2, 1024, 2, 64))
    segment_ids = jnp.stack([jnp.zeros(1024, jnp.int32), jnp.where(jnp.arange(1024) < 3, 1, 0)])
    way = functools.partial(tpu_attention, interpret=True)
    for leaf in jax.tree.leaves(results(way, q, q, q, segment_ids=segment_ids)):
        assert np.all(np.isfinite(leaf))


def test_large_scores_do_not_overflow() -> None:
    q = 100 * jax.random.normal(jax.random.key(0), (ROWS, 256, 2, 64))
    segment_ids, _ = packed(256)
    ours = tpu_attention(q, q, q, segment_ids, interpret=True)
    assert_close(ours, plain_attention(q, q, q, segment_ids))


@pytest.mark.parametrize("window", [None, 0, 3])
def test_bounds_describe_the_mask(window: int | None) -> None:
    segment_ids = jnp.asarray([[1, 1, 1, 1, 2, 2, 2, 0, 0], [1, 2, 3, 3, 3, 3, 3, 3, 3]])
    start, end = (x[..., None] for x in bounds(segment_ids, window))
    index = jnp.arange(segment_ids.shape[1])
    mask = attention_mask(segment_ids, window)[:, 0]
    np.testing.assert_array_equal((index >= start) & (index < end), mask)


def test_tiles_divide_rows() -> None:
    assert [block_length(length, None) for length in (128, 384, 512, 640, 768, 8192)] == [
        128, 384, 512, 128, 384, 512,
    ]  # fmt: skip
    assert block_length(512, 64) == 512
    assert block_length(8192, 64) == 256
    assert block_length(8192, 1000) == 512


@pytest.mark.parametrize(
    ("kernel", "heads"), [pytest.param("tpu", 8, marks=pytest.mark.slow), ("gpu", 2)]
)
def test_heads_of_width_80_are_padded_for_a_kernel(kernel: str, heads: int) -> None:
    length = 128 if kernel == "tpu" else 64
    shape = (ROWS, length, heads, 80)
    q, k, v = (jax.random.normal(jax.random.key(n), shape) for n in range(3))
    ids, _ = packed(length)
    assert kernel_width(kernel, heads, 80) == 128
    way = functools.partial(kernel_attention, kernel, interpret=True)
    ours = results(way, q, k, v, segment_ids=ids)
    plain = results(plain_attention, q, k, v, segment_ids=ids)
    assert_close(ours["out"], plain["out"])
    assert_grads_close(ours["grads"], plain["grads"], 1e-5)


@pytest.mark.parametrize(
    ("length", "heads", "width", "window"),
    [
        (128, 4, 64, None),
        (1024, 2, 64, 64),  # several blocks
        pytest.param(128, 8, 80, None, marks=pytest.mark.slow),  # padded
    ],
)
def test_the_kernel_adds_biases_and_sums_their_gradients(
    length: int, heads: int, width: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (ROWS, length, heads, width)
    q, k, v = (jax.random.normal(jax.random.key(n), shape) for n in range(3))
    ids, keys = packed(length)
    settings: dict[str, Any] = {"segment_ids": ids, "window": window, "rate": 0.1, "keys": keys}
    settings["biases"] = jax.random.normal(jax.random.key(3), (3, heads, width))
    plain = results(functools.partial(attend, way="plain"), q, k, v, **settings)
    interpret(monkeypatch)
    ours = results(attend, q, k, v, **settings)
    assert_close(ours["out"], plain["out"])
    assert_grads_close(ours["grads"], plain["grads"], 1e-5)


def test_groups_of_heads_fill_registers() -> None:
    assert [heads_of_a_group(*sizes) for sizes in ((12, 64), (12, 32), (16, 128), (2, 32))] == [
        2, 4, 1, 2,
    ]  # fmt: skip


def test_the_kernel_is_chosen_on_tpus_for_long_rows_of_fitting_widths() -> None:
    chip = "TPU v5 lite"
    assert choose("auto", chip, 384, 12, 64) == choose("auto", chip, 8192, 12, 32) == "tpu"
    assert choose("auto", chip, 512, 32, 80) == "tpu"  # padded
    assert choose("auto", "cpu", 384, 12, 64) == choose("auto", "Tesla T4", 384, 12, 64) == "plain"
    assert choose("auto", chip, 128, 12, 64) == "plain"  # short
    assert choose("auto", chip, 320, 12, 64) == "plain"  # not a multiple of 128
    assert choose("auto", chip, 384, 12, 26) == "plain"  # not a multiple of 8
    assert choose("auto", "TPU v4", 2048, 12, 64) == "tpu"
    assert choose("auto", "TPU v4", 8192, 12, 64) == "plain"  # too long for its memory


def test_each_device_computes_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = sharding.make_mesh()
    shape = (8, 128, 2, 64)
    q = jax.random.normal(jax.random.key(0), shape)
    ids, keys = packed(128)
    ids, keys = jax.tree.map(lambda x: jnp.tile(x, (4, 1)), (ids, keys))
    biases = jax.random.normal(jax.random.key(1), (3, *shape[2:]))
    settings: dict[str, Any] = {"segment_ids": ids, "biases": biases, "rate": 0.1, "keys": keys}
    expected = results(functools.partial(attend, way="plain"), q, q, q, **settings)
    interpret(monkeypatch)
    q, ids, keys = jax.device_put((q, ids, keys), sharding.batch_sharding(mesh))
    settings |= {"segment_ids": ids, "keys": keys}
    ours = results(attend, q, q, q, **settings)
    assert ours["out"].sharding.is_equivalent_to(sharding.batch_sharding(mesh), 3)
    assert_close(ours["out"], expected["out"])
    assert_grads_close(ours["grads"], expected["grads"], 1e-5)


@pytest.mark.parametrize(
    ("remat", "parts", "way"), [("none", 1, "auto"), ("full", 2, "auto"), ("none", 1, "kernel")]
)
@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_a_training_step_chooses_for_the_devices_of_its_arguments(
    model_type: str,
    remat: str,
    parts: int,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = []
    mesh = sharding.make_mesh()
    monkeypatch.delattr(jax, "devices")  # those of this machine do not matter
    monkeypatch.setattr(
        attention, "choose", lambda way, kind, *_: kinds.append((way, kind)) or "plain"
    )
    task, arrays = TASKS["token_classification"]
    config = SIZES | {
        "model_type": model_type,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "vocab_size": 99,
    }
    model = Model.create(read_config(config, remat=remat, attention=way), task.make_head)
    optimizer, _ = make_optimizer(OptimConfig(), 100)
    state = state_shapes(model.shapes, optimizer, mesh, task.loss_names)
    sizes = dict.fromkeys((*BY_TOKEN, *arrays["by_token"]), 128) | dict.fromkeys(BY_SEGMENT, 8)
    rows = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((16, size), jnp.int32, sharding=rows)
        for name, size in sizes.items()
    }
    batch["weight"] = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=rows)
    step = make_train_step(
        model, task, optimizer, state, mesh, accumulation_steps=parts, seed=0, log_every=10
    )
    step.lower(state, Batch.from_arrays(batch))  # type: ignore[attr-defined]
    assert set(kinds) == {(way, "cpu")}

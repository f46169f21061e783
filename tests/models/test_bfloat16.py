"""Training in bfloat16: the gradient of every tensor is as exact as a kernel's."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from test_families import GOLDEN, QUICK

import flaxbert
from flaxbert import Config, ModelConfig
from flaxbert.errors import ConfigError
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.pretrained.load import head_of
from flaxbert.types import Params

# As many tokens as a device has in a large batch, half of them with one id: a sum in bfloat16 stops
# growing at 256 times its increment.
ROWS, LENGTH, SEGMENT = 192, 128, 32
FREQUENT = 7

KERNELS = 0.02
"""Relative error of a typical kernel's gradient: products of operands with 8 bits, layer by layer.
Kernels of small gradients, such as a query's, may have twice as much."""


def with_slow(cases: list[str], quick: set[str]) -> list[Any]:
    return [pytest.param(case, marks=() if case in quick else pytest.mark.slow) for case in cases]


CASES = [f"{name}/{head}" for name, head in zoo.CASES if head != "Model"]


def make_model(case: str, dtype: str) -> Model:
    config = json.loads(str(GOLDEN[f"{case}/config"]))
    return Model.create(read_config(config, dtype=dtype).with_dropout(0.0), head_of(config))


def make_batch(model: Model, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Return packed rows of random ids, half of them `FREQUENT`."""
    chance = np.random.Generator(np.random.Philox(7))
    shape = rows, LENGTH
    ids = np.where(chance.random(shape) < 0.5, FREQUENT, chance.integers(5, zoo.WORDS, shape))
    places = np.arange(LENGTH)
    two = getattr(model.config, "type_vocab_size", 0) > 1
    starts = np.arange(0, LENGTH, SEGMENT)
    return {
        "input_ids": ids,
        "position_ids": np.broadcast_to(places % SEGMENT, shape),
        "segment_ids": np.broadcast_to(places // SEGMENT + 1, shape),
        "token_type_ids": np.broadcast_to((places % SEGMENT > 9) * two, shape),
        "cls_position": np.broadcast_to(starts, (rows, len(starts))),
    }


def make_loss(model: Model, batch: dict[str, np.ndarray]) -> Callable[[Params], jax.Array]:
    """Return a loss in which all tokens have gradients of one sign."""

    def loss(params: Params) -> jax.Array:
        outputs = {name: value for name, value in model(params, batch).items() if "log" in name}
        return sum(
            (
                jnp.mean(jnp.square(value - 1) * (1 + jnp.arange(value.shape[-1])))
                for value in outputs.values()
            ),
            jnp.zeros(()),
        )

    return loss


def flat(tree: Params) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_gradients_match_float32_on_24000_tokens(case: str) -> None:
    gradients = []
    for dtype in ("float32", "bfloat16"):
        model = make_model(case, dtype)
        params = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, model.init(0))
        gradients.append(flat(jax.jit(jax.grad(make_loss(model, make_batch(model))))(params)))
    exact, rounded = gradients
    norm = np.sqrt(sum(np.sum(array**2) for array in exact.values()))
    errors = {
        name: np.linalg.norm(rounded[name] - array) / np.linalg.norm(array)
        for name, array in exact.items()
        # The gradient of the key's bias is zero: softmax ignores it.
        if np.linalg.norm(array) > 1e-7 * norm
    }
    assert len(errors) >= len(exact) - model.config.num_hidden_layers * 2
    kernels = [error for name, error in errors.items() if name.endswith("kernel")]
    assert np.median(kernels) <= KERNELS
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] <= 2 * max(kernels), (worst, errors[worst], max(kernels))


def sums_in_bfloat16(module: str) -> list[str]:
    """Return the scatters, sums over a dimension and sums over devices in bfloat16 of StableHLO."""
    pattern = (
        r'"stablehlo\.(?:scatter|all_reduce)".*?\}\) : \([^)]*\) -> tensor<[^>]*bf16>'
        r"|stablehlo\.reduce\([^)]*\) applies stablehlo\.add [^\n]*-> tensor<[^>]*bf16>"
    )
    return [match.group(0)[-300:] for match in re.finditer(pattern, module, re.DOTALL)]


def test_sums_in_bfloat16_are_detected() -> None:
    # Otherwise, a change of the compiler's notation would make the test below pass.
    table, ids = jnp.ones((9, 4), jnp.bfloat16), jnp.array([1, 1, 3])
    scattered = jax.jit(jax.grad(lambda x: jnp.sum(x[ids].astype(jnp.float32)))).lower(table)
    assert sums_in_bfloat16(scattered.as_text())
    narrow = jnp.ones((5, 4), jnp.bfloat16)
    bias = jax.jit(jax.grad(lambda b: jnp.sum((narrow + b).astype(jnp.float32))))
    assert sums_in_bfloat16(bias.lower(table[0]).as_text())


@pytest.mark.parametrize("case", with_slow(CASES, {"bert/ForPreTraining", *QUICK}))
def test_no_gradient_is_summed_in_bfloat16(case: str) -> None:
    model = make_model(case, "bfloat16")
    lowered = jax.jit(jax.grad(make_loss(model, make_batch(model, rows=2)))).lower(model.shapes)
    module = lowered.as_text()
    assert "bf16" in module
    assert not sums_in_bfloat16(module)


@pytest.mark.parametrize("case", with_slow(CASES, {"bert/ForPreTraining"}))
def test_logits_are_computed_in_float32(case: str) -> None:
    model = make_model(case, "bfloat16")
    outputs = jax.jit(model.__call__)(model.init(0), make_batch(model, rows=2))
    logits = {name: value for name, value in outputs.items() if "logits" in name}
    assert logits
    for name, value in logits.items():
        assert value.dtype == jnp.float32
        assert jnp.mean(value == value.astype(jnp.bfloat16)) < 0.1, name


def test_training_bfloat16_parameters_raises(tmp_path: Path) -> None:
    # Most updates of AdamW are less than half the spacing of bfloat16 and would be lost.
    config = Config(task="classification", model=ModelConfig(param_dtype="bfloat16"))
    with pytest.raises(ConfigError, match="param_dtype='bfloat16': training needs float32"):
        flaxbert.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

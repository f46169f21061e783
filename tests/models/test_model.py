"""Heads and families fit together, and profiles name the parts of a model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tolerance import assert_close

from flaxbert.models.bert import BertConfig
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import HEADS, MaskedLMHead, NoHead, PoolerHead
from flaxbert.models.layers import ACTIVATIONS, gelu, matmul, matmul_activated
from flaxbert.models.model import Model


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_head_type_of_a_family_has_a_head(model_type: str) -> None:
    assert set(FAMILIES[model_type].heads) <= {*HEADS, NoHead.head_type, PoolerHead.head_type}


def test_head_types_are_unique() -> None:
    assert all(head.head_type == head_type for head_type, head in HEADS.items())
    assert len(set(HEADS.values())) == len(HEADS)


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [("bert", zoo.SIZES), ("xlm-roberta-xl", zoo.ROBERTA), ("modernbert", zoo.MODERN)],
)
def test_profiles_name_the_parts_of_a_model(model_type: str, sizes: dict[str, object]) -> None:
    config = read_config({"model_type": model_type, **sizes})
    model = Model.create(config, MaskedLMHead.maker(2))
    batch = {"input_ids": jnp.ones((2, 7), jnp.int32)}
    program = jax.jit(model.__call__).lower(model.shapes, batch).compile().as_text()
    for part in ("embeddings", "attention", "mlp", "head"):
        assert f"/{part}/" in program


@pytest.mark.parametrize(
    ("model_type", "sizes", "kinds"),
    # ModernBERT's first layer has no LayerNorm before its attention, and every third no window.
    [("bert", zoo.SIZES, 1), ("modernbert", zoo.MODERN, 3)],
)
def test_equal_layers_are_traced_once(
    model_type: str, sizes: dict[str, object], kinds: int
) -> None:
    config = read_config({"model_type": model_type, **sizes, "num_hidden_layers": 7})
    model = Model.create(config, MaskedLMHead.maker(2))
    batch = {"input_ids": jnp.ones((2, 7), jnp.int32)}
    program = jax.make_jaxpr(model.__call__)(model.shapes, batch)
    traces = [eqn.params["jaxpr"] for eqn in program.eqns if eqn.params.get("name") == "_layer"]
    assert len(traces) == 7
    assert len({id(trace) for trace in traces}) == kinds


def test_shapes_need_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(jax.random, "fold_in")  # derives keys
    model = Model.create(BertConfig(num_hidden_layers=2), PoolerHead)
    with pytest.raises(AttributeError):
        model.init(0)


LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
PUBLISHED = {
    "bert-large-uncased": ({"model_type": "bert", "vocab_size": 30522, **LARGE}, 335_141_888),
    "xlm-roberta-large": (
        {
            "model_type": "xlm-roberta",
            "vocab_size": 250002,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            **LARGE,
        },
        559_890_432,
    ),
    "xlm-roberta-xl": (
        {
            "model_type": "xlm-roberta-xl",
            "vocab_size": 250880,
            "hidden_size": 2560,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "intermediate_size": 10240,
        },
        3_482_485_760,
    ),
    "xlm-roberta-xxl": (
        {
            "model_type": "xlm-roberta-xl",
            "vocab_size": 250880,
            "hidden_size": 4096,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "intermediate_size": 16384,
        },
        10_712_735_744,
    ),
}
"""{published model: (its config.json, parameters of encoder and pooler in transformers)}."""


def analytic_count(config: BertConfig) -> int:
    """Return the number of parameters of an encoder of this kind, with its pooler."""
    width, hidden = config.hidden_size, config.intermediate_size
    dense, norm = width * width + width, 2 * width
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    layer = 4 * dense + 2 * width * hidden + hidden + width + 2 * norm
    return rows * width + norm + config.num_hidden_layers * layer + dense


def count(model: Model) -> int:
    return sum(math.prod(shape.shape) for shape in jax.tree.leaves(model.shapes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_as_many_parameters_as_in_transformers(name: str) -> None:
    hf_config, expected = PUBLISHED[name]
    config = read_config(hf_config)
    assert isinstance(config, BertConfig)
    assert analytic_count(config) == expected
    low = dataclasses.replace(config, num_hidden_layers=2)
    assert count(Model.create(low, PoolerHead)) == analytic_count(low)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_build_without_memory_for_parameters(name: str) -> None:
    hf_config, expected = PUBLISHED[name]
    assert count(Model.create(read_config(hf_config), PoolerHead)) == expected


def test_sizes_that_a_config_lacks_are_those_of_its_family() -> None:
    config = read_config(PUBLISHED["xlm-roberta-xl"][0])
    assert (config.layer_norm_eps, config.max_positions) == (1e-5, 512)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_product_with_activated_values_saves_only_the_values(name: str) -> None:
    activation = ACTIVATIONS[name]

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return matmul_activated(x, kernel, activation)

    def expected(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return matmul(activation(x), kernel, jnp.float32)

    x = jnp.linspace(-3, 3, 2 * 3 * 8).reshape(2, 3, 8)
    kernel = jnp.cos(jnp.arange(8.0 * 4)).reshape(8, 4)
    (value, pull_back), (wanted, wanted_pull_back) = (
        jax.vjp(f, x, kernel) for f in (product, expected)
    )
    assert_close(value, wanted)
    assert_close(pull_back(wanted), wanted_pull_back(wanted))
    saved = [leaf.shape for leaf in jax.tree.leaves(pull_back)]
    assert sorted(saved) == [x.shape, kernel.shape]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_is_that_of_the_definition(dtype: jnp.dtype) -> None:
    x = jnp.linspace(-12, 12, 4801).astype(dtype)
    values = [float(value) for value in x]
    cdf = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in values])
    density = np.exp(-0.5 * np.square(values)) / math.sqrt(2 * math.pi)
    value, pull_back = jax.vjp(gelu, x)
    (slope,) = pull_back(jnp.ones_like(x))
    assert value.dtype == slope.dtype == dtype
    rounding = 2.0**-8 if dtype == jnp.bfloat16 else 1e-6
    exact = values * cdf
    np.testing.assert_allclose(np.float64(value), exact, rtol=rounding, atol=1e-6)
    np.testing.assert_allclose(np.float64(slope), cdf + values * density, rtol=rounding, atol=1e-6)

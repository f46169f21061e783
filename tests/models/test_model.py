"""Heads and families fit together, and profiles name the parts of a model."""

import jax
import jax.numpy as jnp
import pytest
import zoo

from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import HEADS, MaskedLMHead, NoHead, PoolerHead
from flaxbert.models.model import Model


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_head_type_of_a_family_has_a_head(model_type: str) -> None:
    assert set(FAMILIES[model_type].heads) <= {*HEADS, NoHead.head_type, PoolerHead.head_type}


def test_head_types_are_unique() -> None:
    assert all(head.head_type == head_type for head_type, head in HEADS.items())
    assert len(set(HEADS.values())) == len(HEADS)


@pytest.mark.parametrize(("model_type", "sizes"), [("bert", zoo.SIZES), ("modernbert", zoo.MODERN)])
def test_profiles_name_the_parts_of_a_model(model_type: str, sizes: dict[str, object]) -> None:
    config = read_config({"model_type": model_type, **sizes})
    model = Model.create(config, MaskedLMHead.maker(2))
    batch = {"input_ids": jnp.ones((2, 7), jnp.int32)}
    program = jax.jit(model.__call__).lower(model.shapes, batch).as_text(debug_info=True)
    for part in ("embeddings", "attention", "mlp", "head"):
        assert f"/{part}/" in program

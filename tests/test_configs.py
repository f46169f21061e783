"""Every file in configs/ builds, and fits the full-size model, without its weights."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from flaxbert import cli
from flaxbert.config import Config, validate
from flaxbert.data.sources import Row, Table
from flaxbert.models.bert import BertConfig
from flaxbert.models.model import Model
from flaxbert.step import make_loss
from flaxbert.tasks import TASKS

CONFIGS = sorted((ROOT / "configs").glob("*.py"))

# google-bert/bert-base-uncased, its config.json.
BERT_BASE = BertConfig(
    vocab_size=30522,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    type_vocab_size=2,
)


@pytest.fixture(params=CONFIGS, ids=[path.stem for path in CONFIGS])
def path(request):
    return request.param


def test_there_are_configs():
    assert {"squad", "quickstart"} <= {path.stem for path in CONFIGS}


def test_the_docstring_has_command_expectation_and_hardware(path):
    text = cli.load_config(str(path)) and path.read_text()
    docstring = text.split('"""')[1]
    assert f"python -m flaxbert.run --config=configs/{path.name} --workdir=" in docstring
    assert re.search(r"\bexpect\b", docstring, re.IGNORECASE)
    assert re.search(r"\b(TPU|GPU|CPU)\b", docstring)


def test_the_config_is_valid(path):
    config = cli.load_config(str(path))
    validate(config, TASKS)
    assert isinstance(config.options, TASKS[config.task].options_type)
    assert config.data.max_length <= BERT_BASE.max_position_embeddings


def make_task(config: Config):
    """The task, with two labels where the real training data would name them."""
    column = getattr(config.options, "label", None)
    table = Table("made up", [Row({column: name}, "here") for name in ("no", "yes")])
    return TASKS[config.task].create(config.data, config.options, table, {})


def make_shapes(config: Config, task) -> dict[str, jax.ShapeDtypeStruct]:
    """The largest batch of the config: one feature a row, as `Batches.build` makes it."""
    rows, length = config.train.batch_size, config.data.row_length or config.data.max_length
    slots = max(1, length // 8) if config.data.packing else 1
    grid = dict.fromkeys(("input_ids", "token_type_ids", "position_ids", "segment_ids"), length)
    places = dict.fromkeys(("anchor", "label", "start", "end"), slots)
    shapes = {
        name: jax.ShapeDtypeStruct((rows, size), np.int32) for name, size in (grid | places).items()
    }
    return shapes | {"weight": jax.ShapeDtypeStruct((rows, slots), np.float32)}


def test_the_full_size_model_trains_at_its_batch_and_length(path):
    config = cli.load_config(str(path))
    task = make_task(config)
    sizes = dataclasses.replace(BERT_BASE, dtype=config.model.dtype)
    model = Model.create(sizes, task.make_head)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(model.shapes["bert"]))
    assert count == 108_891_648  # the paper's 110M, without the pooler
    loss = make_loss(model, task)
    run = jax.value_and_grad(loss, has_aux=True)
    key = jax.eval_shape(lambda: jax.random.key(0))
    (total, sums), gradient = jax.eval_shape(run, model.shapes, make_shapes(config, task), key)
    assert total.shape == sums["weight"].shape == ()
    assert total.dtype == jnp.float32
    same = jax.tree.map(
        lambda g, p: g.shape == p.shape and g.dtype == p.dtype, gradient, model.shapes
    )
    assert jax.tree.all(same)

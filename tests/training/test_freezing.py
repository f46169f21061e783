"""Frozen parameters: which they are, and that a step neither changes them nor computes theirs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SIZES

from flaxbert.config import OptimConfig
from flaxbert.errors import ConfigError
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import SequenceClassificationHead
from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.tasks.losses import weighted_sum
from flaxbert.training import freezing
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.training.step import make_train_step
from flaxbert.types import Batch


def names(tree) -> set[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves}


@pytest.fixture(scope="module")
def shapes():
    config = BertConfig(vocab_size=50, **(SIZES | {"num_hidden_layers": 12}))
    return Model.create(config, lambda c, rngs: SequenceClassificationHead(c, 3, rngs)).shapes


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ((), r"nothing"),
        (("encoder/layers/1",), r"encoder/layers/1/.*"),  # not 10 or 11
        (("encoder/embeddings", "encoder/layers/[0-5]"), r"encoder/(embeddings|layers/[0-5])/.*"),
        (("encoder/layers/(10|11)/attention",), r"encoder/layers/1[01]/attention/.*"),
        ((".*/kernel",), r".*/kernel"),
        (("encoder|head/pooler",), r"(encoder|head/pooler)/.*"),
    ],
)
def test_a_pattern_freezes_what_it_matches_and_all_below(shapes, patterns, frozen):
    trained, rest = freezing.split(shapes, patterns)
    assert names(rest) == {name for name in names(shapes) if re.fullmatch(frozen, name)}
    assert names(trained) == names(shapes) - names(rest)
    assert freezing.merge(trained, rest) == shapes


@pytest.mark.parametrize(
    ("patterns", "problem"),
    [
        (("encoder/layer/0",), "'encoder/layer/0' matches no parameter. Did you mean 'encoder/lay"),
        (("encoder/embeddings", "pooler"), "'pooler' matches no parameter. Did you mean 'head/poo"),
        (
            ("word.*",),
            "'word.*' matches no parameter. Paths begin with encoder/embeddings, ",
        ),
        (("encoder", "head"), "leaves nothing to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_an_error(shapes, patterns, problem):
    with pytest.raises(ConfigError) as caught:
        freezing.check(patterns, shapes)
    assert problem in str(caught.value)


def test_the_number_of_trained_parameters_is_logged(shapes, caplog):
    caplog.set_level("INFO", "flaxbert")
    freezing.check(("encoder",), shapes)
    head = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["head"]))
    assert f"training {head:,} of" in caplog.text


def test_the_first_layer_is_the_lowest_one_that_is_trained(shapes):
    layers = shapes["encoder"]["layers"]
    assert Model.first_layer(shapes) is layers[0]
    trained, _ = freezing.split(shapes, ("encoder/embeddings", "encoder/layers/[0-3]"))
    assert names(Model.first_layer(trained)) == names(layers[4])
    trained, _ = freezing.split(shapes, ("encoder",))
    assert Model.first_layer(trained) is trained  # no gradient of the encoder has vanished


class Layers:
    """Two layers and an output, as a `Model` and its `Task`."""

    first_layer = staticmethod(Model.first_layer)

    def __call__(self, params, batch, *, key):
        x = batch.extra["x"]
        for layer in params["encoder"]["layers"].values():
            x = jnp.tanh(x @ layer["kernel"])
        return x @ params["head"]["kernel"]

    def loss(self, outputs, batch):
        return {"loss": weighted_sum(jnp.sum(outputs**2, axis=-1), batch.weight)}


def test_a_step_computes_neither_gradients_nor_moments_of_frozen_parameters():
    chance = np.random.default_rng(0)
    layers = {n: {"kernel": chance.normal(size=(5, 5)).astype(np.float32)} for n in range(2)}
    head = {"kernel": chance.normal(size=(5, 3)).astype(np.float32)}
    params = {"encoder": {"layers": layers}, "head": head}
    config = OptimConfig(freeze=("encoder/layers/0",), learning_rate=0.1, warmup=0.0)
    optimizer, _ = make_optimizer(config, 10)
    mesh, model = sharding.make_mesh(), Layers()
    state = init_state(params, optimizer, mesh)
    assert names(state.opt_state[1].mu) == {"encoder/layers/1/kernel", "head/kernel"}
    x = chance.normal(size=(8, 5)).astype(np.float32)
    ones = np.ones((8, 1), np.int32)
    batch = Batch(ones, ones, ones, ones, weight=np.ones(8, np.float32), extra={"x": x})
    batch = sharding.make_global_batch(batch, 8, mesh)
    step = make_train_step(
        model,
        model,
        optimizer,
        state,
        mesh,
        accumulation_steps=1,
        seed=0,
        log_every=10,
        freeze=config.freeze,
    )
    program = step.lower(state, batch).compile()
    text = program.as_text()
    size = 5 * 5 + 5 * 3
    assert size <= reduced_numbers(text) < size + 5 * 5  # besides the sums of the loss
    after, report = program(state, batch)
    new = after.params["encoder"]["layers"]
    np.testing.assert_array_equal(new[0]["kernel"], layers[0]["kernel"])  # nor do they decay
    assert np.all(new[1]["kernel"] != layers[1]["kernel"])
    assert 0 < float(report.sums.first_layer_grad_norm) < float(report.sums.grad_norm)


def reduced_numbers(program: str) -> int:
    """Return how many numbers the devices add up."""
    lines = re.findall(r"= (.*) all-reduce(?:-start)?\(", program)
    shapes = [shape for line in lines for shape in re.findall(r"f32\[([\d,]*)\]", line)]
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)

"""Frozen parameters: which they are, and that a step neither changes them nor computes theirs."""

import re

import jax
import numpy as np
import pytest
from conftest import SIZES
from toy import build_pipeline, make_config

from flaxbert.config import OptimConfig
from flaxbert.errors import ConfigError
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import SequenceClassificationHead
from flaxbert.models.model import Model
from flaxbert.pipeline.datasets import read_table
from flaxbert.pipeline.loader import Loader
from flaxbert.training import freezing
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.training.step import make_train_step


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


def test_a_step_neither_changes_frozen_parameters_nor_reduces_their_gradients(checkpoint, tmp_path):
    config = make_config("classification", checkpoint, tmp_path, count=8)
    pipeline = build_pipeline(config)
    optim = OptimConfig(
        freeze=("encoder/embeddings", "encoder/layers/0"), learning_rate=0.1, warmup=0.0
    )
    optimizer, _ = make_optimizer(optim, 10)
    params = pipeline.load_params()
    _, features = pipeline.featurize(
        pipeline.task.examples(read_table(config.data, "train"), labeled=True), "", labeled=True
    )
    loader = Loader(pipeline.batches(features, batch_size=8), pipeline.mesh)
    state = init_state(params, optimizer, pipeline.mesh)
    step = make_train_step(
        pipeline.model,
        pipeline.task,
        optimizer,
        state,
        pipeline.mesh,
        accumulation_steps=1,
        seed=0,
        log_every=10,
        freeze=optim.freeze,
    )
    program = step.lower(state, loader.batch(0)).compile()
    after, report = program(state, loader.batch(0))

    trained, frozen = freezing.split(params, optim.freeze)
    kept, moved = (freezing.split(after.params, optim.freeze)[part] for part in (1, 0))
    jax.tree.map(np.testing.assert_array_equal, kept, frozen)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), moved, trained)))
    assert names(after.opt_state[1].mu) == names(after.opt_state[1].nu) == names(trained)
    assert float(report.sums.first_layer_grad_norm) > 0  # of layer 1
    reduced = reduced_numbers(program.as_text())
    size = sum(leaf.size for leaf in jax.tree.leaves(trained))
    assert size <= reduced < size + 20  # and a few sums


def reduced_numbers(program: str) -> int:
    """Return how many numbers the devices add up."""
    lines = re.findall(r"= (.*) all-reduce(?:-start)?\(", program)
    shapes = [shape for line in lines for shape in re.findall(r"f32\[([\d,]*)\]", line)]
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)

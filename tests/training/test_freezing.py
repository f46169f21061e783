"""Frozen parameters: which they are, and that a step neither changes them nor computes theirs."""

import re

import jax
import numpy as np
import pytest
from conftest import SIZES

from flaxbert.errors import ConfigError
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import SequenceClassificationHead
from flaxbert.models.model import Model
from flaxbert.training import freezing


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

"""New top layers on a pre-trained encoder (model.reinit_layers)."""

import copy

import numpy as np
import pytest
from toy import build_pipeline, make_config

from flaxbert.errors import ConfigError
from flaxbert.pretrained.mapping import flatten
from flaxbert.training.resume import encoder_digest


def test_the_top_layers_and_the_pooler_are_new_and_follow_the_seed(checkpoint, tmp_path):
    pipeline = build_pipeline(make_config("classification", checkpoint, tmp_path, count=4))
    before = flatten(pipeline.load_params(seed=3))
    after = flatten(pipeline.load_params(seed=3, reinit_layers=1))
    new = flatten(pipeline.model.init(3))
    for name, array in before.items():
        assert isinstance(after[name], np.ndarray)
        expected = new if name.startswith(("encoder/layers/1/", "head/pooler/")) else before
        np.testing.assert_array_equal(after[name], expected[name])
        if expected is new and name.endswith("kernel"):
            assert np.any(after[name] != array)
    with pytest.raises(ConfigError, match=r"reinit_layers=3, but .* has 2 layers"):
        pipeline.load_params(reinit_layers=3)


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ("classification", "the top 1 layers and the pooler are"),
        ("token_classification", "1 layers are"),
    ],
)
def test_the_log_names_what_is_new(checkpoint, tmp_path, caplog, task, named):
    pipeline = build_pipeline(make_config(task, checkpoint, tmp_path, count=4))
    with caplog.at_level("INFO", "flaxbert"):
        pipeline.load_params(reinit_layers=1)
    assert named in caplog.text


def test_the_digest_is_that_of_what_was_loaded(checkpoint, tmp_path):
    pipeline = build_pipeline(make_config("classification", checkpoint, tmp_path, count=4))
    one, other = (pipeline.load_params(seed=seed, reinit_layers=1) for seed in (3, 4))
    assert encoder_digest(one) != encoder_digest(other)
    assert encoder_digest(one, 1) == encoder_digest(other, 1)
    changed = copy.deepcopy(other)
    first = min(changed["encoder"]["layers"])
    changed["encoder"]["layers"][first]["output"]["bias"] += 1
    assert encoder_digest(changed, 1) != encoder_digest(one, 1)

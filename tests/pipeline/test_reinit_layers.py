"""New top layers on a pre-trained encoder (model.reinit_layers)."""

import numpy as np
import pytest
from toy import build_pipeline, make_config

from flaxbert.errors import ConfigError
from flaxbert.pretrained.mapping import flatten


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

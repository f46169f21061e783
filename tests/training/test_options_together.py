"""A step with all optional parts of training: the same for every layout of rows and devices."""

import json

import jax
import numpy as np
import pytest
from test_freezing import names, reduced_numbers
from tolerance import assert_close
from toy import build_pipeline, make_config, read_dataset

from flaxbert.config import OptimConfig
from flaxbert.data.batching import Batches
from flaxbert.models.model import Model
from flaxbert.pipeline.loader import Loader
from flaxbert.runtime import sharding
from flaxbert.training import freezing
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.training.step import make_train_step

OPTIM = OptimConfig(
    learning_rate=1e-2,
    warmup=0.0,
    schedule="cosine",
    freeze=("encoder/embeddings", "encoder/layers/0/attention"),
    layer_decay=0.5,
    eps=1e-2,  # so that the update of a gradient near 0 is near 0 too
)


def two_steps(pipeline, features, *, devices: int, segments: int, accumulation_steps: int):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    optimizer, _ = make_optimizer(OPTIM, 10, ema=0.5)
    state = init_state(pipeline.load_params(), optimizer, mesh)
    step = make_train_step(
        Model.create(pipeline.model.config.with_dropout(0.3), pipeline.model.make_head),
        pipeline.task,
        optimizer,
        state,
        mesh,
        accumulation_steps=accumulation_steps,
        seed=3,
        log_every=1,
        freeze=OPTIM.freeze,
    )
    batches = Batches(
        features,
        batch_size=24,
        row_length=32,
        segments=segments,
        data_parallelism=devices,
        steps=1,
        microbatches=accumulation_steps,
    )
    loader = Loader(batches, mesh)
    batch = loader.batch(0)
    program = step.lower(state, batch).compile()
    for _ in range(2):
        state, report = program(state, batch)
    return jax.device_get((report.sums, state, state.averaged)), program.as_text()


pytestmark = pytest.mark.slow  # two programs to compile


@pytest.fixture(scope="module")
def prepared(one_layer, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("data")
    config = make_config("classification", one_layer, tmp_path, count=26, most_words=30)
    file = tmp_path / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for n, row in enumerate(rows):
        row |= {"weight": n % 4 / 2, "teacher": [n % 5 / 4, 1 - n % 5 / 4]}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.weight, config.data.teacher = "weight", "teacher"
    options = config.options
    options.label_smoothing, options.focal_gamma, options.class_weights = 0.1, 1.5, (1.0, 3.0)
    options.long_texts, config.data.max_length, config.data.overlap = "windows", 12, 4
    pipeline = build_pipeline(config)
    features = read_dataset(config, pipeline, "train").batches.features
    assert {"example_weight", "teacher"} < features.per_sequence.keys()
    return pipeline, features


@pytest.fixture(scope="module")
def on_eight(prepared):
    return two_steps(*prepared, devices=8, segments=4, accumulation_steps=1)


def test_packed_rows_on_eight_devices_equal_microbatches_of_single_rows_on_one(prepared, on_eight):
    (sums, state, averaged), _ = on_eight
    single = two_steps(*prepared, devices=1, segments=1, accumulation_steps=4)[0]
    assert_close(sums, single[0])
    jax.tree.map(assert_close, (state.params, averaged), (single[1].params, single[2]))
    kernels = [tree["head"]["classifier"]["kernel"] for tree in (state.params, averaged)]
    assert np.any(kernels[0] != kernels[1])


def test_step_neither_changes_frozen_parameters_nor_computes_what_their_update_needs(
    prepared, on_eight
):
    (sums, state, _), program = on_eight
    before = prepared[0].load_params()
    (moved, kept), (trained, frozen) = (
        freezing.split(params, OPTIM.freeze) for params in (state.params, before)
    )
    jax.tree.map(np.testing.assert_array_equal, kept, frozen)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.any(a != b)), moved, trained))
    assert names(state.opt_state[1].mu) == names(state.opt_state[1].nu) == names(trained)
    assert float(sums.first_layer_grad_norm) > 0
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (trained, frozen)]
    # Besides the gradient, the logits of windows are added up across rows.
    assert sizes[0] <= reduced_numbers(program) < sizes[0] + 600 < sum(sizes)

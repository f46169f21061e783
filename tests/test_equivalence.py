"""How rows, devices and parts of a step are laid out changes the speed, never the numbers."""

import copy
import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from conftest import write_checkpoint
from tolerance import assert_close, assert_grads_close
from toy import make_config

from flaxbert import setup as setups
from flaxbert import sharding, state, step
from flaxbert.data.batching import Batch, Batches
from flaxbert.data.features import Features
from flaxbert.evaluate import Evaluator
from flaxbert.models.model import Model, Params

TASKS = ("classification", "question_answering")

# Its state is the last gradient, and it changes nothing.
keep_gradient = optax.chain(optax.trace(decay=0.0), optax.set_to_zero())


@dataclasses.dataclass
class Bench:
    """A task with its model, weights and training features."""

    setup: setups.Setup
    params: Params
    features: Features

    def batches(self, *, segments: int = 4, row_length: int = 32, multiple: int = 1) -> Batches:
        return Batches(self.features, 24, row_length, segments, multiple, steps=1)

    @functools.cached_property
    def gradient(self):
        loss = step.make_loss(self.setup.model, self.setup.task)
        return jax.jit(jax.value_and_grad(lambda p, b: loss(p, b, None), has_aux=True))


@pytest.fixture(scope="module", params=TASKS)
def bench(request, tmp_path_factory) -> Bench:
    directory = tmp_path_factory.mktemp("bench")
    # One layer: half the time to compile, and depth makes no difference here.
    checkpoint = write_checkpoint(directory / "checkpoint", num_hidden_layers=1)
    config = make_config(request.param, checkpoint, directory, count=26, most_words=30)
    table = setups.read_table(config.data.train, key="data.train", split="train")
    setup = setups.prepare(config, config.model.init, table)
    data = setup.dataset(table, batch_size=24, labelled=True, training=False)
    params = setup.load_params()
    # As in conftest: a new head's outputs barely depend on its input.
    params["head"] = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, params["head"])
    return Bench(setup, params, data.batches.features)


def assert_same(ours, theirs, *, features: int = 1) -> None:
    """Sums and gradients: a mean over features, or a sum over so many."""
    assert_close(ours[0], theirs[0])
    gradients = [jax.tree.map(np.asarray, gradient) for _, gradient in (ours, theirs)]
    for gradient in gradients:
        if "span" in gradient["head"]:
            # A softmax over positions ignores a bias that all of them share: the true gradient is
            # zero, and what is computed is rounding, at most that of one probability a feature.
            bias = gradient["head"]["span"].pop("bias")
            assert np.max(np.abs(bias)) <= features * np.finfo(np.float32).eps
    assert_grads_close(*gradients)


def loss_and_gradient(bench: Bench, batch: Batch):
    (_, sums), gradient = bench.gradient(bench.params, batch)
    return sums, gradient


@pytest.fixture(scope="module")
def one_a_row(bench):
    batches = bench.batches(segments=1)
    return loss_and_gradient(bench, batches.build(batches.rows(0)))


# 100: rows longer than the tiny model's 64 positions, which restart with each segment.
@pytest.mark.parametrize(("segments", "row_length"), [(4, 32), (12, 100)])
def test_packed_rows_give_the_loss_and_gradient_of_one_feature_a_row(
    bench, one_a_row, segments, row_length
):
    batches = bench.batches(segments=segments, row_length=row_length)
    rows = batches.rows(0)
    assert max(map(len, rows)) > 1
    if row_length > bench.setup.model.config.max_position_embeddings:
        ends = [sum(bench.features.lengths[row]) for row in rows]
        assert max(ends) > bench.setup.model.config.max_position_embeddings
    assert_same(loss_and_gradient(bench, batches.build(rows)), one_a_row, features=24)


def test_nothing_in_padding_counts(bench):
    batches = bench.batches()
    rows = batches.rows(0)
    clean = batches.build([*rows, *[[]] * 3])
    dirty = copy.deepcopy(clean)
    noise = np.random.default_rng(0)
    empty = clean["segment_ids"] == 0
    dirty["input_ids"][empty] = noise.integers(5, 60, empty.sum())
    dirty["position_ids"][empty] = noise.integers(0, 60, empty.sum())
    slots = clean["weight"] == 0
    for name in [*bench.features.positions, *bench.features.slots]:
        dirty[name][slots] = 1
    expected = loss_and_gradient(bench, clean)
    assert_same(loss_and_gradient(bench, dirty), expected, features=24)
    # Nor do the empty rows themselves count: without them it is the same step.
    assert_same(loss_and_gradient(bench, batches.build(rows)), expected, features=24)


def two_steps(bench: Bench, *, devices: int, dropout: float, accumulate: int = 1):
    """(sums of two train steps, gradient of the second), both on the same rows.

    As many rows as 8 devices in 4 parts need.
    """
    mesh = sharding.make_mesh(jax.devices()[:devices])
    setup = bench.setup
    model = Model.create(setup.model.config.with_dropout(dropout), setup.task.make_head)
    start = state.create(bench.params, keep_gradient, mesh)
    run = step.make_train_step(
        model,
        setup.task,
        keep_gradient,
        start,
        mesh,
        accumulate=accumulate,
        seed=3,
        log_every=1,
    )
    batches = bench.batches(multiple=32)
    batch = sharding.put_rows(batches.full_rows(0), batches.build, mesh)
    between, first = run(start, batch)
    after, second = run(between, batch)
    return jax.device_get(((first, second), after.opt_state[0].trace))


@pytest.fixture(scope="module")
def eight_devices(bench):
    return two_steps(bench, devices=8, dropout=0.0)


def test_a_step_on_one_device_equals_the_step_on_eight_dropout_included(bench, eight_devices):
    on_eight = two_steps(bench, devices=8, dropout=0.3)
    assert_same(two_steps(bench, devices=1, dropout=0.3), on_eight)
    # Dropout was on indeed, and each step has masks of its own.
    (first, second), (without, _) = on_eight[0], eight_devices[0]
    losses = sorted(float(sums["loss"]) for sums in (first, second, without))
    assert min(losses[1] - losses[0], losses[2] - losses[1]) > 1e-3 * losses[0]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_step_computed_in_parts_equals_the_whole(bench, eight_devices, accumulate):
    assert_same(two_steps(bench, devices=8, dropout=0.0, accumulate=accumulate), eight_devices)


def test_metrics_are_the_same_for_every_evaluation_batch_size_and_layout(bench):
    def evaluate(batch_size: int, packing: bool):
        config = copy.deepcopy(bench.setup.config)
        config.train.eval_batch_size, config.data.packing = batch_size, packing
        setup = dataclasses.replace(bench.setup, config=config)
        evaluator = Evaluator.open(setup, "eval", labelled=True)
        found = evaluator.run(sharding.put_params(bench.params, setup.mesh))
        metrics = {k: v for k, v in found.metrics.items() if not k.startswith("perf/")}
        return metrics, found.records

    metrics, records = evaluate(32, packing=True)
    assert len(records) == 26
    for batch_size, packing in [(1, True), (7, True), (32, False)]:
        others, other_records = evaluate(batch_size, packing)
        assert others.pop("loss") == pytest.approx(metrics["loss"], rel=1e-5)
        assert others == {name: value for name, value in metrics.items() if name != "loss"}
        for mine, other in zip(records, other_records, strict=True):
            assert_close(_numbers(other), _numbers(mine))
            assert _rest(other) == _rest(mine)


def _numbers(record):
    return {k: v for k, v in record.items() if k in ("probability", "score")}


def _rest(record):
    return {k: v for k, v in record.items() if k not in ("probability", "score")}

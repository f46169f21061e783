"""The layout of rows, devices and micro-batches changes the speed and never the numbers.

All gradients are computed with dropout.
"""

import copy
import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from tolerance import assert_close, assert_grads_close
from toy import build_pipeline, make_config, read_dataset

from flaxbert import Config
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.models.dropout import dropout_key
from flaxbert.models.model import Model
from flaxbert.pipeline.evaluator import Evaluator
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import sharding
from flaxbert.tasks import TASKS
from flaxbert.training import state, step
from flaxbert.types import Batch, Params

LONG_TEXTS = "classification of long texts"
BENCHES = (*TASKS, LONG_TEXTS)

# Its state is the last gradient, and it changes nothing.
keep_gradient = optax.chain(optax.trace(decay=0.0), optax.set_to_zero())


@dataclasses.dataclass
class Bench:
    """A task with its model, weights and training features."""

    config: Config
    pipeline: Pipeline
    params: Params
    features: Features

    def batches(
        self,
        *,
        segments: int = 4,
        row_length: int = 32,
        data_parallelism: int = 1,
        microbatches: int = 1,
    ) -> Batches:
        return Batches(
            self.features,
            batch_size=24,
            row_length=row_length,
            segments=segments,
            data_parallelism=data_parallelism,
            steps=1,
            microbatches=microbatches,
            resample=self.pipeline.task.resampler(self.pipeline.tokenizer),
        )

    @functools.cached_property
    def gradient(self):
        loss = step.make_loss(self.with_dropout(0.3), self.pipeline.task)
        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    def with_dropout(self, rate: float) -> Model:
        model = self.pipeline.model
        return Model.create(model.config.with_dropout(rate), model.make_head)


@pytest.fixture(scope="module", params=BENCHES)
def bench(request, one_layer, tmp_path_factory) -> Bench:
    directory = tmp_path_factory.mktemp("bench")
    long = request.param == LONG_TEXTS
    task = "classification" if long else request.param
    config = make_config(task, one_layer, directory, count=26, most_words=30)
    if long:  # several windows a text, whose logits are pooled
        config.options.long_texts, config.data.max_length, config.data.overlap = "windows", 12, 4
    if task == "pretraining":  # its sequences fill their room: two of them for a row
        config.data.max_length = 14
    pipeline = build_pipeline(config)
    data = read_dataset(config, pipeline, "train")
    params = pipeline.load_params()
    # As in conftest: a new head's outputs barely depend on its input.
    params["head"] = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, params["head"])
    return Bench(config, pipeline, params, data.batches.features)


# A softmax ignores a bias that all its scores share: over places the span's, over choices that of
# their one score. The true gradient is zero, and what is computed is rounding.
SHARED_BIAS = ("question_answering", "multiple_choice")


def assert_same(bench: Bench, ours, theirs) -> None:
    """Sums and gradients."""
    assert_close(ours[0], theirs[0])
    gradients = [jax.tree.map(np.asarray, gradient) for _, gradient in (ours, theirs)]
    for gradient in gradients:
        if bench.config.task in SHARED_BIAS:
            bias = gradient["head"]["classifier"].pop("bias")
            assert np.max(np.abs(bias)) <= np.finfo(np.float32).eps
    assert_grads_close(*gradients)


def loss_and_gradient(bench: Bench, batch: Batch, seed: int = 3):
    (_, sums), gradient = bench.gradient(bench.params, batch, dropout_key(seed, 5))
    return sums, gradient


@pytest.fixture(scope="module")
def one_per_row(bench):
    batches = bench.batches(segments=1)
    return loss_and_gradient(bench, batches.build(batches.rows(0)))


def packed(bench) -> Batch:
    """Return a batch of packed rows, and three empty ones."""
    batches = bench.batches()
    return batches.build([*batches.rows(0), *[[]] * 3])


def test_packed_and_empty_rows_give_the_loss_and_gradient_of_one_feature_per_row(
    bench, one_per_row
):
    batch = packed(bench)
    assert max(map(len, bench.batches().rows(0))) > 1
    assert_same(bench, loss_and_gradient(bench, batch), one_per_row)
    with pytest.raises(AssertionError):  # dropout was on
        assert_same(bench, loss_and_gradient(bench, batch, seed=4), one_per_row)


# The encoder's own, whose positions restart with each segment, and the heads that look for places.
@pytest.mark.parametrize(
    "bench",
    [
        name if name in ("classification", "question_answering", "pretraining")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in BENCHES
    ],
    indirect=True,
)  # fmt: skip
def test_rows_longer_than_the_position_table_give_the_same_loss_and_gradient(bench, one_per_row):
    batches = bench.batches(segments=12, row_length=100)
    rows = batches.rows(0)
    ends = [sum(bench.features.lengths[row]) for row in rows]
    assert max(ends) > bench.pipeline.model.config.max_position_embeddings
    assert_same(bench, loss_and_gradient(bench, batches.build(rows)), one_per_row)


def test_padding_changes_neither_loss_nor_gradient(bench):
    clean = packed(bench)
    dirty = copy.deepcopy(clean)
    arrays = vars(dirty) | dirty.extra
    noise = np.random.default_rng(0)
    empty = clean.segment_ids == 0
    arrays["input_ids"][empty] = noise.integers(5, 60, empty.sum())
    arrays["position_ids"][empty] = noise.integers(0, 60, empty.sum())
    slots = clean.weight == 0
    for name in [*bench.features.token_indices, *bench.features.per_sequence]:
        arrays[name][slots] = 1
    assert_same(bench, loss_and_gradient(bench, dirty), loss_and_gradient(bench, clean))


def test_training_batches_hold_no_values_per_token_that_the_step_does_not_read(bench):
    batches = bench.pipeline.batches(bench.features, batch_size=24, seed=0)
    batch = batches.build(batches.rows(0))
    loss = step.make_loss(bench.with_dropout(0.3), bench.pipeline.task)
    program = jax.make_jaxpr(loss)(bench.params, batch, dropout_key(3, 5)).jaxpr
    read = {id(operand) for equation in program.eqns for operand in equation.invars}
    per_token = [value for value in program.invars if value.aval.shape == batch.input_ids.shape]
    assert len(per_token) >= 4  # ids, segments, positions and types
    assert all(id(value) in read for value in per_token)


trained = pytest.mark.parametrize(
    "bench",
    [
        name if name == "question_answering" else pytest.param(name, marks=pytest.mark.slow)
        for name in BENCHES
    ],
    indirect=True,
)


def two_steps(bench: Bench, *, devices: int, rate: float = 0.3, accumulation_steps: int = 1):
    """Return the sums of two train steps on the same rows, and the gradient of the second.

    One device gets as many rows as eight.
    """
    mesh = sharding.make_mesh(jax.devices()[:devices])
    pipeline = bench.pipeline
    start = state.init_state(bench.params, keep_gradient, mesh, pipeline.task.loss_names)
    run = step.make_train_step(
        bench.with_dropout(rate),
        pipeline.task,
        keep_gradient,
        start,
        mesh,
        accumulation_steps=accumulation_steps,
        seed=3,
        log_every=1,
    )
    batches = bench.batches(data_parallelism=8, microbatches=accumulation_steps)
    batch = Loader(batches, mesh).batch(0)
    between, first = run(start, batch)
    after, second = run(between, batch)
    return jax.device_get(((first.sums, second.sums), after.opt_state[0].trace))


@pytest.fixture(scope="module")
def eight_devices(bench):
    return two_steps(bench, devices=8)


@trained
def test_step_on_one_device_equals_the_step_on_eight_with_dropout(bench, eight_devices):
    assert_same(bench, two_steps(bench, devices=1), eight_devices)
    # Dropout was on, with other masks in each step.
    (first, second), (without, _) = eight_devices[0], two_steps(bench, devices=8, rate=0.0)[0]
    name = bench.pipeline.task.loss_names[0]
    losses = sorted(float(sums.losses[name].total) for sums in (first, second, without))
    assert min(losses[1] - losses[0], losses[2] - losses[1]) > 1e-3 * losses[0]


@trained
def test_step_in_microbatches_equals_the_whole_step(bench, eight_devices):
    assert_same(bench, two_steps(bench, devices=8, accumulation_steps=4), eight_devices)


# A batch of 32 holds all 26 features. By default one case, in which everything differs.
QUICK = [(7, 1, False)]
GRID = [(size, count, True) for size in (1, 7, 32) for count in (1, 8)]


@pytest.mark.parametrize(
    ("batch_size", "devices", "packing"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in GRID)],
)
def test_metrics_are_the_same_for_every_evaluation_batch_size_layout_and_device_count(
    bench, evaluated, batch_size, devices, packing
):
    metrics, predictions = evaluated
    assert len(predictions) == 26
    other = evaluate(bench, batch_size, packing=packing, devices=devices)
    assert_close(numbers(other[0], MEANS), numbers(metrics, MEANS))
    assert rest(other[0], MEANS) == rest(metrics, MEANS)  # made of counts: equal
    for mine, its in zip(predictions, other[1], strict=True):
        assert_close(numbers(its, SCORES), numbers(mine, SCORES))
        assert rest(its, SCORES) == rest(mine, SCORES)


@pytest.fixture(scope="module")
def evaluated(bench):
    return evaluate(bench, 32)


def evaluate(bench: Bench, batch_size: int, *, packing: bool = True, devices: int = 8):
    """Return (metrics, predictions)."""
    config = copy.deepcopy(bench.config)
    config.train.eval_batch_size, config.data.packing = batch_size, packing
    mesh = sharding.make_mesh(jax.devices()[:devices])
    pipeline = dataclasses.replace(bench.pipeline, data=config.data, mesh=mesh)
    evaluator = Evaluator(pipeline, read_dataset(config, pipeline, "eval"))
    evaluation = evaluator.run(sharding.shard_params(bench.params, mesh))
    return evaluation.metrics, evaluation.predictions


MEANS = ("loss", "mlm_loss", "nsp_loss", "perplexity", "pearson", "spearman", "squared_error")
SCORES = ("probability", "score", "value", "mlm_loss")


def numbers(values, names):
    return {name: value for name, value in values.items() if name in names}


def rest(values, names):
    kept = {name: value for name, value in values.items() if name not in names}
    return {name: value for name, value in kept.items() if not name.startswith("perf/")}

"""Scores of a large vocabulary: computed in chunks of words, with the results of all at once."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SIZES
from tolerance import assert_close, assert_grads_close

from flaxbert.config import DataConfig
from flaxbert.models import words
from flaxbert.models.bert import BertConfig
from flaxbert.models.dropout import dropout_key
from flaxbert.models.layers import matmul
from flaxbert.models.model import Model
from flaxbert.models.words import chunk_size, cross_entropy
from flaxbert.pipeline.predict_step import make_predict_step
from flaxbert.planning.hlo import collectives
from flaxbert.runtime import sharding
from flaxbert.tasks.pretraining import PreTraining, PreTrainingOptions
from flaxbert.training.step import make_loss
from flaxbert.types import Batch

EXACT = 1e-6
"""Tolerance of float32 results that only differ in the order of their sums."""

WORDS, WIDTH = 29, 12
XLM_R = 250_002


# --- the function ------------------------------------------------------------------------------


def unchunked(
    x: jax.Array, table: jax.Array, bias: jax.Array | None, label: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    scores = matmul(x, table, jnp.float32, True)
    if bias is not None:
        scores += bias
    of_label = jnp.take_along_axis(jax.nn.log_softmax(scores), label[..., None], axis=-1)
    return -of_label[..., 0], jnp.argmax(scores, axis=-1) == label


def make_operands(*, bias: bool, dtype: Any = jnp.float32, positions: int = 7) -> tuple[Any, ...]:
    chance = np.random.default_rng(3)
    x = chance.standard_normal((5, positions, WIDTH))
    table, offset = chance.standard_normal((WORDS, WIDTH)), chance.standard_normal(WORDS)
    scores = x @ table.T + offset * bias
    label = chance.integers(0, WORDS, x.shape[:2])
    label[0] = np.argmax(scores[0], axis=-1)
    label[1, :2] = 0, WORDS - 1
    table, offset = jnp.asarray(table, jnp.float32), jnp.asarray(offset, jnp.float32)
    return jnp.asarray(x, dtype), table, offset if bias else None, jnp.asarray(label)


def results(function: Callable[..., Any], operands: tuple[Any, ...], size: int) -> Any:
    """Return loss and flag of each position, and the gradients of a weighted sum of losses."""
    x, table, bias, label = operands
    weight = np.random.default_rng(4).integers(0, 3, label.shape)
    assert (weight == 0).any()

    def total(x: jax.Array, weights: tuple[jax.Array, jax.Array | None]) -> Any:
        losses, right = function(x, *weights, label, size)
        return jnp.sum(losses * weight), (losses, right)

    graded = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, (losses, right)), gradients = jax.jit(graded)(x, (table, bias))
    return losses, right, gradients


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 5, 15, 28, 29])
def test_chunks_have_the_losses_flags_and_gradients_of_all_words(size: int, bias: bool) -> None:
    operands = make_operands(bias=bias)
    expected = results(unchunked, operands, size)
    assert 0 < expected[1].sum() < expected[1].size
    assert_close(results(cross_entropy, operands, size), expected, EXACT)


def test_scores_of_any_size_neither_overflow_nor_vanish() -> None:
    x, *others = make_operands(bias=True)
    operands = (x * 1000, *others)
    assert_close(results(cross_entropy, operands, 5), results(unchunked, operands, 5), EXACT)


def test_gradients_of_bfloat16_operands_are_summed_in_float32() -> None:
    # A sum in bfloat16 stops growing at 256 times its increment; here 10,000 are added.
    operands = make_operands(bias=True, dtype=jnp.bfloat16, positions=2000)
    chunked, expected = (results(f, operands, 5)[2] for f in (cross_entropy, unchunked))
    assert [x.dtype for x in jax.tree.leaves(chunked)] == [jnp.bfloat16, jnp.float32, jnp.float32]
    assert_close(chunked, expected, 0.01)
    exact = results(unchunked, (operands[0].astype(jnp.float32), *operands[1:]), 5)[2]
    assert_close(chunked[1], exact[1], 0.01)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_first_of_equal_scores_is_the_best(size: int) -> None:
    x, table = jnp.ones((1, 4, 1)), jnp.array([[1.0], [3.0], [2.0], [3.0], [3.0]])
    _, right = jax.jit(cross_entropy, static_argnums=4)(
        x, table, None, jnp.array([[1, 2, 3, 4]]), size
    )
    assert right.tolist() == [[True, False, False, False]]


def test_a_label_that_is_no_word_is_noticed() -> None:
    x, table, bias, label = make_operands(bias=True)
    losses, _ = cross_entropy(x, table, bias, label.at[0, 0].set(WORDS), 5)
    assert np.flatnonzero(~np.isfinite(losses)).tolist() == [0]


def test_scores_are_divided_only_where_they_are_large() -> None:
    large = jnp.zeros((32, 85), jnp.int32)
    assert chunk_size(large, 30_522) == 30_522
    assert chunk_size(large[:4], XLM_R) == XLM_R
    size = chunk_size(large, XLM_R)
    assert 0.9 * words.CHUNK_BYTES < 4 * size * large.size <= words.CHUNK_BYTES
    assert chunk_size(jnp.zeros((32, 2**20), jnp.int8), 30_522) == 1


def test_each_device_s_scores_count() -> None:
    sharded = sharding.batch_sharding(sharding.make_mesh())
    sizes: list[int] = []
    run = jax.jit(lambda positions: sizes.append(chunk_size(positions, XLM_R)))
    run.lower(jax.ShapeDtypeStruct((32, 85), jnp.int32, sharding=sharded))
    run.lower(jax.ShapeDtypeStruct((32 * 8, 85), jnp.int32, sharding=sharded))
    assert sizes == [XLM_R, chunk_size(jnp.zeros((32, 85), jnp.int32), XLM_R)]


# --- the model and its task --------------------------------------------------------------------

TASK = PreTraining.create(DataConfig(), PreTrainingOptions(next_sentence=False), None, {})
ROWS, LENGTH, SEGMENTS = 8, 26, 2


def make_model(vocabulary: int = WORDS, **changes: Any) -> Model:
    sizes = SIZES | {"num_hidden_layers": 1}
    return Model.create(BertConfig(vocab_size=vocabulary, **sizes, **changes), TASK.make_head)


def make_batch(rows: int = ROWS, length: int = LENGTH) -> Batch:
    """Return rows of two sequences and padding; fewer words are masked than the head scores."""
    chance = np.random.default_rng(5)
    ends = np.array([length // 2, length - 3])
    segment_ids = np.where(np.arange(length) < ends[0], 1, 2) * (np.arange(length) < ends[1])
    segment_ids = np.broadcast_to(segment_ids, (rows, length)).astype(np.int32)
    masked = ((chance.random((rows, length)) < 0.1) & (segment_ids > 0)).astype(np.int32)
    return Batch(
        input_ids=chance.integers(0, WORDS, (rows, length), np.int32),
        segment_ids=segment_ids,
        position_ids=np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)),
        cls_position=np.broadcast_to(np.array([0, ends[0]], np.int32), (rows, SEGMENTS)),
        weight=np.ones((rows, SEGMENTS), np.float32),
        label=chance.integers(0, WORDS, (rows, length), np.int32) * (segment_ids > 0),
        sequence_index=np.arange(rows * SEGMENTS, dtype=np.int32).reshape(rows, SEGMENTS),
        extra={"masked": masked},
    )


def make_gradients(model: Model) -> Callable[..., Any]:
    """Return the function `(params, batch) -> ((loss, sums), gradients)`, with dropout."""
    graded = jax.value_and_grad(make_loss(model, TASK), has_aux=True)
    return lambda params, batch: graded(params, batch, dropout_key(3, 5))


def divide(monkeypatch: pytest.MonkeyPatch, *, chunks: int, devices: int = 1) -> None:
    """Make the scores of `make_batch` large enough for so many chunks on each device."""
    positions = ROWS * 6 // devices
    monkeypatch.setattr(words, "SCORES_BYTES", 0)
    monkeypatch.setattr(words, "CHUNK_BYTES", 4 * positions * WORDS / chunks)


UNTIED = {"tie_word_embeddings": False, "word_bias": False, "embedding_size": 10}


@pytest.mark.parametrize("changes", [{}, UNTIED], ids=["tied", "untied"])
def test_a_model_has_the_same_loss_gradients_and_predictions_in_chunks(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make_model(hidden_dropout_prob=0.1, **changes), make_batch()
    params = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, model.init(0))
    mesh = sharding.make_mesh(jax.devices()[:1])

    def run() -> Any:
        predict = make_predict_step(model, TASK, mesh, labeled=True)
        return jax.jit(make_gradients(model))(params, batch), predict(params, batch)

    (expected, expected_gradients), expected_predictions = run()
    assert expected_predictions.finite.all()
    assert "mlm_logits" in jax.eval_shape(lambda: model(params, batch))
    divide(monkeypatch, chunks=3)
    outputs = jax.eval_shape(lambda: model(params, batch))
    assert outputs.keys() == {"hidden_states", "masked_positions", "mlm_losses", "mlm_right"}
    assert outputs["mlm_losses"].shape == (ROWS, 6)
    assert outputs["mlm_losses"].size > batch.extra["masked"].sum() > 0
    (sums, gradients), predictions = run()
    assert_close((sums, predictions), (expected, expected_predictions), EXACT)
    for tree in (gradients, expected_gradients):
        del tree["encoder"]["layers"][0]["attention"]["key"]["bias"]  # zero but for rounding
    assert_grads_close(gradients, expected_gradients, 3 * EXACT)  # sums of other lengths


def test_scores_that_a_caller_asks_for_are_never_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, chunks=3)
    model = make_model()
    outputs = jax.eval_shape(model, model.shapes, {"input_ids": make_batch().input_ids})
    assert outputs["mlm_logits"].shape == (ROWS, LENGTH, WORDS)


def test_eight_devices_have_the_gradients_of_one_and_exchange_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch = make_model(), make_batch()
    params = model.init(0)

    def run(devices: int) -> tuple[Any, str]:
        divide(monkeypatch, chunks=3, devices=devices)
        mesh = sharding.make_mesh(jax.devices()[:devices])
        arguments = (
            sharding.shard_params(params, mesh),
            sharding.make_global_batch(batch, ROWS, mesh),
        )
        step = jax.jit(make_gradients(model), out_shardings=sharding.replicated(mesh))
        program = step.lower(*arguments).compile()
        return jax.device_get(program(*arguments)), program.as_text()

    (one, one_gradients), _ = run(1)
    (eight, gradients), program = run(8)
    assert_close(eight, one)
    assert_grads_close(gradients, one_gradients)
    assert set(collectives(program)) == {"all-reduce"}
    assert re.search(r"f32\[1,6,10\]", program)  # a chunk's scores of a device's only row
    assert not re.search(r"f32\[(8,6|48),(10|29)\]", program)


# --- the program -------------------------------------------------------------------------------


def largest_with_words(program: str) -> int:
    """Return the elements of the largest array that has a dimension of all words."""
    arrays = re.findall(r"tensor<([\dx]+)x[a-z]+\d+>|[a-z]+\d+\[([\d,]+)\]", program)
    shapes = [[int(n) for n in re.split("[x,]", a or b)] for a, b in arrays]
    return max(int(np.prod(shape)) for shape in shapes if XLM_R in shape)


@pytest.mark.parametrize("compiled", [False, True], ids=["lowered", "compiled"])
def test_no_program_stores_the_scores_of_a_large_vocabulary(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make_model(XLM_R), make_batch(32, 128)
    assert 4 * 32 * 22 * XLM_R > words.SCORES_BYTES
    mesh = sharding.make_mesh(jax.devices()[:1])

    def largest() -> list[int]:
        train = jax.jit(make_gradients(model))
        predict = make_predict_step(model, TASK, mesh, labeled=True)
        lowered = [step.lower(model.shapes, batch) for step in (train, predict)]
        programs = [step.compile() for step in lowered] if compiled else lowered
        return [largest_with_words(program.as_text()) for program in programs]

    assert largest() == [XLM_R * SIZES["hidden_size"]] * 2  # the table
    monkeypatch.setattr(words, "SCORES_BYTES", np.inf)
    assert largest() == [32 * 22 * XLM_R] * 2  # otherwise stored scores would not be detected

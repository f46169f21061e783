"""Weights of examples (data.weight) and probabilities of a teacher (data.teacher)."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close
from toy import make_batch, make_config, parts_of

from flaxbert.config import DataConfig, validate
from flaxbert.data.features import fingerprint_of
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks import TASKS
from flaxbert.tasks.classification import Classification, ClassificationOptions
from flaxbert.training.data import read_sources

DATA = DataConfig(weight="w", teacher="soft", max_length=8, overlap=2)
OPTIONS = ClassificationOptions(labels=("bad", "good"))


def table(*rows, labeled=True):
    values = [{"text": "film", "label": "good"} | row for row in rows]
    return Table("train.tsv", [Record(row, f"train.tsv:{n}") for n, row in enumerate(values, 2)])


def examples(*rows, options=OPTIONS):
    task = Classification.create(DATA, options, None, {})
    return task, task.resolve(Classification.read(table(*rows), DATA, options, labeled=True))


@pytest.mark.parametrize("soft", [[0.25, 0.75], "[0.25, 0.75]", ["0.25", "0.75"]])
def test_columns_are_read_from_numbers_and_from_texts(soft):
    _, (first, second) = examples({"w": "2.5", "soft": soft}, {"w": 0, "soft": [1, 0]})
    assert (first.weight, first.teacher, first.label) == (2.5, (0.25, 0.75), 1)
    assert (second.weight, second.teacher) == (0.0, (1.0, 0.0))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"w": -1, "soft": [1, 0]}, "train.tsv:2: w is -1; expected a number from 0"),
        ({"w": "much", "soft": [1, 0]}, "train.tsv:2: w is 'much'; expected a number"),
        ({"w": float("nan"), "soft": [1, 0]}, "w is nan; expected a number from 0"),
        ({"w": 1, "soft": [0.5, 0.6]}, "soft is [0.5, 0.6]; expected a list of probabilities"),
        ({"w": 1, "soft": [-0.5, 1.5]}, "expected a list of probabilities whose sum is 1"),
        ({"w": 1, "soft": "0.5 0.5"}, "soft is '0.5 0.5'; expected a list of probabilities"),
        ({"w": 1, "soft": [0.5, 0.25, 0.25]}, "soft has 3 probabilities, but there are 2 labels"),
        ({"w": 1}, "soft is None; expected a list of probabilities"),
    ],
)
def test_a_malformed_value_is_an_error_with_its_line(row, problem):
    with pytest.raises(DataError) as caught:
        examples(row, {"w": 1, "soft": [1, 0]})
    assert problem in str(caught.value)


def test_evaluation_data_may_lack_the_columns_and_training_data_may_not(checkpoint, tmp_path):
    config = make_config("classification", checkpoint, tmp_path, count=4)
    config.data.weight = "w"
    with pytest.raises(DataError, match=r"train.*no column 'w'.*--config\.data\.weight=COLUMN"):
        read_sources("classification", config.data, config.options)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"w": 2}) for row in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    sources = read_sources("classification", config.data, config.options)
    assert sources.train.examples[0].weight == 2.0
    assert sources.eval.examples[0].weight is None


@pytest.mark.parametrize(("task", "key"), [("regression", "teacher"), ("pretraining", "weight")])
def test_a_task_that_cannot_use_a_column_refuses_it(checkpoint, tmp_path, task, key):
    config = make_config(task, checkpoint, tmp_path, count=4)
    setattr(config.data, key, "w")
    with pytest.raises(ConfigError, match=rf"data\.{key}='w': .* are classification"):
        validate(config, TASKS)


def test_a_changed_weight_or_teacher_changes_the_fingerprint():
    rows = [({"w": 1, "soft": [1, 0]}), ({"w": 2, "soft": [1, 0]}), ({"w": 1, "soft": [0.5, 0.5]})]
    assert len({fingerprint_of(examples(row)[1]) for row in rows}) == 3


def test_features_have_the_values_of_each_window_and_batches_those_of_the_loss(tokenizer):
    options = ClassificationOptions(labels=("bad", "good"), long_texts="windows")
    long = {"text": "film " * 12, "w": 3, "soft": [0.5, 0.5]}
    task, read = examples(long, {"w": 0, "soft": [0, 1]}, options=options)
    features = task.featurize(read, tokenizer, labeled=True)
    values = features.per_sequence
    windows = int((features.feature_index == 0).sum())
    assert windows > 1
    np.testing.assert_array_equal(values["example_weight"], [3.0] * windows + [0.0])
    np.testing.assert_array_equal(values["teacher"], [[0.5, 0.5]] * windows + [[0, 1]])
    assert values["example_weight"].dtype == values["teacher"].dtype == np.float32
    assert task.nothing_to_learn(features) is None
    task, read = examples({"w": 0, "soft": [0, 1]})
    nothing = task.nothing_to_learn(task.featurize(read, tokenizer, labeled=True))
    assert nothing == "all examples have the weight 0"


def test_loss_is_the_weighted_cross_entropy_against_the_teacher():
    options = ClassificationOptions(labels=("bad", "good"), class_weights=(1.0, 2.0))
    task = Classification.create(DATA, options, None, {})
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(2, 3, 2)).astype(np.float32)
    teacher = chance.dirichlet([1.0, 1.0], (2, 3)).astype(np.float32)
    label, weight = np.array([[0, 1, 1], [1, 0, 0]]), np.array([[1, 1, 1], [1, 1, 0]], np.float32)
    example_weight = np.array([[0.5, 2, 0], [1, 3, 9]], np.float32)
    batch = make_batch(label=label, weight=weight, teacher=teacher, example_weight=example_weight)
    total, weights = parts_of(task.loss({"logits": jnp.asarray(logits)}, batch)["loss"])
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = weight * example_weight * np.array([1.0, 2.0])[label]
    assert_close(total, (each * -(teacher * log_probs).sum(-1)).sum())
    assert_close(weights, each.sum())

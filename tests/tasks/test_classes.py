"""Losses over classes against their formulas, and class weights of tags and of sets of labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close
from toy import make_batch, parts_of

from flaxbert.config import DataConfig
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError
from flaxbert.tasks.classification import ClassificationOptions
from flaxbert.tasks.losses import binary_cross_entropy, class_loss, cross_entropy
from flaxbert.tasks.multi_label import MultiLabel, MultiLabelOptions
from flaxbert.tasks.token_classification import TokenClassification, TokenClassificationOptions


def draw(seed: int, classes: int = 4):
    chance = np.random.default_rng(seed)
    logits = chance.normal(scale=2, size=(3, 5, classes)).astype(np.float32)
    return logits, chance.integers(0, classes, (3, 5)), chance.dirichlet([1.0] * classes, (3, 5))


def by_hand(logits, target, smoothing, gamma):
    """Sum of -q (1 - p)^gamma log p, in float64."""
    exact = logits.astype(np.float64)
    probs = np.exp(exact) / np.exp(exact).sum(-1, keepdims=True)
    q = (1 - smoothing) * target + smoothing / logits.shape[-1]
    return -(q * (1 - probs) ** gamma * np.log(probs)).sum(-1)


@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0), (0.3, 0.5)])
def test_class_loss_is_the_formula_for_labels_and_for_distributions(smoothing, gamma):
    logits, label, teacher = draw(0)
    kinds = {"smoothing": smoothing, "gamma": gamma}
    hard = by_hand(logits, np.eye(4)[label], **kinds)
    assert_close(class_loss(logits, label, **kinds), hard)
    assert_close(
        class_loss(logits, teacher.astype(np.float32), **kinds), by_hand(logits, teacher, **kinds)
    )
    if not smoothing and not gamma:
        np.testing.assert_array_equal(class_loss(logits, label), cross_entropy(logits, label))


def test_binary_focal_loss_is_the_formula():
    logits = np.linspace(-6, 6, 13, dtype=np.float32)
    for label, sign in ((0, -1), (1, 1)):
        p = 1 / (1 + np.exp(-sign * logits.astype(np.float64)))
        losses = binary_cross_entropy(logits, np.full(13, label), gamma=2.0)
        assert_close(losses, -((1 - p) ** 2) * np.log(p))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_has_finite_gradients_at_probabilities_of_0_and_1(gamma):
    logits = jnp.array([[200.0, -200.0], [-200.0, 200.0], [20.0, 0.0]])
    label = jnp.array([0, 0, 0])
    for loss, target in (
        (class_loss, label),
        (binary_cross_entropy, jnp.ones_like(logits)),
    ):
        gradient = jax.grad(lambda x, f=loss, y=target: jnp.sum(f(x, y, gamma=gamma)))(logits)
        assert np.all(np.isfinite(gradient))
        assert abs(float(gradient[1, 0])) > 0.5  # of the label that is wrong


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (ClassificationOptions(label_smoothing=1.0), "options.label_smoothing=1.0: expected"),
        (TokenClassificationOptions(label_smoothing=-0.1), "options.label_smoothing=-0.1: exp"),
        (MultiLabelOptions(focal_gamma=-1.0), "options.focal_gamma=-1.0: expected at least 0"),
        (
            TokenClassificationOptions(class_weights=(1.0,), balanced_class_weights=True),
            "options.class_weights and options.balanced_class_weights: one or the other",
        ),
    ],
)
def test_options_out_of_range_are_an_error(options, problem):
    with pytest.raises(ConfigError) as caught:
        options.check(DataConfig())
    assert problem in str(caught.value)


def created(kind, table, options, hf_config=None):
    data = DataConfig()
    train = table and kind.read(table, data, options, labeled=True)
    return kind.create(data, options, train, hf_config or {})


# --- tags --------------------------------------------------------------------------------------

SENTENCES = Table(
    "train.json",
    [
        Record({"tokens": ["in", "old", "paris"], "tags": ["O", "O", "B-X"]}, "train.json:1"),
        Record({"tokens": ["paris"], "tags": ["B-X"]}, "train.json:2"),
        Record({"tokens": ["a", "film"], "tags": ["O", "O"]}, "train.json:3"),
    ],
)


def test_balanced_weights_of_tags_count_words_and_are_exported():
    options = TokenClassificationOptions(balanced_class_weights=True)
    task = created(TokenClassification, SENTENCES, options)
    assert task.labels == ("B-X", "I-X", "O")
    assert task.class_weights == pytest.approx((6 / (3 * 2), 6 / 3, 6 / (3 * 4)))
    back = created(TokenClassification, None, options, task.hf_config())
    assert (back.labels, back.class_weights) == (task.labels, task.class_weights)


def test_a_tag_counts_as_often_as_its_weight():
    options = TokenClassificationOptions(class_weights=(2.0, 1.0, 0.5), label_smoothing=0.1)
    task = created(TokenClassification, SENTENCES, options)
    logits, _, _ = draw(1, classes=3)
    label = np.array([[0, 1, 2, 2, 0]] * 3)
    first = np.array([[1, 1, 1, 0, 1]] * 3)
    total, weight = parts_of(
        task.loss({"logits": logits}, make_batch(label=label, first=first))["loss"]
    )
    each = first * np.array([2.0, 1.0, 0.5])[label]
    assert_close(total, (each * by_hand(logits, np.eye(3)[label], 0.1, 0.0)).sum())
    assert_close(weight, each.sum())


# --- sets of labels ----------------------------------------------------------------------------

TEXTS = Table(
    "train.json",
    [
        Record({"text": "film", "labels": labels}, f"train.json:{n}")
        for n, labels in enumerate([["a"], ["a", "b"], ["a"], [], []])
    ],
)


def test_balanced_weights_of_a_set_give_texts_with_and_without_a_label_the_same_sum():
    options = MultiLabelOptions(balanced_class_weights=True)
    task = created(MultiLabel, TEXTS, options)
    assert task.class_weights == pytest.approx((2 / 3, 4 / 1))
    assert task.start == pytest.approx(0.0)  # both are as likely then
    back = created(MultiLabel, None, options, task.hf_config())
    assert back.class_weights == task.class_weights
    assert back.stored_thresholds == task.stored_thresholds


def test_a_weight_of_a_label_is_that_of_its_texts():
    options = MultiLabelOptions(class_weights=(3.0, 1.0), focal_gamma=1.0)
    task = created(MultiLabel, TEXTS, options)
    assert task.start == pytest.approx(np.log((3 * 3 + 1) / (2 + 4)))
    logits, _, _ = draw(2, classes=2)
    label = np.random.default_rng(2).integers(0, 2, logits.shape)
    weight = np.array([[1, 1, 0.5, 0.5, 0]] * 3, np.float32)
    batch = make_batch(label=label, weight=weight)
    total, weights = parts_of(jax.jit(task.loss)({"logits": logits}, batch)["loss"])
    p = 1 / (1 + np.exp(-np.where(label > 0, 1, -1) * logits.astype(np.float64)))
    each = weight[..., None] * np.where(label > 0, [3.0, 1.0], 1.0) / 2
    assert_close(total, (each * (1 - p) * -np.log(p)).sum())
    assert_close(weights, each.sum())

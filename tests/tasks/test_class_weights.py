"""Class weights of classification: given or balanced, in the loss and in the exported config."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from tolerance import assert_close
from toy import make_batch, parts_of

from flaxbert.config import DataConfig
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks.classification import Classification, ClassificationOptions
from flaxbert.types import Batch


def table(labels: Sequence[Any], names: list[str] | None = None) -> Table:
    rows = [Record({"text": "film", "label": v}, f"train.tsv:{n}") for n, v in enumerate(labels, 2)]
    return Table("train.tsv", rows, {} if names is None else {"label": names})


def create(
    train: Table | None, options: ClassificationOptions, hf: dict[str, Any] | None = None
) -> Classification:
    raw = train and Classification.read(train, DataConfig(), options, labeled=True)
    return Classification.create(DataConfig(), options, raw, hf or {})


# --- loss --------------------------------------------------------------------------------------


def sums(task: Classification, logits: np.ndarray, batch: Any) -> Any:
    return parts_of(jax.jit(task.loss)({"logits": logits}, batch)["loss"])


def random_batch(seed: int, *, classes: int) -> tuple[np.ndarray, Batch]:
    """Logits [4, 3, C], and a batch with empty slots."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(scale=2, size=(4, 3, classes)).astype(np.float32)
    label = chance.integers(0, classes, (4, 3))
    weight = (chance.random((4, 3)) < 0.7).astype(np.float32)
    return logits, make_batch(label=label, weight=weight)


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64)
    picked = np.take_along_axis(exact, label[..., None], axis=-1)[..., 0]
    return np.asarray(np.log(np.exp(exact).sum(-1)) - picked)


@pytest.mark.parametrize("seed", range(5))
def test_a_weighted_mean_is_the_one_of_numpy(seed: int) -> None:
    weights = (0.5, 3.0, 1.25)
    task = create(None, ClassificationOptions(labels=("a", "b", "c"), class_weights=weights))
    logits, batch = random_batch(seed, classes=3)
    value, weight = sums(task, logits, batch)
    losses = cross_entropy(logits, batch.label)
    each = np.array(weights)[batch.label] * batch.weight
    assert_close(value, (losses * each).sum())
    assert_close(weight, each.sum())
    assert_close(value / weight, np.average(losses, weights=each))


def test_a_weight_of_two_is_two_copies_of_the_example() -> None:
    options = ClassificationOptions(labels=("a", "b"))
    weighted = create(None, ClassificationOptions(labels=("a", "b"), class_weights=(1, 2)))
    logits = np.array([[[0.5, -1.0], [2.0, 1.5]]], np.float32)
    once = make_batch(label=np.array([[0, 1]]), weight=np.ones((1, 2), np.float32))
    copied = make_batch(label=np.array([[0, 1, 1]]), weight=np.ones((1, 3), np.float32))
    ours = sums(weighted, logits, once)
    theirs = sums(create(None, options), logits[:, [0, 1, 1]], copied)
    assert_close(ours, theirs)


def test_without_class_weights_every_example_counts_once() -> None:
    logits, batch = random_batch(0, classes=2)
    value, weight = sums(create(None, ClassificationOptions(labels=("a", "b"))), logits, batch)
    assert_close(value, (cross_entropy(logits, batch.label) * batch.weight).sum())
    assert weight == batch.weight.sum()


def test_a_class_of_weight_zero_is_left_out_even_where_its_loss_is_infinite() -> None:
    task = create(None, ClassificationOptions(labels=("a", "b"), class_weights=(0, 1)))
    logits = np.array([[[-np.inf, 0.0], [1.0, 1.0]]], np.float32)
    batch = make_batch(label=np.array([[0, 1]]), weight=np.ones((1, 2), np.float32))
    value, weight = sums(task, logits, batch)
    assert_close(value, np.log(2))
    assert weight == 1


def test_a_text_of_several_windows_has_its_class_weight_once() -> None:
    task = create(None, ClassificationOptions(labels=("a", "b"), class_weights=(1, 4)))
    batch = make_batch(
        label=np.array([[1, 0], [1, 0]]),
        weight=np.array([[0.5, 1], [0.5, 0]], np.float32),
        group=np.array([[1, 0], [1, 0]], np.int32),
    )
    logits = np.array([[[1.0, 0.0], [0.5, -0.5]], [[2.0, -1.0], [9.0, 9.0]]], np.float32)
    value, weight = sums(task, logits, batch)
    texts = cross_entropy(np.array([[1.5, -0.5], [0.5, -0.5]]), np.array([1, 0]))
    assert_close(value, texts @ [4, 1])
    assert weight == 5


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (1.0, -0.5), (0.0, 0.0)])
def test_impossible_class_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        create(table(["good", "bad"]), ClassificationOptions(class_weights=weights))
    for part in (f"options.class_weights={weights!r}", "['bad', 'good']"):
        assert part in str(caught.value)


def test_weights_that_are_given_and_balanced_are_refused() -> None:
    options = ClassificationOptions(class_weights=(1.0, 2.0), balanced_class_weights=True)
    with pytest.raises(
        ConfigError, match=r"class_weights and options\.balanced_class_weights: one or the other"
    ):
        create(table(["good", "bad"]), options)


# --- balanced ----------------------------------------------------------------------------------

BALANCED = ClassificationOptions(balanced_class_weights=True)


def test_balanced_weights_by_hand() -> None:
    # scikit-learn's "balanced": examples / (classes * examples of the class).
    task = create(table(list("abbacb")), BALANCED)
    assert task.labels == ("a", "b", "c")
    assert task.class_weights == pytest.approx((6 / (3 * 2), 6 / (3 * 3), 6 / (3 * 1)))


def test_under_balanced_weights_every_class_weighs_the_same_and_an_example_one_on_average() -> None:
    labels = [*"aaaaaaa", *"bb", *"c"]
    task = create(table(labels), BALANCED)
    totals = [w * labels.count(n) for n, w in zip(task.labels, task.class_weights, strict=True)]
    assert totals == pytest.approx([len(labels) / 3] * 3)


def test_balanced_weights_count_integers_by_the_names_of_the_data_set() -> None:
    task = create(table([0, 0, 0, 1], ["good", "bad"]), BALANCED)
    assert task.labels == ("good", "bad")
    assert task.class_weights == pytest.approx((4 / (2 * 3), 4 / (2 * 1)))
    # By name even where the checkpoint has another order.
    task = create(
        table([0, 0, 0, 1], ["good", "bad"]), BALANCED, {"id2label": {0: "bad", 1: "good"}}
    )
    assert task.labels == ("bad", "good")
    assert task.class_weights == pytest.approx((4 / (2 * 1), 4 / (2 * 3)))


def test_balanced_weights_stand_in_the_order_of_the_options() -> None:
    options = ClassificationOptions(balanced_class_weights=True, labels=("good", "fair", "bad"))
    task = create(table(["bad", "bad", "good"]), options)
    assert task.class_weights[0] == pytest.approx(3 / (3 * 1))
    assert task.class_weights[2] == pytest.approx(3 / (3 * 2))
    assert np.isfinite(task.class_weights[1])  # of a label without examples


def test_a_bad_label_is_named_with_its_line_while_counting() -> None:
    options = ClassificationOptions(balanced_class_weights=True, labels=("good", "bad"))
    with pytest.raises(DataError, match=r"train\.tsv:4: label 'fair'"):
        create(table(["good", "bad", "fair"]), options)


def test_a_malformed_row_does_not_count_where_such_rows_are_skipped() -> None:
    data = DataConfig(on_bad_row="skip")
    train = table(["good", "bad", None, "bad"])
    raw = Classification.read(train, data, BALANCED, labeled=True)
    task = Classification.create(data, BALANCED, raw, {})
    assert task.class_weights == pytest.approx((3 / 4, 3 / 2))
    assert len(task.resolve(raw)) == 3


def test_balanced_weights_are_exported_and_read_back() -> None:
    task = create(table(["good", "bad", "bad"]), BALANCED)
    exported = json.loads(json.dumps(task.hf_config()))
    assert exported["flaxbert"] == {"class_weights": pytest.approx([3 / 4, 3 / 2])}
    back = create(None, BALANCED, exported)
    assert (back.labels, back.class_weights) == (task.labels, task.class_weights)
    # So that an evaluation's loss is the one of training.
    logits, batch = random_batch(1, classes=2)
    assert_close(sums(back, logits, batch), sums(task, logits, batch))
    # Without the option the exported weights have no say.
    assert create(None, ClassificationOptions(), exported).class_weights == ()


def test_a_new_training_counts_anew() -> None:
    exported = create(table(["good", "bad", "bad"]), BALANCED).hf_config()
    again = create(table(["good", "good", "good", "bad"]), BALANCED, exported)
    assert again.class_weights == pytest.approx((4 / 2, 4 / 6))


def test_weights_that_were_given_are_not_exported() -> None:
    task = create(table(["good", "bad"]), ClassificationOptions(class_weights=(1.0, 2.0)))
    assert "flaxbert" not in task.hf_config()
    assert "flaxbert" not in create(table(["good", "bad"]), ClassificationOptions()).hf_config()

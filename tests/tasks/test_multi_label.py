"""Multi-label classification: sets of labels, their metrics, thresholds and where they are kept."""

import itertools
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from tolerance import assert_close
from toy import logged, make_batch, parts_of

from flaxbert.config import DataConfig
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.metrics import multi_label as metrics
from flaxbert.models.bert import BertConfig
from flaxbert.models.model import Model
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.multi_label import MultiLabel, MultiLabelOptions
from flaxbert.types import Prediction, TaskOutputs

SEEDS = range(30)


def table(labels: Sequence[Any], names: list[str] | None = None, **columns: Any) -> Table:
    """One row for each set of labels; `columns` are lists of equal length."""
    columns = {"text": ["film"] * len(labels), "labels": labels} | columns
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    found = [Record(row, f"train.jsonl:{n}") for n, row in enumerate(rows, 1)]
    return Table("train.jsonl", found, {} if names is None else {"labels": names})


def create(
    train: Table | None,
    options: MultiLabelOptions | None = None,
    hf: dict[str, Any] | None = None,
    **data: Any,
) -> MultiLabel:
    config, options = DataConfig(**data), options or MultiLabelOptions()
    raw = None if train is None else MultiLabel.read(train, config, options, labeled=True)
    return MultiLabel.create(config, options, raw, hf or {})


def flags(task: MultiLabel, rows: Table) -> list[tuple[int, ...]]:
    return [example.label for example in task.examples(rows, labeled=True)]


# --- labels ------------------------------------------------------------------------------------


def test_a_list_of_names() -> None:
    train = table([["joy", "love"], [], ["fear"], ["love", "love"]])
    task = create(train)
    assert task.labels == ("fear", "joy", "love")
    assert flags(task, train) == [(0, 1, 1), (0, 0, 0), (1, 0, 0), (0, 0, 1)]


def test_a_text_with_separators() -> None:
    train = table(["joy,love", "", "fear", " love , ,joy,"])
    task = create(train)
    assert task.labels == ("fear", "joy", "love")
    assert flags(task, train) == [(0, 1, 1), (0, 0, 0), (1, 0, 0), (0, 1, 1)]


def test_the_separator_is_an_option() -> None:
    train = table(["joy, great; love", "fear"])
    assert create(train, MultiLabelOptions(separator=";")).labels == ("fear", "joy, great", "love")


def test_integers_index_the_names_of_the_data_set(caplog: Any) -> None:
    names = ["joy", "love", "fear"]
    train = table([[0, 2], [1], []], names)
    task = create(train)
    assert task.labels == ("joy", "love", "fear")  # the data set's order, not the alphabet's
    assert flags(task, train) == [(1, 0, 1), (0, 1, 0), (0, 0, 0)]
    # Another data set's integers go by name.
    with caplog.at_level("INFO", "flaxbert"):
        assert flags(task, table([[0], [1, 2]], ["fear", "joy", "love"])) == [(0, 0, 1), (1, 1, 0)]
        assert not caplog.messages
        assert flags(task, table(["fear", "2"])) == [(0, 0, 1), (0, 0, 1)]
    message = "train.jsonl: integer labels are read as 0 = joy, 1 = love, 2 = fear"
    assert caplog.messages == [message]


def test_integers_without_names_are_labels() -> None:
    train = table([[10, 9.0], "2"])
    task = create(train)
    assert task.labels == ("2", "9", "10")
    assert flags(task, train) == [(0, 1, 1), (1, 0, 0)]


@pytest.mark.parametrize("cells", [["1.0,1.5", "2.0"], [["1.0", "1.5"], [2.0]]])
def test_labels_with_decimals_are_names_and_no_indices(cells: Any) -> None:
    rows = table(cells)
    task = create(rows, MultiLabelOptions(labels=("1.0", "1.5", "2.0")))
    again = create(rows, hf=task.hf_config())
    assert again.labels == task.labels
    assert flags(task, rows) == flags(again, rows) == [(1, 1, 0), (0, 0, 1)]


def test_the_options_give_labels_and_their_order() -> None:
    train = table([["joy"], ["love"]])
    task = create(train, MultiLabelOptions(labels=("love", "joy", "fear")))
    assert flags(task, train) == [(0, 1, 0), (1, 0, 0)]


@pytest.mark.parametrize("value", [None, 3, 2.5, [0.5], {"joy": 1}])
def test_an_invalid_set_of_labels_is_reported_with_its_line(value: Any) -> None:
    task = create(table([["joy"], ["love"]]))
    with pytest.raises(DataError) as caught:
        task.examples(table([[], value]), labeled=True)
    for part in ("train.jsonl:2: labels is", repr(value), "expected a list", "','"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"train\.jsonl:2: labels is"):
        create(table([["joy"], value]))


@pytest.mark.parametrize(
    "value",
    [
        "['joy', 'love']",
        '["joy", "love"]',
        "['joy' 'love']",  # numpy
        "['joy'\n 'love']",
        "{'joy', 'love'}",
        "[joy, love]",
        "{joy,love}",  # a database
        '["joy", "love"]  ',
        ("joy", "love"),
        "('joy', 'love')",
        "array(['joy', 'love'], dtype=object)",
        "[np.str_('joy'), np.str_('love')]",
    ],
)
def test_a_printed_list_is_read_as_a_list(value: Any) -> None:
    train = table([value, "['fear']", "[]"])
    task = create(train)
    assert task.labels == ("fear", "joy", "love")
    assert flags(task, train) == [(0, 1, 1), (1, 0, 0), (0, 0, 0)]


@pytest.mark.parametrize(
    "cell",
    [
        "['joy' 'love' ... 'fear']",
        "[joy love ... fear]",
        "array(['joy', 'love'",
        "Index(['joy', 'love'], dtype='object')",
        "('joy', 'love'",
        "('joy')",
    ],
)
def test_a_list_that_is_printed_in_part_is_refused(cell: str) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:1: labels is .* cannot be read\. Write"):
        create(table([cell, "fear"]))


@pytest.mark.parametrize(
    ("cells", "fix"),
    [
        (["1 0 0", "0 1 1"], r"--config\.options\.separator=' '"),
        (["1|0|0", "1|1|1", ""], r"--config\.options\.separator='\|'"),
        (["100", "011"], "write commas between them"),
    ],
)
def test_flags_with_another_separator_are_no_labels(cells: list[str], fix: str) -> None:
    with pytest.raises(DataError, match=rf"train\.jsonl:1: labels is .* flags of 0 and 1.*{fix}"):
        create(table(cells))


def test_flags_with_the_separator_are_read() -> None:
    options = MultiLabelOptions(separator=" ", labels=("joy", "love", "fear"))
    assert flags(create(None, options), table(["1 0 0", "0 1 1"])) == [(1, 0, 0), (0, 1, 1)]


@pytest.mark.parametrize("cells", [["10", "11"], ["1 0", "1 2"], ["0", "1"], ["01", "011"]])
def test_numbers_of_labels_are_no_flags(cells: list[str]) -> None:
    assert len(create(table(cells)).labels) == 2


def test_labels_may_have_brackets() -> None:
    assert create(table(["(a), b(c)", "d (e)"])).labels == ("(a)", "b(c)", "d (e)")


def test_quotes_within_a_printed_label_are_part_of_it() -> None:
    assert create(table(["['it\\'s, a', \"that's\"]", "x"])).labels == ("it's, a", "that's", "x")


@pytest.mark.parametrize("value", [[1, 0, 0, 1], [0.0, 1.0, 0.0], [True, False], "0,1,1"])
def test_flags_among_lists_are_refused_with_what_to_give_instead(value: Any) -> None:
    options = MultiLabelOptions(labels=("fear", "joy", "love", "pride"))
    for task in (lambda: create(table([["joy"], value])), lambda: create(None, options)):
        with pytest.raises(DataError) as caught:
            task().examples(table([["joy"], value]), labeled=True)
        for part in ("train.jsonl:2: labels is", repr(value), "list the labels that apply"):
            assert part in str(caught.value)


FLAGS = [
    [[1, 0, 0], [0, 1, 1]],
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
    [[True, False, False], [False, True, True]],
    ["1,0,0", "0,1,1"],
    ["[1, 0, 0]", "[0 1 1]"],
    [["1", "0", "0"], ["0", "1", "1"]],
]


@pytest.mark.parametrize("rows", FLAGS)
def test_flags_of_all_labels_are_read_if_these_are_named(rows: list[Any], caplog: Any) -> None:
    train = table(rows)
    with caplog.at_level("INFO", "flaxbert"):
        task = create(train, MultiLabelOptions(labels=("joy", "fear", "love")))
        examples = logged(task.examples(train, labeled=True))
    assert [example.label for example in examples] == [(1, 0, 0), (0, 1, 1)]
    assert caplog.messages == [
        "train.jsonl: labels is read as flags, one per label: joy, fear, love"
    ]
    assert flags(create(None, hf=task.hf_config()), train) == [(1, 0, 0), (0, 1, 1)]
    with pytest.raises(DataError, match=r"train\.jsonl:1: .*3 flags.*--config\.options\.labels="):
        create(train)
    with pytest.raises(DataError, match="has 3 flags of 0 and 1, but there are 2 labels"):
        create(train, MultiLabelOptions(labels=("joy", "fear")))


@pytest.mark.parametrize("rows", [[[1, 0], [0, 1]], [[0, 0], [1, 0]], ["1,0", "0,1"]])
def test_flags_of_two_labels_are_read_where_they_can_be_no_indices(rows: list[Any]) -> None:
    task = create(None, MultiLabelOptions(labels=("joy", "love")))
    numbers = [[int(x) for x in row.split(",")] if isinstance(row, str) else row for row in rows]
    assert flags(task, table(rows)) == [tuple(row) for row in numbers]


def test_two_numbers_that_may_be_flags_or_indices_are_refused() -> None:
    train = table([[0, 1], [0, 1]])
    for make in (
        lambda: create(train),
        lambda: create(train, MultiLabelOptions(labels=("joy", "love"))),
    ):
        with pytest.raises(
            DataError, match=r"train\.jsonl:1: .*flags, or indices of both labels\?"
        ):
            make()


def test_indices_that_are_counted_from_1_are_refused() -> None:
    task = create(None, MultiLabelOptions(labels=("joy", "love", "fear")), on_bad_row="skip")
    with pytest.raises(DataError, match=r"train\.jsonl: .*counted from 1 \(1 to 3\)"):
        task.examples(table([[1, 2], [3], []]), labeled=True)


def test_a_column_for_each_label_is_named_and_read() -> None:
    columns = {"joy": [1, 0], "love": ["0", "1"], "fear": [True, True]}
    rows = [
        Record(dict(zip(["text", *columns], ["film", *values], strict=True)), f"a.csv:{n}")
        for n, values in enumerate(zip(*columns.values(), strict=True), 2)
    ]
    train = Table("a.csv", rows)
    with pytest.raises(DataError, match=r"columns hold 0 and 1.*label_columns=joy,love"):
        create(train)
    options = MultiLabelOptions(label_columns=("love", "joy", "fear"))
    task = create(train, options)
    assert task.labels == ("love", "joy", "fear")
    assert flags(task, train) == [(0, 1, 1), (1, 0, 1)]
    assert flags(create(None, options, hf=task.hf_config()), train) == [(0, 1, 1), (1, 0, 1)]
    with pytest.raises(DataError, match=r"no column 'hate'.*options\.label_columns"):
        create(train, MultiLabelOptions(label_columns=("love", "hate")))
    rows[1].values["love"] = -1
    with pytest.raises(DataError, match=r"a\.csv:3: love is -1; expected 0 or 1"):
        task.examples(train, labeled=True)
    with pytest.raises(ConfigError, match="one or the other"):
        create(None, MultiLabelOptions(labels=("a", "b"), label_columns=("love", "joy")))


def test_another_separator_is_pointed_out(caplog: Any) -> None:
    with caplog.at_level("INFO", "flaxbert"):
        train = table(["joy;love", "love", "fear;joy"])
        logged(create(train).examples(train, labeled=True))
    assert "--config.options.separator=';'" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "flaxbert"):
        train = table(["tv/film", "love", "radio"])
        logged(create(train).examples(train, labeled=True))
    assert not caplog.messages


@pytest.mark.parametrize("rows", [[[0, 1], [1]], [[1, 0], [0], []], [[0, 1]]])
def test_indices_of_both_labels_are_no_flags(rows: list[list[int]]) -> None:
    task = create(table([["joy"], ["love"]]))
    expected = [(int(0 in row), int(1 in row)) for row in rows]
    assert flags(task, table(rows)) == expected
    assert flags(task, table([[1, 0], [0, 1]], ["joy", "love"])) == [(1, 1), (1, 1)]


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"options\.separator=''"):
        create(table(["joy", "love"]), MultiLabelOptions(separator=""))


@pytest.mark.parametrize("value", [["joy", "anger"], "joy,anger", [2], [-1], [None], [["joy"]]])
def test_an_unknown_label_is_named_with_its_line(value: Any) -> None:
    task = create(table([["joy"], ["love"]]))
    with pytest.raises(DataError, match=r"train\.jsonl:2: label"):
        task.examples(table([["joy"], value]), labeled=True)


def test_a_null_among_the_training_labels_is_named_with_its_line() -> None:
    train = table([["joy"], ["love", None]])
    with pytest.raises(DataError, match=r"train\.jsonl:2: labels is"):
        create(train).examples(train, labeled=True)


@pytest.mark.parametrize("value", [None, ["love", None], 3])
def test_a_malformed_row_is_left_out_where_such_rows_are_skipped(value: Any) -> None:
    train = table([["joy"], value, ["love"]])
    task = create(train, on_bad_row="skip")
    assert task.labels == ("joy", "love")
    assert flags(task, train) == [(1, 0), (0, 1)]


def test_one_label_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="two labels or more"):
        create(table([["joy"], []]))


def test_an_absent_column_names_its_key() -> None:
    with pytest.raises(DataError, match=r"no column 'emotions'.*config\.options\.label="):
        create(table([["joy"]]), MultiLabelOptions(label="emotions"))


def test_prediction_needs_no_labels() -> None:
    task = create(table([["joy"], ["love"]]))
    rows = Table("x.tsv", [Record({"text": "film"}, "x.tsv:2")])
    (example,) = task.examples(rows, labeled=False)
    assert example.label is None
    assert task.table_row(example, {"labels": ["joy", "love"]}) == {
        "text": "film",
        "labels": "",
        "predicted": "joy, love",
    }


def test_features_carry_a_flag_for_each_label_at_each_window(tokenizer: Any) -> None:
    train = table([["joy"], ["love", "fear"]], text=["a b c d e f g h", "a"])
    task = create(train, MultiLabelOptions(long_texts="windows"), max_length=8, overlap=2)
    examples = task.examples(train, labeled=True)
    features = task.featurize(examples, tokenizer, labeled=True)
    assert features.feature_index.tolist() == [0, 0, 1]
    assert features.per_sequence["label"].tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert task.featurize(examples, tokenizer, labeled=False).per_sequence == {}


# --- loss --------------------------------------------------------------------------------------


def three() -> MultiLabel:
    return create(None, MultiLabelOptions(labels=("fear", "joy", "love")))


def test_the_head_has_a_score_for_each_label() -> None:
    model = Model.create(BertConfig(num_hidden_layers=1), three().make_head)
    assert model.shapes["head"]["classifier"]["kernel"].shape == (768, 3)


@jax.jit
def loss_and_gradient(logits: jax.Array, batch: Any) -> Any:
    def loss(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        return parts_of(three().loss({"logits": logits}, batch)["loss"])

    return jax.value_and_grad(loss, has_aux=True)(logits)


def test_a_new_heads_logits_begin_at_the_log_odds_of_a_label() -> None:
    # 4 of 12 places are filled; "love" twice in a row is once.
    task = create(table([["joy", "love"], [], ["fear"], ["love", "love"]]))
    assert task.start == pytest.approx(math.log(4 / 8))
    config = BertConfig(vocab_size=20, hidden_size=4, num_attention_heads=1, intermediate_size=4)
    model = Model.create(config, task.make_head)
    bias = model.init_head(0)["classifier"]["bias"]
    np.testing.assert_allclose(bias, [task.start] * 3, rtol=1e-6)


def test_the_head_begins_at_zero_where_nothing_is_known_of_the_labels() -> None:
    assert create(None, hf={"id2label": {"0": "a", "1": "b"}}).start == 0.0
    both = create(table([["a", "b"], ["b", "a"]]), MultiLabelOptions(labels=("a", "b")))
    assert both.start == 0.0  # all are given: no odds


def test_the_loss_is_the_mean_binary_cross_entropy_of_each_text() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(scale=3, size=(2, 3, 3)).astype(np.float32)
    labels = chance.integers(0, 2, (2, 3, 3))
    weight = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    losses = -np.log(np.where(labels == 1, probability, 1 - probability)).mean(-1)
    (value, total), gradient = loss_and_gradient(logits, make_batch(label=labels, weight=weight))
    assert_close(value, (losses * weight).sum())
    assert_close(total, 3)
    assert_close(gradient, (probability - labels) / 3 * weight[..., None])


def test_extreme_logits_have_a_finite_loss_and_gradient() -> None:
    logits = np.array([[[1e4, -1e4, 1e4]]], np.float32)
    batch = make_batch(label=np.array([[[1, 0, 0]]]), weight=np.ones((1, 1), np.float32))
    (value, _), gradient = loss_and_gradient(logits, batch)
    assert_close(value, 1e4 / 3)  # two are right and sure, the third is as wrong as can be
    assert_close(gradient, np.array([[[0, 0, 1 / 3]]]))


def test_probabilities_are_of_the_pooled_logits() -> None:
    logits = np.array([[[2.0, -1.0, 0.0]], [[0.0, -3.0, 0.0]]], np.float32)
    batch = make_batch(weight=np.full((2, 1), 0.5, np.float32), group=np.zeros((2, 1), np.int32))
    found = jax.jit(three().predict)({"logits": logits}, batch).per_sequence["probability"]
    row = [1 / (1 + math.exp(-x)) for x in (1, -2, 0)]
    assert_close(found, np.array([[row], [row]]))


# --- records and thresholds --------------------------------------------------------------------


def decode(task: MultiLabel, rows: Table, probabilities: Any) -> list[Prediction]:
    examples = task.examples(rows, labeled=False)
    features = Features.build({"input_ids": [[0]] * len(examples)})
    values = np.array(probabilities, np.float32).reshape(len(examples), -1)
    return task.decode(examples, features, TaskOutputs({"probability": values}, {}))


def test_labels_that_reach_one_half_are_given() -> None:
    rows = table([[]] * 2, text=["film", "food"])
    records = decode(three(), rows, [[0.5, 0.25, 0.75], [0.25, 0.125, 0.375]])
    assert records == [
        {
            "text": "film",
            "labels": ["fear", "love"],
            "probability": {"fear": 0.5, "joy": 0.25, "love": 0.75},
        },
        {
            "text": "food",
            "labels": [],
            "probability": {"fear": 0.25, "joy": 0.125, "love": 0.375},
        },
    ]


KEPT = {"flaxbert": {"thresholds": {"love": 0.75, "fear": 0.25}}}  # none for joy


def test_thresholds_of_the_checkpoint_decide_and_go_by_name() -> None:
    task = create(None, MultiLabelOptions(labels=("fear", "joy", "love")), KEPT)
    assert task.thresholds == (0.25, 0.5, 0.75)
    (record,) = decode(task, table([[]]), [[0.25, 0.4375, 0.6875]])
    assert record["labels"] == ["fear"]


def test_training_does_not_take_over_thresholds_fitted_to_other_data() -> None:
    train = table([["joy", "love"], ["fear"]])
    assert create(train, hf=KEPT).thresholds == (0.5, 0.5, 0.5)


def test_exported_labels_and_thresholds_come_back() -> None:
    names = ["love", "joy", "fear"]
    train = table([["joy", "love"], ["fear"]], names)
    probabilities = [[0.7, 0.3, 0.1], [0.2, 0.4, 0.35]]
    task = create(train)
    examples = task.examples(train, labeled=True)
    fitted = task.calibrate(examples, decode(task, train, probabilities))
    exported = json.loads(json.dumps(fitted.hf_config()))
    assert exported["id2label"] == {"0": "love", "1": "joy", "2": "fear"}
    assert exported["problem_type"] == "multi_label_classification"
    assert exported["flaxbert"] == json.loads(json.dumps(fitted.stored_thresholds))
    back = create(None, hf=exported)
    assert (back.labels, back.thresholds) == (fitted.labels, fitted.thresholds)
    assert back.thresholds == pytest.approx((0.45, 0.15, 0.225))
    assert len(set(back.thresholds)) == 3
    assert task.thresholds == (0.5, 0.5, 0.5)  # the first one stays as it was


@pytest.mark.parametrize("seed", SEEDS)
def test_fitted_thresholds_give_the_best_f1_on_the_examples_they_were_fitted_on(seed: int) -> None:
    chance = np.random.default_rng(seed)
    count = int(chance.integers(1, 12))
    gold = chance.integers(0, 2, (count, 3)).astype(bool)
    probabilities = chance.random((count, 3)).astype(np.float32)
    task = three()
    rows = table([[n for n, given in zip(task.labels, g, strict=True) if given] for g in gold])
    examples = task.examples(rows, labeled=True)
    fitted = task.calibrate(examples, decode(task, rows, probabilities))
    found = fitted.score(examples, decode(fitted, rows, probabilities))
    best = [max(f1s(probabilities[:, c], gold[:, c]).values()) for c in range(3)]
    assert found["f1_macro"] == pytest.approx(sum(best) / 3)
    assert found["f1_macro"] >= task.score(examples, decode(task, rows, probabilities))["f1_macro"]


def test_a_threshold_separates_neighboring_float32_values() -> None:
    # Of halves of the last digit every second one rounds down.
    low = np.nextafter(np.float32(0.5), np.float32(1))
    pairs = [(low, np.nextafter(low, np.float32(1))), (np.float32(0.5), low)]
    task = three()
    rows = table([[], task.labels])
    examples = task.examples(rows, labeled=True)
    for pair in pairs:
        probabilities = [[p] * 3 for p in pair]
        fitted = task.calibrate(examples, decode(task, rows, probabilities))
        records = decode(fitted, rows, probabilities)
        assert [record["labels"] for record in records] == [[], list(task.labels)]


def test_each_slice_has_its_metrics() -> None:
    rows = table([["joy"], ["love"], []], language=["en", "de", "en"])
    task = create(rows, slices="language")
    records: list[Prediction] = [{"labels": given} for given in (["joy"], ["joy"], [])]
    found = score_with_slices(task, task.examples(rows, labeled=True), records)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert (found["accuracy/en"], found["accuracy/de"]) == (1, 0)
    assert (found["f1_micro"], found["f1_micro/en"], found["f1_micro/de"]) == (0.5, 1, 0)


# --- metrics -----------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    gold = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
    predicted = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    # Label 0: 2 hits, 1 missed. Label 1: 1 missed, 1 too many. Label 2: 1 missed.
    assert metrics.score(predicted, gold) == {
        "precision_micro": pytest.approx(2 / 3),
        "recall_micro": pytest.approx(2 / 5),
        "f1_micro": pytest.approx(2 * 2 / (3 + 5)),
        "f1_macro": pytest.approx((2 * 2 / (2 + 3) + 0 + 0) / 3),
        "accuracy": 1 / 4,  # only the third set is all right
    }


def test_a_label_that_never_occurs_counts_in_the_macro_mean_as_zero() -> None:
    gold = np.array([[1, 0], [1, 0]], bool)
    assert metrics.score(gold, gold)["f1_macro"] == 0.5


def test_scores_of_no_examples_and_of_no_labels_given_are_zero() -> None:
    nothing = np.zeros((0, 3), bool)
    assert set(metrics.score(nothing, nothing).values()) == {0.0}
    assert three().score([], []).keys() == metrics.score(nothing, nothing).keys()
    none, some = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    assert set(metrics.score(none, some).values()) == {0.0}
    assert set(metrics.score(some, none).values()) == {0.0}


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_equal_their_definitions_counted_out(seed: int) -> None:
    chance = random.Random(seed)
    count, labels = chance.randint(1, 8), chance.randint(2, 4)
    share = chance.choice([0.1, 0.5])  # rare labels, so that some never occur
    gold, predicted = (
        [{c for c in range(labels) if chance.random() < share} for _ in range(count)]
        for _ in range(2)
    )
    pairs = list(zip(gold, predicted, strict=True))
    hits = sum(len(g & p) for g, p in pairs)
    given, real = sum(map(len, predicted)), sum(map(len, gold))
    by_label = []
    for c in range(labels):
        both = sum(c in g and c in p for g, p in pairs)
        one = sum((c in g) != (c in p) for g, p in pairs)
        by_label.append(ratio(2 * both, 2 * both + one))
    precision, recall = ratio(hits, given), ratio(hits, real)
    harmonic = 2 * precision * recall / (precision + recall) if hits else 0.0
    matrices = [
        np.array([[c in s for c in range(labels)] for s in sets]) for sets in (predicted, gold)
    ]
    assert metrics.score(*matrices) == {
        "precision_micro": pytest.approx(precision),
        "recall_micro": pytest.approx(recall),
        "f1_micro": pytest.approx(harmonic),
        "f1_macro": pytest.approx(sum(by_label) / labels),
        "accuracy": pytest.approx(sum(g == p for g, p in pairs) / count),
    }


# --- thresholds --------------------------------------------------------------------------------


def f1s(probabilities: Any, gold: Any) -> dict[float, float]:
    """{threshold: F1} at every cut between two probabilities, highest first; ties stay together."""
    values = sorted({float(p) for p in probabilities}, reverse=True)
    found = {}
    for value, below in itertools.pairwise([*values, 0.0]):
        given = [p >= value for p in probabilities]
        hits = sum(g and r for g, r in zip(given, gold, strict=True))
        found[(value + below) / 2] = 2 * hits / (sum(given) + sum(map(bool, gold)))
    return found


@pytest.mark.parametrize("levels", [3, 1000])  # with 3, most probabilities are shared
@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_threshold_is_the_best_of_all_cuts(seed: int, levels: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 10)
    probabilities = [[chance.randint(1, levels) / levels for _ in range(count)] for _ in range(3)]
    gold = [[chance.random() < 0.4 for _ in range(count)] for _ in range(3)]
    found = metrics.best_thresholds(np.array(probabilities).T, np.array(gold).T)
    assert len(found) == 3
    for threshold, p, real in zip(found, probabilities, gold, strict=True):
        if any(real):
            cuts = f1s(p, real)
            assert threshold == pytest.approx(max(cuts, key=cuts.__getitem__))  # first of equals
            given = [value >= threshold for value in p]
            hits = sum(g and r for g, r in zip(given, real, strict=True))
            assert 2 * hits / (sum(given) + sum(real)) == pytest.approx(max(cuts.values()))
        else:
            assert threshold == 0.5


def test_thresholds_by_hand() -> None:
    # The first label parts at 0.3 | 0.6. The second is best given to all, the third to the top.
    probabilities = np.array([[0.6, 0.2, 0.9], [0.3, 0.4, 0.5], [0.8, 0.6, 0.1]])
    gold = np.array([[1, 1, 1], [0, 1, 0], [1, 1, 0]], bool)
    assert metrics.best_thresholds(probabilities, gold) == pytest.approx([0.45, 0.1, 0.7])


def test_no_threshold_lies_between_equal_probabilities() -> None:
    # Taking one of the two 0.75 alone would have F1 1; both have 2/3, all three 1/2.
    probabilities = np.array([[0.75], [0.75], [0.25]])
    for gold in ([1, 0, 0], [0, 1, 0]):
        found = metrics.best_thresholds(probabilities, np.array([gold], bool).T)
        assert found == [0.5]
    # Where everything is equal the only cut is below.
    assert metrics.best_thresholds(np.full((3, 1), 0.5), np.array([[1], [0], [0]], bool)) == [0.25]


def test_a_label_without_any_example_keeps_one_half() -> None:
    probabilities = np.array([[0.9, 0.9], [0.8, 0.1]])
    gold = np.array([[0, 1], [0, 0]], bool)
    assert metrics.best_thresholds(probabilities, gold) == [0.5, 0.5]
    assert metrics.best_thresholds(np.zeros((0, 2)), np.zeros((0, 2), bool)) == [0.5, 0.5]


def test_a_row_that_is_malformed_twice_over_is_left_out_once() -> None:
    # Both its labels and its text are malformed.
    rows = table([["a"], 0.5, ["b"]], text=["film", None, "book"])
    task = create(rows, on_bad_row="skip")
    examples = task.examples(rows, labeled=True)
    assert [example.label for example in examples] == [(1, 0), (0, 1)]
    assert examples.malformed == 1

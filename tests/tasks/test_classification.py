"""Classification, the data side: labels, encoding, metrics."""

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from flaxbert.config import DataConfig
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.metrics import classification as metrics
from flaxbert.tasks import label_names as names
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.classification import Classification, ClassificationOptions
from flaxbert.tasks.texts import TextExample as Example
from flaxbert.types import TaskOutputs


def table(labels: Sequence[Any], label_names: list[str] | None = None, **columns: Any) -> Table:
    """One row a label; `columns` are lists of equal length."""
    columns = {"text": ["film"] * len(labels), "label": labels} | columns
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    names = {} if label_names is None else {"label": label_names}
    return Table(
        "train.tsv", [Record(row, f"train.tsv:{n}") for n, row in enumerate(rows, 2)], names
    )


def create(
    train: Table | None,
    options: ClassificationOptions | None = None,
    hf: dict | None = None,
    **data: Any,
) -> Classification:
    config, options = DataConfig(**data), options or ClassificationOptions()
    raw = None if train is None else Classification.read(train, config, options, labeled=True)
    return Classification.create(config, options, raw, hf or {})


def gold(task: Classification, rows: Table) -> list[int | None]:
    return [example.label for example in task.examples(rows, labeled=True)]


# --- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "labels", "indices"),
    [
        (["good", "bad", "good"], ("bad", "good"), [1, 0, 1]),  # names, sorted
        ([1, 0, 1], ("0", "1"), [1, 0, 1]),  # integers
        (["10", "9", "2"], ("2", "9", "10"), [2, 1, 0]),  # digits sort as numbers
        ([5, 3, 5], ("3", "5"), [1, 0, 1]),  # integers need not begin at 0
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 0, 1]),  # of a column that had a null
        (["1.0", "0.0", "1"], ("0", "1"), [1, 0, 1]),  # the same as text
        ([True, False, True], ("False", "True"), [1, 0, 1]),
    ],
)
def test_labels_come_from_the_training_rows(values: list, labels: tuple, indices: list) -> None:
    train = table(values)
    task = create(train)
    assert task.labels == labels
    assert gold(task, train) == indices


@pytest.mark.parametrize("one", ["1.0", 1.0, ["1.0"], "['1.0']"])
def test_labels_with_decimals_are_names_and_no_indices(one: Any, caplog: Any) -> None:
    labels = ("1.0", "1.5", "2.0")
    rows = table([one, "1.5", "2.0"])
    trained = create(rows, ClassificationOptions(labels=labels))
    assert gold(trained, rows) == [0, 1, 2]
    checkpoint = trained.hf_config()
    assert gold(create(None, hf=checkpoint), rows) == [0, 1, 2]
    again = create(rows, hf=checkpoint)
    assert again.labels == labels
    assert gold(again, rows) == [0, 1, 2]
    with pytest.raises(DataError, match="label '0' is none of"):
        gold(again, table(["0"]))
    assert not caplog.messages


def test_labels_with_decimals_are_not_refused_as_counted_from_1() -> None:
    task = create(None, ClassificationOptions(labels=("1.0", "2.0")))
    assert gold(task, table(["1.0", "2.0"])) == [0, 1]


def test_an_option_that_is_not_set_is_not_named() -> None:
    with pytest.raises(ConfigError, match="reinit_head") as caught:
        create(table(["bad", "new"]), hf=CHECKPOINT)
    assert "options.labels" not in str(caught.value)


@pytest.mark.parametrize("null", [None, math.nan])
def test_a_null_among_floats_is_no_label(null: Any) -> None:
    train = table([1.0, 0.0, null])
    task = create(train)
    assert task.labels == ("0", "1")
    with pytest.raises(DataError, match=r"train\.tsv:4: label"):
        task.examples(train, labeled=True)
    assert gold(create(train, on_bad_row="skip"), train) == [1, 0]


@pytest.mark.parametrize("odd", [["good", "bad"], {"good": 1}, 0.5])
def test_a_row_that_is_skipped_adds_no_label(odd: Any) -> None:
    train = table(["good", "bad", odd])
    task = create(train, on_bad_row="skip")
    assert task.labels == ("bad", "good")
    assert gold(task, train) == [1, 0]


def test_a_label_of_thousands_of_digits_is_a_name() -> None:
    train = table(["1" * 9999, "2"])
    task = create(train)
    assert task.labels == ("1" * 9999, "2")
    assert gold(task, train) == [0, 1]


@pytest.mark.parametrize("number", [int, float])
def test_names_of_the_data_set_explain_its_integers(number: Any) -> None:
    train = table([number(1), number(0), number(1)], label_names=["negative", "positive"])
    task = create(train)
    assert task.labels == ("negative", "positive")
    assert gold(task, train) == [1, 0, 1]


def test_integers_of_a_named_data_set_are_indices_even_if_names_are_digits() -> None:
    task = create(table([0, 1], label_names=["1", "0"]))
    assert gold(task, table([0, 1], label_names=["1", "0"])) == [0, 1]
    assert gold(task, table(["0", "1"])) == [1, 0]  # in a file, "0" is a name


@pytest.mark.parametrize(
    "names",
    [
        ["negative", "positive"],
        ["positive", "negative"],
    ],
)
def test_integers_of_a_named_data_set_go_by_name_to_labels_in_another_order(names: list) -> None:
    task = create(None, hf={"id2label": {"0": "negative", "1": "positive"}})
    rows = table([0, 1], label_names=names)
    assert gold(task, rows) == [task.labels.index(name) for name in names]


def test_the_options_give_the_order_of_labels() -> None:
    train = table(["good", "bad"])
    task = create(train, ClassificationOptions(labels=("good", "bad")))
    assert gold(task, train) == [0, 1]


def test_digits_are_indices_of_named_labels_and_the_meaning_is_logged(caplog: Any) -> None:
    task = create(None, ClassificationOptions(labels=("bad", "good")))
    with caplog.at_level("INFO", "flaxbert"):
        assert gold(task, table(["1", 0, 1.0])) == [1, 0, 1]
    assert caplog.messages == ["train.tsv: integer labels are read as 0 = bad, 1 = good"]


def test_the_meaning_of_integers_is_not_logged_if_the_data_set_has_names(caplog: Any) -> None:
    with caplog.at_level("INFO", "flaxbert"):
        gold(create(table([0, 1])), table([0, 1]))
        gold(create(table([0, 1], ["bad", "good"])), table([0, 1], ["bad", "good"]))
        gold(create(table(["bad", "good"])), table(["bad", "good"]))
    assert not caplog.messages


CHECKPOINT = {"id2label": {"1": "bad", "0": "good", "2": "fair"}}


def test_without_training_data_labels_are_the_checkpoints() -> None:
    task = create(None, hf=CHECKPOINT)
    assert task.labels == ("good", "bad", "fair")


def test_the_checkpoints_order_wins_where_it_covers_the_rows() -> None:
    assert create(table(["bad", "good"]), hf=CHECKPOINT).labels == ("good", "bad", "fair")


@pytest.mark.parametrize("labels", [("bad", "good", "fair"), ("good", "bad"), ("a", "b", "c")])
@pytest.mark.parametrize("train", [None, table(["good", "bad"])])
def test_other_labels_than_those_of_a_trained_head_are_refused(labels: Any, train: Any) -> None:
    # They would silently give its outputs other names.
    with pytest.raises(ConfigError, match=r"has \['good', 'bad', 'fair'\].*reinit_head"):
        create(train, ClassificationOptions(labels=labels), hf=CHECKPOINT)


def test_new_labels_need_a_fresh_head() -> None:
    with pytest.raises(ConfigError, match="reinit_head"):
        create(table(["bad", "new"]), hf=CHECKPOINT)


def test_a_number_is_no_index_among_labels_that_are_numbers() -> None:
    task = create(table(["1", "2", "3"]))
    with pytest.raises(DataError, match="label '0' is none of"):
        gold(task, table(["0"]))


def test_default_label_names_of_a_checkpoint_do_not_constrain_training() -> None:
    hf = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert create(table(["good", "bad"]), hf=hf).labels == ("bad", "good")
    assert create(None, ClassificationOptions(labels=("bad", "good")), hf=hf).labels == (
        "bad",
        "good",
    )


def test_a_model_trained_on_placeholder_names_is_evaluated_with_them(caplog: Any) -> None:
    train = table(["LABEL_1", "LABEL_0"])
    task = create(None, hf=create(train).hf_config())
    assert task.labels == ("LABEL_0", "LABEL_1")
    assert gold(task, train) == [1, 0]
    with caplog.at_level("INFO", "flaxbert"):
        assert gold(task, table([0, 1])) == [0, 1]
    assert "0 = LABEL_0, 1 = LABEL_1" in caplog.text
    with pytest.raises(DataError, match=r"'good' is none of .*LABEL_1.*config\.options\.labels"):
        task.examples(table(["good", "bad"]), labeled=True)


@pytest.mark.parametrize(
    "names", [["good", "bad", "awful"], ["LABEL_A", "LABEL_B"], ["LABEL_1", "LABEL_2"]]
)
def test_exported_names_come_back(names: list[str]) -> None:
    task = create(table(names))
    assert create(None, hf=task.hf_config()).labels == task.labels == tuple(sorted(names))


@pytest.mark.parametrize(
    ("labels", "options", "parts"),
    [
        (
            ["good", "good"],
            ClassificationOptions(),
            ["two labels or more", "['good']", "config.options.labels"],
        ),
        (
            ["a", "b"],
            ClassificationOptions(labels=("a", "a")),
            ["options.labels", "a name occurs twice"],
        ),
        (["a", "b"], ClassificationOptions(positive="c"), ["options.positive='c'", "one of a, b"]),
    ],
)
def test_impossible_labels_are_refused(
    labels: list, options: ClassificationOptions, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        create(table(labels), options)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("label", ["awful", 2, "2", -1, True, None, 0.5])
def test_an_unknown_label_is_named_with_its_line(label: object) -> None:
    task = create(table(["good", "bad"]))
    with pytest.raises(DataError) as caught:
        task.examples(table(["good", label]), labeled=True)
    for part in ("train.tsv:3: label", repr(label), "['bad', 'good']"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("label", "advice"),
    [
        ("awful", "list all labels with --config.options.labels"),
        (0.5, "--config.task=regression"),
        ("0.5", "--config.task=regression"),
        (-1, "take another split"),
        (None, "The label is missing"),
        (math.nan, "The label is missing"),
        (["good", "bad"], "--config.task=multi_label"),
    ],
)
def test_the_advice_fits_the_label(label: Any, advice: str) -> None:
    task = create(table(["good", "bad"]))
    with pytest.raises(DataError) as caught:
        task.examples(table(["good", label]), labeled=True)
    assert advice in str(caught.value)


@pytest.mark.parametrize("label", [["good"], ("good",), "['good']", '["good"]'])
def test_a_list_of_one_label_is_the_label(label: Any) -> None:
    train = table([label, "bad"])
    task = create(train)
    assert task.labels == ("bad", "good")
    assert gold(task, train) == [1, 0]


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize("known", [None, ["bad", "fair", "good"]])
def test_integers_that_are_counted_from_1_are_refused(on_bad_row: str, known: Any) -> None:
    rows = table([1, 2, 3, 2] * 5, known)
    for options in (ClassificationOptions(labels=("bad", "fair", "good")), ClassificationOptions()):
        if known is None and not options.labels:
            assert create(rows).labels == ("1", "2", "3")  # labels of their own
            continue
        with pytest.raises(DataError, match=r"train\.tsv: .* counted from 1 .*subtract 1"):
            create(rows, options, on_bad_row=on_bad_row).examples(rows, labeled=True)
        options = dataclasses.replace(options, balanced_class_weights=True)
        with pytest.raises(DataError, match="counted from 1"):
            create(rows, options, on_bad_row=on_bad_row)


def test_a_class_that_is_unknown_is_not_skipped() -> None:
    task = create(None, ClassificationOptions(labels=("ham", "spam")), on_bad_row="skip")
    single = table(["ham", "spam"] * 20 + ["hamm", "spma", "hma"])
    assert len(task.examples(single, labeled=True)) == 40
    with pytest.raises(DataError) as caught:
        task.examples(table(["ham", "spam"] * 20 + ["eggs"] * 4), labeled=True)
    for part in ("train.tsv:42: label 'eggs' is none", "4 of 44 rows are malformed for one cause"):
        assert part in str(caught.value)


def test_a_rare_class_that_is_unknown_is_not_skipped() -> None:
    known = tuple(f"c{n}" for n in range(29))
    task = create(None, ClassificationOptions(labels=known), on_bad_row="skip")
    rows = table([*known, "c29"] * 4)
    with pytest.raises(DataError, match=r"4 of 120 rows are malformed for one cause, label 'c29'"):
        task.examples(rows, labeled=True)


def test_several_unknown_labels_are_counted_together() -> None:
    task = create(None, ClassificationOptions(labels=("ham", "spam")), on_bad_row="skip")
    odd = [f"odd {n}" for n in range(6)]
    with pytest.raises(DataError, match=r":82: label 'odd 0' .*6 of 86 rows.* unknown or missing"):
        task.examples(table(["ham", "spam"] * 40 + odd), labeled=True)
    assert len(task.examples(table(["ham", "spam"] * 60 + odd), labeled=True)) == 120


def test_a_few_missing_labels_are_skipped_but_not_many() -> None:
    task = create(None, ClassificationOptions(labels=("ham", "spam")), on_bad_row="skip")
    rows = table(["ham", "spam"] * 60 + [None, "", math.nan] * 2)
    assert len(task.examples(rows, labeled=True)) == 120
    with pytest.raises(DataError, match=r"6 of 46 rows .* unknown or missing labels"):
        task.examples(table(["ham", "spam"] * 20 + [None, "", math.nan] * 2), labeled=True)


def test_rows_that_are_malformed_for_the_most_part_are_not_skipped() -> None:
    task = create(None, ClassificationOptions(labels=("ham", "spam")), on_bad_row="skip")
    rows = table(["ham"] * 9, text=["film"] * 4 + [None] * 5)
    with pytest.raises(DataError, match=r"train\.tsv:6: text is None.* 5 of 9 rows are"):
        task.examples(rows, labeled=True)
    assert len(task.examples(table(["ham"] * 9, text=["x"] * 5 + [None] * 4), labeled=True)) == 5


def test_columns_of_flags_are_seen_for_what_they_are() -> None:
    rows = table(["x"] * 3, good=[1, 0, 0], bad=["0", "1", "1"], length=[1, 2, 3])
    with pytest.raises(DataError) as caught:
        create(rows, ClassificationOptions(label="label2"))
    expected = "--config.task=multi_label --config.options.label_columns=good,bad"
    assert expected in str(caught.value)


def test_a_training_row_without_label_is_named_with_its_line() -> None:
    train = table(["good", "bad", None])
    del train.rows[2].values["label"]  # as in a .jsonl
    with pytest.raises(DataError, match=r"train\.tsv:4: label None"):
        create(train).examples(train, labeled=True)


def test_prediction_needs_no_label_column() -> None:
    rows = Table("x.tsv", [Record({"text": "film"}, "x.tsv:2")])
    (example,) = create(table(["good", "bad"])).examples(rows, labeled=False)
    assert example == Example("film", None, None, None, "x.tsv:2")


@pytest.mark.parametrize(
    ("options", "data", "key"),
    [
        (ClassificationOptions(text="sentence"), {}, "options.text"),
        (ClassificationOptions(pair="other"), {}, "options.pair"),
        (ClassificationOptions(label="gold"), {}, "options.label"),
        (ClassificationOptions(), {"slices": "language"}, "data.slices"),
    ],
)
def test_an_absent_column_names_the_key_to_set(
    options: ClassificationOptions, data: dict, key: str
) -> None:
    options = dataclasses.replace(options, labels=("good", "bad"))
    with pytest.raises(DataError, match=f"no column .* --config.{key}=COLUMN"):
        create(None, options, **data).examples(table(["good"]), labeled=True)


def test_a_text_that_is_none_is_named_with_its_line() -> None:
    task = create(table(["good", "bad"], other=["a", "b"]), ClassificationOptions(pair="other"))
    with pytest.raises(DataError, match=r"train\.tsv:3: other is None; expected a text"):
        task.examples(table(["good", "bad"], other=["film", None]), labeled=True)


# --- encoding ----------------------------------------------------------------------------------


def encode(tokenizer: Any, texts: list, pairs: list | None = None, max_length: int = 16) -> Any:
    options = ClassificationOptions(pair=None if pairs is None else "pair", labels=("bad", "good"))
    task = create(None, options, max_length=max_length)
    columns = {} if pairs is None else {"pair": pairs}
    rows = table(["good"] * len(texts), text=texts, **columns)
    return task.featurize(task.examples(rows, labeled=True), tokenizer, labeled=True)


def pieces(tokenizer: Any, features: Any, feature: int = 0) -> list[str]:
    here = slice(features.sequence_start[feature], features.sequence_start[feature + 1])
    return tokenizer.convert_ids_to_tokens(features.per_token["input_ids"][here].tolist())


def test_a_text_is_enclosed_in_cls_and_sep(tokenizer: Any) -> None:
    features = encode(tokenizer, ["A good film", "bad"])
    assert pieces(tokenizer, features, 0) == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert pieces(tokenizer, features, 1) == ["[CLS]", "bad", "[SEP]"]
    assert features.lengths.tolist() == [5, 3]
    assert not features.per_token["token_type_ids"].any()
    assert features.token_indices["cls_position"].tolist() == [0, 0]
    assert features.per_sequence["label"].tolist() == [1, 1]
    assert features.example_index.tolist() == [0, 1]
    assert features.truncated_count == 0


def test_the_second_text_has_token_type_1_and_its_sep_too(tokenizer: Any) -> None:
    features = encode(tokenizer, ["good film"], ["the old book"])
    expected = ["[CLS]", "good", "film", "[SEP]", "the", "old", "book", "[SEP]"]
    assert pieces(tokenizer, features) == expected
    assert features.per_token["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_truncated_texts_are_cut_at_the_end_and_counted(tokenizer: Any) -> None:
    features = encode(tokenizer, ["the old red book", "the old book", "film"], max_length=5)
    assert features.truncated_count == 1  # the second fits exactly
    assert features.lengths.tolist() == [5, 5, 3]
    assert pieces(tokenizer, features, 0) == ["[CLS]", "the", "old", "red", "[SEP]"]


def test_of_a_pair_the_longer_text_is_cut(tokenizer: Any) -> None:
    features = encode(tokenizer, ["film"], ["the old red book by the queen"], max_length=8)
    expected = ["[CLS]", "film", "[SEP]", "the", "old", "red", "book", "[SEP]"]
    assert pieces(tokenizer, features) == expected
    assert features.truncated_count == 1


def test_features_without_labels_have_no_label_array(tokenizer: Any) -> None:
    task = create(table(["good", "bad"]))
    examples = task.examples(table(["?"]), labeled=False)
    assert task.featurize(examples, tokenizer, labeled=False).per_sequence == {}


# --- decoding and scores -----------------------------------------------------------------------


def decode(task: Classification, examples: list[Example], rows: list[list[float]]) -> list[dict]:
    features = Features.build({"input_ids": [[0]] * len(examples)})
    return task.decode(examples, features, TaskOutputs({"probability": np.array(rows)}, {}))


def test_the_most_probable_label_is_predicted() -> None:
    task = create(None, ClassificationOptions(pair="other", labels=("bad", "good")))
    examples = task.examples(table(["good"], other=["book"]), labeled=True)
    (record,) = decode(task, examples, [[0.25, 0.75]])
    assert record == {
        "text": "film",
        "pair": "book",
        "label": "good",
        "probability": {"bad": 0.25, "good": 0.75},
    }


def records(labels: Sequence[str]) -> list[dict]:
    return [{"label": label} for label in labels]


def test_each_slice_has_its_metrics() -> None:
    train = table(["good", "bad", "good", "bad"], language=["en", "de", "en", "en"])
    task = create(train, slices="language")
    examples = task.examples(train, labeled=True)
    found = score_with_slices(task, examples, records(["good", "good", "bad", "bad"]))
    assert found["accuracy"] == 2 / 4
    assert found["accuracy/en"] == pytest.approx(2 / 3)
    assert found["accuracy/de"] == 0
    assert {name for name in found if "/" in name} == {
        f"{name}/{part}" for name in found if "/" not in name for part in ("en", "de")
    }


def test_scores_by_hand() -> None:
    # Gold b b b b a a, predicted b b b a b a. Of class b: 3 right, 1 missed, 1 too many.
    train = table(list("bbbbaa"))
    task = create(train)
    found = task.score(task.examples(train, labeled=True), records("bbbaba"))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx(3 / 4)  # P = R = 3/4, of the second label
    assert found["f1_macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)  # class a: P = R = 1/2
    # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (3*1 - 1*1) / sqrt(4*4*2*2)
    assert found["matthews"] == pytest.approx(2 / 8)
    # Wilson's interval of 4 in 6, from its defining equation |p - 4/6| = z sqrt(p (1 - p) / 6).
    for bound in (found["accuracy_low95"], found["accuracy_high95"]):
        assert abs(bound - 4 / 6) == pytest.approx(1.959963985 * math.sqrt(bound * (1 - bound) / 6))
    assert found["accuracy_low95"] < 4 / 6 < found["accuracy_high95"]


def test_f1_is_of_the_label_chosen_as_positive() -> None:
    train = table(list("bbbbaa"))
    task = create(train, ClassificationOptions(positive="a"))
    found = task.score(task.examples(train, labeled=True), records("bbbaba"))
    assert found["f1"] == pytest.approx(1 / 2)


def test_three_labels_have_no_plain_f1() -> None:
    train = table(list("abc"))
    task = create(train)
    assert "f1" not in task.score(task.examples(train, labeled=True), records("abc"))


def brute_f1(gold: list[int], predicted: list[int], label: int) -> float:
    """2 TP / (2 TP + FP + FN) by counting; 0 for 0 / 0 (scikit-learn's zero_division=0)."""
    pairs = list(zip(gold, predicted, strict=True))
    hits = sum(g == p == label for g, p in pairs)
    wrong = sum((g == label) != (p == label) for g, p in pairs)
    return 2 * hits / (2 * hits + wrong) if hits + wrong else 0.0


def brute_matthews(gold: list[int], predicted: list[int], classes: int) -> float:
    """Correlation of the two one-hot matrices, every column centred (Gorodkin 2004, equation 2)."""
    x, y = (np.eye(classes)[labels] for labels in (gold, predicted))
    x, y = x - x.mean(0), y - y.mean(0)
    spread = math.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / spread) if spread else 0.0


@pytest.mark.parametrize("seed", range(30))
def test_scores_equal_their_definitions_counted_out(seed: int) -> None:
    chance = random.Random(seed)
    classes, count = chance.randint(2, 5), chance.randint(1, 12)
    gold, predicted = ([chance.randrange(classes) for _ in range(count)] for _ in range(2))
    matrix = metrics.confusion(np.array(gold), np.array(predicted), classes)
    for g, p in itertools.product(range(classes), repeat=2):
        assert matrix[g, p] == sum(pair == (g, p) for pair in zip(gold, predicted, strict=True))
    for label in range(classes):
        assert metrics.f1(matrix, label) == pytest.approx(brute_f1(gold, predicted, label))
    # scikit-learn's f1_score(average="macro") averages over the labels present in either list.
    present = sorted({*gold, *predicted})
    macro = sum(brute_f1(gold, predicted, label) for label in present) / len(present)
    assert metrics.f1_macro(matrix) == pytest.approx(macro)
    assert metrics.matthews(matrix) == pytest.approx(brute_matthews(gold, predicted, classes))


def test_scores_of_no_examples_are_numbers() -> None:
    matrix = metrics.confusion(np.array([], int), np.array([], int), 2)
    assert (metrics.f1_macro(matrix), metrics.matthews(matrix)) == (0, 0)
    assert metrics.accuracy_with_interval(0, 0)["accuracy"] == 0
    assert metrics.wilson(0, 0) == (0, 1)


class Counted(str):
    """A label that counts how often it is looked at."""

    looks = 0

    def isdecimal(self) -> bool:
        Counted.looks += 1
        return super().isdecimal()

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_row_does_not_look_at_all_labels() -> None:
    # A thousand labels and a million rows are common.
    labels = tuple(Counted(f"label {n}") for n in range(100))
    train = table([f"label {n % 100}" for n in range(1000)])
    task = create(train, ClassificationOptions(labels=labels))
    Counted.looks = 0
    examples = task.examples(train, labeled=True)
    task.score(examples, [{"label": f"label {n % 100}"} for n in range(1000)])
    assert [example.label for example in examples[:3]] == [0, 1, 2]
    assert Counted.looks < 10 * 1000  # a few a row and a few a label


def test_labels_are_found_as_in_a_tuple() -> None:
    labels = names.Labels(("b", "a", "7"))
    assert labels == ("b", "a", "7")
    assert (labels.index("a"), "a" in labels, "c" in labels) == (1, True, False)
    assert labels.numbered
    with pytest.raises(ValueError, match="not in tuple"):
        labels.index("c")


def test_a_label_that_is_the_rest_of_a_file_is_shown_by_its_beginning() -> None:
    # As behind a quote that is closed many lines too late.
    with pytest.raises(DataError, match=r"train\.csv:1: label 'good.*\.\.\. is none of") as caught:
        names.to_index("good\n" + "fine,good\n" * 99_999, ("bad", "good"), None, "train.csv:1")
    assert len(str(caught.value)) < 500

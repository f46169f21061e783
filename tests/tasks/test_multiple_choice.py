"""Multiple choice: SWAG's and ARC's form, and a softmax over sequences in different rows."""

import random
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close
from toy import parts_of

from flaxbert.config import DataConfig
from flaxbert.data.batching import Batch, Batches
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.models.bert import BertConfig
from flaxbert.models.model import Model
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.losses import group_log_softmax
from flaxbert.tasks.multiple_choice import ChoiceExample, MultipleChoice, MultipleChoiceOptions
from flaxbert.types import TaskOutputs

SWAG = MultipleChoiceOptions(
    question="sent1",
    prefix="sent2",
    choices=("ending0", "ending1", "ending2"),
)
ARC = MultipleChoiceOptions(label="answerKey")


def table(*rows: dict[str, Any]) -> Table:
    return Table("train.jsonl", [Record(row, f"train.jsonl:{n}") for n, row in enumerate(rows, 1)])


def create(options: MultipleChoiceOptions | None = None, **data: Any) -> MultipleChoice:
    return MultipleChoice.create(DataConfig(**data), options or MultipleChoiceOptions(), None, {})


def read(options: MultipleChoiceOptions, *rows: dict[str, Any], **data: Any) -> list[ChoiceExample]:
    return create(options, **data).examples(table(*rows), labeled=True)


def plain(choices: Any = ("red", "blue"), label: Any = 0, **more: Any) -> dict[str, Any]:
    return {"question": "what?", "choices": choices, "label": label} | more


# --- reading -----------------------------------------------------------------------------------


def test_a_list_of_choices_and_the_right_ones_number() -> None:
    rows = [plain(["red", "blue", "old"], 2), plain(("good", "bad"), "1"), plain(label=1.0)]
    first, second, third = read(MultipleChoiceOptions(), *rows)
    assert first == ChoiceExample("what?", ("red", "blue", "old"), 2, None, "train.jsonl:1")
    assert (second.choices, second.label) == (("good", "bad"), 1)
    assert third.label == 1


@pytest.mark.parametrize("cell", ["['red', 'blue']", '["red", "blue"]', "['red' 'blue']"])
def test_a_cell_may_hold_a_printed_list_of_choices(cell: str) -> None:
    (example,) = read(MultipleChoiceOptions(), plain(cell, "1"))
    assert (example.choices, example.label) == (("red", "blue"), 1)


def test_numbers_that_are_counted_from_1_are_refused() -> None:
    rows = [plain(label=n) for n in (1, 2, 1)]
    for on_bad_row in ("error", "skip"):
        with pytest.raises(DataError, match=r"train\.jsonl: labels are counted from 1 \(1 to 2\)"):
            read(MultipleChoiceOptions(), *rows, on_bad_row=on_bad_row)
    named = {"text": ["red", "blue"], "label": ["1", "2"]}
    assert [e.label for e in read(MultipleChoiceOptions(), *(plain(named, n) for n in (1, 2)))] == [
        0,
        1,
    ]


def swag(label: Any = 1) -> dict[str, Any]:
    endings = {"ending0": "reads.", "ending1": "was red.", "ending2": "visited paris."}
    return {"sent1": "He read a book.", "sent2": "The king", **endings, "label": label}


def test_swag_has_a_column_for_each_ending_and_words_before_all() -> None:
    (example,) = read(SWAG, swag())
    assert example.question == "He read a book."
    assert example.choices == ("The king reads.", "The king was red.", "The king visited paris.")
    assert example.label == 1


def test_columns_of_choices_keep_the_options_order() -> None:
    options = MultipleChoiceOptions(question="sent1", choices=("ending2", "ending0"))
    (example,) = read(options, swag(label=0))
    assert example.choices == ("visited paris.", "reads.")  # and 0 is the first of these


@pytest.mark.parametrize("empty", ["", None])
def test_the_last_columns_of_choices_may_be_empty(empty: Any) -> None:
    row = swag() | {"ending2": empty}
    (example,) = read(SWAG, row)
    assert example.choices == ("The king reads.", "The king was red.")
    with pytest.raises(DataError, match=r"jsonl:1: label is 2; expected one of 0, 1\."):
        read(SWAG, row | {"label": 2})
    with pytest.raises(DataError, match="1 choices; at least two"):
        read(SWAG, row | {"ending1": empty})


def test_a_column_of_choices_may_not_be_null_before_another() -> None:
    with pytest.raises(DataError, match="expected a list of texts"):
        read(SWAG, swag() | {"ending1": None})


def arc(names: list[Any], key: Any) -> dict[str, Any]:
    texts = ["london", "paris", "river", "city", "king"][: len(names)]
    return {"question": "where?", "choices": {"text": texts, "label": names}, "answerKey": key}


@pytest.mark.parametrize(
    ("names", "key", "label"),
    [
        (["A", "B", "C", "D"], "C", 2),
        (["A", "B", "C", "D", "E"], "E", 4),
        (["1", "2", "3", "4"], "1", 0),  # numbers as names: not a place from 0
        ([1, 2, 3], 3, 2),
        (["D", "C", "A"], "A", 2),
    ],
)
def test_arc_names_its_choices(names: list[Any], key: Any, label: int) -> None:
    (example,) = read(ARC, arc(names, key))
    assert example.label == label
    assert len(example.choices) == len(names)


def test_choices_with_texts_but_no_names_count_from_zero() -> None:
    (example,) = read(MultipleChoiceOptions(), plain({"text": ["red", "blue"]}, 1))
    assert (example.choices, example.label) == (("red", "blue"), 1)


def test_prediction_needs_neither_label_nor_slice() -> None:
    row = {"question": "what?", "choices": ["red", "blue"]}
    (example,) = create(slices="language").examples(table(row), labeled=False)
    assert example == ChoiceExample("what?", ("red", "blue"), None, None, "train.jsonl:1")


def test_the_slice_is_read_where_there_are_labels() -> None:
    (example,) = read(MultipleChoiceOptions(), plain(language="en"), slices="language")
    assert example.slice == "en"


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (plain("red, blue"), ["choices is 'red, blue'", "expected a list of texts"]),
        (plain(["red", None]), ["choices is", "expected a list of texts"]),
        (plain(["red", 2]), ["expected a list of texts"]),
        (plain(None), ["choices is None"]),
        (plain({"label": ["A", "B"]}), ["choices is None", "expected a list of texts"]),
        (plain(["red"]), ["1 choices", "at least two"]),
        (plain([]), ["0 choices", "at least two"]),
        (plain({"text": ["red", "blue"], "label": ["A"]}, "A"), ["2 choices, but their names are"]),
        (
            plain({"text": ["red", "blue"], "label": ["A", "A"]}, "A"),
            ["a different text or number for each"],
        ),
        (
            plain({"text": ["red", "blue"], "label": ["A", None]}, None),
            ["a different text or number for each"],
        ),
        (plain(label=2), ["label is 2", "one of 0, 1"]),
        (plain(label=-1), ["label is -1"]),
        (plain(label=None), ["label is None"]),
        (plain(label=True), ["label is True"]),
        (plain(label=0.5), ["label is 0.5"]),
        (plain(label="B"), ["label is 'B'", "one of 0, 1"]),
        (plain({"text": ["red", "blue"], "label": ["A", "B"]}, 0), ["label is 0", "one of A, B"]),
        (plain(question=None), ["question is None; expected a text"]),
        (plain(question=["what?"]), ["question is ['what?']; expected a text"]),
    ],
)
def test_a_bad_row_is_named_with_its_line(row: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(MultipleChoiceOptions(), plain(), row)
    for part in ("train.jsonl:2: ", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        (MultipleChoiceOptions(), plain(), {"question": "what?", "label": 0}),
        (SWAG, swag(), {key: value for key, value in swag().items() if key != "ending1"}),
        (MultipleChoiceOptions(), plain(), plain({"text": ["red", "blue"], "label": 2})),
    ],
)
def test_a_row_without_its_choices_is_named_with_its_line(
    options: MultipleChoiceOptions, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:2: "):
        read(options, good, bad)


def test_a_malformed_row_is_left_out_where_such_rows_are_skipped() -> None:
    rows = [plain(["red"]), plain(label=1), plain(label=2)]
    (example,) = read(MultipleChoiceOptions(), plain(), *rows, on_bad_row="skip")[1:]
    assert (example.label, example.origin) == (1, "train.jsonl:3")


@pytest.mark.parametrize("name", ["sent1", "sent2", "ending1", "label"])
def test_an_absent_column_names_its_key(name: str) -> None:
    row = swag()
    del row[name]
    key = {"sent1": "question", "sent2": "prefix", "ending1": "choices"}.get(name, name)
    with pytest.raises(DataError, match=f"no column '{name}'.*config.options.{key}"):
        read(SWAG, row)


def test_an_absent_slice_column_names_its_key() -> None:
    with pytest.raises(DataError, match=r"no column 'language'.*config\.data\.slices"):
        read(MultipleChoiceOptions(), plain(), slices="language")


def test_no_choices_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"options\.choices is empty"):
        create(MultipleChoiceOptions(choices=()))


# --- encoding ----------------------------------------------------------------------------------


def encode(tokenizer: Any, *rows: dict[str, Any], max_length: int = 16) -> Features:
    task = create(max_length=max_length)
    examples = task.examples(table(*rows), labeled=True)
    return task.featurize(examples, tokenizer, labeled=True)


def pieces(tokenizer: Any, features: Features, sequence: int) -> str:
    ids = features.tokens_of(sequence)["input_ids"].tolist()
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_each_choice_follows_the_question(tokenizer: Any) -> None:
    features = encode(tokenizer, plain(["old red", "blue"], 1), plain(["a", "b", "c"], 0))
    assert pieces(tokenizer, features, 0) == "[CLS] what ? [SEP] old red [SEP]"
    assert pieces(tokenizer, features, 1) == "[CLS] what ? [SEP] blue [SEP]"
    assert pieces(tokenizer, features, 4) == "[CLS] what ? [SEP] c [SEP]"
    assert features.tokens_of(0)["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert features.feature_index.tolist() == features.example_index.tolist() == [0, 0, 1, 1, 1]
    assert features.per_sequence["right"].tolist() == [0, 1, 1, 0, 0]
    assert features.truncated_count == 0
    assert len(features) == 2


def test_questions_that_are_cut_are_counted_once(tokenizer: Any) -> None:
    long = "the old red book"
    features = encode(tokenizer, plain([long, long]), plain([long, "a"]), plain(), max_length=8)
    assert features.truncated_count == 2
    assert pieces(tokenizer, features, 0) == "[CLS] what ? [SEP] the old red [SEP]"


def test_features_without_labels_have_no_right_choice(tokenizer: Any) -> None:
    task = create()
    examples = task.examples(table(plain()), labeled=False)
    assert task.featurize(examples, tokenizer, labeled=False).per_sequence == {}


# --- loss --------------------------------------------------------------------------------------

Groups = list[list[tuple[int, int]]]


def batch_of(counts: Sequence[int], *, segments: int = 3) -> tuple[Batch, Groups]:
    """A batch of questions with so many choices, and the slots (r, k) of each question's.

    Question n has choice n modulo their number for the right one. Rows hold `segments` sequences of
    mixed lengths; an empty row stands in front.
    """
    owner = [n for n, count in enumerate(counts) for _ in range(count)]
    places = [place for count in counts for place in range(count)]
    right = [int(place == n % counts[n]) for n, place in zip(owner, places, strict=True)]
    features = Features.build(
        {"input_ids": [[1] * (2 + (5 * s) % 3) for s in range(len(owner))]},
        example_index=owner,
        feature_index=owner,
        per_sequence={"right": right},
    )
    batches = Batches(features, len(counts), 4 * segments, segments, data_parallelism=1, steps=1)
    rows = [[], *batches.rows(0)]
    slots: dict[int, tuple[int, int]] = {}
    for r, row in enumerate(rows):
        slots |= {sequence: (r, k) for k, sequence in enumerate(row)}
    groups = [[slots[s] for s in features.sequences(n)] for n in range(len(counts))]
    return batches.build(rows), groups


COUNTS = [4, 2, 5, 3, 4, 2]


def test_the_example_choices_are_in_different_rows_next_to_unused_places() -> None:
    batch, groups = batch_of(COUNTS)
    assert [len(group) for group in groups] == COUNTS
    assert sum(len({r for r, _ in group}) > 1 for group in groups) >= 4
    assert (batch.weight[1:] == 0).any()


def test_a_choice_weighs_one_over_their_number() -> None:
    batch, groups = batch_of(COUNTS)
    for count, group in zip(COUNTS, groups, strict=True):
        assert [batch.weight[slot] for slot in group] == [np.float32(1 / count)] * count
    assert np.count_nonzero(batch.weight) == sum(COUNTS)
    assert batch.weight.sum() == pytest.approx(len(COUNTS))  # a question is one example


def at(values: Any, group: list[tuple[int, int]]) -> np.ndarray:
    """The values of a question's slots."""
    return np.array([values[slot] for slot in group])


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.asarray(scores, np.float64) - np.max(scores)
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


@jax.jit
def loss_and_gradient(scores: jax.Array, batch: Any) -> Any:
    def loss(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        return parts_of(create().loss({"logits": scores[..., None]}, batch)["loss"])

    return jax.value_and_grad(loss, has_aux=True)(scores)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_cross_entropy_of_each_question_alone(seed: int) -> None:
    chance = random.Random(seed)
    counts = chance.sample(COUNTS, len(COUNTS)) if seed else COUNTS
    batch, groups = batch_of(counts)
    scores = np.random.default_rng(seed).normal(scale=3, size=batch.weight.shape)
    scores = scores.astype(np.float32)
    (value, weight), gradient = loss_and_gradient(scores, batch)
    expected, slopes = 0.0, np.zeros(scores.shape)
    for n, group in enumerate(groups):
        log_probs = log_softmax(at(scores, group))
        right = n % len(group)
        expected -= log_probs[right]
        for place, slot in enumerate(group):
            slopes[slot] = np.exp(log_probs[place]) - (place == right)
    assert_close(value, expected)
    assert_close(weight, len(groups))
    assert_close(gradient, slopes)  # and so none in empty slots


def test_unused_places_are_added_to_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    # Zeros for thousands of empty slots, all added to group 0, would wait for one another.
    batch, _ = batch_of(COUNTS)
    places: dict[str, np.ndarray] = {}
    for name in ("segment_sum", "segment_max"):
        operation = getattr(jax.ops, name)

        def spied(data: Any, ids: Any, count: int, name: str = name, run: Any = operation) -> Any:
            places[name] = np.asarray(ids).reshape(batch.weight.shape)
            return run(data, ids, count)

        monkeypatch.setattr(jax.ops, name, spied)
    scores = np.full(batch.weight.shape, np.nan, np.float32)
    filled = batch.weight > 0
    scores[filled] = 1.0
    log_probs = np.asarray(group_log_softmax(jnp.asarray(scores), batch))
    assert np.isfinite(log_probs[filled]).all()
    assert places.keys() == {"segment_sum", "segment_max"}
    for ids in places.values():
        assert (ids[filled] == batch.group[filled]).all()
        assert (ids[~filled] >= ids.size).all()  # out of range, so dropped


def test_one_sequence_a_row_gives_the_same_loss() -> None:
    def mean(segments: int) -> float:
        batch, groups = batch_of(COUNTS, segments=segments)
        scores = np.zeros(batch.weight.shape, np.float32)
        for n, group in enumerate(groups):
            for place, slot in enumerate(group):
                scores[slot] = np.sin(7 * n + place)
        (value, weight), _ = loss_and_gradient(scores, batch)
        return float(value / weight)

    assert_close(mean(1), mean(3))


# --- softmax over groups -----------------------------------------------------------------------


@pytest.mark.parametrize("empty", [0.0, 1e30, -1e30, np.nan])
@pytest.mark.parametrize(
    "scores",
    [
        [1e4, -1e4, 0.0, 1e4],
        [1e30, 1e30, -1e30, 0.0],
        [-1e30, -1e30, -1e30, -1e30],  # far below the other group, far below float32's exp
        [88.0, 89.0, 90.0, -104.0],
        [-200.0, -201.0, -202.0, -203.0],
    ],
)
def test_extreme_scores_give_the_softmax_of_their_group(scores: list[float], empty: float) -> None:
    batch, (first, second) = batch_of([4, 2])
    values = np.full(batch.weight.shape, empty, np.float32)
    for group, given in ((first, scores), (second, [0.5, -0.5])):
        for slot, score in zip(group, given, strict=True):
            values[slot] = score
    found = np.asarray(jax.jit(group_log_softmax)(values, batch))
    assert_close(at(found, first), log_softmax(np.array(scores, np.float32)))
    assert_close(at(found, second), log_softmax(np.array([0.5, -0.5])))
    assert np.isfinite(found[batch.weight > 0]).all()


def test_extreme_scores_have_a_finite_loss_and_gradient() -> None:
    batch, (first, second) = batch_of([2, 2])
    scores = np.full(batch.weight.shape, 1e30, np.float32)
    for slot, score in zip([*first, *second], [-1e4, 1e4, 1e4, 1e4], strict=True):
        scores[slot] = score
    (value, _), gradient = loss_and_gradient(scores, batch)
    # The first question is wrong by 2e4, the second undecided.
    assert_close(value, 2e4 + np.log(2))
    expected = np.zeros(scores.shape)
    for slot, slope in zip([*first, *second], [-1, 1, 0.5, -0.5], strict=True):
        expected[slot] = slope
    assert_close(gradient, expected)


def test_empty_slots_do_not_count_among_the_choices_of_group_zero() -> None:
    # Empty slots have the number 0 in `group`, as the first question has.
    batch, (only,) = batch_of([2])
    assert (batch.group[batch.weight == 0] == 0).all()
    scores = np.full(batch.weight.shape, 3.0, np.float32)
    found = np.asarray(jax.jit(group_log_softmax)(scores, batch))
    assert_close(at(found, only), np.log([0.5, 0.5]))


# --- predictions -------------------------------------------------------------------------------


def test_the_head_gives_one_score_a_choice() -> None:
    model = Model.create(BertConfig(num_hidden_layers=1), create().make_head)
    assert model.shapes["head"]["classifier"]["kernel"].shape == (768, 1)
    assert model.architecture == "BertForMultipleChoice"


def test_probabilities_add_up_to_one_for_each_question() -> None:
    batch, groups = batch_of(COUNTS)
    scores = np.random.default_rng(0).normal(size=batch.weight.shape).astype(np.float32)
    predicted = jax.jit(create().predict)({"logits": scores[..., None]}, batch)
    found = np.asarray(predicted.per_sequence["probability"])
    for group in groups:
        expected = np.exp(log_softmax(at(scores, group)))
        assert_close(at(found, group), expected)


def test_the_most_probable_choice_is_predicted() -> None:
    task = create()
    examples = task.examples(
        table(plain(["red", "blue", "old"], 1), plain(["good", "bad"], 1)), labeled=True
    )
    owner = [0, 0, 0, 1, 1]
    features = Features.build({"input_ids": [[0]] * 5}, example_index=owner, feature_index=owner)
    probabilities = np.array([0.125, 0.625, 0.25, 0.75, 0.25], np.float32)
    records = task.decode(examples, features, TaskOutputs({"probability": probabilities}, {}))
    assert records == [
        {
            "question": "what?",
            "choice": "blue",
            "index": 1,
            "probability": [0.125, 0.625, 0.25],
        },
        {"question": "what?", "choice": "good", "index": 0, "probability": [0.75, 0.25]},
    ]
    assert task.score(examples, records)["accuracy"] == 0.5
    shown = task.table_row(examples[1], records[1])
    assert (shown["right"], shown["predicted"]) == ("bad", "good")


def test_the_accuracy_counts_places_not_texts() -> None:
    # The same text twice: only the right place is right.
    task = create(slices="language")
    rows = [plain(["a", "a"], n, language=name) for n, name in [(0, "en"), (1, "en"), (1, "de")]]
    examples = task.examples(table(*rows), labeled=True)
    found = score_with_slices(task, examples, [{"index": index} for index in (0, 0, 1)])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert (found["accuracy/en"], found["accuracy/de"]) == (0.5, 1)
    assert found["accuracy_low95"] < 2 / 3 < found["accuracy_high95"]


def test_scores_of_no_questions_are_numbers() -> None:
    assert create().score([], []) == {
        "accuracy": 0,
        "accuracy_low95": 0,
        "accuracy_high95": 1,
    }

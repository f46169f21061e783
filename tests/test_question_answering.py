"""Question answering, the data side: windows, spans, max-context, decoding, bad rows."""

import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxbert.config import DataConfig
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.data.sources import Row, Table
from flaxbert.data.windows import span as span_of
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks.base import Predictions, score_with_slices
from flaxbert.tasks.question_answering import Example, Options, QuestionAnswering

CONTEXT = "The old king built a bridge in Paris. The queen visited London, a city by the river."
# Twenty tokens: every word and mark is one of the tiny vocabulary.


def create(max_length: int = 12, overlap: int = 4, **options: int) -> QuestionAnswering:
    data = DataConfig(max_length=max_length, overlap=overlap, slices=None)
    return QuestionAnswering.create(data, Options(**options), None, {})


def row(text: str = CONTEXT, answer: str = "Paris", **changes: Any) -> Row:
    answers = {"text": [answer], "answer_start": [text.find(answer)]}
    values = {"id": "q1", "question": "Where?", "context": text, "answers": answers}
    return Row(values | changes, "squad.json: question q1")


def examples_of(task: QuestionAnswering, *rows: Row, labelled: bool = True) -> list[Example]:
    return task.examples(Table("squad.json", list(rows)), labelled=labelled)


def windows(features: Features) -> list[dict[str, list[int]]]:
    """Each feature's token arrays."""
    edges = features.starts
    return [
        {name: values[edges[f] : edges[f + 1]].tolist() for name, values in features.tokens.items()}
        for f in range(len(features))
    ]


def context_tokens(window: dict[str, list[int]]) -> list[tuple[int, int]]:
    """(first, end) character of each token of the window's context, in order."""
    pairs = zip(window["char_start"], window["char_end"], strict=True)
    return [pair for pair in pairs if pair[0] >= 0]


# --- windows -----------------------------------------------------------------------------------


def test_a_window_is_cls_question_sep_context_sep(tokenizer: Any) -> None:
    task = create(max_length=32)
    (example,) = examples_of(task, row("the old king", answer="king"))
    features = task.featurize([example], tokenizer, labelled=True)
    (window,) = windows(features)
    pieces = tokenizer.convert_ids_to_tokens(window["input_ids"])
    assert pieces == ["[CLS]", "where", "?", "[SEP]", "the", "old", "king", "[SEP]"]
    assert window["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert window["char_start"] == [-1, -1, -1, -1, 0, 4, 8, -1]
    assert window["char_end"] == [-1, -1, -1, -1, 3, 7, 12, -1]
    assert window["max_context"] == [0, 0, 0, 0, 1, 1, 1, 0]
    assert (features.positions["start"], features.positions["end"]) == ([6], [6])


@pytest.mark.parametrize("overlap", [0, 1, 4, 6])
def test_neighbouring_windows_share_exactly_the_overlap(overlap: int, tokenizer: Any) -> None:
    task = create(overlap=overlap)
    features = task.featurize(examples_of(task, row()), tokenizer, labelled=True)
    parts = [context_tokens(window) for window in windows(features)]
    assert len(parts) > 2
    assert all(features.lengths[:-1] == 12)
    for left, right in itertools.pairwise(parts):
        shared = set(left) & set(right)
        assert len(shared) == overlap
        assert left[len(left) - overlap :] == right[:overlap]
    whole = tokenizer(CONTEXT, add_special_tokens=False, return_offsets_mapping=True)
    joined = parts[0] + [token for part in parts[1:] for token in part[overlap:]]
    assert joined == whole["offset_mapping"]  # together they cover the context, in order


def test_windows_name_their_example(tokenizer: Any) -> None:
    task = create()
    long, short = row(), row("the old king", answer="king")
    features = task.featurize(examples_of(task, short, long, short), tokenizer, labelled=True)
    owners = features.example.tolist()
    assert owners == sorted(owners)
    assert set(owners) == {0, 1, 2}
    assert owners.count(1) > 2
    assert owners.count(0) == owners.count(2) == 1


def test_unlabelled_windows_carry_no_span(tokenizer: Any) -> None:
    task = create()
    examples = examples_of(task, row(answers=None), labelled=False)
    features = task.featurize(examples, tokenizer, labelled=False)
    assert features.positions.keys() == {"anchor"}


# --- spans -------------------------------------------------------------------------------------

STARTS, ENDS = (
    [-1, -1, 10, 14, 20, -1],
    [-1, -1, 13, 19, 25, -1],
)  # tokens 2, 3, 4: "xxx yyyyy.zzzzz"


@pytest.mark.parametrize(
    ("first", "last", "span"),
    [
        (10, 13, (2, 2)),  # a token
        (10, 25, (2, 4)),  # all of them
        (15, 17, (3, 3)),  # inside a token
        (12, 21, (2, 4)),  # from inside one to inside another
        (13, 19, (2, 3)),  # from the space after token 2: the token before it belongs
        (9, 13, (0, 0)),  # begins one character before the window
        (20, 26, (0, 0)),  # ends one character after it
        (0, 5, (0, 0)),  # elsewhere
        (9, 26, (0, 0)),  # around it
    ],
)
def test_span_is_the_tokens_that_hold_the_answer(
    first: int, last: int, span: tuple[int, int]
) -> None:
    assert span_of(("x" * (last - first), first), STARTS, ENDS) == span


def test_a_window_without_context_has_no_span() -> None:
    assert span_of(("x", 0), [-1, -1], [-1, -1]) == (0, 0)


def random_answers(count: int) -> list[tuple[str, int]]:
    chance = random.Random(0)
    places = []
    for _ in range(count):
        first = chance.randrange(len(CONTEXT) - 1)
        text = CONTEXT[first : first + chance.randint(1, 30)]
        if text[0] != " " and text[-1] != " ":
            places.append((text, first))
    return places


def test_every_span_inside_a_window_holds_its_answer(tokenizer: Any) -> None:
    task = create(overlap=6)
    answers = random_answers(60)
    rows = [row(answers={"text": [text], "answer_start": [at]}) for text, at in answers]
    features = task.featurize(examples_of(task, *rows), tokenizer, labelled=True)
    for f, window in enumerate(windows(features)):
        text, first = answers[features.example[f]]
        start, end = (int(features.positions[side][f]) for side in ("start", "end"))
        tokens = context_tokens(window)
        if first < tokens[0][0] or first + len(text) > tokens[-1][1]:
            assert (start, end) == (0, 0)
        else:
            held = CONTEXT[window["char_start"][start] : window["char_end"][end]]
            assert text in held
            # ... and no more than it must: without its first or last token, part is lost.
            assert window["char_end"][start] > first
            assert window["char_start"][end] < first + len(text)


def test_an_answer_across_an_edge_is_whole_in_another_window_only(tokenizer: Any) -> None:
    task = create(max_length=20, overlap=6)
    (example,) = examples_of(task, row())
    parts = [
        context_tokens(w) for w in windows(task.featurize([example], tokenizer, labelled=True))
    ]
    # From the last token of the first window to the token after it.
    first, last = parts[0][-1][0], parts[1][parts[1].index(parts[0][-1]) + 1][1]
    across = row(answers={"text": [CONTEXT[first:last]], "answer_start": [first]})
    features = task.featurize(examples_of(task, across), tokenizer, labelled=True)
    spans = list(
        zip(*(features.positions[side].tolist() for side in ("start", "end")), strict=True)
    )
    assert spans[0] == (0, 0)
    assert spans[1][0] > 0
    assert spans[1][1] == spans[1][0] + 1


# --- max context -------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_length", "overlap"), [(12, 0), (12, 4), (20, 11), (17, 10), (64, 8)])
def test_each_token_counts_in_the_window_with_most_context(
    max_length: int, overlap: int, tokenizer: Any
) -> None:
    task = create(max_length=max_length, overlap=overlap)
    long, short = row(), row("the old king", answer="king")
    features = task.featurize(examples_of(task, long, short, long), tokenizer, labelled=True)
    # Brute force over (example, character): the best window by google-research/bert's rule, the
    # smaller of left and right context plus 0.01 of the window's length, the first of equals.
    scores: dict[tuple[int, int], list[tuple[float, int]]] = {}
    marked: dict[tuple[int, int], list[int]] = {}
    for f, window in enumerate(windows(features)):
        tokens = context_tokens(window)
        for i, (first, _) in enumerate(tokens):
            key = int(features.example[f]), first
            score = min(i, len(tokens) - 1 - i) + 0.01 * len(tokens)
            scores.setdefault(key, []).append((score, -f))
        for first, mark in zip(window["char_start"], window["max_context"], strict=True):
            if mark:
                marked.setdefault((int(features.example[f]), first), []).append(f)
    assert marked == {key: [-max(places)[1]] for key, places in scores.items()}


# --- decoding ----------------------------------------------------------------------------------


def predictions_of(
    task: QuestionAnswering,
    features: Features,
    starts: list[dict[int, float]],
    ends: list[dict[int, float]],
) -> Predictions:
    """What the device sends back if scores are zero but at the given tokens: one dict a window."""
    batches = Batches(features, len(features), row_length=64, segments=4, shards=1, steps=1)
    rows = batches.full_rows(0)
    batch = batches.build(rows)
    logits = {f"{side}_logits": np.zeros(batch["input_ids"].shape) for side in ("start", "end")}
    for r, row_ in enumerate(rows):
        for k, window in enumerate(row_):
            for name, scores in zip(logits, (starts, ends), strict=True):
                for place, value in scores[window].items():
                    logits[name][r, batch["anchor"][r, k] + place] = value
    arrays = {name: jnp.asarray(array) for name, array in (logits | batch).items()}
    found = jax.device_get(task.predict(arrays, arrays))["slots"]
    where = {window: (r, k) for r, row_ in enumerate(rows) for k, window in enumerate(row_)}
    order = tuple(np.array([where[window] for window in range(len(features))]).T)
    return Predictions({name: values[order] for name, values in found.items()}, {})


SHORT = "the old king visited the red bridge"
# [CLS] where ? [SEP] the old king visited the red bridge [SEP]
#   0     1   2   3    4   5   6     7     8   9    10     11


def answer(
    tokenizer: Any, start: dict[int, float], end: dict[int, float], **options: int
) -> dict[str, Any]:
    task = create(max_length=32, **options)
    examples = examples_of(task, row(SHORT, answer="king"))
    features = task.featurize(examples, tokenizer, labelled=True)
    (record,) = task.decode(examples, features, predictions_of(task, features, [start], [end]))
    return record


def test_the_best_sum_of_start_and_end_wins(tokenizer: Any) -> None:
    record = answer(tokenizer, {5: 3.0, 9: 2.0}, {6: 1.0, 10: 5.0})
    assert record == {
        "id": "q1",
        "question": "Where?",
        "answer": "old king visited the red bridge",  # 3 + 5 beats 2 + 5 and 3 + 1
        "start": 4,
        "end": 35,
        "score": 8.0,
    }
    assert SHORT[4:35] == record["answer"]


def test_an_answer_is_not_longer_than_allowed(tokenizer: Any) -> None:
    start, end = {5: 3.0, 9: 2.0}, {6: 1.0, 10: 5.0}
    assert answer(tokenizer, start, end, max_answer_length=6)["answer"].startswith("old king")
    assert answer(tokenizer, start, end, max_answer_length=5)["answer"] == "red bridge"


def test_an_end_before_its_start_is_no_answer(tokenizer: Any) -> None:
    # Start 9 with end 6 would score 9. In order, start 9 with end 9 has 5 + 0, 6 with 6 has 0 + 4.
    record = answer(tokenizer, {9: 5.0}, {6: 4.0})
    assert (record["answer"], record["score"]) == ("red", 5.0)


def test_special_tokens_and_the_question_are_no_answer(tokenizer: Any) -> None:
    record = answer(tokenizer, {0: 9.0, 1: 9.0, 5: 1.0}, {0: 9.0, 2: 9.0, 11: 9.0, 6: 1.0})
    assert record["answer"] == "old king"


def test_only_the_n_best_starts_and_ends_are_combined(tokenizer: Any) -> None:
    start, end = {10: 9.0, 5: 8.0}, {6: 9.0}
    assert answer(tokenizer, start, end, n_best=2)["answer"] == "old king"
    nothing = answer(tokenizer, start, end, n_best=1)  # the only start lies behind the only end
    assert (nothing["answer"], nothing["score"]) == ("", None)


def test_the_best_of_all_windows_of_an_example_wins(tokenizer: Any) -> None:
    # Room for [CLS] where ? [SEP] and four tokens of context: the old king visited | king visited
    # the red. Two examples, to see that windows stay with their own.
    task = create(max_length=9, overlap=2)
    context = "the old king visited the red"
    examples = examples_of(task, *[row(context, answer="king")] * 2)
    features = task.featurize(examples, tokenizer, labelled=True)
    assert features.example.tolist() == [0, 0, 1, 1]
    starts: list[dict[int, float]] = [{5: 2.0}, {6: 3.0}, {5: 3.0}, {6: 2.0}]
    records = task.decode(examples, features, predictions_of(task, features, starts, starts))
    assert [record["answer"] for record in records] == ["the", "old"]
    assert [record["score"] for record in records] == [6.0, 6.0]
    assert records[0]["start"] == context.rindex("the")


def test_a_start_counts_only_where_its_context_is_largest(tokenizer: Any) -> None:
    task = create(max_length=9, overlap=2)
    examples = examples_of(task, row("the old king visited the red", answer="king"))
    features = task.featurize(examples, tokenizer, labelled=True)
    first, second = windows(features)
    # "king" has min(2, 1) in the first window and min(0, 3) in the second; "visited" the reverse.
    assert first["max_context"] == [0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert second["max_context"] == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    # In the second window "king" (4) scores most but does not count; "the" (6) there does.
    logits: list[dict[int, float]] = [{}, {4: 9.0, 6: 1.0}]
    (record,) = task.decode(
        examples, features, predictions_of(task, features, logits, [{}, {6: 1.0}])
    )
    assert (record["answer"], record["score"]) == ("the", 2.0)


def test_a_decoded_gold_span_scores_100(tokenizer: Any) -> None:
    task = create(overlap=6)
    rows = [row(answer=text, id=text) for text in ("Paris", "old king", "London", "the river")]
    examples = examples_of(task, *rows)
    features = task.featurize(examples, tokenizer, labelled=True)
    gold: dict[str, list[dict[int, float]]] = {}
    for side in ("start", "end"):
        gold[side] = [{place: 5.0} if place else {} for place in features.positions[side].tolist()]
    records = task.decode(
        examples, features, predictions_of(task, features, gold["start"], gold["end"])
    )
    assert task.score(examples, records) == {"exact_match": 100.0, "f1": 100.0}
    wrong = [record | {"answer": ""} for record in records]
    assert task.score(examples, wrong) == {"exact_match": 0.0, "f1": 0.0}


def test_slices_get_metrics_of_their_own() -> None:
    data = DataConfig(max_length=32, overlap=4, slices="language")
    task = QuestionAnswering.create(data, Options(), None, {})
    examples = examples_of(task, row(language="en"), row(language="de"))
    found = score_with_slices(task, examples, [{"answer": "Paris"}, {"answer": "London"}])
    assert found["exact_match/en"] == 100
    assert found["exact_match/de"] == 0
    assert found["exact_match"] == 50


# --- bad rows and options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"answers": {"text": ["Paris"], "answer_start": [30]}},
            ["answer 'Paris' is not at character 30", f"it stands at {CONTEXT.find('Paris')}"],
        ),
        (
            {"answers": {"text": ["Berlin"], "answer_start": [0]}},
            ["answer 'Berlin' is not at character 0", "the context does not contain it"],
        ),
        ({"answers": {"text": [], "answer_start": []}}, ["no answer", "remove the row"]),
        ({"answers": {"text": ["x"], "answer_start": []}}, ["of equal lengths"]),
        ({"answers": ["Paris"]}, ["answers is ['Paris']; expected {'text': [...]"]),
        ({"question": None}, ["question is None; expected a text"]),
        ({"context": 3}, ["context is 3; expected a text"]),
    ],
)
def test_a_bad_row_is_named_with_its_place(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        examples_of(create(), row(**changes))
    for part in ("squad.json: question q1: ", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("column", ["question", "context", "answers"])
def test_an_absent_column_is_named(column: str) -> None:
    bad = row()
    del bad.values[column]
    with pytest.raises(DataError, match=f"no column '{column}'"):
        examples_of(create(), bad)


def test_a_question_too_long_for_a_window_is_refused(tokenizer: Any) -> None:
    task = create(max_length=12, overlap=4)  # 12 - 3 special - 4 shared: 5, so 4 for the question
    for words, fits in (("who was the queen", True), ("who was the old queen", False)):
        examples = examples_of(task, row(question=words))
        if fits:
            assert len(task.featurize(examples, tokenizer, labelled=True)) > 1
            continue
        with pytest.raises(DataError) as caught:
            task.featurize(examples, tokenizer, labelled=True)
        for part in ("question q1", "has 5 tokens", "at most 4 fit", "data.overlap=4"):
            assert part in str(caught.value)


@pytest.mark.parametrize(("overlap", "fits"), [(16, True), (17, False), (128, False)])
def test_an_overlap_that_stops_windows_from_advancing_is_refused(overlap: int, fits: bool) -> None:
    if fits:
        create(max_length=20, overlap=overlap)
        return
    with pytest.raises(ConfigError, match=f"data.overlap={overlap} leaves no room"):
        create(max_length=20, overlap=overlap)


@pytest.mark.parametrize("name", ["n_best", "max_answer_length"])
def test_decoding_options_are_at_least_1(name: str) -> None:
    with pytest.raises(ConfigError, match=f"options.{name}=0: at least 1"):
        create(**{name: 0})

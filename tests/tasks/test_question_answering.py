"""Question answering, the data side: windows, spans, decoding, thresholds, bad rows."""

import dataclasses
import itertools
import json
import logging
import random
import unicodedata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import kinds
import numpy as np
import pytest
from toy import parts_of

from flaxbert.config import DataConfig
from flaxbert.data import readers, spans
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.data.windows import NOWHERE
from flaxbert.data.windows import span as span_of
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.question_answering import (
    QuestionAnswering,
    QuestionAnsweringOptions,
    QuestionExample,
)
from flaxbert.tasks.spans import candidates
from flaxbert.types import TaskOutputs

CONTEXT = "The old king built a bridge in Paris. The queen visited London, a city by the river."
# Twenty tokens: every word and mark is one of the tiny vocabulary.


def create(max_length: int = 12, overlap: int = 4, **options: int) -> QuestionAnswering:
    data = DataConfig(max_length=max_length, overlap=overlap, slices=None)
    return QuestionAnswering.create(data, QuestionAnsweringOptions(**options), None, {})


def row(text: str = CONTEXT, answer: str = "Paris", **changes: Any) -> Record:
    answers = {"text": [answer], "answer_start": [text.find(answer)]}
    values = {"id": "q1", "question": "Where?", "context": text, "answers": answers}
    return Record(values | changes, "squad.json: question q1")


def examples_of(
    task: QuestionAnswering, *rows: Record, labeled: bool = True
) -> list[QuestionExample]:
    return task.examples(Table("squad.json", list(rows)), labeled=labeled)


def windows(features: Features) -> list[dict[str, list[int]]]:
    """Each feature's token arrays."""
    edges = features.sequence_start
    return [
        {
            name: values[edges[f] : edges[f + 1]].tolist()
            for name, values in features.per_token.items()
        }
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
    features = task.featurize([example], tokenizer, labeled=True)
    (window,) = windows(features)
    pieces = tokenizer.convert_ids_to_tokens(window["input_ids"])
    assert pieces == ["[CLS]", "where", "?", "[SEP]", "the", "old", "king", "[SEP]"]
    assert window["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert window["char_start"] == [-1, -1, -1, -1, 0, 4, 8, -1]
    assert window["char_end"] == [-1, -1, -1, -1, 3, 7, 12, -1]
    assert window["max_context"] == [0, 0, 0, 0, 1, 1, 1, 0]
    assert (features.token_indices["start"], features.token_indices["end"]) == ([6], [6])


@pytest.mark.parametrize("overlap", [0, 1, 4, 6])
def test_neighbouring_windows_share_exactly_the_overlap(overlap: int, tokenizer: Any) -> None:
    task = create(overlap=overlap)
    features = task.featurize(examples_of(task, row()), tokenizer, labeled=True)
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
    features = task.featurize(examples_of(task, short, long, short), tokenizer, labeled=True)
    owners = features.example_index.tolist()
    assert owners == sorted(owners)
    assert set(owners) == {0, 1, 2}
    assert owners.count(1) > 2
    assert owners.count(0) == owners.count(2) == 1


def test_windows_without_labels_have_no_span(tokenizer: Any) -> None:
    task = create()
    examples = examples_of(task, row(answers=None), labeled=False)
    features = task.featurize(examples, tokenizer, labeled=False)
    assert features.token_indices.keys() == {"cls_position"}


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
        (13, 19, (3, 3)),  # from the gap behind token 2, which holds none of it
        (13, 14, (0, 0)),  # the gap alone
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


@pytest.mark.parametrize(
    ("text", "first", "span"),
    [
        (" yyyyy", 13, (3, 3)),
        ("xxx ", 10, (2, 2)),
        (" \u200bxxx yyyyy\t\n", 8, (2, 3)),  # blanks before the window too
        ("zzzzz\u200b\ufeff ", 20, (4, 4)),
        (" ", 13, (0, 0)),
        (" \u200b", 9, (0, 0)),
    ],
)
def test_blanks_at_the_ends_of_an_answer_do_not_count(
    text: str, first: int, span: tuple[int, int]
) -> None:
    assert span_of((text, first), STARTS, ENDS) == span


def test_of_tokens_of_one_character_all_are_the_answer() -> None:
    # Uncased tokenizers take a Hangul syllable apart: its letters have the syllable's offsets.
    assert span_of(("각", 2), [-1, 0, 2, 2, 2, 4], [-1, 1, 3, 3, 3, 5]) == (2, 4)


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
    features = task.featurize(examples_of(task, *rows), tokenizer, labeled=True)
    whole = set(features.example_index[features.token_indices["start"] > 0].tolist())
    for f, window in enumerate(windows(features)):
        text, first = answers[features.example_index[f]]
        start, end = (int(features.token_indices[side][f]) for side in ("start", "end"))
        tokens = context_tokens(window)
        if first < tokens[0][0] or first + len(text) > tokens[-1][1]:
            assert (start, end) == ((0, 0) if features.example_index[f] in whole else NOWHERE)
        else:
            held = CONTEXT[window["char_start"][start] : window["char_end"][end]]
            assert text in held
            # ... and no more than it must: without its first or last token, part is lost.
            assert window["char_end"][start] > first
            assert window["char_start"][end] < first + len(text)


def test_an_answer_across_an_edge_is_whole_in_another_window_only(tokenizer: Any) -> None:
    task = create(max_length=20, overlap=6)
    (example,) = examples_of(task, row())
    parts = [context_tokens(w) for w in windows(task.featurize([example], tokenizer, labeled=True))]
    # From the last token of the first window to the token after it.
    first, last = parts[0][-1][0], parts[1][parts[1].index(parts[0][-1]) + 1][1]
    across = row(answers={"text": [CONTEXT[first:last]], "answer_start": [first]})
    features = task.featurize(examples_of(task, across), tokenizer, labeled=True)
    spans = list(
        zip(*(features.token_indices[side].tolist() for side in ("start", "end")), strict=True)
    )
    assert spans[0] == (0, 0)
    assert spans[1][0] > 0
    assert spans[1][1] == spans[1][0] + 1


# Of five tokens, in windows of four, and of two.
LOST, FOUND = "king built a bridge in", "old king"


def losses_of(
    task: QuestionAnswering, features: Features, chosen: list[int]
) -> tuple[float, float]:
    """The loss of some windows, each with scores of its own, and its weight."""
    batches = Batches(
        features, len(features), row_length=40, segments=4, data_parallelism=1, steps=1
    )
    rows = [chosen[n : n + 2] for n in range(0, len(chosen), 2)]
    batch = batches.build(rows)
    logits = {f"{side}_logits": np.zeros(batch.input_ids.shape) for side in ("start", "end")}
    for r, row_ in enumerate(rows):
        for k, window in enumerate(row_):
            here = batch.segment_ids[r] == k + 1
            for number, scores in enumerate(logits.values()):
                chance = np.random.default_rng([window, number])
                scores[r, here] = chance.normal(size=here.sum())
    outputs = {name: jnp.asarray(array) for name, array in logits.items()}
    loss, weight = parts_of(task.loss(outputs, jax.tree.map(jnp.asarray, batch))["loss"])
    return float(loss), float(weight)


def test_an_answer_complete_in_no_window_is_noted_and_counts_in_no_loss(tokenizer: Any) -> None:
    task = create_v2(max_length=8, overlap=2)
    rows = [row(answer=FOUND), row(answer=LOST), row(answers=NONE), row(answer=FOUND)]
    examples = list(examples_of(task, *rows))
    examples[1] = dataclasses.replace(examples[1], origin="squad.json: question q7")
    features = task.featurize(examples, tokenizer, labeled=True)
    text = (
        "1 answers are complete in no window, the first that of squad.json: question q7; their "
        "questions count in no loss. Raise data.max_length or data.overlap."
    )
    assert features.notes == [(logging.INFO, text)]
    lost = features.example_index == 1
    for side in ("start", "end"):
        assert (features.token_indices[side][lost] == -1).all()
        assert (features.token_indices[side][~lost] >= 0).all()
    assert not features.token_indices["start"][
        features.example_index == 2
    ].any()  # there is no answer
    every, others = list(range(len(features))), np.flatnonzero(~lost).tolist()
    expected = losses_of(task, features, others)
    assert losses_of(task, features, every) == (pytest.approx(expected[0], rel=1e-5), len(others))
    assert losses_of(task, features, np.flatnonzero(lost).tolist()) == (0, 0)


def test_nothing_is_noted_if_every_answer_is_complete_in_a_window(
    tokenizer: Any, caplog: Any
) -> None:
    task = create_v2(max_length=12)
    with caplog.at_level(logging.INFO, "flaxbert"):
        examples = examples_of(task, row(answer=FOUND), row(answers=NONE, id="q2"))
        features = task.featurize(examples, tokenizer, labeled=True)
    assert not caplog.messages
    assert not features.notes
    assert (features.token_indices["start"] >= 0).all()


# --- max context -------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_length", "overlap"), [(12, 0), (12, 4), (20, 11), (17, 10), (64, 8)])
def test_each_token_counts_in_the_window_with_most_context(
    max_length: int, overlap: int, tokenizer: Any
) -> None:
    task = create(max_length=max_length, overlap=overlap)
    long, short = row(), row("the old king", answer="king")
    features = task.featurize(examples_of(task, long, short, long), tokenizer, labeled=True)
    # Brute force over (example, character): the best window by google-research/bert's rule, the
    # smaller of left and right context plus 0.01 of the window's length, the first of equals.
    scores: dict[tuple[int, int], list[tuple[float, int]]] = {}
    marked: dict[tuple[int, int], list[int]] = {}
    for f, window in enumerate(windows(features)):
        tokens = context_tokens(window)
        for i, (first, _) in enumerate(tokens):
            key = int(features.example_index[f]), first
            score = min(i, len(tokens) - 1 - i) + 0.01 * len(tokens)
            scores.setdefault(key, []).append((score, -f))
        for first, mark in zip(window["char_start"], window["max_context"], strict=True):
            if mark:
                marked.setdefault((int(features.example_index[f]), first), []).append(f)
    assert marked == {key: [-max(places)[1]] for key, places in scores.items()}


# --- decoding ----------------------------------------------------------------------------------


def predictions_of(
    task: QuestionAnswering,
    features: Features,
    starts: list[dict[int, float]],
    ends: list[dict[int, float]],
) -> TaskOutputs:
    """What the device sends back if scores are zero but at the given tokens: one dict a window."""
    batches = Batches(
        features, len(features), row_length=64, segments=4, data_parallelism=1, steps=1
    )
    rows = batches.padded_rows(0)
    batch = batches.build(rows)
    logits = {f"{side}_logits": np.zeros(batch.input_ids.shape) for side in ("start", "end")}
    for r, row_ in enumerate(rows):
        for k, window in enumerate(row_):
            for name, scores in zip(logits, (starts, ends), strict=True):
                for place, value in scores[window].items():
                    logits[name][r, batch.cls_position[r, k] + place] = value
    outputs = {name: jnp.asarray(array) for name, array in logits.items()}
    predicted = task.predict(outputs, jax.tree.map(jnp.asarray, batch))
    found = jax.device_get(predicted).per_sequence
    where = {window: (r, k) for r, row_ in enumerate(rows) for k, window in enumerate(row_)}
    order = tuple(np.array([where[window] for window in range(len(features))]).T)
    return TaskOutputs({name: values[order] for name, values in found.items()}, {})


SHORT = "the old king visited the red bridge"
# [CLS] where ? [SEP] the old king visited the red bridge [SEP]
#   0     1   2   3    4   5   6     7     8   9    10     11


def answer(
    tokenizer: Any, start: dict[int, float], end: dict[int, float], **options: int
) -> dict[str, Any]:
    task = create(max_length=32, **options)
    examples = examples_of(task, row(SHORT, answer="king"))
    features = task.featurize(examples, tokenizer, labeled=True)
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
    features = task.featurize(examples, tokenizer, labeled=True)
    assert features.example_index.tolist() == [0, 0, 1, 1]
    starts: list[dict[int, float]] = [{5: 2.0}, {6: 3.0}, {5: 3.0}, {6: 2.0}]
    records = task.decode(examples, features, predictions_of(task, features, starts, starts))
    assert [record["answer"] for record in records] == ["the", "old"]
    assert [record["score"] for record in records] == [6.0, 6.0]
    assert records[0]["start"] == context.rindex("the")


def test_a_start_counts_only_where_its_context_is_largest(tokenizer: Any) -> None:
    task = create(max_length=9, overlap=2)
    examples = examples_of(task, row("the old king visited the red", answer="king"))
    features = task.featurize(examples, tokenizer, labeled=True)
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
    features = task.featurize(examples, tokenizer, labeled=True)
    gold: dict[str, list[dict[int, float]]] = {}
    for side in ("start", "end"):
        gold[side] = [
            {place: 5.0} if place else {} for place in features.token_indices[side].tolist()
        ]
    records = task.decode(
        examples, features, predictions_of(task, features, gold["start"], gold["end"])
    )
    assert task.score(examples, records) == {"exact_match": 100.0, "f1": 100.0}
    wrong = [record | {"answer": ""} for record in records]
    assert task.score(examples, wrong) == {"exact_match": 0.0, "f1": 0.0}


@pytest.mark.parametrize(
    ("context", "given", "decoded"),
    [  # combining marks, which this tokenizer drops, and blanks
        ("the cafe\u0301 was old", "cafe\u0301", "cafe\u0301"),
        ("the old cafe\u0301", "old cafe\u0301", "old cafe\u0301"),
        ("the cafe\u0301, it was", "cafe\u0301", "cafe\u0301"),
        ("the cafe\u0301 was old", "was", "was"),
        ("the re\u0301d car", "re\u0301d", "re\u0301d"),
        ("the king\ufe0f was", "king\ufe0f", "king\ufe0f"),
        ("the king\ufe0f was", "king", "king\ufe0f"),  # part of a token is all of it
        ("वह घर में", "में", "में"),
        ("വീട്ടില്\u200d the king", "വീട്ടില്\u200d", "വീട്ടില്\u200d"),
        ("the king\u200b was", "king", "king"),
        ("the king\u200b was", "king\u200b", "king"),
        ("was the king\u200b", "king\u200b", "king"),
        ("\ufeffthe king", "\ufeffthe", "the"),
        ("the old king ", "old king ", "old king"),
        (" the old king", " the", "the"),
        ("the old king", " old ", "old"),
        # Private-use characters, and what stands for a lost one, are no marks.
        ("i saw paris\uf0b7 today", "paris", "paris"),
        ("i saw paris\uf0b7 today", "paris\uf0b7", "paris"),
        ("i saw paris\uf0b7", "saw paris\uf0b7", "saw paris"),
        ("\uf0b7paris today", "\uf0b7paris", "paris"),
        ("the king\ufffd was", "king", "king"),
    ],
)
def test_a_decoded_gold_span_is_the_answer_with_its_marks(
    context: str, given: str, decoded: str, tokenizer: Any
) -> None:
    task = create_v2(max_length=48)
    examples = examples_of(task, row(context, answer=given))
    features = task.featurize(examples, tokenizer, labeled=True)
    start, end = ([{int(features.token_indices[side][0]): 5.0}] for side in ("start", "end"))
    (record,) = task.decode(examples, features, predictions_of(task, features, start, end))
    assert record["answer"] == decoded
    assert context[record["start"] : record["end"]] == decoded


def test_an_answer_that_ends_in_a_dropped_character_is_in_a_window(tokenizer: Any) -> None:
    task = create(max_length=32)
    (example,) = examples_of(task, row("i saw paris\uf0b7", answer="paris\uf0b7"))
    features = task.featurize([example], tokenizer, labeled=True)
    assert not any(features.unreachable.values())


def test_an_answer_of_tokens_with_blanks_is_without_them(tmp_path: Path) -> None:
    modern = load_tokenizer(kinds.write_tokenizer("modernbert", tmp_path))
    task = create_v2(max_length=48)
    context = "there was a\u00a0 little  boy\n"
    examples = examples_of(task, row(context, answer="little"))
    features = task.featurize(examples, modern, labeled=True)
    tokens = [t for t in context_tokens(windows(features)[0]) if context[slice(*t)].strip()]
    assert any(context[start].isspace() for start, _ in tokens)  # else it shows nothing
    start, end = ({int(features.token_indices[side][0]): 5.0} for side in ("start", "end"))
    for last in (end, {int(features.lengths[0]) - 2: 5.0}):  # to the answer's, the text's end
        predictions = predictions_of(task, features, [start], [last])
        (record,) = task.decode(examples, features, predictions)
        assert record["answer"] == record["span"] == context[record["start"] : record["end"]]
        assert record["answer"] == ("little" if last is end else "little  boy")


@pytest.mark.parametrize("overlap", [0, 3])
def test_between_the_tokens_of_a_window_are_spaces_alone(overlap: int, tokenizer: Any) -> None:
    context = unicodedata.normalize("NFD", "thé kíng vísitéd thé rėd, öld cafė́. Ît wás a ríveŗ")
    task = create(max_length=12, overlap=overlap)
    examples = examples_of(task, row(context, answer=context[-2:]))
    parts = windows(task.featurize(examples, tokenizer, labeled=True))
    assert len(parts) > 2
    begun = sorted({first for part in parts for first, _ in context_tokens(part)} | {len(context)})
    for part in parts:
        for first, end in context_tokens(part):
            following = next(place for place in begun if place > first)
            assert context[end:following] in ("", " ")


def test_each_slice_has_its_metrics() -> None:
    data = DataConfig(max_length=32, overlap=4, slices="language")
    task = QuestionAnswering.create(data, QuestionAnsweringOptions(), None, {})
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
            ["answer 'Paris' is not at character 30", f"it is at {CONTEXT.find('Paris')}"],
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
            assert len(task.featurize(examples, tokenizer, labeled=True)) > 1
            continue
        with pytest.raises(DataError) as caught:
            task.featurize(examples, tokenizer, labeled=True)
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
    with pytest.raises(ConfigError, match=f"options.{name}=0: expected at least 1"):
        create(**{name: 0})


# --- unanswerable questions (SQuAD v2.0) -------------------------------------------------------

NONE: dict[str, list[Any]] = {"text": [], "answer_start": []}


def create_v2(
    max_length: int = 32, overlap: int = 4, threshold: float = 0.0, **options: int
) -> QuestionAnswering:
    task = create(max_length, overlap, unanswerable=True, **options)
    return dataclasses.replace(task, null_threshold=threshold)


def test_an_unanswerable_question_needs_the_option() -> None:
    with pytest.raises(DataError, match=r"q1: no answer\..*--config\.options\.unanswerable=true"):
        examples_of(create(), row(answers=NONE))
    examples = examples_of(create_v2(), row(answers=NONE), row())
    assert [example.answers for example in examples] == [(), (("Paris", CONTEXT.find("Paris")),)]


def test_absent_answers_are_named_as_they_are() -> None:
    with pytest.raises(DataError, match="answers is None; expected"):
        examples_of(create_v2(), row(answers=None))


def test_squad_v2_as_published_is_read(tmp_path: Path) -> None:
    qas = [
        {"id": "a", "question": "Who?", "is_impossible": True, "answers": []}
        | {"plausible_answers": [{"text": "king", "answer_start": 8}]},
        {"id": "b", "question": "What?", "is_impossible": False}
        | {"answers": [{"text": "bridge", "answer_start": 21}]},
    ]
    article = {"title": "x", "paragraphs": [{"context": CONTEXT, "qas": qas}]}
    path = tmp_path / "v2.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [article]}))
    examples = create_v2().examples(
        readers.read(str(path), DataConfig(), split="train"), labeled=True
    )
    assert [example.answers for example in examples] == [(), (("bridge", 21),)]


def test_without_an_answer_the_span_is_cls_in_every_window(tokenizer: Any) -> None:
    task = create_v2(max_length=12)
    features = task.featurize(examples_of(task, row(answers=NONE)), tokenizer, labeled=True)
    assert len(features) > 2
    for side in ("start", "end"):
        assert not features.token_indices[side].any()


def test_fitting_a_threshold_needs_unanswerable_questions() -> None:
    data = DataConfig(max_length=32, overlap=4, threshold_split=0.1)
    QuestionAnswering.create(data, QuestionAnsweringOptions(unanswerable=True), None, {})
    with pytest.raises(ConfigError, match=r"data\.threshold_split .* options\.unanswerable=true"):
        QuestionAnswering.create(data, QuestionAnsweringOptions(), None, {})


# As in "the best of all windows wins": the old king visited | king visited the red.
TWO_WINDOWS = "the old king visited the red"
TWO_STARTS: list[dict[int, float]] = [{0: 3.0, 5: 2.0}, {0: 1.0, 7: 4.0}]
TWO_ENDS: list[dict[int, float]] = [{0: 1.0, 6: 2.5}, {0: 1.5, 7: 2.0}]
# [CLS] scores 4 and 2.5, the lower counts; the best spans score 4.5 and 6 ("red"): odds -3.5.


def two_windows(tokenizer: Any, task: QuestionAnswering) -> dict[str, Any]:
    examples = examples_of(task, row(TWO_WINDOWS, answer="red"))
    features = task.featurize(examples, tokenizer, labeled=True)
    assert len(features) == 2
    (record,) = task.decode(
        examples, features, predictions_of(task, features, TWO_STARTS, TWO_ENDS)
    )
    return record


def test_null_odds_by_hand_over_two_windows(tokenizer: Any) -> None:
    assert two_windows(tokenizer, create_v2(max_length=9, overlap=2)) == {
        "id": "q1",
        "question": "Where?",
        "answer": "red",
        "start": 25,
        "end": 28,
        "score": 6.0,
        "span": "red",
        "null_odds": -3.5,
    }


def test_without_the_option_there_are_no_odds(tokenizer: Any) -> None:
    task = dataclasses.replace(create(max_length=9, overlap=2), null_threshold=-9.0)
    record = two_windows(tokenizer, task)
    assert record["answer"] == "red"
    assert not {"span", "null_odds"} & record.keys()


@pytest.mark.parametrize(
    ("threshold", "answer"), [(0.0, "red"), (-3.5, "red"), (-3.51, ""), (-9.0, "")]
)
def test_odds_above_the_threshold_give_the_empty_answer(
    threshold: float, answer: str, tokenizer: Any
) -> None:
    task = create_v2(max_length=9, overlap=2, threshold=threshold)
    record = two_windows(tokenizer, task)
    assert (record["answer"], record["span"]) == (answer, "red")
    assert TWO_WINDOWS[record["start"] : record["end"]] == answer


def test_without_any_span_the_empty_answer_is_certain(tokenizer: Any) -> None:
    task = create_v2(n_best=1, threshold=1e30)
    examples = examples_of(task, row(SHORT, answers=NONE))
    features = task.featurize(examples, tokenizer, labeled=True)
    found = predictions_of(task, features, [{10: 9.0}], [{6: 9.0}])  # the end before the start
    (record,) = task.decode(examples, features, found)
    assert (record["answer"], record["span"], record["score"]) == ("", "", None)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def held_out(seed: int) -> tuple[list[QuestionExample], list[dict[str, Any]]]:
    """Questions with and without answers, and decoded records, some of equal odds."""
    chance = random.Random(seed)
    examples, records = [], []
    for n in range(chance.randint(1, 12)):
        answer = chance.choice(["", "old king", "the bridge in Paris"])
        span = chance.choice(["", "old king", "king", "a bridge", "London", "."])
        examples.append(
            QuestionExample(str(n), "?", CONTEXT, ((answer, 0),) if answer else (), None, "x")
        )
        records.append({"span": span, "null_odds": chance.choice([-2.5, -1.0, 0.0, 0.5, 3.0])})
    return examples, records


def f1_at(
    task: QuestionAnswering,
    examples: list[QuestionExample],
    records: list[dict[str, Any]],
    threshold: float,
) -> float:
    """F1 if decoding had this threshold."""
    answers = ["" if r["null_odds"] > threshold else r["span"] for r in records]
    decoded = [r | {"answer": answer} for r, answer in zip(records, answers, strict=True)]
    return task.score(examples, decoded)["f1"]


@pytest.mark.parametrize("seed", range(40))
def test_the_fitted_threshold_gives_the_best_f1_on_what_it_was_fitted_to(seed: int) -> None:
    task = create_v2(threshold=7.0)
    examples, records = held_out(seed)
    fitted = task.calibrate(examples, records)
    assert dataclasses.replace(fitted, null_threshold=7.0) == task
    between = (-3.0, -2.5, -2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0, 4.0)
    best = max(f1_at(task, examples, records, threshold) for threshold in between)
    assert f1_at(task, examples, records, fitted.null_threshold) == pytest.approx(best)


def test_metrics_at_the_best_threshold_are_reported_too() -> None:
    task = create_v2()
    examples = examples_of(task, row(), row(), row(answers=NONE), row(answers=NONE))
    odds = {-3.0: "Paris", 0.5: "Paris", 0.9: "London", 1.0: "London"}
    records = [  # at the threshold, 0, the second is empty and wrong; at 0.5 all would be right
        {"answer": "" if null > 0 else span, "span": span, "null_odds": null}
        for null, span in odds.items()
    ]
    found = task.score(examples, records)
    assert found == {
        "exact_match": 75,
        "f1": 75,
        "has_ans_exact_match": 50,
        "has_ans_f1": 50,
        "no_ans_exact_match": 100,
        "no_ans_f1": 100,
        "best_exact_match": 100,
        "best_exact_match_threshold": 0.5,
        "best_f1": 100,
        "best_f1_threshold": 0.5,
    }
    assert task.score([], []).keys() == found.keys()  # for train.keep_best, before any run


def test_the_threshold_goes_through_the_export_and_not_into_new_training() -> None:
    task = create_v2(threshold=-1.25)
    exported = json.loads(json.dumps(task.hf_config()))
    data, options = task.data, task.options
    assert QuestionAnswering.create(data, options, None, exported) == task
    train = Table("squad.json", [row()])
    assert QuestionAnswering.create(data, options, train, exported).null_threshold == 0
    assert task.stored_thresholds == exported["flaxbert"] == {"null_threshold": -1.25}


def test_without_the_option_there_is_nothing_to_fit_or_export() -> None:
    assert create().stored_thresholds == create().hf_config() == {}


def test_questions_on_one_context_are_held_out_together() -> None:
    task = create_v2()
    first, second, other = examples_of(task, row(id="a"), row(id="b"), row(SHORT, answer="king"))
    assert task.group_key(first) == task.group_key(second) != task.group_key(other)


# --- candidates, chosen on the device ----------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 20, 99])
@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_the_best_allowed_places_of_each_segment(seed: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    lengths = [[9, 1, 12, 2], [24], [3, 3], []]  # of each row's segments; 24 places, 5 slots
    segment_ids, cls_position = np.zeros((4, 24), np.int32), np.zeros((4, 5), np.int32)
    for r, row_ in enumerate(lengths):
        for k, end in enumerate(np.cumsum(row_, dtype=int)):
            cls_position[r, k] = end - row_[k]
            segment_ids[r, cls_position[r, k] : end] = k + 1
    logits = chance.integers(-3, 3, (4, 24)).astype(np.float32)  # many ties
    logits[segment_ids == 0] = 1e6  # padding must not win
    allowed = chance.random((4, 24)) < 0.6
    a, b, c, d = (jnp.asarray(array) for array in (logits, allowed, segment_ids, cls_position))
    scores, places = map(np.asarray, candidates(a, b, c, d, count))
    assert scores.shape == places.shape == (4, 5, min(count, 24))
    short = 0
    for r, k in itertools.product(range(4), range(5)):
        inside = [t for t in range(24) if segment_ids[r, t] == k + 1 and allowed[r, t]]
        expected = sorted(inside, key=lambda t: (-logits[r, t], t))[:count]
        size = len(expected)
        short += 0 < size < count
        assert (places[r, k, :size] + cls_position[r, k]).tolist() == expected
        assert scores[r, k, :size].tolist() == logits[r, expected].tolist()
        assert (scores[r, k, size:] < spans.IMPOSSIBLE).all()
    assert short > 0 or count == 1


def test_impossible_candidates_form_no_span() -> None:
    lowest = float(np.finfo(np.float32).min)
    found = {"start_score": [1.0, lowest], "start_place": [9, 2]}
    found |= {"end_score": [2.0, lowest], "end_place": [3, 10]}
    arrays = {name: np.array(values) for name, values in found.items()}
    assert spans.best_span(arrays, 30)[0] == -np.inf  # the end stands before the start
    arrays["end_place"][0] = 9
    assert spans.best_span(arrays, 30) == (3.0, 9, 9)


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_answers_are_the_best_of_all_spans_within_their_own_window(
    longest: int, tokenizer: Any
) -> None:
    task = create(max_length=16, overlap=6, n_best=64, max_answer_length=longest)
    short, tiny = row("the old king", answer="king"), row("a", answer="a", question="it")
    examples = examples_of(task, row(), tiny, short, row(SHORT, answer="king"), tiny)
    features = task.featurize(examples, tokenizer, labeled=True)
    chance = np.random.default_rng(longest)
    # Below the zeros of padding, and at the places that may not be chosen far above the others.
    noise = -1 - chance.random((2, len(features), 16))
    noise[chance.random(noise.shape) < 0.3] -= 5
    parts = windows(features)
    for f, window in enumerate(parts):
        special = [t for t, first in enumerate(window["char_start"]) if first < 0]
        noise[:, f, special] = 50
    given = [
        [
            {t: float(x) for t, x in enumerate(noise[side, f, : len(part["input_ids"])])}
            for f, part in enumerate(parts)
        ]
        for side in range(2)
    ]
    records = task.decode(examples, features, predictions_of(task, features, *given))
    best = [(-np.inf, -1, -1)] * len(examples)
    for f, window in enumerate(parts):
        tokens = [t for t, first in enumerate(window["char_start"]) if first >= 0]
        for start, end in itertools.product(tokens, tokens):
            if window["max_context"][start] and 0 <= end - start < longest:
                score = given[0][f][start] + given[1][f][end]
                edges = window["char_start"][start], window["char_end"][end]
                best[features.example_index[f]] = max(
                    best[features.example_index[f]], (score, *edges)
                )
    for record, example, (score, start, end) in zip(records, examples, best, strict=True):
        assert record["score"] == pytest.approx(score, rel=1e-6)
        assert (record["start"], record["end"]) == (start, end)
        assert record["answer"] == example.context[start:end] != ""


def test_equal_mistakes_are_counted_each(tmp_path: Path) -> None:
    # Several people may give the same answer; and a file may use an id twice.
    answers = [{"text": "paris", "answer_start": n} for n in (0, 0, 3)]
    asked = [{"id": "q", "question": "where?", "answers": answers}] * 2
    bad = [{"id": "q", "question": None, "answers": answers}] * 2
    for name in ("a.json", "b.json"):
        article = {"paragraphs": [{"context": "in paris", "qas": asked + bad}]}
        (tmp_path / name).write_text(json.dumps({"data": [article]}))
    data = DataConfig(max_length=16, overlap=4, on_bad_row="skip")
    task = QuestionAnswering.create(data, QuestionAnsweringOptions(), None, {})
    for spec, files in (("a.json", 1), ("*.json", 2)):
        table = readers.read(str(tmp_path / spec), DataConfig(on_bad_row="skip"), split="train")
        examples = task.examples(table, labeled=True)
        assert len(examples) == 2 * files
        assert not table.malformed
        assert examples.malformed == files * (2 * 2 + 2)  # answers, and questions

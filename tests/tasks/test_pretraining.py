"""Pre-training, the data side and the arithmetic: documents, sequences, masks, losses, scores."""

import dataclasses
import itertools
import logging
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SIZES
from flax import nnx
from toy import arrays_of, make_batch, parts_of

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.data.masking import CONTINUATION, SPECIAL, START, mask
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.models.bert import BertConfig
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained import mapping
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.pretraining import DocumentExample, PreTraining, PreTrainingOptions
from flaxbert.types import Batch, TaskOutputs


def create(max_length: int = 24, slices: str | None = None, **options: Any) -> PreTraining:
    data = DataConfig(max_length=max_length, slices=slices)
    return PreTraining.create(data, PreTrainingOptions(**options), None, {})


def table(*rows: dict[str, Any]) -> Table:
    return Table("texts.jsonl", [Record(row, f"texts.jsonl:{n}") for n, row in enumerate(rows, 1)])


def documents_of(task: PreTraining, *rows: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    examples = task.examples(table(*rows), labeled=True)
    return [(example.name, tuple(example.paragraphs)) for example in examples]


def document(text: str, name: str = "book") -> DocumentExample:
    return DocumentExample(name, (text,), None, "texts.jsonl:1")


# Sentences of one to nine words of the tiny vocabulary; "zoo" and "ink" are three pieces each.
BOOKS = [
    document("The king read a book. Where is the zoo? A red car. She and he built a bridge. " * 4),
    document("London was old. Paris is a city by the river. Who visited the zoo? The queen. " * 4),
    document("Ink. It was a bad film. The old food is not very good. What is the blue car? " * 4),
    document("The ink is blue, the table is red. Bad! Great. They visited an awful city. " * 4),
]


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedFeatures(Features):
    """Features with the function that masks them."""

    resample: Any = None


def encode(tokenizer: Any, books: list[DocumentExample] = BOOKS, **options: Any) -> MaskedFeatures:
    task = create(**options)
    features = task.featurize(books, tokenizer, labeled=True)
    fields = {field.name: getattr(features, field.name) for field in dataclasses.fields(Features)}
    return MaskedFeatures(**fields, resample=task.resampler(tokenizer))


def sequences(features: Features) -> list[dict[str, list[int]]]:
    """Each sequence's stored token arrays."""
    starts = features.sequence_start
    return [
        {name: values[a:b].tolist() for name, values in features.per_token.items()}
        for a, b in itertools.pairwise(starts)
    ]


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"sentences": "words"}, "options.sentences='words': expected one of split, line"),
        ({"mask_rate": 0.0}, "options.mask_rate=0.0: between 0 and 1"),
        ({"mask_rate": 1.0}, "options.mask_rate=1.0: between 0 and 1"),
        ({"mask_rate": -0.1}, "options.mask_rate=-0.1: between 0 and 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create(**options)
    assert part in str(caught.value)


def test_objectives_are_words_and_with_it_next_sentences() -> None:
    assert create().loss_names == ("mlm_loss", "nsp_loss")
    assert create(next_sentence=False).loss_names == ("mlm_loss",)


# --- documents ---------------------------------------------------------------------------------

ROWS = [
    {"file": "a", "text": "one", "part": 1},
    {"file": "a", "text": "two", "part": 2},
    {"file": "b", "text": "three", "part": 2},
    {"file": "a", "text": "four", "part": 2},
]


def test_rows_with_the_same_file_are_a_document_wherever_they_stand() -> None:
    assert documents_of(create(), *ROWS) == [("a", ("one", "two", "four")), ("b", ("three",))]


# "": an empty cell of a .csv; NaN: what pandas writes into Parquet for a null.
@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_a_row_without_a_document_name_is_a_document(nothing: str | float | None) -> None:
    names = (nothing, "a", nothing, "a")
    rows = [row | {"file": name} for row, name in zip(ROWS, names, strict=True)]
    assert documents_of(create(), *rows) == [
        ("texts.jsonl:1", ("one",)),
        ("a", ("two", "four")),
        ("texts.jsonl:3", ("three",)),
    ]


def test_another_column_may_identify_documents() -> None:
    found = documents_of(create(document="part"), *ROWS)
    assert found == [("1", ("one",)), ("2", ("two", "three", "four"))]


@pytest.mark.parametrize("column", [None, "", "file"])
def test_without_such_a_column_each_row_is_a_document(column: str | None) -> None:
    rows = [{k: v for k, v in each.items() if k != column} for each in ROWS]
    found = documents_of(create(document=column), *rows)
    texts = ["one", "two", "three", "four"]
    assert found == [(f"texts.jsonl:{n}", (text,)) for n, text in enumerate(texts, 1)]


def test_a_named_document_column_must_exist() -> None:
    with pytest.raises(DataError, match=r"no column 'part'.*--config\.options\.document=COLUMN"):
        documents_of(create(document="part"), {"file": "a", "text": "one"})


def test_text_files_are_documents_of_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("The king.\n")
    (tmp_path / "a.txt").write_text("One line\nand another.\n\n\nA second paragraph.\n")
    rows = readers.read(str(tmp_path / "*.txt"), DataConfig(), split="train")
    assert [(e.name, tuple(e.paragraphs)) for e in create().examples(rows, labeled=False)] == [
        (str(tmp_path / "a.txt"), ("One line\nand another.", "A second paragraph.")),
        (str(tmp_path / "b.txt"), ("The king.",)),
    ]


def test_a_malformed_paragraph_is_left_out_where_such_are_skipped() -> None:
    rows = table({"text": "one", "file": "a"}, {"text": 2, "file": "a"}, {"text": "3", "file": "a"})
    with pytest.raises(DataError, match=r"texts\.jsonl:2: text is 2"):
        create().examples(rows, labeled=True)
    data = DataConfig(on_bad_row="skip")
    (example,) = PreTraining.create(data, PreTrainingOptions(), None, {}).examples(
        rows, labeled=True
    )
    assert tuple(example.paragraphs) == ("one", "3")


def test_a_document_is_of_its_first_rows_slice() -> None:
    task = create(slices="language")
    rows = table({"text": "one", "language": "en"}, {"text": "dos", "language": "es"})
    assert [example.slice for example in task.examples(rows, labeled=True)] == ["en", "es"]


def test_a_column_or_text_that_is_absent_is_named() -> None:
    with pytest.raises(DataError, match=r"no column 'text'.*--config\.options\.text=COLUMN"):
        create().examples(table({"line": "one"}), labeled=True)
    with pytest.raises(DataError, match=r"texts\.jsonl:2: text is None; expected a text"):
        create().examples(table({"text": "one"}, {"text": None}), labeled=True)
    with pytest.raises(DataError, match=r"no column 'language'.*--config\.data\.slices=COLUMN"):
        create(slices="language").examples(table({"text": "one"}), labeled=True)


# --- sequences ---------------------------------------------------------------------------------


def test_a_pair_by_hand(tokenizer: Any) -> None:
    # Two documents of one sentence each: neither has a text that follows.
    books = [document("The zoo"), document("A red car")]
    first, second = sequences(encode(tokenizer, books))
    pieces = tokenizer.convert_ids_to_tokens(first["label"])
    assert pieces == "[CLS] the z ##o ##o [SEP] a red car [SEP]".split()
    assert first["input_ids"] == first["label"]  # as stored; masks are drawn each epoch
    assert first["masked"] == [0] * 10
    assert first["token_type_ids"] == [0] * 6 + [1] * 4
    rest = [CONTINUATION, CONTINUATION, SPECIAL]
    assert first["kind"] == [SPECIAL, START, START, *rest, START, START, START, SPECIAL]
    pieces = tokenizer.convert_ids_to_tokens(second["label"])
    assert pieces == "[CLS] a red car [SEP] the z ##o ##o [SEP]".split()
    assert second["token_type_ids"] == [0] * 5 + [1] * 5


def test_masked_words_alone_have_one_text(tokenizer: Any) -> None:
    features = encode(tokenizer, [document("The king. A red car.")], next_sentence=False)
    (only,) = sequences(features)
    pieces = tokenizer.convert_ids_to_tokens(only["label"])
    assert pieces == "[CLS] the king . a red car . [SEP]".split()
    assert not any(only["token_type_ids"])


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("max_length", [8, 9, 24, 64])
def test_sequences_fit_and_fill_the_length(
    max_length: int, next_sentence: bool, tokenizer: Any
) -> None:
    features = encode(tokenizer, max_length=max_length, next_sentence=next_sentence)
    assert 0.8 * max_length < features.lengths.max() <= max_length
    assert features.example_index.tolist() == sorted(features.example_index.tolist())
    assert set(features.example_index.tolist()) == set(range(len(BOOKS)))
    for each in sequences(features):
        edges = [n for n, token in enumerate(each["label"]) if token == tokenizer.sep_token_id]
        assert len(edges) == (2 if next_sentence else 1)
        assert edges[-1] == len(each["label"]) - 1
        assert each["label"][0] == tokenizer.cls_token_id
        assert [n for n, kind in enumerate(each["kind"]) if kind == SPECIAL] == [0, *edges]
        first = edges[0] + 1
        assert each["token_type_ids"] == [0] * first + [1] * (len(each["label"]) - first)


def test_follows_is_0_where_the_second_text_follows(tokenizer: Any) -> None:
    books = [  # a word of its own for every document, and sentences that count
        document(". ".join(f"{word} {n}" for n in range(60)))
        for word in ("King", "Queen", "London", "Paris")
    ]
    features = encode(tokenizer, books)
    kinds = []
    for each, follows in zip(
        sequences(features), features.per_sequence["follows"].tolist(), strict=True
    ):
        edge = each["label"].index(tokenizer.sep_token_id)
        first, second = each["label"][1:edge], each["label"][edge + 1 : -1]
        assert follows == (0 if first[0] == second[0] else 1)
        kinds.append(follows)
    assert 0.3 < np.mean(kinds) < 0.7
    assert features.per_sequence["follows"].dtype == np.int32


def test_of_lines_each_is_a_sentence(tokenizer: Any) -> None:
    text = "the king is old\nwho is he. A\n\nred car"
    books = [document(text), document("A book\nthe old table")]

    def firsts(sentences: str) -> set[str]:
        """First texts of many draws, by which the ends of sentences show."""
        found = set()
        for seed in range(40):
            for each in sequences(encode(tokenizer, books, sentences=sentences, seed=seed)):
                edge = each["label"].index(tokenizer.sep_token_id)
                found.add(tokenizer.decode(each["label"][1:edge]))
        return found

    lines = firsts("line")
    assert {"the king is old", "who is he. a", "red car", "a book", "the old table"} <= lines
    assert not any(text.endswith(" is he.") for text in lines)
    split = firsts("split")
    assert "the king is old who is he." in split
    assert "the king is old" not in split


def test_a_single_document_is_refused_with_next_sentence_prediction(tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        encode(tokenizer, BOOKS[:1])
    for part in ("texts.jsonl:1: one document", "--config.options.next_sentence=false"):
        assert part in str(caught.value)
    assert len(encode(tokenizer, BOOKS[:1], next_sentence=False))


def test_the_share_of_texts_that_follow_is_noted(tokenizer: Any) -> None:
    features = encode(tokenizer)
    share = 1 - features.per_sequence["follows"].mean()
    text = f"{share:.0%} of {len(features)} second texts follow the first"
    assert features.notes == [(logging.INFO, text)]
    assert not encode(tokenizer, next_sentence=False).notes


def test_too_few_texts_that_follow_are_refused(tokenizer: Any) -> None:
    books = [document("The king is old.", str(n)) for n in range(30)]
    with pytest.raises(DataError) as caught:
        encode(tokenizer, books)
    for part in (
        "texts.jsonl:1: 0% of 30 second texts follow",
        "Give longer ones",
        "--config.options.document=COLUMN",
        "--config.options.next_sentence=false",
    ):
        assert part in str(caught.value)
    assert len(encode(tokenizer, books, next_sentence=False)) == 30
    assert len(create().featurize(books, tokenizer, labeled=False)) == 30  # nothing is learned
    assert len(encode(tokenizer, books[:4])) == 4  # so few say nothing


def test_documents_without_any_text_are_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"texts\.jsonl:1: "):
        encode(tokenizer, [document(""), document(" \n")], next_sentence=False)


def test_features_are_a_pure_function_of_the_seed(tokenizer: Any) -> None:
    first, again = (encode(tokenizer, seed=1) for _ in range(2))
    assert sequences(first) == sequences(again)
    assert sequences(first) != sequences(encode(tokenizer, seed=2))


# --- masks -------------------------------------------------------------------------------------


def make_batches(features: MaskedFeatures, **changes: Any) -> Batches:
    settings = {"batch_size": 7, "row_length": 48, "segments": 4, "steps": 30, "seed": 0}
    settings |= {"data_parallelism": 2} | changes
    return Batches(features, resample=features.resample, **settings)


def drawn(batches: Batches, epoch: int) -> dict[int, dict[str, list[int]]]:
    """Token arrays of every sequence as the batches of an epoch hold them."""
    found = {}
    first = epoch * batches.steps_per_epoch
    for step in range(first, first + batches.steps_per_epoch):
        rows = batches.padded_rows(step)
        batch = arrays_of(batches.build(rows, step))
        for r, row in enumerate(rows):
            for k, sequence in enumerate(row, start=1):
                here = batch["segment_ids"][r] == k
                names = batches.features.per_token
                found[sequence] = {name: batch[name][r, here].tolist() for name in names}
    assert found.keys() == set(range(len(batches.features)))
    return found


def test_every_epoch_draws_different_masks(tokenizer: Any) -> None:
    batches = make_batches(encode(tokenizer))
    epochs = [drawn(batches, epoch) for epoch in range(3)]
    for sequence, each in enumerate(sequences(batches.features)):
        for epoch in epochs:
            seen = epoch[sequence]
            assert seen["label"] == each["label"]
            length = len(seen["label"])
            assert sum(seen["masked"]) == max(1, round(0.15 * length))
            changed = np.array(seen["input_ids"]) != seen["label"]
            assert not np.any(changed & (np.array(seen["masked"]) == 0))
    for one, other in itertools.combinations(epochs, 2):
        same = sum(one[n]["masked"] == other[n]["masked"] for n in one)
        assert same < 0.1 * len(one)
    # [MASK] stands at most of them, over all.
    masked = [
        token == tokenizer.mask_token_id
        for epoch in epochs
        for seen in epoch.values()
        for token, mark in zip(seen["input_ids"], seen["masked"], strict=True)
        if mark
    ]
    assert np.mean(masked) == pytest.approx(0.8, abs=5 * 0.4 / math.sqrt(len(masked)))


def test_masks_do_not_depend_on_the_order_or_the_layout(tokenizer: Any) -> None:
    features = encode(tokenizer)
    expected = [drawn(make_batches(features), epoch) for epoch in range(2)]
    for changes in (
        {"seed": 5},
        {"segments": 1},
        {"batch_size": 3, "row_length": 30},
        {"microbatches": 2},
    ):
        other = make_batches(features, **changes)
        assert [drawn(other, epoch) for epoch in range(2)] == expected


def test_evaluation_keeps_one_draw(tokenizer: Any) -> None:
    features = encode(tokenizer)
    in_order = make_batches(features, seed=None)
    assert drawn(in_order, 0) == drawn(make_batches(features), 0)
    assert drawn(in_order, 0) == drawn(make_batches(encode(tokenizer), seed=None, batch_size=3), 0)


def test_the_seed_of_the_options_and_the_sequence_count(tokenizer: Any) -> None:
    books = [document("The king is old.", name) for name in "abcdefgh"]
    first = drawn(make_batches(encode(tokenizer, books, next_sentence=False)), 0)
    assert len({tuple(seen["label"]) for seen in first.values()}) == 1
    assert len({tuple(seen["masked"]) for seen in first.values()}) > 1
    other = drawn(make_batches(encode(tokenizer, books, next_sentence=False, seed=1)), 0)
    assert [seen["label"] for seen in other.values()] == [s["label"] for s in first.values()]
    assert [seen["masked"] for seen in other.values()] != [s["masked"] for s in first.values()]


def test_every_host_draws_the_masks_of_its_rows_as_in_the_whole(tokenizer: Any) -> None:
    batches = make_batches(encode(tokenizer))
    steps = {0, 1, batches.steps_per_epoch, 2 * batches.steps_per_epoch + 1}
    for step in steps:
        rows = batches.padded_rows(step)
        whole = arrays_of(batches.build(rows, step))
        assert whole["masked"].any()
        for cuts in itertools.combinations(range(1, len(rows)), 2):
            edges = [0, *cuts, len(rows)]
            parts = [
                arrays_of(batches.build(rows[a:b], step)) for a, b in itertools.pairwise(edges)
            ]
            for name, values in whole.items():
                assert np.array_equal(np.concatenate([part[name] for part in parts]), values)


def test_whole_words_are_masked_on_request(tokenizer: Any) -> None:
    def broken(whole_words: bool) -> int:
        """Words of which a part alone is masked."""
        seen = drawn(make_batches(encode(tokenizer, mask_rate=0.4, whole_words=whole_words)), 0)
        count = 0
        for each in seen.values():
            pairs = itertools.pairwise(zip(each["kind"], each["masked"], strict=True))
            count += sum(kind == CONTINUATION and a != b for (_, a), (kind, b) in pairs)
        return count

    assert broken(True) == 0
    assert broken(False) > 5


def test_the_rate_is_the_share_of_tokens(tokenizer: Any) -> None:
    features = encode(tokenizer, mask_rate=0.3)
    seen = drawn(make_batches(features), 0)
    assert [sum(seen[n]["masked"]) for n in range(len(seen))] == [
        round(0.3 * length) for length in features.lengths
    ]


# --- the head scores every masked place --------------------------------------------------------

CONFIG = BertConfig(**SIZES, vocab_size=11)  # type: ignore[arg-type]


def make_run(rate: float, *, next_sentence: bool = False) -> Callable[..., dict[str, jax.Array]]:
    """The head as a function of hidden states and a batch."""
    rngs = nnx.Rngs(0)
    head = PreTraining.create(
        DataConfig(), PreTrainingOptions(mask_rate=rate, next_sentence=next_sentence), None, {}
    ).make_head(CONFIG, rngs)
    words = nnx.Embed(CONFIG.vocab_size, CONFIG.hidden_size, rngs=rngs)
    return lambda hidden, batch: head(hidden, batch, None, words)


def most_masked(length: int, segments: int, count_of: Mapping[int, int]) -> int:
    """Over all ways to fill a row with sequences: brute force, sequence by sequence."""
    best = [0] * (length + 1)
    for _ in range(segments):
        best = [
            max([best[free], *(best[free - n] + count_of[n] for n in count_of if n <= free)])
            for free in range(length + 1)
        ]
    return best[length]


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.15, 0.25, 0.5, 0.9])
def test_no_packing_masks_more_places_than_the_head_scores(rate: float) -> None:
    run = make_run(rate)
    count_of = {}  # of a sequence by its length, at least [CLS], one token and [SEP]
    for length in range(3, 65):
        kinds = np.array([SPECIAL, *[START] * (length - 2), SPECIAL])
        ids, lengths, draws = np.arange(length), np.array([length]), np.full((3, length), 0.5)
        words = {"whole_words": False, "mask_id": 4, "vocab_size": 99}
        chosen = mask(ids, kinds, lengths, draws, rate=rate, **words)[1]
        count_of[length] = int(chosen.sum())
    for length in (8, 13, 32, 33, 47, 64):
        for segments in sorted({1, 2, 5, length // 8, length // 3}):
            batch = make_batch(
                masked=jax.ShapeDtypeStruct((2, length), jnp.int32),
                cls_position=jax.ShapeDtypeStruct((2, segments), jnp.int32),
            )
            hidden = jax.ShapeDtypeStruct((2, length, CONFIG.hidden_size), jnp.float32)
            rows, most = jax.eval_shape(run, hidden, batch)["masked_positions"].shape
            assert rows == 2
            assert most_masked(length, segments, count_of) <= most <= length, (length, segments)


@pytest.mark.parametrize("whole_words", [False, True])
def test_every_masked_place_of_packed_rows_is_scored_once(
    whole_words: bool, tokenizer: Any
) -> None:
    # Short texts: many to a row, of which each has one masked place at least.
    books = [document(text) for text in ("Zoo", "The king", "A red car", "Bad", "Old ink") * 6]
    features = encode(tokenizer, books, max_length=12, whole_words=whole_words, next_sentence=False)
    batches = make_batches(features, batch_size=30, row_length=30, segments=6, data_parallelism=1)
    run = jax.jit(make_run(0.15))
    for step in range(3):
        rows = batches.padded_rows(step)
        batch = batches.build(rows, step)
        hidden = jnp.zeros((*batch.extra["masked"].shape, CONFIG.hidden_size))
        places = np.asarray(run(hidden, batch)["masked_positions"])
        assert places.shape[1] < 30
        for found, masked in zip(places.tolist(), batch.extra["masked"], strict=True):
            assert len(set(found)) == len(found)
            assert set(np.flatnonzero(masked)) <= set(found)
        assert batch.extra["masked"].any()


# --- loss, predictions and scores --------------------------------------------------------------

ROWS_OF, LENGTH, SLOTS, PLACES, VOCABULARY = 3, 12, 3, 7, 11


def some_outputs(seed: int) -> tuple[dict[str, np.ndarray], Batch]:
    """Random scores at some places in any order, and a batch; the last row is empty."""
    chance = np.random.default_rng(seed)
    segment_ids = np.array(
        [[1] * 4 + [2] * 3 + [3] * 4 + [0], [1] * 5 + [2] * 5 + [0] * 2, [0] * 12]
    )
    places = np.stack([chance.permutation(LENGTH)[:PLACES] for _ in range(ROWS_OF)])
    masked = np.zeros((ROWS_OF, LENGTH), np.int32)
    for row, each in enumerate(places):
        masked[row, each[:5]] = segment_ids[row, each[:5]] > 0
    batch = make_batch(
        segment_ids=segment_ids,
        masked=masked,
        label=chance.integers(0, VOCABULARY, (ROWS_OF, LENGTH)),
        follows=chance.integers(0, 2, (ROWS_OF, SLOTS)),
        weight=np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], np.float32),
    )
    outputs = {
        "masked_positions": places,
        "mlm_logits": chance.normal(0, 3, (ROWS_OF, PLACES, VOCABULARY)).astype(np.float32),
        "nsp_logits": chance.normal(0, 3, (ROWS_OF, SLOTS, 2)).astype(np.float32),
    }
    return outputs, batch


def negative_log(logits: np.ndarray, label: int) -> float:
    mapping = [math.exp(value) for value in logits]
    return -math.log(mapping[label] / sum(mapping))


def by_hand(
    outputs: dict[str, np.ndarray], batch: Batch
) -> dict[tuple[int, int], dict[str, float]]:
    """What is to be known of each sequence, one place after the other."""
    found = {}
    for row, slot in np.argwhere(batch.weight > 0).tolist():
        sums = {"masked": 0, "right": 0, "mlm_loss": 0.0}
        for number, place in enumerate(outputs["masked_positions"][row]):
            if batch.segment_ids[row, place] == slot + 1 and batch.extra["masked"][row, place]:
                logits, label = outputs["mlm_logits"][row, number], batch.label[row, place]
                sums["masked"] += 1
                sums["right"] += int(max(range(VOCABULARY), key=logits.__getitem__) == label)
                sums["mlm_loss"] += negative_log(logits, label)
        logits, follows = outputs["nsp_logits"][row, slot], batch.extra["follows"][row, slot]
        sums["next_right"] = int((logits[1] > logits[0]) == follows)
        sums["nsp_loss"] = negative_log(logits, follows)
        found[row, slot] = sums
    return found


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_losses_are_the_sums_of_all_places_and_sequences(seed: int, next_sentence: bool) -> None:
    outputs, batch = some_outputs(seed)
    expected = by_hand(outputs, batch).values()
    if not next_sentence:
        del outputs["nsp_logits"]
    found = create(next_sentence=next_sentence).loss(jax.tree.map(jnp.asarray, outputs), batch)
    assert tuple(found) == create(next_sentence=next_sentence).loss_names
    loss, weight = parts_of(found["mlm_loss"])
    assert float(loss) == pytest.approx(sum(each["mlm_loss"] for each in expected), rel=1e-5)
    assert weight == sum(each["masked"] for each in expected) == batch.extra["masked"].sum() > 0
    if next_sentence:
        loss, weight = parts_of(found["nsp_loss"])
        assert float(loss) == pytest.approx(sum(each["nsp_loss"] for each in expected), rel=1e-5)
        assert weight == 5


def test_weights_of_the_losses_do_not_depend_on_the_outputs() -> None:
    outputs, batch = some_outputs(0)
    wild = {name: np.zeros_like(value) for name, value in outputs.items()}
    wild["masked_positions"] = outputs["masked_positions"]
    before, after = (create().loss(jax.tree.map(jnp.asarray, o), batch) for o in (outputs, wild))
    assert [float(loss.weight) for loss in before.values()] == [
        float(loss.weight) for loss in after.values()
    ]


@pytest.mark.parametrize("seed", range(5))
def test_predictions_are_the_sums_of_each_sequence(seed: int) -> None:
    outputs, batch = some_outputs(seed)
    found = create().predict(jax.tree.map(jnp.asarray, outputs), batch)
    assert found.per_token == {}
    assert found.per_sequence.keys() == {"masked", "right", "mlm_loss", "next_right"}
    for (row, slot), sums in by_hand(outputs, batch).items():
        for name, values in found.per_sequence.items():
            assert values.shape == (ROWS_OF, SLOTS)
            assert float(values[row, slot]) == pytest.approx(sums[name], rel=1e-5), name
    del outputs["nsp_logits"]
    slots = (
        create(next_sentence=False).predict(jax.tree.map(jnp.asarray, outputs), batch).per_sequence
    )
    assert "next_right" not in slots


def test_records_add_up_the_sequences_of_each_document() -> None:
    features = Features.build({"input_ids": [[1]] * 5}, example_index=[0, 0, 2, 2, 2])
    slots = {
        "masked": np.array([2, 3, 1, 1, 1]),
        "right": np.array([2, 0, 1, 0, 1]),
        "mlm_loss": np.array([0.5, 0.25, 1, 2, 4]),
        "next_right": np.array([1, 0, 1, 1, 0]),
    }
    books = [document("x", name) for name in "abc"]  # b has no sequence: it has no text
    assert create().decode(books, features, TaskOutputs(slots, {})) == [
        dict(document="a", masked=5, right=2, mlm_loss=0.75, next_right=1, sequences=2),
        dict(document="b", masked=0, right=0, mlm_loss=0, next_right=0, sequences=0),
        dict(document="c", masked=3, right=2, mlm_loss=7, next_right=2, sequences=3),
    ]


# Two of five and one of one words guessed; they had probabilities 1/2 and 1/8.
RECORDS = [
    dict(document="a", masked=5, right=2, mlm_loss=5 * math.log(2), next_right=1, sequences=2),
    dict(document="b", masked=1, right=1, mlm_loss=math.log(8), next_right=2, sequences=2),
]


def test_scores_weigh_every_masked_word_and_every_sequence_alike() -> None:
    assert create().score(BOOKS[:2], RECORDS) == {
        # The geometric mean: (2^5 * 8)^(1/6), and not the mean of 2 and 8.
        "perplexity": pytest.approx(2 ** (8 / 6)),
        "mlm_accuracy": 3 / 6,
        "nsp_accuracy": 3 / 4,
    }


def test_without_next_sentence_prediction_there_is_no_score_for_it() -> None:
    records = [{k: v for k, v in each.items() if k != "next_right"} for each in RECORDS]
    found = create(next_sentence=False).score(BOOKS[:2], records)
    assert found == {"perplexity": pytest.approx(2 ** (8 / 6)), "mlm_accuracy": 3 / 6}


def test_each_slice_has_its_scores() -> None:
    books = [dataclasses.replace(BOOKS[0], slice="en"), dataclasses.replace(BOOKS[1], slice="es")]
    found = score_with_slices(create(slices="language"), books, RECORDS)
    assert found["perplexity/en"] == pytest.approx(2)
    assert found["perplexity/es"] == pytest.approx(8)
    assert found["nsp_accuracy/en"] == 1 / 2


def test_nothing_has_finite_scores() -> None:
    assert create().score([], []) == {"perplexity": 1, "mlm_accuracy": 0, "nsp_accuracy": 0}


def test_the_perplexity_of_a_huge_loss_is_infinite() -> None:
    record = {"masked": 1.0, "right": 0.0, "mlm_loss": 1e4}
    assert create(next_sentence=False).score([], [record])["perplexity"] == math.inf


def test_a_line_of_the_table_of_predictions() -> None:
    assert create().table_row(document("x", "a"), RECORDS[0]) == {
        "document": "a", "masked": "5", "right": "0.400", "perplexity": "2.00"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("family", "kind", "warned"),
    [
        ("albert", "ForPreTraining", True),
        ("albert", "ForMaskedLM", False),  # next_sentence=false
        ("bert", "ForPreTraining", False),
    ],
)
def test_a_warning_says_what_albert_s_second_output_is_trained_for(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    family: str,
    kind: str,
    warned: bool,
) -> None:
    report = types.SimpleNamespace(fresh=(), describe=lambda: "all loaded")
    monkeypatch.setattr(mapping, "load", lambda *_, **__: ({}, report))
    model = types.SimpleNamespace(head_type=kind)
    hf_config = {"model_type": family, "vocab_size": 30, "embedding_size": 8, **SIZES}
    task = create()
    Pipeline("pretraining", task, None, model, None, task.data, Path(), hf_config).load_params()
    assert ("order of two texts" in caplog.text) is warned

"""Whole texts: columns, texts longer than the model, and windows whose logits are pooled."""

import random
import string
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from tolerance import assert_close
from toy import arrays_of, parts_of

from flaxbert.config import DataConfig
from flaxbert.data.batching import Batch, Batches
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks import texts
from flaxbert.tasks.classification import Classification, ClassificationOptions
from flaxbert.tasks.losses import group_sum, pool
from flaxbert.tasks.texts import TextExample, TextOptions
from flaxbert.types import TaskOutputs

LETTERS = string.ascii_lowercase + string.digits  # each a token of its own
SEEDS = range(20)

# --- reading -----------------------------------------------------------------------------------


def table(*rows: dict[str, Any]) -> Table:
    return Table("train.tsv", [Record(row, f"train.tsv:{n}") for n, row in enumerate(rows, 2)])


def test_rows_become_examples() -> None:
    rows = table({"premise": "film", "other": "book", "gold": "x", "language": "en"})
    options = TextOptions(text="premise", pair="other", label="gold")
    data = DataConfig(slices="language")
    (example,) = texts.read(rows, options, data, lambda row: row.values["gold"] + "!")
    assert example == TextExample("film", "book", "x!", "en", "train.tsv:2")
    assert example.record() == {"text": "film", "pair": "book"}


def test_without_labels_neither_label_nor_slice_is_needed() -> None:
    (example,) = texts.read(table({"text": "film"}), TextOptions(), DataConfig(slices="en"), None)
    assert example == TextExample("film", None, None, None, "train.tsv:2")
    assert example.record() == {"text": "film"}


@pytest.mark.parametrize(
    ("options", "slices", "key"),
    [
        (TextOptions(text="sentence"), None, "options.text"),
        (TextOptions(pair="other"), None, "options.pair"),
        (TextOptions(label="gold"), None, "options.label"),
        (TextOptions(), "language", "data.slices"),
    ],
)
def test_an_absent_column_names_its_key(options: TextOptions, slices: str, key: str) -> None:
    rows = table({"text": "film", "label": "x"})
    with pytest.raises(DataError, match=f"no column .* --config.{key}=COLUMN"):
        texts.read(rows, options, DataConfig(slices=slices), lambda row: None)


@pytest.mark.parametrize("column", ["text", "pair"])
def test_a_text_that_is_none_is_named_with_its_line(column: str) -> None:
    good = {"text": "film", "pair": "book"}
    for bad in (good | {column: None}, {name: good[name] for name in good if name != column}):
        with pytest.raises(DataError, match=rf"train\.tsv:3: {column} is None; expected a text"):
            texts.read(table(good, bad), TextOptions(pair="pair"), DataConfig(), None)


def test_a_malformed_row_is_left_out_where_such_rows_are_skipped() -> None:
    rows = table({"text": "film"}, {"text": None}, {"text": "book"})
    found = texts.read(rows, TextOptions(), DataConfig(on_bad_row="skip"), None)
    assert [(each.text, each.origin) for each in found] == [
        ("film", "train.tsv:2"),
        ("book", "train.tsv:4"),
    ]


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("long_texts", texts.LONG)
def test_every_option_for_long_texts_is_accepted(long_texts: str) -> None:
    TextOptions(long_texts=long_texts).check(DataConfig(max_length=16, overlap=12))


@pytest.mark.parametrize(
    ("options", "overlap", "parts"),
    [
        (
            TextOptions(long_texts="tail"),
            4,
            ["options.long_texts='tail'", "head, head_tail, windows"],
        ),
        (TextOptions(long_texts="head_tail", pair="other"), 4, ["head_tail", "head or windows"]),
        # [CLS], [SEP], [SEP] and one token beside the 13 of the overlap would need 17.
        (TextOptions(long_texts="windows"), 13, ["data.overlap=13", "data.max_length=16"]),
    ],
)
def test_impossible_options_are_refused(
    options: TextOptions, overlap: int, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        options.check(DataConfig(max_length=16, overlap=overlap))
    assert all(part in str(caught.value) for part in parts)


# --- long texts --------------------------------------------------------------------------------


def encode(
    tokenizer: Any,
    words: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    long_texts: str,
    max_length: int,
    overlap: int = 0,
) -> Features:
    """Features of texts that are given as strings of letters, each of which is a word."""
    seconds: Sequence[str | None] = [None] * len(words) if pairs is None else pairs
    examples = [
        TextExample(" ".join(first), second and " ".join(second), 10 * n, None, f"row {n}")
        for n, (first, second) in enumerate(zip(words, seconds, strict=True))
    ]
    data = DataConfig(max_length=max_length, overlap=overlap)
    return texts.featurize(
        examples, tokenizer, TextOptions(long_texts=long_texts), data, labeled=True
    )


def letters(tokenizer: Any, features: Features) -> list[str]:
    """Each sequence as a string, [CLS] as <, [SEP] as |."""
    found = []
    for sequence in range(len(features.lengths)):
        ids = features.tokens_of(sequence)["input_ids"].tolist()
        pieces = tokenizer.convert_ids_to_tokens(ids)
        found.append("".join({"[CLS]": "<", "[SEP]": "|"}.get(piece, piece) for piece in pieces))
    return found


def types(features: Features) -> list[str]:
    """The token types of each sequence, as a string."""
    every = range(len(features.lengths))
    return ["".join(map(str, features.tokens_of(n)["token_type_ids"])) for n in every]


def test_head_keeps_the_start(tokenizer: Any) -> None:
    features = encode(tokenizer, ["abcdefghi", "abcdef", "a"], long_texts="head", max_length=8)
    assert letters(tokenizer, features) == ["<abcdef|", "<abcdef|", "<a|"]
    assert features.truncated_count == 1  # the second fits exactly
    assert features.per_sequence["label"].tolist() == [0, 10, 20]


def test_head_cuts_the_longer_text_of_a_pair(tokenizer: Any) -> None:
    pairs = [("ab", "pqrstuv"), ("abcdefg", "pq"), ("abc", "pq")]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    features = encode(tokenizer, first, second, long_texts="head", max_length=8)
    assert letters(tokenizer, features) == ["<ab|pqr|", "<abc|pq|", "<abc|pq|"]
    assert types(features) == ["00001111", "00000111", "00000111"]
    assert features.truncated_count == 2


def test_head_tail_keeps_a_quarter_of_the_start_and_three_of_the_end(tokenizer: Any) -> None:
    # Room for 8 between [CLS] and [SEP]: 2 of the start, 6 of the end.
    features = encode(
        tokenizer,
        ["abcdefghijkl", "abcdefghi", "abcdefgh", "a"],
        long_texts="head_tail",
        max_length=10,
    )
    assert letters(tokenizer, features) == ["<abghijkl|", "<abdefghi|", "<abcdefgh|", "<a|"]
    assert features.truncated_count == 2
    assert set("".join(types(features))) == {"0"}
    assert features.feature_index.tolist() == features.example_index.tolist() == [0, 1, 2, 3]
    assert features.per_sequence["label"].tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("seed", SEEDS)
def test_head_tail_is_head_and_tail_whatever_the_length(tokenizer: Any, seed: int) -> None:
    chance = random.Random(seed)
    max_length = chance.randint(8, 24)
    words = [LETTERS[: chance.randint(1, len(LETTERS))] for _ in range(6)]
    features = encode(tokenizer, words, long_texts="head_tail", max_length=max_length)
    room = max_length - 2
    expected = [
        each if len(each) <= room else each[: room // 4] + each[len(each) - (room - room // 4) :]
        for each in words
    ]
    assert letters(tokenizer, features) == [f"<{each}|" for each in expected]
    assert features.truncated_count == sum(len(each) > room for each in words)


def test_windows_overlap_and_are_one_feature(tokenizer: Any) -> None:
    # Room for 5, and 2 shared: a window begins every 3 letters.
    features = encode(
        tokenizer, ["abcdefgh", "abc", "abcdef"], long_texts="windows", max_length=7, overlap=2
    )
    assert letters(tokenizer, features) == ["<abcde|", "<defgh|", "<abc|", "<abcde|", "<def|"]
    assert features.feature_index.tolist() == features.example_index.tolist() == [0, 0, 1, 2, 2]
    assert features.per_sequence["label"].tolist() == [0, 0, 10, 20, 20]
    assert len(features) == 3
    assert features.truncated_count == 0  # nothing is lost


def test_windows_of_a_pair_repeat_the_first_text(tokenizer: Any) -> None:
    # Room for 6: 2 of the first text, 4 of the second, 1 of them shared.
    features = encode(tokenizer, ["ab"], ["pqrstuv"], long_texts="windows", max_length=9, overlap=1)
    assert letters(tokenizer, features) == ["<ab|pqrs|", "<ab|stuv|"]
    assert types(features) == ["000011111"] * 2
    assert features.feature_index.tolist() == [0, 0]


def cut(words: str, room: int, overlap: int) -> list[str]:
    """Windows of `room` letters, one letter at a time."""
    windows, start = [words[:room]], 0
    while start + room < len(words):
        start += room - overlap
        windows.append(words[start : start + room])
    return windows


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_windows_are_those_counted_out(tokenizer: Any, seed: int, paired: bool) -> None:
    chance = random.Random(seed)
    max_length = chance.randint(9, 20)
    overlap = chance.randint(0, max_length - 5)
    words = [LETTERS[: chance.randint(1, len(LETTERS))] for _ in range(5)]
    firsts = None
    expected = []
    if paired:
        most = max_length - 3 - overlap - 1
        firsts = [LETTERS[: chance.randint(1, most)] for _ in words]
        features = encode(
            tokenizer, firsts, words, long_texts="windows", max_length=max_length, overlap=overlap
        )
        for n, (first, second) in enumerate(zip(firsts, words, strict=True)):
            room = max_length - 3 - len(first)
            expected += [(n, f"<{first}|{part}|") for part in cut(second, room, overlap)]
    else:
        features = encode(
            tokenizer, words, long_texts="windows", max_length=max_length, overlap=overlap
        )
        for n, each in enumerate(words):
            expected += [(n, f"<{part}|") for part in cut(each, max_length - 2, overlap)]
    assert letters(tokenizer, features) == [text for _, text in expected]
    assert features.feature_index.tolist() == [n for n, _ in expected]


def test_windows_of_a_pair_need_room_after_the_first_text(tokenizer: Any) -> None:
    # 9 tokens, 3 special, 2 shared: the first text may have 3, and one new token remains.
    arguments: dict[str, Any] = {"long_texts": "windows", "max_length": 9, "overlap": 2}
    features = encode(tokenizer, ["abc"], ["pqrst"], **arguments)
    assert letters(tokenizer, features) == ["<abc|pqr|", "<abc|qrs|", "<abc|rst|"]
    with pytest.raises(DataError) as caught:
        encode(tokenizer, ["abc", "abcd"], ["pqrst", "p"], **arguments)
    for part in ("row 1", "the first text has 4 tokens", "at most 3 fit"):
        assert part in str(caught.value)


def test_truncation_settings_do_not_leak_between_calls(tokenizer: Any) -> None:
    # A fast tokenizer remembers the last call's truncation.
    ways: list[dict[str, Any]] = [
        {"long_texts": "windows", "overlap": 4},
        {"long_texts": "head"},
        {"long_texts": "head_tail"},
    ]
    once = [letters(tokenizer, encode(tokenizer, [LETTERS], max_length=9, **way)) for way in ways]
    for way, expected in [*zip(ways, once, strict=True)][::-1]:
        assert letters(tokenizer, encode(tokenizer, [LETTERS], max_length=9, **way)) == expected
    assert [len(each) for each in once] == [11, 1, 1]  # 7 + 3 * 10 >= 36


# --- pooled logits -----------------------------------------------------------------------------

WINDOWS = [3, 1, 2, 4]  # of each text


def batch_of_windows() -> tuple[Batch, dict[int, list[tuple[int, int]]]]:
    """A batch with rows and slots without a sequence, and the slots (r, k) of each feature."""
    owner = [n for n, count in enumerate(WINDOWS) for _ in range(count)]
    features = Features.build(
        {"input_ids": [[1] * (2 + n % 3) for n in range(len(owner))]},
        example_index=owner,
        feature_index=owner,
        per_sequence={"label": [n % 2 for n in owner]},
    )
    batches = Batches(features, 4, row_length=10, segments=3, data_parallelism=1, steps=1)
    rows = [[], *batches.rows(0), []]
    where: dict[int, list[tuple[int, int]]] = {n: [] for n in range(len(WINDOWS))}
    for r, row in enumerate(rows):
        for k, sequence in enumerate(row):
            where[owner[sequence]].append((r, k))
    return batches.build(rows), where


def noise(batch: Batch, *shape: int, empty: float = np.nan) -> np.ndarray:
    """Random numbers in slots with a sequence, `empty` in the others."""
    values = np.random.default_rng(0).normal(size=(*batch.weight.shape, *shape))
    values[batch.weight == 0] = empty
    return values.astype(np.float32)


def test_the_example_windows_are_in_different_rows_next_to_unused_places() -> None:
    batch, where = batch_of_windows()
    assert [len(slots) for slots in where.values()] == WINDOWS
    assert len({r for r, _ in where[3]}) > 1
    assert (batch.weight[1:-1] == 0).any()
    for count, slots in zip(WINDOWS, where.values(), strict=True):
        assert all(batch.weight[slot] == np.float32(1 / count) for slot in slots)
        assert len({int(batch.group[slot]) for slot in slots}) == 1
    groups = {int(batch.group[slots[0]]) for slots in where.values()}
    assert len(groups) == len(WINDOWS)
    assert max(groups) < batch.group.size


def test_a_host_numbers_the_features_of_its_rows_as_the_whole_batch_does() -> None:
    owner = [n for n in range(40) for _ in range(1 + n % 3)]
    features = Features.build(
        {"input_ids": [[1, 2]] * len(owner)},
        example_index=owner,
        feature_index=owner,
        per_sequence={"owner": owner},
    )
    batches = Batches(features, 3, row_length=4, segments=2, data_parallelism=2, steps=14, seed=4)
    for step in (0, 12):
        rows = batches.padded_rows(step)
        whole = arrays_of(batches.build(rows, step))
        filled = whole["weight"] > 0
        numbers = zip(whole["group"][filled].tolist(), whole["owner"][filled].tolist(), strict=True)
        assert len(set(numbers)) == len(set(whole["owner"][filled])) == 3
        assert max(whole["group"][filled]) < whole["group"].size
        for first in range(len(rows)):
            part = arrays_of(batches.build(rows[first : first + 1], step))
            assert part.keys() == whole.keys()
            for name in ("group", "weight"):
                assert np.array_equal(part[name], whole[name][first : first + 1])


@pytest.mark.parametrize("shape", [(), (2, 5)])
def test_a_group_sum_adds_the_sequences_of_one_feature_only(shape: tuple[int, ...]) -> None:
    batch, where = batch_of_windows()
    values = noise(batch, *shape)
    found = np.asarray(jax.jit(group_sum)(values, batch))
    assert found.shape == values.shape
    for slots in where.values():
        total = sum(values[slot].astype(np.float64) for slot in slots)
        for slot in slots:
            assert_close(found[slot], total)


def test_pooled_logits_are_the_mean_over_a_texts_windows() -> None:
    batch, where = batch_of_windows()
    logits = noise(batch, 3)
    found = np.asarray(jax.jit(pool)(logits, batch))
    for slots in where.values():
        mean = np.mean([logits[slot] for slot in slots], axis=0, dtype=np.float64)
        for slot in slots:
            assert_close(found[slot], mean)


def test_pooling_leaves_a_text_of_one_window_unchanged() -> None:
    features = Features.build({"input_ids": [[1, 2], [3]]})
    batch: Any = Batches(features, 2, row_length=4, segments=2, data_parallelism=1, steps=1).build(
        [[0, 1]]
    )
    assert batch.group is None
    logits = jax.numpy.ones((1, 2, 3))
    assert pool(logits, batch) is logits


def classification() -> Classification:
    return Classification.create(
        DataConfig(), ClassificationOptions(labels=("bad", "good")), None, {}
    )


def test_a_text_counts_once_in_the_loss_and_each_window_has_its_share_of_the_gradient() -> None:
    batch, where = batch_of_windows()
    logits = noise(batch, 2, empty=7.0)

    def loss(logits: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        return parts_of(classification().loss({"logits": logits}, batch)["loss"])

    (value, weight), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits, batch)
    losses, expected = [], np.zeros(logits.shape)
    for text, slots in where.items():
        mean = np.mean([logits[slot] for slot in slots], axis=0, dtype=np.float64)
        probability = np.exp(mean) / np.exp(mean).sum()
        losses.append(-np.log(probability[text % 2]))
        for slot in slots:
            expected[slot] = (probability - np.eye(2)[text % 2]) / len(slots)
    assert_close(weight, len(WINDOWS))
    assert_close(value, sum(losses))
    assert_close(gradient, expected)  # and so none in empty slots


def test_every_text_is_predicted_once_from_its_windows(tokenizer: Any) -> None:
    options = ClassificationOptions(labels=("bad", "good"), long_texts="windows")
    task = Classification.create(DataConfig(max_length=8, overlap=2), options, None, {})
    rows = table({"text": " ".join("abcdefghijk")}, {"text": "a b"}, {"text": " ".join("abcdefgh")})
    examples = task.examples(rows, labeled=False)
    features = task.featurize(examples, tokenizer, labeled=False)
    assert features.feature_index.tolist() == [0, 0, 0, 1, 2, 2]
    # Every window of a text carries the text's own prediction.
    goods = np.array([0.75, 0.25, 0.875])[features.feature_index]
    predictions = TaskOutputs({"probability": np.stack([1 - goods, goods], axis=1)}, {})
    records = task.decode(examples, features, predictions)
    assert [record["text"] for record in records] == [example.text for example in examples]
    assert [record["label"] for record in records] == ["good", "bad", "good"]
    assert [record["probability"]["good"] for record in records] == [0.75, 0.25, 0.875]

"""Texts to flat arrays: the tokens of transformers' tokenizer, in chunks of any size."""

import itertools
from typing import Any

import numpy as np
import pytest

from flaxbert.data import encoding, windows
from flaxbert.data.encoding import encode

TEXTS = [
    "the old king",
    "",
    "a",
    "bad food. " * 9,
    "zoo",
    "the river\u0301 by the bridge " * 4,
    "x y",
]
PAIRS = ["who?", "what is it " * 7, "", "the queen", "a " * 30, "\u200bzoo", "he"]


def joined(rows: Any) -> list[int]:
    return list(itertools.chain.from_iterable(rows))


@pytest.fixture(params=[1, 2, 100], autouse=True)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK", request.param)


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_tokens_are_those_of_the_tokenizer(pairs: list[str] | None, tokenizer: Any) -> None:
    result = encode(tokenizer, TEXTS, pairs, max_length=12)
    expected = tokenizer(
        TEXTS, pairs, truncation="longest_first", max_length=12, return_token_type_ids=True
    )
    assert result.lengths.tolist() == [len(ids) for ids in expected["input_ids"]]
    assert result.example_index.tolist() == list(range(len(TEXTS)))
    assert result.per_token.keys() == {"input_ids", "token_type_ids"}
    for name, values in result.per_token.items():
        assert values.dtype == np.int32
        assert values.tolist() == joined(expected[name])
    cut = [n for n, e in enumerate(expected.encodings) if e.overflowing]
    assert cut
    assert result.truncated == cut


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_windows_have_the_characters_of_the_last_text(
    pairs: list[str] | None, tokenizer: Any
) -> None:
    firsts, truncation = (["a"] * len(TEXTS), "only_second") if pairs else (TEXTS, "only_first")
    settings = {"max_length": 9, "truncation": truncation}
    result = encode(tokenizer, firsts, pairs, overlap=2, characters=True, **settings)
    expected = tokenizer(
        firsts, pairs, stride=2, return_overflowing_tokens=True, return_offsets_mapping=True,
        return_token_type_ids=True, **settings,
    )  # fmt: skip
    assert result.truncated == []
    assert result.example_index.tolist() == expected["overflow_to_sample_mapping"]
    assert len(result.lengths) > len(TEXTS)
    for name in ("input_ids", "token_type_ids"):
        assert result.per_token[name].tolist() == joined(expected[name])
    last = int(pairs is not None)
    for side, name in enumerate(("char_start", "char_end")):
        places = [
            place[side] if text == last else -1
            for window, offsets in enumerate(expected["offset_mapping"])
            for place, text in zip(offsets, expected.sequence_ids(window), strict=True)
        ]
        assert result.per_token[name].tolist() == places


def test_words_are_numbered_in_each_text(tokenizer: Any) -> None:
    sentences = [["zoo", "the", "\u200b", "ink"], ["a"], [], ["old"] * 20]
    result = encode(
        tokenizer, sentences, split=True, words=True, max_length=10, overlap=3,
        truncation="only_first",
    )  # fmt: skip
    expected = tokenizer(
        sentences, is_split_into_words=True, truncation="only_first", max_length=10, stride=3,
        return_overflowing_tokens=True,
    )  # fmt: skip
    words = joined(expected.word_ids(window) for window in range(len(result.lengths)))
    assert result.per_token["word"].tolist() == [-1 if word is None else word for word in words]


def test_nothing_is_left_in_the_tokenizer(tokenizer: Any) -> None:
    encode(tokenizer, TEXTS, max_length=5)
    assert tokenizer.backend_tokenizer.truncation is None
    with pytest.raises(TypeError):
        encode(tokenizer, [1], max_length=5)
    assert tokenizer.backend_tokenizer.truncation is None


def test_no_texts_have_no_tokens(tokenizer: Any) -> None:
    result = encode(tokenizer, [], characters=True, words=True)
    assert (len(result.lengths), len(result.example_index), result.truncated) == (0, 0, [])
    assert {values.shape for values in result.per_token.values()} == {(0,)}


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_marks_do_not_depend_on_how_many_windows_are_compared_at_a_time(
    block: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_length": 8, "overlap": 3, "truncation": "only_first"}
    result = encode(tokenizer, TEXTS, characters=True, **settings)
    placed = windows.Windows.of(result, TEXTS)
    marks = placed.max_context(3)
    monkeypatch.setattr(windows, "BLOCK", block)
    assert np.array_equal(placed.max_context(3), marks)
    for text, group in placed.by_text():
        here = placed.tokens(group)
        tokens = placed.starts[here][marks[here] > 0].tolist()
        assert sorted(tokens) == sorted(set(placed.starts[here].tolist()) - {-1}), TEXTS[text]

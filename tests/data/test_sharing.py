"""Processes that share the tokenizing have the arrays of one process; threads stand for them."""

import collections
import copy
import threading
from collections.abc import Callable
from typing import Any

import fake_hosts
import numpy as np
import pytest

from flaxbert.data import documents, encoding, sharing

WORDS = "the old king was in paris and bad food very great bridge by the river".split()
TEXTS = [" ".join(WORDS[n % 5 :] * (1 + n % 4)) for n in range(23)]
PAIRS = [" ".join(WORDS[: 3 + n % 9]) for n in range(23)]

ENCODINGS: dict[str, Callable[[Any], encoding.Encoded]] = {
    "cut": lambda tokenizer: encoding.encode(tokenizer, TEXTS, max_length=12),
    "pairs": lambda tokenizer: encoding.encode(tokenizer, TEXTS, PAIRS, max_length=20),
    "windows": lambda tokenizer: encoding.encode(
        tokenizer, PAIRS, TEXTS, max_length=24, overlap=3, truncation="only_second",
        characters=True,
    ),
    "words": lambda tokenizer: encoding.encode(
        tokenizer, [text.split() for text in TEXTS], split=True, words=True, max_length=9,
        overlap=2, truncation="only_first",
    ),
    "head and tail": lambda tokenizer: encoding.encode_head_and_tail(tokenizer, TEXTS, 13),
    "fewer than processes": lambda tokenizer: encoding.encode(tokenizer, TEXTS[:1]),
    "none": lambda tokenizer: encoding.encode(tokenizer, [], characters=True),
}  # fmt: skip


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK", 2)
    monkeypatch.setattr(documents, "CHUNK", 2)
    monkeypatch.setattr(documents, "BLOCK", 10)
    monkeypatch.setattr(sharing, "ROUND", 4)


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> "collections.Counter[int]":
    """The number of texts that each thread has tokenized."""
    counts, chunk = collections.Counter[int](), encoding._chunk

    def counted(encodings: Any, **settings: Any) -> Any:
        counts[threading.get_ident()] += len(encodings)
        return chunk(encodings, **settings)

    monkeypatch.setattr(encoding, "_chunk", counted)
    return counts


def shared(count: int, tokenizer: Any, work: Callable[[Any], Any]) -> tuple[list[Any], list[int]]:
    """Return what each of some processes returns, and the texts that they report."""
    meeting, reported = fake_hosts.Meeting(count), [0] * count
    tokenizers = [copy.deepcopy(tokenizer) for _ in range(count)]

    def process(index: int) -> Any:
        def report(texts: int) -> None:
            reported[index] += texts

        def gather(message: bytes) -> list[bytes]:
            return meeting.gather(index, message)

        with sharing.among(sharing.Peers(index, count, gather, report)):
            return work(tokenizers[index])

    return fake_hosts.run(count, process), reported


def require_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert list(first) == list(second)
    for name, values in first.items():
        assert values.dtype == second[name].dtype
        assert np.array_equal(values, second[name])


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("name", ENCODINGS)
def test_shared_arrays_are_those_of_one_process(name, count, tokenizer, tokenized):
    alone = ENCODINGS[name](tokenizer)
    texts = tokenized.total()
    tokenized.clear()
    results, reported = shared(count, tokenizer, ENCODINGS[name])
    for result in results:
        require_equal(alone.per_token, result.per_token)
        arrays = [{"l": e.lengths, "i": e.example_index} for e in (alone, result)]
        require_equal(*arrays)
        assert result.truncated == alone.truncated
    assert reported == [texts] * count
    assert tokenized.total() == texts  # each text once
    if texts > 1:
        assert sorted(tokenized.values()) == sorted(
            len([n for n in range(texts) if n // 2 % count == index]) for index in range(count)
        )


@pytest.mark.parametrize("count", [2, 3])
def test_shared_documents_are_those_of_one_process(count, tokenizer, tokenized):
    texts = zip(TEXTS, PAIRS, strict=True)
    corpus = [[f"{text.capitalize()}. A film? {pair}"] for text, pair in texts] * 2
    corpus[3] = []

    def work(tokenizer: Any) -> documents.Documents:
        return documents.tokenize(corpus, tokenizer, lines=False, longest=9)

    alone = work(tokenizer)
    sentences = tokenized.total()
    assert sentences == 90
    tokenized.clear()
    results, _ = shared(count, tokenizer, work)
    for result in results:
        require_equal(vars(alone.tokens), vars(result.tokens))
        assert np.array_equal(result.token_start, alone.token_start)
        assert np.array_equal(result.sentence_start, alone.sentence_start)
    assert tokenized.total() == sentences
    assert max(tokenized.values()) < sentences / count + 8


def test_a_message_holds_one_round(tokenizer):
    sizes: list[int] = []

    def gather(message: bytes) -> list[bytes]:
        sizes.append(len(message))
        return [message]

    with sharing.among(sharing.Peers(0, 1, gather, lambda texts: None)):
        encoding.encode(tokenizer, ["the king"] * 800)
    assert len(sizes) == 100
    assert max(sizes) < 2000


def test_nothing_is_shared_outside_the_block_or_in_another_thread(tokenizer):
    def refuse(message: bytes) -> list[bytes]:
        raise AssertionError

    with sharing.among(sharing.Peers(0, 2, refuse, lambda texts: None)):
        (result,) = fake_hosts.run(1, lambda index: encoding.encode(tokenizer, TEXTS))
        with pytest.raises(AssertionError):
            encoding.encode(tokenizer, TEXTS)
    assert np.array_equal(result.lengths, encoding.encode(tokenizer, TEXTS).lengths)

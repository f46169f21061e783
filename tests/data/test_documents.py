"""Plain text for pre-training: sentences, their ends, and the sequences made of them."""

import itertools
import math
import random
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest

from flaxbert.data.documents import (
    Document,
    Pair,
    Span,
    _some_text,
    check_following,
    make_pairs,
    sentence_ends,
    split_sentences,
    tokenize,
)
from flaxbert.data.masking import CONTINUATION, START
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.errors import DataError

# --- sentences ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentences",
    [
        ["It was late.", "The king slept."],
        ["Who is there?", "Nobody!", "Good."],
        ["It was late...", "The king slept."],
        ["It was late…", "The king slept."],
        ["“It is late.”", "“So it is,” she said.", "‘Good.’"],
        ['He said "No."', '"Yes," said she.'],
        ["It ended (at last.)", "(Nobody saw it.)", "[Nobody.]"],
        ["She left.", "—Where to?", "--Home."],
        ["It cost 3.50 in Paris.", "Nobody paid."],
        ["At 5 p.m. he left, i.e. late.", "Nobody saw it."],  # a small letter follows
        ["The film of No. 7 is old."],  # a number follows
        ["Yahoo! was a company, and so was Who? for a while."],
        ["A mark without.space after it is none."],
        # Spanish: opening marks, accented capitals, and accented small letters that are none.
        ["¿Quién vive aquí?", "¡Nadie!", "Él se fue."],
        ["Llegó tarde.", "¿Y qué?", "Ángel no vino.", "Ñandú es un ave."],
        ["«Es tarde.»", "«Sí», dijo ella.", "Única hija."],
        ["Vino la Sra. ángela, es decir, tarde.", "Óscar también."],
        ["Nació en el s. xx.", "Ella no."],
        ["¡Vaya!», dijo; ¿qué más?", "Nada."],
        ["—¿Adónde?", "—A casa."],
        # Other scripts; without capitals every mark ends a sentence.
        ["यह एक है.", "वह दो है."],
        ["Это дом.", "Там сад."],
    ],
)
def test_sentences_end_at_their_marks(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "text", ["Bydlí v Praze, tj. česky.", "Mieszka w mieście, np. łodzi.", "Он ушёл, т. е. исчез."]
)
def test_a_sentence_does_not_begin_with_a_lower_case_letter(text: str) -> None:
    assert split_sentences(text) == [text]


def test_line_breaks_and_runs_of_spaces_are_a_space() -> None:
    text = "  It was\nlate.\n\tThe   king\u00a0slept.  "
    assert split_sentences(text) == ["It was late.", "The king slept."]


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_an_empty_text_has_no_sentences(text: str) -> None:
    assert split_sentences(text) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_character_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    text = "".join(chance.choices("aA. \n!?\"'”)(¿¡áÉ1…", k=300))
    assert " ".join(split_sentences(text)) == " ".join(text.split())


# --- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "longest", "ends"),
    [
        ([], 4, []),
        ([3, 4, 1], 4, [3, 7, 8]),
        ([5], 4, [4, 5]),
        ([8], 4, [4, 8]),  # no empty rest
        ([2, 9, 3], 4, [2, 6, 10, 11, 14]),
        ([3], 1, [1, 2, 3]),
    ],
)
def test_ends_of_sentences_long_ones_divided(
    lengths: list[int], longest: int, ends: list[int]
) -> None:
    assert sentence_ends(lengths, longest) == ends


@pytest.mark.parametrize("seed", range(20))
def test_ends_keep_every_sentences_end_and_no_part_is_longer(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.randint(1, 30) for _ in range(20)]
    longest = chance.randint(1, 12)
    ends = sentence_ends(lengths, longest)
    sizes = [end - start for start, end in itertools.pairwise([0, *ends])]
    assert all(1 <= size <= longest for size in sizes)
    assert set(itertools.accumulate(lengths)) <= set(ends)
    assert len(ends) == sum(math.ceil(length / longest) for length in lengths)


# --- tokens ------------------------------------------------------------------------------------


def as_lists(document: Document) -> Document:
    return Document(document.ids.tolist(), document.kinds.tolist(), document.ends.tolist())


def tokenize_one(paragraphs: list[str], tokenizer: Any, **settings: Any) -> Document:
    """One document, with lists in place of arrays."""
    (document,) = tokenize([paragraphs], tokenizer, **settings)
    assert (document.ids.dtype, document.kinds.dtype) == (np.int32, np.int8)
    assert document.ends.dtype == np.int64
    return as_lists(document)


def test_a_document_is_its_sentences_tokens_with_the_kind_of_each(tokenizer: Any) -> None:
    document = tokenize_one(
        ["The king. A zoo, it is", "", "Bad"], tokenizer, lines=False, longest=20
    )
    pieces = tokenizer.convert_ids_to_tokens(document.ids)
    assert pieces == "the king . a z ##o ##o , it is bad".split()
    assert document.kinds == [CONTINUATION if p.startswith("##") else START for p in pieces]
    assert document.ends == [3, 10, 11]


def test_each_line_is_a_sentence_except_blank_lines(tokenizer: Any) -> None:
    paragraphs = ["the king. A\n\n  \nbook", "old"]
    lines = tokenize_one(paragraphs, tokenizer, lines=True, longest=20)
    split = tokenize_one(paragraphs, tokenizer, lines=False, longest=20)
    assert lines.ids == split.ids
    assert lines.ends == [4, 5, 6]
    assert split.ends == [3, 5, 6]


def test_the_same_piece_twice_is_two_words(tokenizer: Any) -> None:
    # Words are numbered within a sentence: the last of one and the first of the next may be equal.
    document = tokenize_one(["King", "Zoo", "King king"], tokenizer, lines=False, longest=20)
    assert document.kinds == [START, START, CONTINUATION, CONTINUATION, START, START]


def test_sentences_over_the_longest_are_divided(tokenizer: Any) -> None:
    document = tokenize_one(["a a a a a. The king"], tokenizer, lines=False, longest=4)
    assert document.ends == [4, 6, 8]


PARAGRAPHS = [
    "There was a king.  The queen loved him! He went",
    "",
    "Away, (he said).\nThe end.",
]


@pytest.mark.parametrize("name", kinds.KINDS)
@pytest.mark.parametrize(("lines", "sentences"), [(False, 5), (True, 3)])
def test_a_document_has_the_tokens_of_its_text(
    name: str, lines: bool, sentences: int, tmp_path: Path
) -> None:
    loaded = load_tokenizer(kinds.write_tokenizer(name, tmp_path))
    document = tokenize_one(PARAGRAPHS, loaded, lines=lines, longest=50)
    text = " ".join(" ".join(PARAGRAPHS).split())
    if lines:  # whose own blanks are kept
        text = text.replace("king. ", "king.  ")
    assert document.ids == loaded(text, add_special_tokens=False)["input_ids"]
    assert len(document.ends) == sentences


@pytest.mark.parametrize("paragraphs", [[], [""], ["\n", " "]])
def test_a_document_without_text_has_no_tokens(paragraphs: list[str], tokenizer: Any) -> None:
    for lines in (False, True):
        document = tokenize_one(paragraphs, tokenizer, lines=lines, longest=4)
        assert document == Document([], [], [])


@pytest.mark.parametrize("lines", [False, True])
def test_documents_are_tokenized_as_each_of_them_alone(lines: bool, tokenizer: Any) -> None:
    chance = random.Random(0)
    sentences = ["The king.", "A zoo, it is!", "", "\u200b", "Bad\nfood. Ink", "Zoo" * 9]
    books = [chance.choices(sentences, k=chance.randint(0, 40)) for _ in range(40)]
    documents = tokenize(books, tokenizer, lines=lines, longest=5)
    for book, document in zip(books, documents, strict=True):
        alone = tokenize_one(book, tokenizer, lines=lines, longest=5)
        assert as_lists(document) == alone


# --- sequences ---------------------------------------------------------------------------------


def some_documents(seed: int, count: int, longest: int, most: int = 40) -> list[Document]:
    """Documents of up to `most` sentences; one in five is empty."""
    chance = random.Random(seed)
    documents = []
    for _ in range(count):
        size = 0 if chance.random() < 0.2 else chance.randint(1, most)
        ends = sentence_ends([chance.randint(1, 2 * longest) for _ in range(size)], longest)
        length = ends[-1] if ends else 0
        documents.append(Document([0] * length, [START] * length, ends))
    return documents


def pairs_of(documents: list[Document], room: int, *, seed: int = 0, next_sentence: bool = True):
    return list(make_pairs(documents, room=room, seed=seed, next_sentence=next_sentence))


def own_texts(pair: Pair) -> list[Span]:
    """Those that a sequence is made for, without a random second text."""
    return [pair.first, pair.second] if pair.second and pair.follows else [pair.first]


ROOMS = [5, 6, 13, 32, 61]


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("room", ROOMS)
def test_every_token_comes_once_as_first_or_following_text(room: int, next_sentence: bool) -> None:
    for seed in range(10):
        documents = some_documents(seed, 12, room // 2)
        texts = [
            span
            for pair in pairs_of(documents, room, seed=seed, next_sentence=next_sentence)
            for span in own_texts(pair)
        ]
        covered = [(d, place) for d, start, end in texts for place in range(start, end)]
        assert covered == [
            (d, place) for d, each in enumerate(documents) for place in range(len(each.ids))
        ]


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("room", ROOMS)
def test_sequences_have_room_and_no_empty_text(room: int, next_sentence: bool) -> None:
    full = 0
    for seed in range(10):
        documents = some_documents(seed, 12, room // 2)
        for pair in pairs_of(documents, room, seed=seed, next_sentence=next_sentence):
            texts = [text for text in (pair.first, pair.second) if text is not None]
            assert len(texts) == (2 if next_sentence else 1)
            for number, start, end in texts:
                assert 0 <= start < end <= len(documents[number].ids)
            length = sum(end - start for _, start, end in texts)
            assert length <= room
            full += length > 0.7 * room
    assert full > 100  # and most of it is used


@pytest.mark.parametrize("room", ROOMS)
def test_texts_begin_and_end_with_sentences(room: int) -> None:
    for seed in range(10):
        documents = some_documents(seed, 12, room // 2)
        for pair in pairs_of(documents, room, seed=seed):
            texts = [pair.first, pair.second]
            for number, start, end in texts:
                ends = documents[number].ends
                assert start in (0, *ends)
                # A random text is a copy, so of its first sentence there may be a part alone.
                cut = start + room - (pair.first.end - pair.first.start)
                assert end in ends or (
                    not pair.follows and end == cut < min(e for e in ends if e > start)
                )


@pytest.mark.parametrize("room", ROOMS)
def test_a_text_follows_or_is_of_another_document(room: int) -> None:
    for seed in range(10):
        documents = some_documents(seed, 12, room // 2)
        for first, second, follows in pairs_of(documents, room, seed=seed):
            assert second is not None
            if follows:
                assert second.document == first.document
                assert second.start == first.end
            else:
                assert second.document != first.document


def test_about_half_of_the_second_texts_follow() -> None:
    # Short sentences in long documents: hardly ever is a sequence one sentence alone.
    documents = [Document([0] * 4000, [START] * 4000, list(range(2, 4001, 2))) for _ in range(20)]
    pairs = pairs_of(documents, 40)
    share = sum(pair.follows for pair in pairs) / len(pairs)
    assert len(pairs) > 2000
    assert 0.5 - 0.05 - 2.5 / math.sqrt(len(pairs)) < share < 0.5 + 2.5 / math.sqrt(len(pairs))


def test_a_random_text_may_be_any_sentence_of_any_other_document() -> None:
    documents = [Document([0] * 400, [START] * 400, list(range(4, 401, 4))) for _ in range(5)]
    pairs = [p for seed in range(20) for p in pairs_of(documents, 24, seed=seed) if not p.follows]
    found = {(p.first.document, p.second.document) for p in pairs if p.second}
    assert found == set(itertools.permutations(range(5), 2))
    starts = [p.second.start for p in pairs if p.second]
    assert set(starts) == set(range(0, 400, 4))
    # And each alike: 100 starts.
    mean = sum(starts) / len(starts)
    assert mean == pytest.approx(198, abs=5 * 400 / math.sqrt(12 * len(starts)))


def test_the_text_that_a_random_one_replaced_is_used_next() -> None:
    documents = some_documents(0, 12, 16)
    for before, after in itertools.pairwise(pairs_of(documents, 32)):
        if after.first.document == before.first.document:
            assert after.first.start == own_texts(before)[-1].end


def test_lengths_do_not_reveal_whether_a_text_follows() -> None:
    # Sentences of 3 tokens, documents without an end in sight: a length is that of its draw.
    documents = [Document([0] * 9000, [START] * 9000, list(range(3, 9001, 3))) for _ in range(9)]
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for seed in range(5):
        for first, second, follows in pairs_of(documents, 60, seed=seed):
            assert second is not None
            lengths[follows].append(first.end - first.start + second.end - second.start)
    # One in ten was made shorter, whichever text came second. Very short ones are one sentence
    # alone, which none follows.
    shares = {}
    for follows, found in lengths.items():
        short, full = (sum(n in where for n in found) for where in (range(9, 54), range(58, 61)))
        shares[follows] = short / (short + full)
    assert shares[True] == pytest.approx(shares[False], abs=0.02)
    assert 0.05 < shares[True] < 0.1


@pytest.mark.parametrize("room", ROOMS)
def test_a_random_text_is_a_sentence_at_least(room: int) -> None:
    # Documents of one sentence, as long as may be: whatever the draw, the first text fills it.
    documents = [Document([0] * n, [START] * n, [n]) for n in [room // 2] * 50]
    for pair in pairs_of(documents, room):
        assert pair.second is not None
        assert pair.second.end - pair.second.start == room // 2


@pytest.mark.parametrize("target", range(-2, 30))
def test_a_random_text_goes_on_as_long_as_sentences_fit(target: int) -> None:
    document = Document([0] * 25, [START] * 25, [3, 4, 9, 14, 15, 25])
    for seed in range(20):
        found = _some_text(document, 7, target, 28, random.Random(seed))
        begins = [0, *document.ends]
        sentence = begins.index(found.start)
        fitting = [end for end in begins if found.start < end <= found.start + target]
        assert found == Span(7, found.start, max(fitting, default=begins[sentence + 1]))


def test_documents_of_one_sentence_give_random_second_texts_alone() -> None:
    documents = [Document([0] * 3, [START] * 3, [3]) for _ in range(4)]
    pairs = pairs_of(documents, 20)
    assert [pair.first for pair in pairs] == [Span(n, 0, 3) for n in range(4)]
    assert not any(pair.follows for pair in pairs)


@pytest.mark.parametrize(
    ("follows", "count", "fits"),
    [(50, 100, True), (30, 100, True), (22, 100, True), (20, 100, False), (0, 100, False),
     (0, 9, True), (0, 10, False), (280, 1000, True), (270, 1000, False)],
)  # fmt: skip
def test_a_share_below_the_least_is_refused_unless_chance_explains_it(
    follows: int, count: int, fits: bool
) -> None:
    if fits:
        check_following(follows, count, "books.jsonl:1")
        return
    with pytest.raises(DataError, match=f"^books.jsonl:1: {follows / count:.0%} of {count} "):
        check_following(follows, count, "books.jsonl:1")


def test_some_sequences_are_made_short() -> None:
    documents = [Document([0] * 150_000, [START] * 150_000, list(range(1, 150_001)))]
    pairs = pairs_of(documents, 50, next_sentence=False)
    lengths = [pair.first.end - pair.first.start for pair in pairs[:-1]]
    # One in ten is of 2 to 50 tokens (sentences are of one token here), the others of 50.
    short = [length for length in lengths if length < 50]
    expected = 0.1 * 48 / 49
    assert len(short) / len(lengths) == pytest.approx(
        expected, abs=5 * math.sqrt(expected / len(lengths))
    )
    assert min(short) < 10
    assert max(short) > 40
    assert all(length >= 2 for length in lengths)


def test_sequences_are_a_pure_function_of_documents_and_seed() -> None:
    documents = some_documents(1, 12, 16)
    found = pairs_of(documents, 32, seed=5)
    random.seed(0)  # the global generator must have no say
    assert pairs_of(documents, 32, seed=5) == found
    assert pairs_of(documents, 32, seed=6) != found


@pytest.mark.parametrize("others", [[], [Document([], [], [])]])
def test_one_document_has_no_text_that_does_not_follow(others: list[Document]) -> None:
    documents = [*others, Document([0] * 9, [START] * 9, [3, 6, 9])]
    with pytest.raises(ValueError, match="second document"):
        pairs_of(documents, 8)
    assert pairs_of(documents, 9, next_sentence=False)


def test_without_documents_there_are_no_sequences() -> None:
    assert pairs_of([], 9, next_sentence=False) == []

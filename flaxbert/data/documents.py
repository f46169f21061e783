"""Plain text for pre-training: documents, their sentences, and the sequences made of these.

BERT paper, section 3.1 and appendix A.2; `create_training_instances` of google-research/bert. One
choice differs: no text is cut off. Sequences end between sentences, and a sentence longer than half
a sequence is divided.
"""

import bisect
import dataclasses
import logging
import math
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flaxbert.data.encoding import NONE, encode
from flaxbert.data.features import Note
from flaxbert.data.masking import CONTINUATION, SPECIAL, START
from flaxbert.data.tokenization import Tokenizer, needs_blank
from flaxbert.errors import DataError

CLOSING, OPENING = "\"'”’»)\\]", "\"'“‘«(\\[¿¡—-"
SENTENCE_END = re.compile(rf"[.!?…][{CLOSING}]*(\s+)(?=[{OPENING}]*([^\W\d_]))")
"""Matches the end of a sentence, the spaces after it, and the letter that begins the next one.

A sentence does not begin with a lower-case letter; `split_sentences` checks that.
"""

SHORT = 0.1
"""Share of sequences that are shortened, so that training sees all lengths."""

LEAST_FOLLOWING = 0.3
"""Smallest share of second texts that follow the first. With fewer there is little to learn; the
aim is half."""


@dataclasses.dataclass(frozen=True)
class Document:
    """The tokens of a document, without special tokens."""

    ids: np.ndarray
    """[tokens] int32."""
    kinds: np.ndarray
    """[tokens] int8: the kind of each token; see masking.py."""
    ends: list[int]
    """The end of each sentence, which begins where the previous one ends."""


class Span(NamedTuple):
    """Tokens `start` to `end` (not included) of a document."""

    document: int
    start: int
    end: int


class Pair(NamedTuple):
    """[CLS] first [SEP] second [SEP]; `follows` is the target of next sentence prediction."""

    first: Span
    second: Span | None
    follows: bool


def split_sentences(text: str) -> list[str]:
    """Split a paragraph into sentences; line breaks count as spaces."""
    text = " ".join(text.split())
    parts, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if match[2].islower():  # after an abbreviation
            continue
        parts.append(text[start : match.start(1)])
        start = match.end()
    return [part for part in [*parts, text[start:]] if part]


def sentence_ends(lengths: Sequence[int], longest: int) -> list[int]:
    """Return where sentences of these lengths end; those over `longest` tokens are divided."""
    ends, total = [], 0
    for length in lengths:
        ends += [total + end for end in range(longest, length, longest)]
        total += length
        ends.append(total)
    return ends


def tokenize(
    documents: Sequence[Sequence[str]], tokenizer: Tokenizer, *, lines: bool, longest: int
) -> list[Document]:
    """Return the tokens of documents: those of their sentences, with a blank between them.

    Args:
      documents: the paragraphs of each document.
      tokenizer: the tokenizer of a checkpoint.
      lines: whether each line is a sentence; else paragraphs are split.
      longest: the most tokens of a sentence; longer ones are divided.
    """
    split = str.splitlines if lines else split_sentences
    sentences, counts = list[str](), list[int]()
    blank = needs_blank(tokenizer)
    for paragraphs in documents:
        texts = [text for paragraph in paragraphs for text in split(paragraph) if text.strip()]
        sentences += texts[:1] + [f" {text.lstrip()}" for text in texts[1:]] if blank else texts
        counts.append(len(texts))
    encoded = encode(tokenizer, sentences, special_tokens=False, words=True)
    words = encoded.per_token["word"]
    before = np.concatenate([[NONE], words[:-1]])
    starts = np.cumsum(encoded.lengths) - encoded.lengths
    before[starts[encoded.lengths > 0]] = NONE
    kinds = np.where(words == before, CONTINUATION, START).astype(np.int8)
    ids, lengths, start, first = encoded.per_token["input_ids"], encoded.lengths.tolist(), 0, 0
    tokenized = []
    for count in counts:
        own = lengths[first : first + count]
        here = slice(start, start + sum(own))
        ends = sentence_ends([length for length in own if length], longest)
        tokenized.append(Document(ids[here], kinds[here], ends))
        first, start = first + count, here.stop
    return tokenized


def make_pairs(
    documents: Sequence[Document], *, room: int, seed: int, next_sentence: bool
) -> Iterator[Pair]:
    """Yield sequences in which every token occurs once as part of a first or a following text.

    Args:
      documents: documents with sentences of at most half of `room` tokens.
      room: the maximum number of tokens in a sequence, without special tokens.
      seed: seed of the lengths, the divisions, and the texts that do not follow.
      next_sentence: divide sequences in two. Half of the second texts (more where a sequence is
        one sentence) come from another document; the text that would have followed is used again.

    Raises:
      ValueError: for next sentences with fewer than two documents that have text.
    """
    filled = [number for number, document in enumerate(documents) if document.ends]
    if next_sentence and len(filled) < 2:
        raise ValueError("texts that do not follow need a second document")
    rng = random.Random(seed)
    for rank, number in enumerate(filled):
        ends, sentence = documents[number].ends, 0
        while sentence < len(ends):
            target = room if rng.random() >= SHORT else 2 + int(rng.random() * (room - 1))
            start = ends[sentence - 1] if sentence else 0
            stop = sentence + 1
            while stop < len(ends) and ends[stop] - start <= target:
                stop += 1
            if not next_sentence:
                yield Pair(Span(number, start, ends[stop - 1]), None, follows=True)
                sentence = stop
                continue
            alone = stop - sentence == 1
            cut = stop if alone else sentence + 1 + int(rng.random() * (stop - sentence - 1))
            first = Span(number, start, ends[cut - 1])
            if alone or rng.random() < 0.5:
                place = int(rng.random() * (len(filled) - 1))  # among the other documents
                other = filled[place + (place >= rank)]
                used = first.end - start
                second = _some_text(documents[other], other, target - used, room - used, rng)
                yield Pair(first, second, follows=False)
                sentence = cut
            else:
                yield Pair(first, Span(number, first.end, ends[stop - 1]), follows=True)
                sentence = stop


def joined(
    pairs: Sequence[Pair], documents: Sequence[Document], cls_id: int, sep_id: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the tokens of pairs.

    Returns:
      The tokens of each pair [M], and `input_ids`, `token_type_ids` and `kind`, [total tokens].
    """
    texts = [[span for span in (pair.first, pair.second) if span is not None] for pair in pairs]
    lengths = [1 + sum(span.end - span.start + 1 for span in spans) for spans in texts]
    total = sum(lengths)
    ids = np.full(total, sep_id, np.int32)
    types, kinds = np.zeros(total, np.int32), np.full(total, SPECIAL, np.int32)
    place = 0
    for spans in texts:
        ids[place] = cls_id
        place += 1
        for number, (document, start, end) in enumerate(spans):
            here = slice(place, place + end - start)
            ids[here] = documents[document].ids[start:end]
            kinds[here] = documents[document].kinds[start:end]
            place = here.stop + 1
            types[here.start : place] = number
    tokens = {"input_ids": ids, "token_type_ids": types, "kind": kinds}
    return np.array(lengths, np.int32), tokens


def check_following(pairs: Sequence[Pair], origin: str) -> Note:
    """Return a note of the share of second texts that follow the first.

    Raises:
      DataError: if the share is too low to learn from, because most documents have one sentence;
        the message names `origin`.
    """
    share = sum(pair.follows for pair in pairs) / len(pairs)
    # With few pairs the share may be low by chance: two standard deviations are allowed.
    chance = 2 * math.sqrt(LEAST_FOLLOWING * (1 - LEAST_FOLLOWING) / len(pairs))
    if share < LEAST_FOLLOWING - chance:
        raise DataError(
            f"{origin}: {share:.0%} of {len(pairs)} second texts follow the first, too few for "
            "next sentence prediction; most documents have a sentence or two. Give longer ones, "
            "name the column that is equal within a document (--config.options.document=COLUMN), "
            "or set --config.options.next_sentence=false."
        )
    return Note(logging.INFO, f"{share:.0%} of {len(pairs)} second texts follow the first")


def _some_text(document: Document, number: int, target: int, room: int, rng: random.Random) -> Span:
    """Return a random sentence and those after it, up to `target` tokens.

    It is no longer than texts that follow, because the length would reveal the class. Because it is
    a copy, a sentence of more than `room` tokens may be cut.
    """
    sentence = int(rng.random() * len(document.ends))
    start = document.ends[sentence - 1] if sentence else 0
    fitting = bisect.bisect_right(document.ends, start + target)  # a book has many sentences
    return Span(number, start, min(document.ends[max(sentence, fitting - 1)], start + room))

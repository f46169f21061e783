"""Plain text for pre-training: documents, their sentences, and the sequences made of these.

BERT paper, section 3.1 and appendix A.2; `create_training_instances` of google-research/bert. One
choice differs: no text is cut off. Sequences end between sentences, and a sentence longer than half
a sequence is divided.
"""

import bisect
import dataclasses
import itertools
import logging
import math
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flaxbert.data.masking import CONTINUATION, START
from flaxbert.data.tokenization import Tokenizer, needs_blank
from flaxbert.errors import DataError

log = logging.getLogger("flaxbert")

CLOSING, OPENING = "\"'”’»)\\]", "\"'“‘«(\\[¿¡—-"
SENTENCE_END = re.compile(rf"[.!?…][{CLOSING}]*(\s+)(?=[{OPENING}]*([^\W\d_]))")
"""With the spaces behind it, and the letter that follows: no sentence begins with a small one."""

SHORT = 0.1
"""Share of sequences made shorter than they might be, so that training sees all lengths."""

LEAST_FOLLOWING = 0.3
"""Share of second texts that follow, below which there is little to tell: half is the aim."""


@dataclasses.dataclass(frozen=True)
class Document:
    """The tokens of a document, without special ones."""

    ids: list[int]
    kinds: list[int]
    """Of each token; see masking.py."""
    ends: list[int]
    """Of its sentences: each is the tokens from the end before it to its own."""


class Span(NamedTuple):
    """Tokens `start` to `end` (not included) of a document."""

    document: int
    start: int
    end: int


class Pair(NamedTuple):
    """[CLS] first [SEP] second [SEP]; `follows` is what next sentence prediction has to tell."""

    first: Span
    second: Span | None
    follows: bool


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph; its line breaks count as spaces."""
    text = " ".join(text.split())
    parts, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if match[2].islower():  # after an abbreviation
            continue
        parts.append(text[start : match.start(1)])
        start = match.end()
    return [part for part in [*parts, text[start:]] if part]


def sentence_ends(lengths: Sequence[int], longest: int) -> list[int]:
    """Ends of sentences of the given lengths, of which those over `longest` tokens are divided."""
    ends, total = [], 0
    for length in lengths:
        ends += [total + end for end in range(longest, length, longest)]
        total += length
        ends.append(total)
    return ends


def tokenize(
    paragraphs: Sequence[str], tokenizer: Tokenizer, *, lines: bool, longest: int
) -> Document:
    """Return the tokens of a document: those of its sentences, with a blank between them.

    With `lines` each line is a sentence, else paragraphs are split.
    """
    split = str.splitlines if lines else split_sentences
    sentences = [text for paragraph in paragraphs for text in split(paragraph) if text.strip()]
    if needs_blank(tokenizer):
        sentences = sentences[:1] + [f" {text.lstrip()}" for text in sentences[1:]]
    ids: list[int] = []
    kinds: list[int] = []
    lengths = []
    encoded = tokenizer(sentences, add_special_tokens=False).encodings if sentences else []
    for encoding in encoded:
        words = [None, *encoding.word_ids]
        kinds += [CONTINUATION if a == b else START for a, b in itertools.pairwise(words)]
        ids += encoding.ids
        lengths.append(len(encoding.ids))
    return Document(ids, kinds, sentence_ends([n for n in lengths if n], longest))


def make_pairs(
    documents: Sequence[Document], *, room: int, seed: int, next_sentence: bool
) -> Iterator[Pair]:
    """Sequences that cover every token of every document once as first or following text.

    Args:
      documents: with sentences of at most half of `room` tokens.
      room: most tokens of a sequence, without special ones.
      seed: of lengths, of where a sequence is parted, and of texts that do not follow.
      next_sentence: part sequences in two. Half of the second texts (more where a sequence is one
        sentence) come from another document, and the text that would have followed is used again.

    Raises:
      ValueError: for next sentences with fewer than two documents that have text.
    """
    filled = [number for number, document in enumerate(documents) if document.ends]
    if next_sentence and len(filled) < 2:
        raise ValueError("texts that do not follow need a second document")
    chance = random.Random(seed)
    for rank, number in enumerate(filled):
        ends, sentence = documents[number].ends, 0
        while sentence < len(ends):
            target = room if chance.random() >= SHORT else 2 + int(chance.random() * (room - 1))
            start = ends[sentence - 1] if sentence else 0
            stop = sentence + 1
            while stop < len(ends) and ends[stop] - start <= target:
                stop += 1
            if not next_sentence:
                yield Pair(Span(number, start, ends[stop - 1]), None, follows=True)
                sentence = stop
                continue
            alone = stop - sentence == 1
            cut = stop if alone else sentence + 1 + int(chance.random() * (stop - sentence - 1))
            first = Span(number, start, ends[cut - 1])
            if alone or chance.random() < 0.5:
                place = int(chance.random() * (len(filled) - 1))  # among the others
                other = filled[place + (place >= rank)]
                used = first.end - start
                second = _some_text(documents[other], other, target - used, room - used, chance)
                yield Pair(first, second, follows=False)
                sentence = cut
            else:
                yield Pair(first, Span(number, first.end, ends[stop - 1]), follows=True)
                sentence = stop


def check_following(pairs: Sequence[Pair], origin: str) -> None:
    """Tell the share of second texts that follow.

    Raises:
      DataError: naming `origin`, where the share is too low to learn from: a document of one
        sentence has no text that follows.
    """
    share = sum(pair.follows for pair in pairs) / len(pairs)
    log.info(f"{share:.0%} of {len(pairs)} second texts follow the first")
    # Of a few pairs few may follow by chance: up to two standard deviations are taken for it.
    chance = 2 * math.sqrt(LEAST_FOLLOWING * (1 - LEAST_FOLLOWING) / len(pairs))
    if share < LEAST_FOLLOWING - chance:
        raise DataError(
            f"{origin}: {share:.0%} of {len(pairs)} second texts follow the first, too few for "
            "next sentence prediction; most documents have a sentence or two. Give longer ones, "
            "name the column that is equal within a document (--config.options.document=COLUMN), "
            "or set --config.options.next_sentence=false."
        )


def _some_text(
    document: Document, number: int, target: int, room: int, chance: random.Random
) -> Span:
    """A sentence from anywhere, with those behind it up to `target` tokens.

    No longer than texts that follow: the length would tell them apart. It is a copy, so a sentence
    of more than `room` tokens may be cut.
    """
    sentence = int(chance.random() * len(document.ends))
    start = document.ends[sentence - 1] if sentence else 0
    fitting = bisect.bisect_right(document.ends, start + target)  # a book has many sentences
    return Span(number, start, min(document.ends[max(sentence, fitting - 1)], start + room))

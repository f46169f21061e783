"""Plain text for pre-training: documents, their sentences, and the sequences made of these.

BERT paper, section 3.1 and appendix A.2; `create_training_instances` of google-research/bert. One
choice differs: no text is cut off. Sequences end between sentences, and a sentence longer than half
a sequence is divided.
"""

import array
import bisect
import dataclasses
import itertools
import logging
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaxbert.data import sharing
from flaxbert.data.encoding import CHUNK, NONE, encode
from flaxbert.data.features import Note
from flaxbert.data.growing import GrowingArrays
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


BLOCK = 4096
"""Sentences that are tokenized, and sequences that are made, at a time."""


@dataclasses.dataclass(frozen=True)
class Document:
    """The tokens of a document, without special tokens."""

    ids: np.ndarray
    """[tokens] int32."""
    kinds: np.ndarray
    """[tokens] int8: the kind of each token; see masking.py."""
    ends: np.ndarray
    """[sentences] int64, the end of each sentence, which begins where the previous one ends."""


@dataclasses.dataclass(frozen=True)
class Documents(Sequence[Document]):
    """The tokens of documents in flat arrays, which may be memory-mapped."""

    tokens: Document
    """The arrays of all documents, end to end; ends are counted from the start of a document."""
    token_start: np.ndarray
    """[documents + 1] where each document begins in `tokens.ids`, and the end of the last."""
    sentence_start: np.ndarray
    """[documents + 1] the same in `tokens.ends`."""

    def __len__(self) -> int:
        return len(self.token_start) - 1

    def __getitem__(self, index: Any) -> Any:
        number = range(len(self))[index]
        here = slice(*self.token_start[number : number + 2].tolist())
        ends = slice(*self.sentence_start[number : number + 2].tolist())
        return Document(self.tokens.ids[here], self.tokens.kinds[here], self.tokens.ends[ends])


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


def sentence_ends(lengths: Sequence[int], longest: int, before: int = 0) -> list[int]:
    """Return where sentences of these lengths end; those over `longest` tokens are divided.

    The first one begins at token `before`.
    """
    ends, total = [], before
    for length in lengths:
        ends += [total + end for end in range(longest, length, longest)]
        total += length
        ends.append(total)
    return ends


def tokenize(
    documents: Iterable[Iterable[str]],
    tokenizer: Tokenizer,
    *,
    lines: bool,
    longest: int,
    directory: Path | str | None = None,
) -> Documents:
    """Return the tokens of documents: those of their sentences, with a blank between them.

    Args:
      documents: the paragraphs of each document; a paragraph is read when it is tokenized.
      tokenizer: the tokenizer of a checkpoint.
      lines: whether each line is a sentence; else paragraphs are split.
      longest: the most tokens of a sentence; longer ones are divided.
      directory: receives files of arrays that are large; see `GrowingArrays`.

    Raises:
      DataError: if a file cannot be written.
    """
    arrays = GrowingArrays(directory)
    sizes, counts = array.array("q"), array.array("q")  # tokens and sentences of each document
    sentences = _sentences(documents, tokenizer, lines=lines, sizes=sizes, counts=counts)
    size = sharing.whole_rounds(BLOCK, CHUNK)
    while True:
        block = list(itertools.islice(sentences, size))
        encoded = encode(tokenizer, [text for _, text in block], special_tokens=False, words=True)
        words = encoded.per_token["word"]
        before = np.concatenate([[NONE], words[:-1]])
        starts = np.cumsum(encoded.lengths) - encoded.lengths
        before[starts[encoded.lengths > 0]] = NONE
        ends, lengths = list[int](), iter(encoded.lengths.tolist())
        for number, group in itertools.groupby(number for number, _ in block):
            some = [length for _, length in zip(group, lengths, strict=False) if length]
            here = sentence_ends(some, longest, sizes[number])
            sizes[number] += sum(some)
            counts[number] += len(here)
            ends += here
        arrays.add(
            ids=encoded.per_token["input_ids"],
            kinds=np.where(words == before, CONTINUATION, START).astype(np.int8),
            ends=np.array(ends, np.int64),
        )
        if len(block) < size:
            break
    token_start, sentence_start = (np.append(0, np.cumsum(part)) for part in (sizes, counts))
    return Documents(Document(**arrays.joined()), token_start, sentence_start)


def _sentences(
    documents: Iterable[Iterable[str]],
    tokenizer: Tokenizer,
    *,
    lines: bool,
    sizes: "array.array[int]",
    counts: "array.array[int]",
) -> Iterator[tuple[int, str]]:
    """Yield sentences with the number of their document; append a 0 to both arrays for each."""
    split = str.splitlines if lines else split_sentences
    blank = needs_blank(tokenizer)
    for number, paragraphs in enumerate(documents):
        sizes.append(0)
        counts.append(0)
        first = True
        for paragraph in paragraphs:
            for text in split(paragraph):
                if text.strip():
                    yield number, text if first or not blank else f" {text.lstrip()}"
                    first = False


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
    has_text = np.fromiter((len(document.ends) > 0 for document in documents), bool)
    filled = np.flatnonzero(has_text)
    if next_sentence and len(filled) < 2:
        raise ValueError("texts that do not follow need a second document")
    rng = random.Random(seed)
    for rank, number in enumerate(map(int, filled)):
        ends, sentence = documents[number].ends, 0
        while sentence < len(ends):
            target = room if rng.random() >= SHORT else 2 + int(rng.random() * (room - 1))
            start = int(ends[sentence - 1]) if sentence else 0
            # A sentence has a token at least, which bounds their number.
            most = min(len(ends), sentence + 1 + max(0, target))
            stop = bisect.bisect_right(ends, start + target, sentence + 1, most)
            if not next_sentence:
                yield Pair(Span(number, start, int(ends[stop - 1])), None, follows=True)
                sentence = stop
                continue
            alone = stop - sentence == 1
            cut = stop if alone else sentence + 1 + int(rng.random() * (stop - sentence - 1))
            first = Span(number, start, int(ends[cut - 1]))
            if alone or rng.random() < 0.5:
                place = int(rng.random() * (len(filled) - 1))  # among the other documents
                other = int(filled[place + (place >= rank)])
                used = first.end - start
                second = _some_text(documents[other], other, target - used, room - used, rng)
                yield Pair(first, second, follows=False)
                sentence = cut
            else:
                yield Pair(first, Span(number, first.end, int(ends[stop - 1])), follows=True)
                sentence = stop


def joined(
    pairs: Iterable[Pair],
    documents: Sequence[Document],
    cls_id: int,
    sep_id: int,
    directory: Path | str | None = None,
) -> dict[str, np.ndarray]:
    """Return the tokens of pairs, in arrays that may be memory-mapped.

    Args:
      pairs: as `make_pairs` yields them.
      documents: the documents of the pairs.
      cls_id: the id of [CLS].
      sep_id: the id of [SEP].
      directory: receives files of arrays that are large; see `GrowingArrays`.

    Returns:
      Of each pair, [M]: `lengths` int32, its tokens; `example_index` int64, the document of its
      first text; `follows` int32, 0 if the second text follows. `input_ids`, `token_type_ids` and
      `kind`, [total tokens] int32.

    Raises:
      DataError: if a file cannot be written.
    """
    arrays, pairs = GrowingArrays(directory), iter(pairs)
    while True:
        block = list(itertools.islice(pairs, BLOCK))
        arrays.add(**_joined(block, documents, cls_id, sep_id))
        if len(block) < BLOCK:
            return arrays.joined()


def _joined(
    pairs: Sequence[Pair], documents: Sequence[Document], cls_id: int, sep_id: int
) -> dict[str, np.ndarray]:
    """Return what `joined` does, for a few pairs."""
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
            text = documents[document]
            ids[here], kinds[here] = text.ids[start:end], text.kinds[start:end]
            place = here.stop + 1
            types[here.start : place] = number
    return {
        "lengths": np.array(lengths, np.int32),
        "example_index": np.array([pair.first.document for pair in pairs], np.int64),
        "follows": np.array([not pair.follows for pair in pairs], np.int32),
        "input_ids": ids,
        "token_type_ids": types,
        "kind": kinds,
    }


def check_following(follows: int, count: int, origin: str) -> Note:
    """Return a note of the share of second texts that follow the first.

    Args:
      follows: the number of those that do.
      count: the number of second texts.
      origin: the place that an error names.

    Raises:
      DataError: if the share is too low to learn from, because most documents have one sentence;
        the message names `origin`.
    """
    share = follows / count
    # With few pairs the share may be low by chance: two standard deviations are allowed.
    chance = 2 * math.sqrt(LEAST_FOLLOWING * (1 - LEAST_FOLLOWING) / count)
    if share < LEAST_FOLLOWING - chance:
        raise DataError(
            f"{origin}: {share:.0%} of {count} second texts follow the first, too few for "
            "next sentence prediction; most documents have a sentence or two. Give longer ones, "
            "name the column that is equal within a document (--config.options.document=COLUMN), "
            "or set --config.options.next_sentence=false."
        )
    return Note(logging.INFO, f"{share:.0%} of {count} second texts follow the first")


def _some_text(document: Document, number: int, target: int, room: int, rng: random.Random) -> Span:
    """Return a random sentence and those after it, up to `target` tokens.

    It is no longer than texts that follow, because the length would reveal the class. Because it is
    a copy, a sentence of more than `room` tokens may be cut.
    """
    sentence = int(rng.random() * len(document.ends))
    start = int(document.ends[sentence - 1]) if sentence else 0
    fitting = bisect.bisect_right(document.ends, start + target)  # a book has many sentences
    return Span(number, start, min(int(document.ends[max(sentence, fitting - 1)]), start + room))

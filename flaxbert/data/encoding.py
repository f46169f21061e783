"""Texts to tokens, in flat arrays.

Tokenizers return Python objects of about 400 bytes for each token. So texts are tokenized a few
hundred at a time, and only the arrays of a chunk are kept. Processes may share the chunks; see
sharing.py.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from flaxbert.data import sharing
from flaxbert.data.growing import GrowingArrays
from flaxbert.data.tokenization import Tokenizer

CHUNK = 128
"""Texts that are tokenized together: enough for all cores, and few enough to be small in memory."""

NONE = -1
"""The character or the word of a token that belongs to none, such as [SEP]."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """N texts or pairs as M sequences of tokens, all end to end."""

    lengths: np.ndarray
    """[M] int32, tokens of each sequence."""
    example_index: np.ndarray
    """[M] int64, the text that a sequence was made from, ascending."""
    per_token: dict[str, np.ndarray]
    """[total tokens] int32: `input_ids`, `token_type_ids`, and what `encode` was asked for."""
    truncated: list[int]
    """Indices of the texts that lost tokens."""


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[Any],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    truncation: str = "longest_first",
    overlap: int | None = None,
    split: bool = False,
    special_tokens: bool = True,
    characters: bool = False,
    words: bool = False,
) -> Encoded:
    """Tokenize texts or pairs.

    Args:
      tokenizer: the tokenizer of a checkpoint.
      texts: one per sequence; with `split` lists of words.
      pairs: the second texts, if there are any.
      max_length: the most tokens of a sequence; None for no limit.
      truncation: which text is cut: "longest_first", "only_first" or "only_second".
      overlap: tokens that neighboring windows share; None cuts what is over `max_length`.
      split: whether texts are lists of words.
      special_tokens: whether to add [CLS] and [SEP].
      characters: also return `char_start` and `char_end`, the characters of each token of the last
        text: the first one, and the one after the last. They are -1 at all other tokens.
      words: also return `word`, the index of the word of each token, -1 without one.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    if max_length is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(max_length, stride=overlap or 0, strategy=truncation)

    def make(here: slice) -> dict[str, np.ndarray]:
        # One expression, so that no encoding of a chunk is alive while the next one is made.
        return _chunk(
            backend.encode_batch(
                _inputs(texts[here], None if pairs is None else pairs[here]),
                is_pretokenized=split,
                add_special_tokens=special_tokens,
            ),
            windows=overlap is not None,
            last=int(pairs is not None) if characters else None,
            words=words,
        )

    chunks, truncated = GrowingArrays(), list[int]()
    try:
        for first, arrays in sharing.chunks(len(texts), CHUNK, make):
            truncated += (arrays.pop("cut") + first).tolist()
            chunks.add(example_index=arrays.pop("text") + first, **arrays)
    finally:
        backend.no_truncation()
    arrays = chunks.joined()
    lengths, example_index = arrays.pop("lengths"), arrays.pop("example_index")
    return Encoded(lengths, example_index, arrays, truncated)


def encode_head_and_tail(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Encoded:
    """Tokenize texts; of one that is too long, a quarter of the start and three of the end stay.

    Sun et al. 2019, arXiv:1905.05583, section 5.3.1.

    Args:
      tokenizer: the tokenizer of a checkpoint.
      texts: one per sequence.
      max_length: the most tokens of a sequence, with [CLS] and [SEP].
    """
    room = max_length - 2
    head = room // 4
    whole = encode(tokenizer, texts, special_tokens=False)
    counts = whole.lengths.astype(np.int64)
    text = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(text)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = (place < head) | (place >= counts[text] - (room - head)) | (counts[text] <= room)
    lengths = np.minimum(counts, room) + 2
    ends = np.cumsum(lengths)
    ids = np.zeros(int(lengths.sum()), np.int32)
    ids[ends - lengths], ids[ends - 1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids[np.arange(kept.sum()) + 2 * text[kept] + 1] = whole.per_token["input_ids"][kept]
    tokens = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
    cut = np.flatnonzero(counts > room).tolist()
    return Encoded(lengths.astype(np.int32), whole.example_index, tokens, cut)


def _inputs(texts: Sequence[Any], pairs: Sequence[str] | None) -> list[Any]:
    """Return texts or pairs as the tokenizer takes them."""
    return list(texts) if pairs is None else list(zip(texts, pairs, strict=True))


def _chunk(
    encodings: Sequence[Any], *, windows: bool, last: int | None, words: bool
) -> dict[str, np.ndarray]:
    """Return the arrays of some encodings, end to end.

    Args:
      encodings: one for each text of a chunk.
      windows: whether what is over the limit becomes further windows.
      last: the number of the text whose characters are needed, if any.
      words: whether words are needed.

    Returns:
      `lengths` and `per_token` of `Encoded`; `text`, the number of the encoding that each sequence
      is part of; and `cut`, the numbers of those that lost tokens.
    """
    groups = [[e, *e.overflowing] if windows else [e] for e in encodings]
    parts = list(itertools.chain.from_iterable(groups))
    lengths = np.fromiter(map(len, parts), np.int32, len(parts))
    total = int(lengths.sum())

    def flat(values: Iterable[Iterable[Any]], size: int = total) -> np.ndarray:
        return np.fromiter(itertools.chain.from_iterable(values), np.int32, size)

    arrays: dict[str, np.ndarray] = {
        "text": np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        "lengths": lengths,
        "input_ids": flat(part.ids for part in parts),
        "token_type_ids": flat(part.type_ids for part in parts),
    }
    if words:
        given = ((NONE if word is None else word for word in part.word_ids) for part in parts)
        arrays["word"] = flat(given)
    if last is not None:
        inside = flat((text == last for text in part.sequence_ids) for part in parts) > 0
        pairs = itertools.chain.from_iterable(part.offsets for part in parts)
        places = flat(pairs, 2 * total).reshape(total, 2)
        for n, name in enumerate(("char_start", "char_end")):
            arrays[name] = np.where(inside, places[:, n], np.int32(NONE))
    cut = [] if windows else [n for n, encoding in enumerate(encodings) if encoding.overflowing]
    return arrays | {"cut": np.array(cut, np.int64)}

"""Parts of texts that a tokenizer loses: unknown words, and characters that it drops."""

import collections
import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from flaxbert.data.features import Features

SERIOUS = 0.1
"""Share of [UNK] tokens above which a vocabulary does not fit the texts."""

SHOWN = 10
"""Number of characters that a message names."""


@dataclasses.dataclass(frozen=True)
class Unknown:
    """The unknown tokens of a data set's texts."""

    token: str
    share: float
    """The share of all tokens but special tokens."""
    lost: list[int]
    """Examples with a text that consists of unknown tokens alone."""

    @property
    def serious(self) -> bool:
        """Whether the vocabulary does not fit the texts. Every vocabulary lacks some words."""
        return self.share > SERIOUS

    def describe(self, examples: Sequence[Any]) -> str:
        """Return a line for the log about the examples of a data set."""
        line = f"{self.share:.1%} of the tokens are {self.token}"
        if self.lost:
            first = examples[self.lost[0]].origin
            line += (
                f"; {len(self.lost)} of {len(examples)} examples have a text that is nothing else, "
                f"the first {first}"
            )
        if self.serious:
            line += ". Take a checkpoint for the language and script of the texts"
        return line + "."


def unknown(features: Features, tokenizer: Any) -> Unknown:
    """Return the share of [UNK] tokens, and the examples with a text of unknown tokens alone."""
    unk = tokenizer.unk_token_id
    if unk is None:
        return Unknown("", 0.0, [])
    special = [number for number in tokenizer.all_special_ids if number != unk]
    words, unknown_words, lost = 0, 0, set[int]()
    for first in range(0, len(features.lengths), BLOCK):
        block = slice(first, first + BLOCK)
        bounds = features.sequence_start[first : first + BLOCK + 1]
        ids = features.per_token["input_ids"][bounds[0] : bounds[-1]]
        ordinary = ~np.isin(ids, special)
        words += int(ordinary.sum())
        if not (is_unknown := ordinary & (ids == unk)).any():
            continue
        unknown_words += int(is_unknown.sum())
        begins = np.zeros(len(ids), bool)
        begins[bounds[:-1] - bounds[0]] = True
        text = np.cumsum(~ordinary | begins)  # special tokens divide a sequence into its texts
        known = np.bincount(text[ordinary & ~is_unknown], minlength=int(text[-1]) + 1)
        example = np.repeat(features.example_index[block], features.lengths[block])
        lost.update(example[is_unknown & (known == 0)[text]].tolist())
    return Unknown(tokenizer.unk_token, unknown_words / max(1, words), sorted(lost))


BLOCK = 1024
"""Sequences that are counted at a time, which bounds the memory."""


def vanishing(texts: Iterable[str], tokenizer: Any) -> dict[str, int]:
    """Return the characters that get no token, and how often each occurs.

    Blanks are not counted, nor characters that `checks.check_examples` reports as damage.
    """
    counts = collections.Counter[str]()
    for text in texts:
        if not text.isascii():
            counts.update(text)
    backend = tokenizer.backend_tokenizer
    return {
        char: count
        for char, count in counts.most_common()
        if not (char.isascii() or char.isspace() or char in "\ufffd\ufeff")
        and unicodedata.category(char) != "Cc"
        and not backend.encode(char, add_special_tokens=False).ids
    }


def merged(texts: Iterable[str], tokenizer: Any) -> dict[str, str]:
    """Return words that the tokenizer reads as other words of the texts: "schön" as "schon".

    Upper and lower case are not distinguished.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    if normalizer is None:
        return {}
    words = {word for text in texts for word in text.lower().split()}
    marked = sorted(
        word
        for word in words
        if not word.isascii() and all(unicodedata.category(char)[0] in "LM" for char in word)
    )
    return {
        word: other
        for word in marked
        if (other := normalizer.normalize_str(word).strip()) in words
        and other != unicodedata.normalize("NFC", word)
        and other != word
    }


def pairs(words: dict[str, str]) -> str:
    """Format the result of `merged` for a message."""
    shown = [f"{word!r} as {other!r}" for word, other in list(words.items())[:SHOWN]]
    more = len(words) - SHOWN
    return ", ".join([*shown, *([f"{more} more words"] if more > 0 else [])])


def named(characters: dict[str, int]) -> str:
    """Format characters for a message, most frequent first."""
    shown = [f"U+{ord(c):04X} ({n} times)" for c, n in list(characters.items())[:SHOWN]]
    more = len(characters) - SHOWN
    return ", ".join([*shown, *([f"{more} more characters"] if more > 0 else [])])

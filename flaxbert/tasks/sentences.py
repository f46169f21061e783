"""Sentences: their words, and the entities that tags mark in them."""

import dataclasses
import itertools
import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from flaxbert.data import tag_schemes
from flaxbert.data.checks import Example
from flaxbert.data.features import Features
from flaxbert.data.table import Record
from flaxbert.metrics import entities
from flaxbert.tasks.tags import TaggedWords, read_words
from flaxbert.types import Prediction, TaskOutputs


@dataclasses.dataclass(frozen=True)
class SentenceExample(Example):
    """The words of a sentence; `tags` has one for each word, None if unlabeled."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None
    slice: str | None
    origin: str
    text: str | None = None
    """The sentence as one text, if the program's input was a text."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The sentence."""
        return (" ".join(self.tokens),)

    @property
    def target(self) -> Hashable:
        """The tags."""
        return self.tags

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags or ()

    @property
    def word_count(self) -> int:
        """The number of words."""
        return len(self.tokens)


TEXT = "_text"
"""The column of a program's input that is a text."""

WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
"""A word, with hyphens and apostrophes inside, or a single mark."""


def words_of(text: str) -> list[tuple[str, int, int]]:
    """Split a text into words and marks: (word, first character, the character after it)."""
    return [(match[0], match.start(), match.end()) for match in WORD.finditer(text)]


def decode(
    examples: Sequence[SentenceExample],
    features: Features,
    outputs: TaskOutputs,
    labels: Sequence[str],
    outside: str,
) -> list[Prediction]:
    """Return the predictions of sentences, from the tag of each word's first piece.

    Args:
      examples: the sentences.
      features: with `first`, 1 at these pieces, and `word` for each token.
      outputs: `tag`, an index of `labels`, and its `probability`, for each token.
      labels: the tags.
      outside: the tag of words without any token, if they are in no entity.
    """
    places = np.flatnonzero(features.per_token["first"])
    return tag_schemes.tagged_words(
        [example.tokens for example in examples],
        np.repeat(features.example_index, features.lengths)[places],
        features.per_token["word"][places],
        [labels[int(tag)] for tag in outputs.per_token["tag"][places]],
        outputs.per_token["probability"][places],
        outside,
    )


def entities_of(example: SentenceExample, prediction: Prediction) -> list[dict[str, Any]]:
    """Return the entities that predicted tags mark: see `TokenClassification.answers`."""
    if example.text is None:
        text = " ".join(example.tokens)
        ends = list(itertools.accumulate(len(word) + 1 for word in example.tokens))
        places = [(end - 1 - len(w), end - 1) for w, end in zip(example.tokens, ends, strict=True)]
    else:
        text = example.text
        places = [(start, end) for _, start, end in words_of(text)]
    return entities.in_text(text, places, prediction["tags"], prediction["probability"])


def unlabeled_sentence(row: Record, column: str) -> SentenceExample:
    """Read a sentence without tags."""
    words = tuple(read_words(row, column))
    return SentenceExample(words, None, None, row.origin, row.values.get(TEXT))


def labeled_sentence(tagged: TaggedWords, slices: str | None) -> SentenceExample:
    """Make an example of words with their tags."""
    words, tags, record = tuple(tagged.words), tuple(tagged.tags), tagged.record
    return SentenceExample(words, tags, record.slice(slices), record.origin)

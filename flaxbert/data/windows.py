"""Windows: a text that is too long becomes several overlapping sequences."""

import dataclasses
import functools
import itertools
import logging
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from flaxbert.data.encoding import Encoded, encode
from flaxbert.data.features import Note
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError

SPECIAL_TOKENS = 3
"""[CLS] first text [SEP] windowed text [SEP]; a single text needs one token less."""

JOINERS = "\u200c\u200d"
"""Format characters that shape the letters next to them, so they are part of a word."""

NOWHERE = (-1, -1)
"""The span of a window that counts in no loss: it lies before the window."""


def check(max_length: int, overlap: int) -> None:
    """Check that windows can advance.

    Raises:
      ConfigError: if `overlap` leaves no room in `max_length`.
    """
    if max_length - SPECIAL_TOKENS - overlap < 1:
        raise ConfigError(
            f"data.overlap={overlap} leaves no room in data.max_length={max_length}: "
            f"overlap + first text + {SPECIAL_TOKENS} must stay below it"
        )


def too_long(
    first_texts: Sequence[str],
    what: str,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    overlap: int,
) -> dict[int, str]:
    """Return the first texts that leave no room for the second: {index: what is wrong}.

    A first text, such as a question, is repeated in every window.

    Args:
      first_texts: the texts.
      what: what the message calls such a text.
      tokenizer: counts their tokens.
      max_length: tokens of a window.
      overlap: tokens that neighboring windows share.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - overlap
    lengths = encode(tokenizer, first_texts, special_tokens=False).lengths
    return {
        index: f"{what} has {lengths[index]} tokens; with data.max_length={max_length} and "
        f"data.overlap={overlap} at most {room - 1} fit. Raise max_length, lower overlap, or "
        f"shorten {what}."
        for index in np.flatnonzero(lengths >= room).tolist()
    }


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of some texts, M in all, with the characters of their tokens end to end."""

    example_index: np.ndarray
    """[M] the text of each window, ascending."""
    lengths: np.ndarray
    """[M] tokens of each window."""
    starts: np.ndarray
    """[total tokens] the first character of each token; below 0 at tokens of no text."""
    ends: np.ndarray
    """[total tokens] the character after each token."""

    @classmethod
    def of(cls, encoded: Encoded, texts: Sequence[str]) -> "Windows":
        """Return the windows of texts that were tokenized with their characters.

        The ends in `encoded` are moved past the marks that belong to a token's last letter. An
        uncased tokenizer drops combining marks, and its offsets leave out those after a token's
        last letter: an answer would lose them. Other characters that a tokenizer drops, such as
        private-use characters, belong to no token.
        """
        starts, ends = encoded.per_token["char_start"], encoded.per_token["char_end"]
        windows = cls(encoded.example_index, encoded.lengths, starts, ends)
        for text, group in windows.by_text():
            if not texts[text].isascii():
                here = windows.tokens(group)
                ends[here] = _extended(texts[text], starts[here], ends[here])
        return windows

    @functools.cached_property
    def bounds(self) -> np.ndarray:
        """[M + 1] where the tokens of each window begin, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def by_text(self) -> Iterator[tuple[int, range]]:
        """Yield the index of each text that has windows, and the indices of these."""
        edges = np.flatnonzero(np.diff(self.example_index, prepend=-1, append=-1)).tolist()
        for first, end in itertools.pairwise(edges):
            yield int(self.example_index[first]), range(first, end)

    def tokens(self, group: range) -> slice:
        """Return the places of the tokens of consecutive windows."""
        return slice(int(self.bounds[group.start]), int(self.bounds[group.stop]))

    def max_context(self, overlap: int) -> np.ndarray:
        """Return `max_context` of these windows."""
        return max_context(self.example_index, self.lengths, self.starts >= 0, overlap)

    def spans(self, answer: tuple[str, int], group: range) -> list[tuple[int, int]]:
        """Return the `span` of an answer in each window of its text."""
        here = self.tokens(group)
        dropped = _dropped(answer, self.starts[here], self.ends[here])
        parts = (self.tokens(range(window, window + 1)) for window in group)
        return [span(answer, self.starts[part], self.ends[part], dropped) for part in parts]


def _extended(text: str, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the ends of the tokens of a text, moved past the marks that no token begins with."""
    marks = [char for char in set(text) if _joins(char)]
    if not marks:
        return ends
    passed = np.array([char in marks for char in text] + [False])
    passed[starts[starts >= 0]] = False
    stops = np.where(passed, len(text), np.arange(len(text) + 1))
    stops = np.minimum.accumulate(stops[::-1])[::-1]  # the first place from here that is no mark
    moved = stops[np.clip(ends, 0, len(text))].astype(ends.dtype)
    return np.where((ends >= 0) & (ends < len(text)), moved, ends)


@functools.lru_cache(maxsize=10_000)
def _joins(char: str) -> bool:
    """Return whether a character is part of the letter or emoji before it."""
    return (
        unicodedata.category(char)[0] == "M"  # variation selectors too
        or char in JOINERS
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags, which spell out a flag's region
    )


@functools.lru_cache(maxsize=10_000)
def _blank(char: str) -> bool:
    """Return whether a character is invisible: white space, zero-width or a control character."""
    return char.isspace() or (unicodedata.category(char) in ("Cc", "Cf") and char not in JOINERS)


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without the blanks at its ends; byte-level tokens may begin with one."""
    while start < end and _blank(text[start]):
        start += 1
    while start < end and _blank(text[end - 1]):
        end -= 1
    return start, end


def span(
    answer: tuple[str, int],
    starts: Sequence[int] | np.ndarray,
    ends: Sequence[int] | np.ndarray,
    dropped: Set[int] = frozenset(),
) -> tuple[int, int]:
    """Return the first and the last token that hold a part of the answer, without outer blanks.

    It is (0, 0), [CLS], if the answer is not completely inside the window.

    Args:
      answer: the text, and the place of its first character.
      starts: first character of each token of the window.
      ends: the character after each token; see `Windows.of`.
      dropped: places of characters that no token of any window holds; they count as blanks.
    """
    text, begin = answer
    visible = [begin + n for n, char in enumerate(text) if not _blank(char)]
    visible = [place for place in visible if place not in dropped]
    starts, ends = np.asarray(starts), np.asarray(ends)
    inside = np.flatnonzero(starts >= 0)
    if not visible or not len(inside):
        return 0, 0
    first, last = visible[0], visible[-1] + 1
    if starts[inside[0]] > first or ends[inside[-1]] < last:
        return 0, 0
    start = int(inside[ends[inside] > first][0])
    end = int(inside[starts[inside] < last][-1])
    return (start, end) if start <= end else (0, 0)  # in a gap that no token covers


def _dropped(answer: tuple[str, int], starts: np.ndarray, ends: np.ndarray) -> Set[int]:
    """Return the places of an answer's characters that are in no token of the text's windows."""
    text, begin = answer
    places = set(range(begin, begin + len(text)))
    touching = (starts < begin + len(text)) & (ends > begin)
    for start, end in zip(starts[touching].tolist(), ends[touching].tolist(), strict=True):
        places.difference_update(range(start, end))
    return places


@dataclasses.dataclass(frozen=True)
class Answers:
    """Where the reference answers to questions are."""

    targets: dict[str, np.ndarray]
    """`start` and `end` [M]: the first and the last token of a question's first answer in each
    window, (0, 0) without an answer."""
    unreachable: dict[str, dict[int, str]]
    """The questions that no prediction can answer: {reason: {question: details}}."""
    notes: list[Note]


def find(
    answers: Sequence[tuple[Sequence[tuple[str, int]], str]], windows: Windows, longest: int
) -> Answers:
    """Return the targets of windows, and the questions that no prediction can answer.

    If no window contains the complete answer, the targets of all are `NOWHERE`, and a note says so:
    with (0, 0) the model would learn that there is no answer.

    Args:
      answers: all reference answers to each question, with its origin.
      windows: the windows of the contexts.
      longest: the most tokens of a predicted answer (`options.max_answer_length`).
    """
    targets, lost = list[tuple[int, int]](), list[int]()
    least: dict[int, float] = {}  # text -> tokens of its shortest answer; inf if none is complete
    for text, group in windows.by_text():
        spans = [windows.spans(answer, group) for answer in answers[text][0]]
        first = spans[0] if spans else [(0, 0)] * len(group)
        if spans and set(first) == {(0, 0)}:
            lost.append(text)
            first = [NOWHERE] * len(group)
        targets += first
        for start, end in itertools.chain(*spans):
            size = end - start + 1 if (start, end) != (0, 0) else math.inf
            least[text] = min(least.get(text, math.inf), size)
    columns = np.array(targets, np.int32).reshape(-1, 2)
    notes = []
    if lost:
        what = (
            f"{len(lost)} answers are complete in no window, the first that of "
            f"{answers[lost[0]][1]}; their questions count in no loss. Raise "
            "data.max_length or data.overlap."
        )
        notes.append(Note(logging.INFO, what))
    unreachable, long = _unreachable(least, [origin for _, origin in answers], longest)
    sides = {"start": columns[:, 0].copy(), "end": columns[:, 1].copy()}
    return Answers(sides, unreachable, [*notes, *long])


def _unreachable(
    least: Mapping[int, float], origins: Sequence[str], longest: int
) -> tuple[dict[str, dict[int, str]], list[Note]]:
    """Return `Answers.unreachable`, and a note if answers are too long.

    Args:
      least: tokens of the shortest answer to each question, inf if no window contains one.
      origins: the place that each question was read from.
      longest: see `find`.
    """
    share = len(least)
    nowhere = [text for text, size in least.items() if size == math.inf]
    sizes = sorted(size for size in least.values() if size != math.inf)
    long = {text: size for text, size in least.items() if longest < size < math.inf}
    what = f"no window contains a complete answer ({len(nowhere)} of {share} questions)"
    issues = {"answer in no window": dict.fromkeys(nowhere, what)}
    most = [int(sizes[math.ceil(part * len(sizes)) - 1]) for part in (0.99, 1.0) if sizes]
    issues["answer too long"] = {
        text: f"the answer has {size:.0f} tokens, more than options.max_answer_length={longest} "
        f"({len(long)} of {share}); 99 % have at most {most[0]}, the longest has {most[1]}"
        for text, size in long.items()
    }
    if not long:
        return issues, []
    message = (
        f"{len(long)} of {share} gold answers are longer than options.max_answer_length="
        f"{longest} tokens, the first that of {origins[min(long)]}: no prediction can equal "
        f"them. 99 % of the answers have at most {most[0]} tokens, the longest has {most[1]}: "
        f"set --config.options.max_answer_length={most[1]}."
    )
    return issues, [Note(logging.WARNING, message)]


def max_context(
    example_index: np.ndarray, lengths: np.ndarray, inside: np.ndarray, overlap: int
) -> np.ndarray:
    """Mark each context token in the window with most context around it (google-research/bert).

    Every token of the context counts once for decoding: in the window where the smaller of its left
    and right context, plus 0.01 of the window's length, is largest (the first of equals).

    Args:
      example_index: [M] the text of each window, ascending.
      lengths: [M] tokens of each window.
      inside: [total tokens] booleans: whether a token belongs to the text.
      overlap: tokens that neighboring windows share.

    Returns:
      [total tokens] int32.
    """
    marks = inside.astype(np.int32)
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    edges = np.flatnonzero(np.diff(example_index, prepend=-1, append=-1))  # of texts, in windows
    blocks = edges[np.searchsorted(edges, np.arange(0, len(lengths), BLOCK))]
    blocks = np.unique(np.append(blocks, len(lengths)))
    for first, end in itertools.pairwise(blocks.tolist()):
        here, windows = slice(bounds[first], bounds[end]), slice(first, end)
        if (np.diff(example_index[windows]) == 0).any():
            marks[here] = _most_context(
                example_index[windows], lengths[windows], inside[here], overlap
            )
    return marks


def first_pieces(encoded: Encoded, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first token of each word, in the window with most context around it.

    Args:
      encoded: lists of words as windows of tokens, with the `word` of each token.
      overlap: tokens that neighboring windows share.

    Returns:
      The places of these tokens among all, ascending by text and word, and the text of each.
    """
    words = encoded.per_token["word"]
    marks = max_context(encoded.example_index, encoded.lengths, words >= 0, overlap)
    # The first marked piece of a word is the word's first: marks never go back.
    marked = np.flatnonzero(marks)
    text = np.repeat(encoded.example_index, encoded.lengths)[marked]
    keys = text * (1 + int(words.max(initial=0))) + words[marked]
    firsts = np.unique(keys, return_index=True)[1]
    return marked[firsts], text[firsts]


BLOCK = 512
"""Windows that are compared at a time, which bounds the memory."""


def _most_context(
    example_index: np.ndarray, lengths: np.ndarray, inside: np.ndarray, overlap: int
) -> np.ndarray:
    """Return the marks of `max_context` for some texts."""
    window = np.repeat(np.arange(len(lengths)), lengths)[inside]  # of each context token
    count = np.bincount(window, minlength=len(lengths))
    place = np.arange(len(window)) - np.repeat(np.cumsum(count) - count, count)
    score = np.minimum(place, count[window] - 1 - place) + 0.01 * count[window]
    # Windows begin where the previous one of their text ends, less the overlap.
    advance = np.cumsum(count - overlap) - (count - overlap)
    first = np.searchsorted(example_index, example_index)  # the first window of the text
    token = (advance - advance[first])[window] + place  # of the context
    text = first[window] * (1 + int(token.max(initial=0)))
    order = np.lexsort((-score, text + token))  # stable: the first window of equals
    sorted_tokens = (text + token)[order]
    best = order[np.flatnonzero(np.diff(sorted_tokens, prepend=-1))]
    marks = np.zeros(len(inside), np.int32)
    marks[np.flatnonzero(inside)[best]] = 1
    return marks

"""Windows: a text that is too long becomes several overlapping sequences."""

import itertools
import logging
import math
import unicodedata
from collections.abc import Sequence, Set
from typing import Any

from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError

log = logging.getLogger("flaxbert")

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
    encoded = tokenizer(list(first_texts), add_special_tokens=False)["input_ids"]
    return {
        index: f"{what} has {len(ids)} tokens; with data.max_length={max_length} and "
        f"data.overlap={overlap} at most {room - 1} fit. Raise max_length, lower overlap, or "
        f"shorten {what}."
        for index, ids in enumerate(encoded)
        if len(ids) >= room
    }


def offsets(encoded: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Return the first character of each token of the second text, by window, and the one after it.

    Both are -1 at special tokens and tokens of the first text.
    """
    starts: list[list[int]] = []
    ends: list[list[int]] = []
    for window, pairs in enumerate(encoded["offset_mapping"]):
        inside = [sequence == 1 for sequence in encoded.sequence_ids(window)]
        starts.append([o[0] if second else -1 for o, second in zip(pairs, inside, strict=True)])
        ends.append([o[1] if second else -1 for o, second in zip(pairs, inside, strict=True)])
    return starts, ends


def extend_ends(
    texts: Sequence[str],
    example_index: Sequence[int],
    starts: list[list[int]],
    ends: list[list[int]],
) -> list[list[int]]:
    """Move the end of each token past the marks that belong to its last letter.

    An uncased tokenizer drops combining marks, and its offsets leave out those after a token's last
    letter: the answer would lose them. Other characters that a tokenizer drops, such as private-use
    characters, belong to no token.

    Args:
      texts: the texts that are divided into windows.
      example_index: the text of each window, ascending.
      starts: first character of each token in each window; below 0 at tokens of no text.
      ends: the character after it.
    """
    moved = []
    for number, group in itertools.groupby(range(len(example_index)), example_index.__getitem__):
        windows, text = list(group), texts[number]
        taken = set().union(*(starts[window] for window in windows))
        moved += [[_extend(text, end, taken) for end in ends[window]] for window in windows]
    return moved


def _extend(text: str, end: int, taken: set[int]) -> int:
    while 0 <= end < len(text) and end not in taken and _joins(text[end]):
        end += 1
    return end


def _joins(char: str) -> bool:
    """Return whether a character is part of the letter or emoji before it."""
    return (
        unicodedata.category(char)[0] == "M"  # variation selectors too
        or char in JOINERS
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags, which spell out a flag's region
    )


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
    answer: tuple[str, int], starts: list[int], ends: list[int], dropped: Set[int] = frozenset()
) -> tuple[int, int]:
    """Return the first and the last token that hold a part of the answer, without outer blanks.

    It is (0, 0), [CLS], if the answer is not completely inside the window.

    Args:
      answer: the text, and the place of its first character.
      starts: first character of each token of the window.
      ends: as `extend_ends` returns them.
      dropped: places of characters that no token of any window holds; they count as blanks.
    """
    text, begin = answer
    visible = [begin + n for n, char in enumerate(text) if not _blank(char)]
    visible = [place for place in visible if place not in dropped]
    inside = [token for token, start in enumerate(starts) if start >= 0]
    if not visible or not inside:
        return 0, 0
    first, last = visible[0], visible[-1] + 1
    if starts[inside[0]] > first or ends[inside[-1]] < last:
        return 0, 0
    start = min(token for token in inside if ends[token] > first)
    end = max(token for token in inside if starts[token] < last)
    return (start, end) if start <= end else (0, 0)  # in a gap that no token covers


def _spans(
    answer: tuple[str, int], starts: list[list[int]], ends: list[list[int]]
) -> list[tuple[int, int]]:
    """Return the `span` of an answer in each window of its text."""
    dropped = _dropped(answer, starts, ends)
    return [span(answer, *window, dropped) for window in zip(starts, ends, strict=True)]


def _dropped(answer: tuple[str, int], starts: list[list[int]], ends: list[list[int]]) -> Set[int]:
    """Return the places of an answer's characters that are in no token of the text's windows."""
    text, begin = answer
    places = set(range(begin, begin + len(text)))
    for window_starts, window_ends in zip(starts, ends, strict=True):
        for start, end in zip(window_starts, window_ends, strict=True):
            if start < begin + len(text) and end > begin:
                places.difference_update(range(start, end))
    return places


def gold_spans(
    answers: Sequence[tuple[tuple[str, int] | None, str]],
    example_index: Sequence[int],
    starts: list[list[int]],
    ends: list[list[int]],
) -> dict[str, list[int]]:
    """Return the target of each window: the first and the last token of the answer (see `span`).

    Without an answer the target is (0, 0). If no window contains the complete answer, all have
    `NOWHERE`, and this is logged: with (0, 0) the model would learn that there is no answer.

    Args:
      answers: the answer to each question, with the question's origin.
      example_index: the text of each window, ascending.
      starts: first character of each token in each window.
      ends: as `extend_ends` returns them.
    """
    spans = []
    for text, group in itertools.groupby(range(len(example_index)), example_index.__getitem__):
        windows, (answer, _) = list(group), answers[text]
        if answer is None:
            spans += [(0, 0)] * len(windows)
            continue
        spans += _spans(answer, [starts[w] for w in windows], [ends[w] for w in windows])
    whole = {text for text, place in zip(example_index, spans, strict=True) if place != (0, 0)}
    lost = {n: origin for n, (answer, origin) in enumerate(answers) if answer and n not in whole}
    if lost:
        log.info(
            f"{len(lost)} answers are complete in no window, the first that of "
            f"{next(iter(lost.values()))}; their questions count in no loss. Raise "
            "data.max_length or data.overlap."
        )
    pairs = zip(example_index, spans, strict=True)
    spans = [NOWHERE if text in lost else place for text, place in pairs]
    return {"start": [first for first, _ in spans], "end": [last for _, last in spans]}


def out_of_reach(
    answers: Sequence[tuple[Sequence[tuple[str, int]], str]],
    example_index: Sequence[int],
    starts: list[list[int]],
    ends: list[list[int]],
    longest: int,
) -> dict[str, dict[int, str]]:
    """Return the questions that no prediction can answer: {reason: {question: details}}.

    Answers that are too long are logged too.

    Args:
      answers: all reference answers to each question, with its origin.
      example_index: the text of each window, ascending.
      starts: first character of each token in each window.
      ends: as `extend_ends` returns them.
      longest: the most tokens of a predicted answer (`options.max_answer_length`).
    """
    least: dict[int, float] = {}  # text -> tokens of its shortest answer; inf if none is complete
    for text, group in itertools.groupby(range(len(example_index)), example_index.__getitem__):
        windows = list(group)
        here = [starts[w] for w in windows], [ends[w] for w in windows]
        for first, last in itertools.chain(*(_spans(a, *here) for a in answers[text][0])):
            size = last - first + 1 if (first, last) != (0, 0) else math.inf
            least[text] = min(least.get(text, math.inf), size)
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
    if long:
        log.warning(
            f"{len(long)} of {share} gold answers are longer than options.max_answer_length="
            f"{longest} tokens, the first that of {answers[min(long)][1]}: no prediction can equal "
            f"them. 99 % of the answers have at most {most[0]} tokens, the longest has {most[1]}: "
            f"set --config.options.max_answer_length={most[1]}."
        )
    return issues


def max_context(
    example_index: Sequence[int], starts: list[list[int]], overlap: int
) -> list[list[int]]:
    """Mark each context token in the window with most context around it (google-research/bert).

    Every token of the context counts once for decoding: in the window where the smaller of its left
    and right context, plus 0.01 of the window's length, is largest (the first of equals).
    """
    marks = [[0] * len(window) for window in starts]
    best: dict[int, tuple[float, int, int]] = {}  # token of the context -> (score, window, place)
    begin = 0
    for window, tokens in enumerate(starts):
        places = [place for place, start in enumerate(tokens) if start >= 0]
        if window == 0 or example_index[window] != example_index[window - 1]:
            begin, best = 0, {}
        for i, place in enumerate(places):
            score = min(i, len(places) - 1 - i) + 0.01 * len(places)
            held = best.get(begin + i)
            if held is None or score > held[0]:
                if held is not None:
                    marks[held[1]][held[2]] = 0
                best[begin + i] = (score, window, place)
                marks[window][place] = 1
        begin += len(places) - overlap
    return marks

"""Windows: a text that is too long becomes several sequences that overlap."""

from collections.abc import Sequence

from flaxbert.config import DataConfig
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError

SPECIAL_TOKENS = 3
"""[CLS] first text [SEP] windowed text [SEP]; a single text needs one less."""


def check(data: DataConfig) -> None:
    """Check that windows can advance.

    Raises:
      ConfigError: if `overlap` leaves no room in `max_length`.
    """
    if data.max_length - SPECIAL_TOKENS - data.overlap < 1:
        raise ConfigError(
            f"data.overlap={data.overlap} leaves no room in data.max_length={data.max_length}: "
            f"overlap + first text + {SPECIAL_TOKENS} must stay below it"
        )


def check_first(
    texts: Sequence[tuple[str, str]], what: str, data: DataConfig, tokenizer: Tokenizer
) -> None:
    """Check that first texts, repeated in every window, leave room for the second.

    Args:
      texts: with their origins.
      what: their name in the message.
      data: lengths.
      tokenizer: counts.

    Raises:
      DataError: naming the row, with the lengths that would do.
    """
    room = data.max_length - SPECIAL_TOKENS - data.overlap
    encoded = tokenizer([text for text, _ in texts], add_special_tokens=False)["input_ids"]
    for (_, origin), ids in zip(texts, encoded, strict=True):
        if len(ids) >= room:
            raise DataError(
                f"{origin}: {what} has {len(ids)} tokens; with data.max_length={data.max_length} "
                f"and data.overlap={data.overlap} at most {room - 1} fit. Raise max_length, lower "
                f"overlap, or shorten {what}."
            )


def span(answer: tuple[str, int], starts: list[int], ends: list[int]) -> tuple[int, int]:
    """First and last token of the answer in a window; (0, 0), [CLS], if it is not all inside."""
    first, last = answer[1], answer[1] + len(answer[0])
    inside = [token for token, start in enumerate(starts) if start >= 0]
    if not inside or starts[inside[0]] > first or ends[inside[-1]] < last:
        return 0, 0
    start = max(token for token in inside if starts[token] <= first)
    end = min(token for token in inside if ends[token] >= last)
    return start, end


def max_context(owner: Sequence[int], starts: list[list[int]], overlap: int) -> list[list[int]]:
    """Mark each context token in the window that shows most around it (google-research/bert).

    Every token of the context counts once for decoding: in the window where the smaller of its
    left and right context is largest, plus 0.01 of the window's length; the first of equals.
    """
    marks = [[0] * len(window) for window in starts]
    best: dict[int, tuple[float, int, int]] = {}  # token of the context -> (score, window, place)
    begin = 0
    for window, tokens in enumerate(starts):
        places = [place for place, start in enumerate(tokens) if start >= 0]
        if window == 0 or owner[window] != owner[window - 1]:
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

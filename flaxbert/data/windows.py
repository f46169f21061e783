"""Windows: a text that is too long becomes several features that overlap."""

from collections.abc import Sequence


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

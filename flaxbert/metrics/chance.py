"""A check for predictions that are worse than chance."""

import collections
import math
from collections.abc import Sequence

from flaxbert.errors import shortened

DEVIATIONS = 5
"""An accuracy this many standard deviations below chance is not an accident."""


def worse_than_chance(gold: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> str:
    """Return a warning if the accuracy is far below chance, else "".

    Chance is the expected accuracy of the same predictions, shuffled among the examples.
    """
    count = len(gold)
    truths, guesses = collections.Counter(gold), collections.Counter(predicted)
    chance = sum(truths[label] * guesses[label] for label in truths) / max(1, count) ** 2
    hits = sum(g == p for g, p in zip(gold, predicted, strict=True))
    if hits >= count * chance - DEVIATIONS * math.sqrt(count * chance * (1 - chance)):
        return ""
    pairs = collections.Counter(zip(gold, predicted, strict=True))
    (truth, guess), times = max(
        (pair for pair in pairs.items() if pair[0][0] != pair[0][1]), key=lambda pair: pair[1]
    )
    order = ", ".join(f"{n} = {name}" for n, name in enumerate(shortened(names)))
    return (
        f"accuracy {hits / count:.3f} is far below chance ({chance:.3f} for these predictions): "
        f"{names[truth]!r} is predicted as {names[guess]!r} {times} of {truths[truth]} times. "
        f"Are labels mapped to the wrong names? The output layer's order is {order}. Compare it "
        "with the integers in the data and with the labels that the model was trained on, and set "
        "--config.options.labels in that order."
    )

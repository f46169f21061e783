"""What the report says of the probabilities of tags."""

import numpy as np
import pytest

from flaxbert.report import entities
from flaxbert.report.quality import Evaluated

WORDS = ["Ana", "lives", "in", "Lima"]
TAGS = ["B-PER", "O", "O", "B-LOC"]


def evaluated(*sentences: tuple[list[str], list[str], list[float | None]]) -> Evaluated:
    """Return sentences given as (labels, predicted tags, their probabilities)."""
    labels = [{"tags": gold} for gold, _, _ in sentences]
    predictions = [
        {"tokens": WORDS, "tags": tags, "probability": probability}
        for _, tags, probability in sentences
    ]
    return Evaluated(labels, predictions, [], {})


def test_confident_contradictions_are_ranked_and_a_sentence_counts_once():
    quality = entities.assess(
        evaluated(
            (TAGS, TAGS, [0.9, 0.9, 0.9, 0.9]),
            (["O", "O", "O", "B-LOC"], TAGS, [0.95, 0.9, 0.9, 0.9]),  # a wrong label
            (["O", "O", "O", "O"], TAGS, [0.98, 0.9, 0.9, 0.99]),  # two of them
            (["O", "O", "O", "B-LOC"], TAGS, [0.4, 0.9, 0.9, 0.9]),  # the model is not sure
            (TAGS, TAGS, [0.9, None, 0.9, 0.3]),
        )
    )
    assert quality.suspects is not None
    assert [(one.example, one.likely) for one in quality.suspects] == [
        (2, "Lima: B-LOC"),
        (1, "Ana: B-PER"),
    ]
    assert quality.doubt is not None
    assert quality.doubt == pytest.approx([0.1, 0.1, 0.1, 0.6, 0.7])


def test_calibration_counts_words_with_a_token():
    row = (TAGS, ["B-PER", "O", "B-LOC", "B-LOC"], [0.95, None, 0.75, 0.92])
    quality = entities.assess(evaluated(row))
    assert quality.calibration is not None
    bins = quality.calibration.bins
    assert sum(part.size for part in bins) == 3
    assert (bins[7].size, bins[7].accuracy) == (1, 0.0)
    assert (bins[9].size, bins[9].accuracy) == (2, 1.0)


@pytest.mark.parametrize("tags", [TAGS, ["NOUN", "VERB", "ADP", "NOUN"]])
def test_predictions_without_probabilities_are_assessed_without_them(tags: list[str]):
    plain = Evaluated([{"tags": tags}], [{"tokens": WORDS, "tags": tags}], [], {})
    quality = entities.assess(plain)
    assert quality.doubt is None
    assert quality.suspects is None
    assert np.all(quality.correct)

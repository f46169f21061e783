"""What the probabilities of tags say: doubtful sentences, calibration, and likely label errors.

A prediction holds the probability of each predicted tag alone. So the confidence that Northcutt,
Jiang and Chuang (2021, arXiv:1911.00068) ask of a contradiction, the mean of a label's own
probability, is taken here over the words that were given this tag by the model.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flaxbert.messages.language import tr
from flaxbert.metrics.calibration import reliability
from flaxbert.report.quality import Calibration, Evaluated, Quality, Suspect


class Words(NamedTuple):
    """The words of all sentences that the model saw a token of, one after the other [W]."""

    sentence: np.ndarray
    """Index of the word's sentence."""
    place: np.ndarray
    """Index of the word in its sentence."""
    gold: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    """Of the predicted tag."""


def words_of(evaluated: Evaluated) -> Words | None:
    """Return the words, or None for predictions without probabilities."""
    if any("probability" not in prediction for prediction in evaluated.predictions):
        return None
    rows = [
        (sentence, place, gold, tag, probability)
        for sentence, (label, prediction) in enumerate(
            zip(evaluated.labels, evaluated.predictions, strict=True)
        )
        for place, (gold, tag, probability) in enumerate(
            zip(label["tags"], prediction["tags"], prediction["probability"], strict=True)
        )
        if probability is not None
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 5
    kinds = (int, int, object, object, float)
    return Words(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


def with_probabilities(quality: Quality, evaluated: Evaluated) -> Quality:
    """Return an assessment with what probabilities add, if the predictions have any."""
    words = words_of(evaluated)
    if words is None:
        return quality
    doubt = np.zeros(len(evaluated))
    np.maximum.at(doubt, words.sentence, 1 - words.probability)
    right = words.gold == words.predicted
    return dataclasses.replace(
        quality,
        doubt=doubt,
        doubt_name=tr("the tag of a word is least probable"),
        calibration=Calibration(reliability(words.probability, right), tr("right tags of words")),
        suspects=suspects(words, evaluated.predictions),
    )


def suspects(words: Words, predictions: Sequence[Mapping[str, Any]]) -> list[Suspect]:
    """Return the sentences with a word whose tag the model confidently contradicts.

    A sentence counts once, for the word with the most probable other tag. The most probable errors
    are first.
    """
    _, tag = np.unique(words.predicted.astype(str), return_inverse=True)
    means = np.bincount(tag, words.probability) / np.maximum(np.bincount(tag), 1)
    sure = (words.gold != words.predicted) & (words.probability >= means[tag])
    chosen = np.flatnonzero(sure)
    order = chosen[np.argsort(-words.probability[chosen], kind="stable")]
    first = np.unique(words.sentence[order], return_index=True)[1]
    return [
        Suspect(
            int(words.sentence[word]),
            f"{predictions[words.sentence[word]]['tokens'][words.place[word]]}: "
            f"{words.predicted[word]}",
        )
        for word in order[np.sort(first)]
    ]

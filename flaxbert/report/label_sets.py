"""Quality of predictions of any number of labels for each example."""

import functools

import numpy as np

from flaxbert.messages.language import tr
from flaxbert.metrics import resampling
from flaxbert.metrics.calibration import reliability
from flaxbert.report.classes import TINY, label_table, text_cell
from flaxbert.report.html import user_text
from flaxbert.report.quality import Calibration, Evaluated, Quality, Suspect, estimates, ratio


def assess(evaluated: Evaluated) -> Quality:
    """Assess predictions of sets of labels."""
    names = list(evaluated.names) or sorted(
        {name for p in evaluated.predictions for name in p["probability"]}
    )
    gold = _flags([label["labels"] for label in evaluated.labels], names)
    predicted = _flags([p["labels"] for p in evaluated.predictions], names)
    p = np.array([[x["probability"][n] for n in names] for x in evaluated.predictions], float)
    p = p.reshape(-1, len(names))
    right = np.where(gold, p, 1 - p)
    fitted = evaluated.fitted.get("thresholds", {})
    thresholds = np.array([fitted.get(name, 0.5) for name in names])
    sets, times = np.unique(gold, axis=0, return_counts=True)
    common = sets[int(times.argmax())] if len(sets) else np.zeros(len(names), bool)
    said = ", ".join(n for n, flag in zip(names, common, strict=True) if flag) or tr("none")
    always = np.broadcast_to(common, gold.shape)
    sums = _sums(gold, always).sum(axis=0)
    return Quality(
        main="f1_micro",
        estimates=estimates(_sums(gold, predicted), _statistic, sums),
        baseline=tr("always the most frequent set of labels ({labels})", labels=said),
        correct=(gold == predicted).all(axis=1),
        wrongness=-np.log(np.maximum(right, TINY)).mean(axis=1),
        wrongness_name=tr("loss"),
        row=functools.partial(_row, evaluated),
        doubt=-np.abs(p - thresholds).min(axis=1, initial=1.0),
        doubt_name=tr("a label's probability is closest to its threshold"),
        calibration=Calibration(
            reliability(p.ravel(), gold.ravel()), tr("texts that have the label")
        ),
        sections=[label_table(tr("Scores of each label"), names, (gold & predicted).sum(0),
                              predicted.sum(0), gold.sum(0))],
        suspects=_suspects(right, gold, names),
    )  # fmt: skip


def _flags(sets: list[list[str]], names: list[str]) -> np.ndarray:
    chosen = [set(labels) for labels in sets]
    flags = [[name in labels for name in names] for labels in chosen]
    return np.array(flags, bool).reshape(-1, len(names))


def _sums(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return, for each group, each label's hits, predictions and examples, and correct sets."""
    correct = (gold == predicted).all(axis=1, keepdims=True)
    parts = (gold & predicted, predicted, gold, correct, np.ones((len(gold), 1)))
    return resampling.group_sums(np.concatenate(parts, axis=1).astype(np.float32))


def _statistic(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of metrics/multi_label.py, of many samples at once."""
    labels = (sums.shape[-1] - 2) // 3
    hits, marked, real = (sums[..., n * labels : (n + 1) * labels] for n in range(3))
    both = marked + real
    return {
        "f1_micro": ratio(2 * hits.sum(-1), both.sum(-1)),
        "f1_macro": ratio(2 * hits, both).mean(-1),
        "precision_micro": ratio(hits.sum(-1), marked.sum(-1)),
        "recall_micro": ratio(hits.sum(-1), real.sum(-1)),
        "accuracy": ratio(sums[..., -2], sums[..., -1]),
    }


def _suspects(right: np.ndarray, gold: np.ndarray, names: list[str]) -> list[Suspect]:
    """Return examples with a label that is confidently wrong, as in confident learning.

    Each label is a question with two answers: its threshold is the mean probability of yes among
    the examples that have the label, and of no among the others.
    """
    counts = np.stack([(~gold).sum(0), gold.sum(0)])
    means = np.stack([np.where(gold, 0, right).sum(0), np.where(gold, right, 0).sum(0)])
    means = means / np.maximum(counts, 1)
    other = np.where(gold, means[0], means[1])  # the mean confidence of the other answer
    seen = np.where(gold, counts[0], counts[1]) > 0
    suspected = seen & (1 - right >= other) & (right < 0.5)
    margin = np.where(suspected, right - (1 - right), np.inf)
    worst = margin.argmin(axis=1) if margin.size else np.zeros(0, int)
    chosen = np.flatnonzero(suspected.any(axis=1))
    order = chosen[np.argsort(margin[chosen, worst[chosen]], kind="stable")]
    return [
        Suspect(
            int(n),
            tr("without {label}", label=names[worst[n]])
            if gold[n, worst[n]]
            else tr("with {label}", label=names[worst[n]]),
        )
        for n in order
    ]


def _row(evaluated: Evaluated, index: int) -> dict[str, object]:
    label, prediction = evaluated.labels[index], evaluated.predictions[index]
    return {
        tr("text"): text_cell(prediction),
        tr("labels"): user_text(", ".join(label["labels"]) or "-", 120),
        tr("predicted"): user_text(", ".join(prediction["labels"]) or "-", 120),
    }

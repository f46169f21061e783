"""Quality of predictions of one label, or of one choice, for each example."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from flaxbert.messages.language import amount, tr
from flaxbert.metrics import label_errors, resampling
from flaxbert.metrics.calibration import reliability
from flaxbert.metrics.classification import confusion
from flaxbert.report.html import Html, join, note, number, share, table, tag, user_text
from flaxbert.report.quality import (
    Calibration,
    Evaluated,
    Quality,
    Suspect,
    estimates,
    ratio,
    with_proportion,
)

MATRIX = 16
"""Labels in a confusion matrix; of more, those with most errors are shown."""

PAIRS = 15
"""Pairs of labels in the list of confusions."""

TINY = 1e-12
"""The lowest probability in a loss."""


def assess(evaluated: Evaluated) -> Quality:
    """Assess predictions of one label."""
    names = _names(evaluated)
    place = {name: n for n, name in enumerate(names)}
    gold = np.array([place[label["label"]] for label in evaluated.labels], int)
    predicted = np.array([place[p["label"]] for p in evaluated.predictions], int)
    probabilities = _probabilities(evaluated, names)
    counts = np.bincount(gold, minlength=len(names))
    common = int(counts.argmax())
    positive = str(evaluated.config.get("options.positive") or names[-1])
    statistic = functools.partial(
        _statistic, positive=names.index(positive) if len(names) == 2 else None
    )
    always = _sums(gold, np.full_like(gold, common), len(names)).sum(axis=0)
    known = estimates(_sums(gold, predicted, len(names)), statistic, always)
    quality = Quality(
        main="accuracy",
        estimates=with_proportion(known, "accuracy", gold == predicted),
        baseline=tr("always the most frequent label, {label!r}", label=names[common]),
        correct=gold == predicted,
        wrongness=(gold != predicted).astype(float),
        wrongness_name=tr("errors"),
        row=functools.partial(_row, evaluated),
        sections=[
            _confusion_matrix(gold, predicted, names),
            _per_label(gold, predicted, names),
            _confusions(confusion(gold, predicted, len(names)), names),
        ],
    )
    if probabilities is None:
        return quality
    return _with_probabilities(quality, probabilities, gold, names)


def _with_probabilities(
    quality: Quality, probabilities: np.ndarray, gold: np.ndarray, names: list[str]
) -> Quality:
    rows, hits = np.arange(len(gold)), quality.wrongness == 0
    ordered = np.sort(probabilities, axis=1)
    suspects = label_errors.suspects(probabilities, gold)
    pairs = zip(suspects.examples, suspects.likely, strict=True)
    return dataclasses.replace(
        quality,
        wrongness=-np.log(np.maximum(probabilities[rows, gold], TINY)),
        wrongness_name=tr("loss"),
        doubt=ordered[:, -2] - ordered[:, -1] if probabilities.shape[1] > 1 else None,
        doubt_name=tr("the two most probable labels are closest"),
        calibration=Calibration(reliability(ordered[:, -1], hits), tr("right predictions")),
        suspects=[Suspect(int(n), names[likely]) for n, likely in pairs],
    )


def _names(evaluated: Evaluated) -> list[str]:
    """Return the labels: those of the model first, then any others that occur."""
    names = dict.fromkeys(evaluated.names)
    names |= dict.fromkeys(name for p in evaluated.predictions for name in p.get("probability", ()))
    names |= dict.fromkeys(str(label["label"]) for label in evaluated.labels)
    return list(names | dict.fromkeys(str(p["label"]) for p in evaluated.predictions))


def _probabilities(evaluated: Evaluated, names: list[str]) -> np.ndarray | None:
    """Return the probabilities [N, C]; None if the task does not predict any."""
    given = [prediction.get("probability") for prediction in evaluated.predictions]
    known = [values for values in given if isinstance(values, Mapping)]
    if len(known) < len(given):
        return None
    return np.array([[values.get(name, 0.0) for name in names] for values in known], float)


def _sums(gold: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return, for each group of examples, each label's hits, predictions and examples [G, 3C]."""
    group = resampling.group_of(len(gold))
    groups, hit = int(group.max(initial=-1)) + 1, gold == predicted
    parts = [
        np.bincount(group[chosen] * classes + labels[chosen], minlength=groups * classes)
        for labels, chosen in ((gold, hit), (predicted, slice(None)), (gold, slice(None)))
    ]
    return np.concatenate([part.reshape(groups, classes) for part in parts], axis=1)


def _statistic(sums: np.ndarray, positive: int | None) -> dict[str, np.ndarray]:
    """Return the metrics of metrics/classification.py, of many samples at once."""
    hits, marked, real = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    total, correct = real.sum(-1), hits.sum(-1)
    f1 = ratio(2 * hits, marked + real)
    covariance = correct * total - (real * marked).sum(-1)
    spread = (total**2 - (real**2).sum(-1)) * (total**2 - (marked**2).sum(-1))
    result = {
        "accuracy": ratio(correct, total),
        "f1_macro": ratio(f1.sum(-1), (marked + real > 0).sum(-1)),
        "matthews": ratio(covariance, np.sqrt(np.maximum(spread, 0.0))),
    }
    return result if positive is None else result | {"f1": f1[..., positive]}


def _row(evaluated: Evaluated, index: int) -> dict[str, object]:
    label, prediction = evaluated.labels[index], evaluated.predictions[index]
    cells: dict[str, object] = {
        tr("text"): text_cell(prediction),
        tr("label"): user_text(label["label"], 60),
        tr("predicted"): user_text(prediction["label"], 60),
    }
    if isinstance(probability := prediction.get("probability"), Mapping):
        cells[tr("its probability")] = f"{probability.get(prediction['label'], 0.0):.2f}"
        cells[tr("of the label")] = f"{probability.get(label['label'], 0.0):.2f}"
    return cells


def text_cell(prediction: Mapping[str, object]) -> Html:
    """Return the text of a prediction, or both texts of a pair."""
    texts = [prediction[key] for key in ("text", "pair") if key in prediction]
    return join(*(tag("span", user_text(text), class_="sentence") for text in texts))


def _confusion_matrix(gold: np.ndarray, predicted: np.ndarray, names: list[str]) -> Html:
    """Return the confusion matrix; with many labels, of those with most errors."""
    matrix = confusion(gold, predicted, len(names))
    errors = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    shown = np.arange(len(names))
    if len(names) > MATRIX:
        shown = np.sort(np.argsort(-errors, kind="stable")[:MATRIX])
    rows = [
        [user_text(names[n], 40), *(_heat(matrix[n, m], matrix[n].sum()) for m in shown)]
        for n in shown
    ]
    columns = [tr("label \u2193 predicted \u2192"), *(_clipped(names[n]) for n in shown)]
    caption = tr("Confusion matrix: rows are labels, columns predictions")
    about = note(tr("The {shown} of {n} labels with most errors.", shown=MATRIX, n=len(names)))
    grid = table(caption, columns, rows, classes="matrix", numeric=columns[1:])
    return tag("div", grid, about if len(names) > MATRIX else None)


def _clipped(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}…"


def _heat(count: int, whole: int) -> Html:
    """Return a cell that is the darker, the larger its share of the row."""
    strength = f"--heat-share:{0.6 * count / whole if whole else 0:.2f}"
    return tag("td", amount(count), style=strength, title=share(float(count), float(whole)))


def _confusions(matrix: np.ndarray, names: list[str]) -> Html:
    """Return the most frequent confusions, where the matrix is too large to see them."""
    if len(names) < 6:
        return Html()
    off = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    places = [divmod(int(n), len(names)) for n in order]
    rows = [
        [user_text(names[g], 60), user_text(names[p], 60), amount(off[g, p]),
         share(float(off[g, p]), float(matrix[g].sum()))]
        for g, p in places if off[g, p]
    ]  # fmt: skip
    columns = [tr("label"), tr("predicted"), tr("examples"), tr("of the label")]
    return table(tr("Most frequent confusions"), columns, rows, numeric=columns[2:])


def _per_label(gold: np.ndarray, predicted: np.ndarray, names: list[str]) -> Html:
    hits, marked, real = (
        np.bincount(values, minlength=len(names))
        for values in (gold[gold == predicted], predicted, gold)
    )
    return label_table(tr("Scores of each label"), names, hits, marked, real)


ROWS = 60
"""Rows of a table of labels."""


def label_table(
    caption: str, names: list[str], hits: np.ndarray, marked: np.ndarray, real: np.ndarray
) -> Html:
    """Return a table of precision, recall and F1 of each label, the most frequent ones first.

    Args:
      caption: the heading of the table.
      names: the labels (C).
      hits: correct predictions of each label [C].
      marked: predictions of each label [C].
      real: examples of each label [C].
    """
    order = np.argsort(-real, kind="stable")
    scores = zip(ratio(hits, marked), ratio(hits, real), ratio(2 * hits, marked + real),
                 strict=True)  # fmt: skip
    values = [[number(float(x)) for x in line] for line in scores]
    rows = [
        [user_text(names[n], 60), amount(real[n]), amount(marked[n]), *values[n]]
        for n in order[:ROWS]
    ]
    columns = [
        *(tr("label"), tr("examples"), tr("predicted")),
        *(tr("precision"), tr("recall"), "F1"),
    ]
    more = note(tr("The {shown} most frequent of {n}.", shown=ROWS, n=len(names)))
    return tag(
        "div",
        table(caption, columns, rows, numeric=columns[1:]),
        more if len(names) > ROWS else None,
    )


def assess_choices(evaluated: Evaluated) -> Quality:
    """Assess answers to questions of multiple choice."""
    gold = np.array([label["index"] for label in evaluated.labels], int)
    predicted = np.array([prediction["index"] for prediction in evaluated.predictions], int)
    given = [np.array(p["probability"], float) for p in evaluated.predictions]
    correct = gold == predicted
    ordered = [np.sort(p) for p in given]
    best = np.array([p[-1] for p in ordered])
    counts = resampling.group_sums(np.stack([correct, np.ones(len(gold))], axis=1))
    common = int(np.bincount(gold, minlength=1).argmax())
    always = np.array([(gold == common).sum(), len(gold)])
    known = estimates(counts, lambda s: {"accuracy": ratio(s[..., 0], s[..., 1])}, always)
    return Quality(
        main="accuracy",
        estimates=with_proportion(known, "accuracy", correct),
        baseline=tr("always choice {n}", n=common + 1),
        correct=correct,
        wrongness=np.array([-np.log(max(p[g], TINY)) for p, g in zip(given, gold, strict=True)]),
        wrongness_name=tr("loss"),
        row=functools.partial(_choice_row, evaluated),
        doubt=np.array([p[-2] - p[-1] for p in ordered]),
        doubt_name=tr("the two most probable choices are closest"),
        calibration=Calibration(reliability(best, correct), tr("right predictions")),
        suspects=_choice_suspects(given, gold, predicted, evaluated),
    )


def _choice_suspects(
    given: list[np.ndarray], gold: np.ndarray, predicted: np.ndarray, evaluated: Evaluated
) -> list[Suspect]:
    """Return wrong answers that are as probable as the correct ones are on average."""
    own = np.array([p[g] for p, g in zip(given, gold, strict=True)])
    best = np.array([p.max() for p in given])
    chosen = np.flatnonzero((gold != predicted) & (best >= (own.mean() if len(own) else 1.0)))
    order = chosen[np.argsort((own - best)[chosen], kind="stable")]
    return [Suspect(int(n), str(evaluated.predictions[n]["choice"])) for n in order]


def _choice_row(evaluated: Evaluated, index: int) -> dict[str, object]:
    label, prediction = evaluated.labels[index], evaluated.predictions[index]
    return {
        tr("question"): user_text(prediction["question"]),
        tr("right choice"): user_text(label["choices"][label["index"]], 160),
        tr("predicted"): user_text(prediction["choice"], 160),
        tr("its probability"): f"{max(prediction['probability']):.2f}",
    }

"""Quality of predicted tags: entities in sentences, or any other tag for each word."""

import collections
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from flaxbert.data.tag_schemes import mark_entities
from flaxbert.messages.language import amount, tr
from flaxbert.metrics import resampling
from flaxbert.metrics.entities import Span, spans
from flaxbert.report import classes
from flaxbert.report.classes import label_table
from flaxbert.report.html import Html, join, note, share, table, tag, user_text
from flaxbert.report.quality import Evaluated, Quality, estimates, ratio
from flaxbert.report.tag_probabilities import with_probabilities

SHOWN, BEFORE = 50, 12
"""Words of a sentence that are shown, and how many of them before the first entity."""

CONFUSIONS = 20


def assess(evaluated: Evaluated) -> Quality:
    """Assess predicted tags."""
    gold = [label["tags"] for label in evaluated.labels]
    predicted = [prediction["tags"] for prediction in evaluated.predictions]
    tags = {tag for sentence in (*gold, *predicted) for tag in sentence}
    if not mark_entities(evaluated.names or sorted(tags)):  # a slice may have no entity
        return _assess_words(evaluated, gold, predicted)
    pairs = [_entities(g, p) for g, p in zip(gold, predicted, strict=True)]
    types = sorted({span.type for both in pairs for part in both for span in part})
    sums = _sums(pairs, gold, predicted, types)
    statistic = functools.partial(_statistic, types=types)
    outside = sums.sum(axis=0)
    outside[: 2 * len(types)] = 0  # no hits, no predictions
    outside[-2] = sum(tag == "O" for sentence in gold for tag in sentence)
    wrong = np.array([len(g ^ p) for g, p in pairs], float)
    quality = Quality(
        main="f1",
        estimates=estimates(sums, statistic, outside),
        baseline=tr("no entities"),
        correct=wrong == 0,
        wrongness=wrong,
        wrongness_name=tr("entities missed or wrong"),
        row=functools.partial(_row, evaluated),
        sections=[_per_type(pairs, types), _confusions(pairs)],
        details={f"{kind}_{name}" for kind in ("precision", "recall", "f1") for name in types},
    )
    return with_probabilities(quality, evaluated)


def _entities(gold: Sequence[str], predicted: Sequence[str]) -> tuple[set[Span], set[Span]]:
    return set(spans(gold, strict=False)), set(spans(predicted, strict=False))


def _sums(
    pairs: list[tuple[set[Span], set[Span]]],
    gold: list[list[str]],
    predicted: list[list[str]],
    types: list[str],
) -> np.ndarray:
    """Return, for each group: each type's hits, predictions and entities; right tags, words."""
    place = {name: n for n, name in enumerate(types)}
    counts = np.zeros((len(pairs), 3, len(types)))
    for n, (g, p) in enumerate(pairs):
        for kind, part in enumerate((g & p, p, g)):
            np.add.at(counts[n, kind], [place[span.type] for span in part], 1)
    words = [
        [sum(a == b for a, b in zip(g, p, strict=True)), len(g)]
        for g, p in zip(gold, predicted, strict=True)
    ]
    columns = [counts.reshape(len(pairs), -1), np.array(words, float).reshape(-1, 2)]
    return resampling.group_sums(np.concatenate(columns, axis=1))


def _statistic(sums: np.ndarray, types: list[str]) -> dict[str, np.ndarray]:
    """Return the metrics of metrics/entities.py, of many samples at once."""
    entities = sums[..., :-2]
    hits, marked, real = np.moveaxis(entities.reshape(*sums.shape[:-1], 3, len(types)), -2, 0)
    f1 = ratio(2 * hits, marked + real)
    result = {
        "f1": ratio(2 * hits.sum(-1), (marked + real).sum(-1)),
        "precision": ratio(hits.sum(-1), marked.sum(-1)),
        "recall": ratio(hits.sum(-1), real.sum(-1)),
        "f1_macro": ratio(f1.sum(-1), (marked + real > 0).sum(-1)),
        "token_accuracy": ratio(sums[..., -2], sums[..., -1]),
    }
    return result | {f"f1_{name}": f1[..., n] for n, name in enumerate(types)}


def _per_type(pairs: list[tuple[set[Span], set[Span]]], types: list[str]) -> Html:
    hits, marked, real = (
        collections.Counter[str](),
        collections.Counter[str](),
        (collections.Counter[str]()),
    )
    for g, p in pairs:
        for counter, part in ((hits, g & p), (marked, p), (real, g)):
            counter.update(span.type for span in part)
    columns = [np.array([counter[name] for name in types]) for counter in (hits, marked, real)]
    return label_table(tr("Scores of each type of entity"), types, *columns)


def _confusions(pairs: list[tuple[set[Span], set[Span]]]) -> Html:
    """Return what became of the entities that were not right."""
    kinds = collections.Counter[tuple[str, str]]()
    for gold, predicted in pairs:
        for span in gold - predicted:
            kinds[span.type, _fate(span, predicted)] += 1
        for span in predicted - gold:
            if not any(_overlap(span, other) for other in gold):
                kinds[tr("no entity"), span.type] += 1
    total = sum(kinds.values())
    rows = [
        [user_text(label, 60), user_text(fate, 60), amount(count), share(count, total)]
        for (label, fate), count in kinds.most_common(CONFUSIONS)
    ]
    columns = [tr("label"), tr("predicted"), tr("entities"), tr("of all errors")]
    return table(tr("Errors by kind"), columns, rows, numeric=columns[2:])


def _fate(span: Span, predicted: set[Span]) -> str:
    """Return what was predicted at the place of an entity that is not right."""
    others = sorted((other for other in predicted if _overlap(span, other)), key=str)
    if not others:
        return tr("no entity")
    if any(other[1:] == span[1:] for other in others):
        return next(other.type for other in others if other[1:] == span[1:])
    if any(other.type == span.type for other in others):
        return tr("{type}, other words", type=span.type)
    return tr("{type}, other words", type=others[0].type)


def _overlap(one: Span, other: Span) -> bool:
    return one.first <= other.last and other.first <= one.last


def _row(evaluated: Evaluated, index: int) -> dict[str, object]:
    """Return the sentence twice: with its entities, and with the predicted ones."""
    words, gold = evaluated.predictions[index]["tokens"], evaluated.labels[index]["tags"]
    predicted = evaluated.predictions[index]["tags"]
    real, marked = _entities(gold, predicted)
    wrong = real ^ marked
    start = max(0, min((span.first for span in wrong or real | marked), default=0) - BEFORE)
    shown = range(start, min(len(words), start + SHOWN))
    sides = {
        tr("label"): _marked(words, real, shown, dict.fromkeys(real - marked, "missed")),
        tr("predicted"): _marked(words, marked, shown, dict.fromkeys(marked - real, "wrong")),
    }
    lines = [join(tag("span", name, class_="side"), line) for name, line in sides.items()]
    return {tr("sentence"): join(*lines)}


def _marked(
    words: Sequence[str], entities: set[Span], shown: range, kinds: dict[Span, str]
) -> Html:
    """Return the words of a sentence with its entities highlighted."""
    parts: list[object] = ["… "] if shown.start else []
    at = shown.start
    for span in sorted(entities, key=lambda span: span.first):
        if span.last < shown.start or span.first >= shown.stop:
            continue
        before, inside = words[at : span.first], words[max(span.first, at) : span.last + 1]
        kind = kinds.get(span, "right")
        names = {"missed": tr("missed"), "wrong": tr("wrong")}
        about = span.type if kind == "right" else f"{span.type}, {names[kind]}"
        text = user_text(" ".join(inside), 120)
        parts += [user_text(" ".join(before)), " " if before else ""]
        parts += [tag("mark", text, tag("small", about), class_=kind), " "]
        at = span.last + 1
    parts.append(user_text(" ".join(words[at : shown.stop])))
    if shown.stop < len(words):
        parts.append(tag("span", " … " + tr("({n} words, shortened)", n=len(words)), class_="note"))
    return tag("span", *parts, class_="sentence", dir="auto")


def _assess_words(
    evaluated: Evaluated, gold: list[list[str]], predicted: list[list[str]]
) -> Quality:
    """Assess tags that mark no entities, such as parts of speech."""
    flat: list[list[dict[str, Any]]] = [
        [{"label": tag} for sentence in side for tag in sentence] for side in (gold, predicted)
    ]
    names = sorted({item["label"] for side in flat for item in side})
    words = Evaluated(flat[0], flat[1], names, {})
    quality = classes.assess(words)
    wrong = [
        sum(a != b for a, b in zip(g, p, strict=True)) for g, p in zip(gold, predicted, strict=True)
    ]
    about = note(tr("Each word counts."))
    by_sentence = Quality(
        main="accuracy",
        estimates={"accuracy": quality.estimates["accuracy"]},
        baseline=tr("always the most frequent tag"),
        correct=np.array(wrong) == 0,
        wrongness=np.array(wrong, float),
        wrongness_name=tr("wrong tags"),
        row=functools.partial(_tag_row, evaluated),
        sections=[*quality.sections, about],
    )
    return with_probabilities(by_sentence, evaluated)


def _tag_row(evaluated: Evaluated, index: int) -> dict[str, object]:
    words, gold = evaluated.predictions[index]["tokens"], evaluated.labels[index]["tags"]
    predicted = evaluated.predictions[index]["tags"]
    return {
        tr("words"): user_text(" ".join(words)),
        tr("tags"): user_text(" ".join(gold)),
        tr("predicted"): user_text(" ".join(predicted)),
    }

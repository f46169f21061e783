"""Precision, recall and F1 of entities, from tags in IOB2 (B-PER, I-PER, O).

A predicted entity is correct if its type, first and last token all agree. There are two readings of
tags that violate IOB2, and both are scored:

* conlleval, the script of the shared tasks (Tjong Kim Sang and Buchholz 2000, "Introduction to the
  CoNLL-2000 Shared Task: Chunking"; Tjong Kim Sang and De Meulder 2003, "Introduction to the
  CoNLL-2003 Shared Task", arXiv:cs/0306050): an I-PER that does not continue a PER starts one. This
  is the default mode of the library seqeval, and the one of nearly all published results.
* strict: an I-PER that does not continue a PER is outside all entities. This is seqeval's
  mode="strict" with scheme=IOB2.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

UNTYPED = "entity"  # the type of bare B and I tags


class Span(NamedTuple):
    """An entity; `first` and `last` are the indices of its first and last token."""

    type: str
    first: int
    last: int


def spans(tags: Sequence[str], *, strict: bool) -> list[Span]:
    """Return the entities of one sentence, in order.

    Args:
      tags: IOB2 tags; a tag that starts neither with B nor with I is outside.
      strict: whether an I- that does not continue an entity is outside, or starts one.
    """
    entities: list[Span] = []
    open_type = None  # type of the entity that the previous token belongs to
    for index, tag in enumerate(tags):
        prefix, _, name = tag.partition("-")
        type_ = name or UNTYPED
        if prefix == "I" and type_ == open_type:
            entities[-1] = entities[-1]._replace(last=index)
        elif prefix == "B" or (prefix == "I" and not strict):
            entities.append(Span(type_, index, index))
            open_type = type_
        else:
            open_type = None
    return entities


def in_text(
    text: str,
    places: Sequence[tuple[int, int]],
    tags: Sequence[str],
    probability: Sequence[float | None],
) -> list[dict[str, Any]]:
    """Return the entities that tags mark: `type`, `text`, `start`, `end` and `probability`.

    Args:
      text: a sentence.
      places: the first character of each word, and the one after its last.
      tags: the tag of each word; they are read as conlleval does.
      probability: that of each tag, None for a word that the model does not see. An entity has the
        lowest of its words.
    """
    found = []
    for span in spans(tags, strict=False):
        start, end = places[span.first][0], places[span.last][1]
        known = [p for p in probability[span.first : span.last + 1] if p is not None]
        place = {"text": text[start:end], "start": start, "end": end}
        found.append({"type": span.type, **place, "probability": min(known, default=None)})
    return found


def score(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return entity and token scores over all sentences, from 0 to 1; 0 if undefined.

    Args:
      predicted: tags of every sentence.
      gold: the true tags of every sentence.

    Returns:
      `precision`, `recall`, `f1`: over all entities, as conlleval reads them.
      `strict_precision`, `strict_recall`, `strict_f1`: over all entities, read strictly.
      `f1_macro`: mean F1 of the types that occur in either, as conlleval reads them.
      `precision_TYPE`, `recall_TYPE`, `f1_TYPE`: over the entities of one of these types.
      `token_accuracy`: share of equal tags, O included.

    Raises:
      ValueError: if the numbers of sentences, or of the tags of a sentence, differ.
    """
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} predicted sentences, but {len(gold)} gold ones")
    for number, (p, g) in enumerate(zip(predicted, gold, strict=True)):
        if len(p) != len(g):
            raise ValueError(f"sentence {number}: {len(p)} predicted tags, but {len(g)} gold ones")
    lenient, strict = (_tally(predicted, gold, strict=mode) for mode in (False, True))
    by_type: dict[str, float] = {}
    types = sorted(lenient.predicted | lenient.gold)
    for type_ in types:
        hits, marked, true = (counts[type_] for counts in lenient)
        by_type |= _rates(hits, marked, true, suffix=f"_{type_}")
    macro = sum(by_type[f"f1_{type_}"] for type_ in types) / max(1, len(types))
    tokens = [
        pair for both in zip(predicted, gold, strict=True) for pair in zip(*both, strict=True)
    ]
    return {
        **_rates(*(counts.total() for counts in lenient)),
        **_rates(*(counts.total() for counts in strict), prefix="strict_"),
        "f1_macro": macro,
        "token_accuracy": sum(p == g for p, g in tokens) / max(1, len(tokens)),
        **by_type,
    }


class Tally(NamedTuple):
    """Counts of entities by type."""

    hits: Counter[str]
    predicted: Counter[str]
    gold: Counter[str]


def _tally(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], *, strict: bool
) -> Tally:
    tally = Tally(Counter(), Counter(), Counter())
    for p, g in zip(predicted, gold, strict=True):
        marked, true = set(spans(p, strict=strict)), set(spans(g, strict=strict))
        for counts, entities in zip(tally, (marked & true, marked, true), strict=True):
            counts.update(span.type for span in entities)
    return tally


def _rates(
    hits: int, predicted: int, gold: int, *, prefix: str = "", suffix: str = ""
) -> dict[str, float]:
    values = {
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / gold if gold else 0.0,
        "f1": 2 * hits / (predicted + gold) if predicted + gold else 0.0,
    }
    return {f"{prefix}{name}{suffix}": value for name, value in values.items()}

"""Entity scores: cases computed by hand, and seqeval's scores of random tags.

Goldens: tests/golden/make_entities.py.
"""

import json
from pathlib import Path

import pytest

from flaxbert.metrics import entities

GOLDEN = Path(__file__).parents[1] / "golden" / "entities.json"

SPANS = [
    # (tags, entities as conlleval reads them, entities read strictly)
    ("", [], []),
    ("O O", [], []),
    ("B-PER", [("PER", 0, 0)], [("PER", 0, 0)]),
    ("O B-PER I-PER O", [("PER", 1, 2)], [("PER", 1, 2)]),
    ("B-PER I-PER I-PER", [("PER", 0, 2)], [("PER", 0, 2)]),  # to the end
    ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)], [("PER", 0, 0), ("PER", 1, 1)]),
    ("B-PER B-LOC", [("PER", 0, 0), ("LOC", 1, 1)], [("PER", 0, 0), ("LOC", 1, 1)]),
    ("I-PER I-PER O", [("PER", 0, 1)], []),  # a stray I- at the start
    ("O I-PER", [("PER", 1, 1)], []),  # after O
    ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)], [("PER", 0, 0)]),  # after another type
    ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)], [("PER", 0, 0)]),
    ("B-PER I-LOC I-PER", [("PER", 0, 0), ("LOC", 1, 1), ("PER", 2, 2)], [("PER", 0, 0)]),
    ("B-PER O I-PER", [("PER", 0, 0), ("PER", 2, 2)], [("PER", 0, 0)]),  # after a gap
    ("I-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)], [("PER", 1, 2)]),
    ("B-creative-work I-creative-work", [("creative-work", 0, 1)], [("creative-work", 0, 1)]),
    ("B-a I-a-b", [("a", 0, 0), ("a-b", 1, 1)], [("a", 0, 0)]),
    ("B I O I", [("entity", 0, 1), ("entity", 3, 3)], [("entity", 0, 1)]),  # no type
    ("DT NN -LRB- IN", [], []),  # part-of-speech tags
]


@pytest.mark.parametrize(("tags", "lenient", "strict"), SPANS)
def test_spans_in_both_readings(tags: str, lenient: list[tuple], strict: list[tuple]) -> None:
    assert entities.spans(tags.split(), strict=False) == lenient
    assert entities.spans(tags.split(), strict=True) == strict


def score(predicted: list[str], gold: list[str]) -> dict[str, float]:
    return entities.score([tags.split() for tags in predicted], [tags.split() for tags in gold])


def test_score_of_a_corpus_computed_by_hand() -> None:
    gold = ["B-PER I-PER O B-LOC", "O B-PER O", "B-LOC I-LOC"]
    predicted = ["B-PER I-PER O B-PER", "O I-PER O", "B-LOC O"]
    # Gold: PER 2, LOC 2. Predicted: PER (0-1), PER (3), PER from a stray I-, LOC one token short.
    # Hits: the first PER and, unless strict, the stray one. Equal tags: 3 + 2 + 1 of 9.
    assert score(predicted, gold) == pytest.approx(
        {
            "precision": 2 / 4,
            "recall": 2 / 4,
            "f1": 2 / 4,
            "strict_precision": 1 / 3,
            "strict_recall": 1 / 4,
            "strict_f1": 2 / 7,
            "f1_macro": (4 / 5 + 0) / 2,
            "token_accuracy": 6 / 9,
            "precision_LOC": 0,
            "recall_LOC": 0,
            "f1_LOC": 0,
            "precision_PER": 2 / 3,
            "recall_PER": 2 / 2,
            "f1_PER": 4 / 5,
        }
    )


def test_equal_tags_score_one_in_all_metrics() -> None:
    tags = ["B-PER I-PER O", "B-LOC B-LOC O"]
    assert set(score(tags, tags).values()) == {1.0}


def test_f1_macro_counts_types_of_either_side() -> None:
    # PER is correct, LOC is only gold, ORG is only predicted.
    assert score(["B-PER O B-ORG"], ["B-PER B-LOC O"])["f1_macro"] == pytest.approx(1 / 3)


def test_equal_span_in_another_sentence_is_not_a_hit() -> None:
    assert score(["B-PER O", "O O"], ["O O", "B-PER O"])["f1"] == 0


@pytest.mark.parametrize("tags", [[], [""], ["O O"]])
def test_without_entities_only_token_accuracy_is_nonzero(tags: list[str]) -> None:
    result = score(tags, tags)
    assert result.pop("token_accuracy") == float(tags == ["O O"])
    assert set(result.values()) == {0.0}
    assert not any("_PER" in name for name in result)


def test_different_numbers_of_sentences_or_tags_raise() -> None:
    with pytest.raises(ValueError, match="1 predicted sentences, but 2 gold ones"):
        score(["O"], ["O", "O"])
    with pytest.raises(ValueError, match="sentence 1: 1 predicted tags, but 2 gold ones"):
        score(["O", "O"], ["O", "O O"])


CORPORA = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("corpus", CORPORA, ids=range(len(CORPORA)))
def test_scores_equal_seqeval(corpus: dict) -> None:
    result = score(corpus["predicted"], corpus["gold"])
    assert result == pytest.approx(corpus["figures"], rel=0, abs=1e-9)  # the names are equal too


def test_goldens_include_tags_that_violate_iob2() -> None:
    # Goldens on which both readings agree would test only one of them.
    differ = [c for c in CORPORA if c["figures"]["f1"] != c["figures"]["strict_f1"]]
    assert len(differ) > len(CORPORA) / 2

"""SQuAD v1.1's exact match and F1, against cases computed by hand from the official definitions.

Normalization, in this order: lower case; remove ASCII punctuation; remove the words a, an, the;
collapse white space. F1 is 2PR / (P + R) over bags of words, and 0 if no word is shared.
"""

import pytest

from flaxbert.metrics import squad

CASES = [
    # (prediction, references, exact match, F1)
    ("Paris", ["Paris"], 1, 1),  # equal
    ("paris", ["PARIS"], 1, 1),  # case
    ("ÉCOLE", ["école"], 1, 1),  # case beyond ASCII: lower() handles it
    ("the Paris", ["Paris"], 1, 1),  # articles are removed
    ("a bridge", ["an bridge"], 1, 1),
    ("The the THE king", ["king"], 1, 1),
    ("theatre", ["atre"], 0, 0),  # only as whole words
    ("Paris.", ["Paris"], 1, 1),  # punctuation is removed
    ("U.S.A.", ["usa"], 1, 1),  # without a gap: "usa"
    ("2,000", ["2000"], 1, 1),
    ("$5", ["5%"], 1, 1),  # both are in ASCII's punctuation
    ("well-known", ["well known"], 0, 0),  # "wellknown" is one word, shared with neither
    ("the-king", ["king"], 0, 0),  # punctuation is removed before articles: "theking"
    ("a.m.", ["am"], 1, 1),  # "am", no article "a" is left
    ("  old \t king\n", ["old king"], 1, 1),  # white space
    ("old\u00a0king", ["old king"], 1, 1),  # a no-break space separates words too
    ("king old", ["old king"], 0, 1),  # the bag has no order: P = R = 1
    ("red car", ["blue car"], 0, 1 / 2),  # "car" shared: P = R = 1/2
    ("king of Paris", ["the king"], 0, 1 / 2),  # P = 1/3, R = 1: (2/3) / (4/3)
    ("king", ["king of the city Paris"], 0, 2 / 5),  # P = 1, R = 1/4: (1/2) / (5/4)
    ("old red car", ["red car"], 0, 4 / 5),  # P = 2/3, R = 1: (4/3) / (5/3)
    ("very very good", ["very good"], 0, 4 / 5),  # "very" is shared once: 2 of 3, 2 of 2
    ("very good", ["very very very good"], 0, 2 / 3),  # P = 1, R = 2/4: 1 / (3/2)
    ("red car", ["blue", "the red car"], 1, 1),  # the best of several references
    ("red car", ["blue", "car", "old red car"], 0, 4 / 5),  # max(0, 2/3, 4/5)
    ("", ["Paris"], 0, 0),  # an empty prediction
    ("Paris", [""], 0, 0),
    ("", [""], 1, 0),  # equal, but no word is shared
    ("the", ["a"], 1, 0),  # both are empty after normalization
    ("?!", ["the"], 1, 0),
    ("the", ["The Who"], 0, 0),  # "" against "who"
    ("“Paris”", ["Paris"], 0, 0),  # punctuation beyond ASCII stays
    ("1990-1991", ["19901991"], 1, 1),  # hyphen: ASCII
    ("1990–1991", ["19901991"], 0, 0),  # en dash: not
    ("€5", ["5"], 0, 0),
    ("l’a", ["l’"], 1, 1),  # ’ stays and bounds a word, so the "a" after it is an article
]


@pytest.mark.parametrize(("prediction", "references", "exact", "f1"), CASES)
def test_scores_follow_the_official_definitions(
    prediction: str, references: list[str], exact: float, f1: float
) -> None:
    assert squad.best(squad.exact_match, prediction, references) == exact
    assert squad.best(squad.f1, prediction, references) == pytest.approx(f1)


def test_score_is_the_mean_over_questions_in_percent() -> None:
    predictions = ["Paris", "old red car", "", "king"]
    references = [["paris", "London"], ["red car"], ["river"], ["the king"]]
    # Exact match 1, 0, 0, 1; F1 1, 4/5, 0, 1.
    expected = {"exact_match": 100 * 2 / 4, "f1": 100 * 2.8 / 4}
    assert squad.score(predictions, references) == pytest.approx(expected)


def test_question_without_reference_raises() -> None:
    with pytest.raises(ValueError, match="each needs a reference"):
        squad.score(["Paris", "king"], [["Paris"], []])


def test_different_numbers_of_predictions_and_references_raise() -> None:
    with pytest.raises(ValueError, match="zip"):
        squad.score(["Paris"], [["Paris"], ["king"]])

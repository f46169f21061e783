"""SQuAD v2.0's metrics, compared with the official script and with cases computed by hand.

golden/squad_v2.json has the script's output for small random sets (golden/make_squad_v2.py).
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flaxbert.metrics import squad

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "squad_v2.json").read_text("utf-8"))
SETS: list[dict[str, Any]] = GOLDEN["sets"]

OFFICIAL = {  # our name: the name in the script
    "exact_match": "exact",
    "f1": "f1",
    "has_ans_exact_match": "HasAns_exact",
    "has_ans_f1": "HasAns_f1",
    "no_ans_exact_match": "NoAns_exact",
    "no_ans_f1": "NoAns_f1",
    "best_exact_match": "best_exact",
    "best_exact_match_threshold": "best_exact_thresh",
    "best_f1": "best_f1",
    "best_f1_threshold": "best_f1_thresh",
}
MEANS = [name for name in OFFICIAL if not name.startswith("best_")]


def close(value: Any) -> Any:
    return pytest.approx(value, rel=0, abs=1e-9)


def scored(one: dict[str, Any]) -> dict[str, float]:
    return squad.score_v2(
        one["predictions"], one["references"], one["null_scores"], threshold=one["threshold"]
    )


# --- the official script -----------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(SETS)))
def test_all_metrics_equal_the_official_script(number: int) -> None:
    official = dict(zip(GOLDEN["figures"], SETS[number]["figures"], strict=True))
    expected = {ours: official[theirs] for ours, theirs in OFFICIAL.items()}
    reported = {name: value for name, value in expected.items() if value is not None}
    assert scored(SETS[number]) == close(reported)  # the names are equal too


def test_goldens_cover_the_corner_cases() -> None:
    # Otherwise, a generator of easy sets would make the test above pass.
    corners = dict.fromkeys(
        [
            "no null scores",
            "ties",
            "below 0",
            "all answerable",
            "none",
            "hollow",
            "threshold",
            "partial",
        ],
        0,
    )
    for one in SETS:
        nulls, golds, texts = one["null_scores"], one["references"], one["predictions"]
        corners["no null scores"] += nulls is None
        corners["ties"] += nulls is not None and len(set(nulls)) < len(nulls)
        corners["below 0"] += nulls is not None and min(nulls) < 0
        corners["all answerable"] += all(golds)
        corners["none"] += not any(golds)
        corners["hollow"] += any(t and not squad.normalize(t) for t in texts)
        corners["threshold"] += nulls is not None and max(nulls) > one["threshold"]
        corners["partial"] += one["figures"][0] != one["figures"][1]  # exact match and F1 differ
    assert len(SETS) >= 200
    assert min(corners.values()) >= 10, corners
    best = [one for one in SETS if one["null_scores"] and one["figures"][9] != 0.0]
    assert len(best) >= 30  # thresholds differ from the initial one


# --- one question ------------------------------------------------------------------------------

CASES = [
    # (prediction, references, exact match, F1)
    ("", [], 1, 1),  # no answer expected, none given
    ("Paris", [], 0, 0),  # none expected
    ("", ["Paris"], 0, 0),  # none given
    ("the", [], 1, 1),  # "" after normalization, like no answer
    ("?!", [], 1, 1),
    ("“”", [], 0, 0),  # these quotes stay
    ("Paris", ["the"], 0, 0),  # no reference is left: only "" is right
    ("", ["the"], 1, 1),
    ("an", ["the", "?!"], 1, 1),
    ("", ["the", "Paris"], 0, 0),  # one is left, and it is not empty
    ("a", ["the", "Paris"], 0, 0),
    ("the Paris.", ["London", "PARIS"], 1, 1),  # the best of several
    ("red car", ["blue", "car", "old red car"], 0, 4 / 5),  # max(0, 2/3, 4/5)
    ("2,000", ["2000"], 1, 1),
    ("red", ["blue"], 0, 0),
]


@pytest.mark.parametrize(("prediction", "references", "exact", "f1"), CASES)
def test_scores_of_one_question(
    prediction: str, references: list[str], exact: float, f1: float
) -> None:
    assert squad.question_scores_v2(squad.exact_match, [prediction], [references]) == [exact]
    assert squad.question_scores_v2(squad.f1_v2, [prediction], [references]) == close([f1])


# --- all questions -----------------------------------------------------------------------------


def test_means_over_all_over_answerable_and_over_unanswerable() -> None:
    predictions = ["Paris", "red car", "", "", "king"]
    references = [["paris"], ["old red car"], ["river"], [], []]
    # Exact match 1, 0, 0 | 1, 0; F1 1, 4/5, 0 | 1, 0.
    assert squad.score_v2(predictions, references) == close(
        {
            "exact_match": 100 * 2 / 5,
            "f1": 100 * 2.8 / 5,
            "has_ans_exact_match": 100 / 3,
            "has_ans_f1": 100 * 1.8 / 3,
            "no_ans_exact_match": 50,
            "no_ans_f1": 50,
        }
    )


def test_metrics_of_an_empty_part_are_omitted() -> None:
    assert list(squad.score_v2(["Paris"], [["Paris"]])) == MEANS[:4]
    assert list(squad.score_v2([""], [[]])) == [*MEANS[:2], *MEANS[4:]]


def test_reference_that_normalizes_to_nothing_counts_as_answerable() -> None:
    assert squad.score_v2([""], [["the"]])["has_ans_f1"] == 100
    # So removing its empty answer makes it wrong, as in the official script.
    assert squad.score_v2([""], [["the"]], [0.9], threshold=0.5)["has_ans_f1"] == 0


def test_scoring_no_questions_gives_all_metrics() -> None:
    assert squad.score_v2([], []) == dict.fromkeys(MEANS, 0.0)
    assert squad.score_v2([], [], []) == dict.fromkeys(OFFICIAL, 0.0)


def test_threshold_removes_only_answers_above_it() -> None:
    predictions, references = ["Paris", "king", "red"], [["Paris"], [], []]
    nulls = [0.5, 0.5, 0.6]
    by_threshold = {
        t: squad.score_v2(predictions, references, nulls, threshold=t)["exact_match"]
        for t in (0.4, 0.5, 0.6)
    }
    assert by_threshold == close({0.4: 200 / 3, 0.5: 200 / 3, 0.6: 100 / 3})
    assert squad.score_v2(predictions, references, nulls, threshold=0.4)["no_ans_f1"] == 100


def test_missing_null_scores_count_as_zero() -> None:
    assert squad.score_v2(["Paris"], [["Paris"]], threshold=0.0)["f1"] == 100
    assert squad.score_v2(["Paris"], [["Paris"]], threshold=-0.1)["f1"] == 0


def test_infinite_threshold_keeps_all_answers() -> None:
    nulls = [7.0, -3.0]
    assert (
        squad.score_v2(["a king", "x"], [["king"], ["x"]], nulls, threshold=math.inf)["f1"] == 100
    )


@pytest.mark.parametrize(
    ("predictions", "references", "nulls"),
    [(["a"], [["a"], []], None), (["a"], [["a"]], [0.1, 0.2]), (["a", "b"], [["a"], []], [0.1])],
)
def test_lists_of_different_lengths_raise(
    predictions: list[str], references: list[list[str]], nulls: list[float] | None
) -> None:
    with pytest.raises(ValueError, match="zip"):
        squad.score_v2(predictions, references, nulls)


# --- the best threshold ------------------------------------------------------------------------


def bests(
    predictions: list[str], references: list[list[str]], nulls: list[float]
) -> tuple[float, float]:
    result = squad.score_v2(predictions, references, nulls)
    return result["best_exact_match"], result["best_exact_match_threshold"]


def test_official_best_ignores_the_given_threshold() -> None:
    predictions, references, nulls = ["Paris", "king"], [["Paris"], []], [0.2, 0.7]
    for threshold in (0.0, 0.5, 1.0):
        result = squad.score_v2(predictions, references, nulls, threshold=threshold)
        assert (result["best_f1"], result["best_f1_threshold"]) == (100, 0.2)


def test_official_best_takes_equal_null_scores_in_order() -> None:
    # All null: 1. Then Paris right: 2, then king: 1. In the other order never more than 1.
    assert bests(["Paris", "king"], [["Paris"], []], [0.4, 0.4]) == (100, 0.4)
    assert bests(["king", "Paris"], [[], ["Paris"]], [0.4, 0.4]) == (50, 0.0)


def test_official_best_starts_at_0_for_any_range() -> None:
    assert bests(["king", "red"], [[], []], [-2.0, -1.0]) == (100, 0.0)
    assert bests(["king", "red"], [["king"], []], [-2.0, -1.0]) == (100, -2.0)


def test_official_best_is_the_first_of_equals() -> None:
    # 1, then 2 at 0.1, 1 at 0.2, 2 at 0.3.
    golds: list[list[str]] = [["a car"], [], ["king"]]
    assert bests(["car", "red", "king"], golds, [0.1, 0.2, 0.3]) == (close(200 / 3), 0.1)


def test_official_best_takes_any_text_for_an_answer() -> None:
    # "the" is correct, but the search counts it as an answer, and so as wrong.
    assert squad.score_v2(["the", "Paris"], [[], ["Paris"]], [0.1, 0.2])["exact_match"] == 100
    assert bests(["the", "Paris"], [[], ["Paris"]], [0.1, 0.2]) == (50, 0.0)
    assert bests(["", "Paris"], [[], ["Paris"]], [0.1, 0.2]) == (100, 0.2)


def test_fitted_threshold_treats_equal_null_scores_alike() -> None:
    assert squad.best_threshold([1.0, 0.0], [True, False], [0.4, 0.4]) == (50, close(-0.6))
    # Two are right and one is wrong, so answering all three is best.
    value, at = squad.best_threshold([1.0, 0.0, 1.0], [True, False, True], [0.4, 0.4, 0.4])
    assert (value, at) == (close(200 / 3), 0.4)


def test_fitted_threshold_is_below_all_if_no_answer_is_best() -> None:
    assert squad.best_threshold([0.0, 0.0], [False, False], [-2.0, -1.0]) == (100, -3.0)
    assert squad.best_threshold([0.0, 0.0], [True, False], [-2.0, -1.0]) == (50, -3.0)


def test_fitted_threshold_is_the_lowest_of_equals() -> None:
    scores, answerable = [0.5, 0.0, 1.0], [True, True, False]
    assert squad.best_threshold(scores, answerable, [3.0, 5.0, 9.0]) == (50, 3.0)


def test_fitting_on_no_questions_gives_zeros() -> None:
    assert squad.best_threshold([], [], []) == (0.0, 0.0)


def test_fitting_on_lists_of_different_lengths_raises() -> None:
    with pytest.raises(ValueError, match="zip"):
        squad.best_threshold([1.0], [True, False], [0.1, 0.2])
    with pytest.raises(ValueError, match="zip"):
        squad.best_threshold([1.0, 0.0], [True, False], [0.1])


@pytest.mark.parametrize("number", range(0, len(SETS), 4))
def test_fitted_threshold_attains_the_maximum(number: int) -> None:
    one = SETS[number]
    predictions, references = one["predictions"], one["references"]
    nulls = one["null_scores"] or [0.0] * len(predictions)
    for name, metric in (("exact_match", squad.exact_match), ("f1", squad.f1_v2)):
        raw = squad.question_scores_v2(metric, predictions, references)
        value, at = squad.best_threshold(raw, [bool(golds) for golds in references], nulls)
        reached = {
            t: squad.score_v2(predictions, references, nulls, threshold=t)[name]
            for t in [at, min(nulls) - 5, *nulls]
        }
        assert reached[at] == close(value)
        assert max(reached.values()) == close(value)


def test_fitting_float32_arrays_gives_equal_plain_numbers() -> None:
    nulls = np.array([-2.3, -1.1, 0.7], np.float32)
    value, at = squad.best_threshold([1.0, 1.0, 0.0], [True, True, False], nulls.tolist())
    again = squad.best_threshold(np.float32([1, 1, 0]), np.array([True, True, False]), nulls)  # type: ignore[arg-type]
    assert again == (value, at) == (100, float(nulls[1]))
    json.dumps(again)

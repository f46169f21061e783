"""Lists of the best spans, from their scores."""

from flaxbert.data import spans

CONTEXT = "Ann met Bob, and Bob met Ann."


def test_a_text_is_listed_once_with_its_best_place():
    scores = {(0, 3): 1.0, (8, 11): 2.0, (17, 20): 4.0, (25, 28): 3.0, (0, 11): 0.5}
    best = spans.best(CONTEXT, scores, 3)
    assert [(a["answer"], a["start"], a["end"], a["score"]) for a in best] == [
        ("Bob", 17, 20, 4.0),
        ("Ann", 25, 28, 3.0),
        ("Ann met Bob", 0, 11, 0.5),
    ]

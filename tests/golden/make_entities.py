"""Make entities.json, the golden file of tests/metrics/test_entities.py, with seqeval.

    python -m pip install seqeval==1.2.2
    python tests/golden/make_entities.py

The file is a list of random corpora. Each has the predicted and gold tags of its sentences (one
string for each sentence) and seqeval's scores under flaxbert's names. Gold tags are drawn one by
one, so that many sequences violate IOB2; predicted tags are edited gold tags, so that there are
hits.
"""

import json
from pathlib import Path

import numpy as np
from seqeval.metrics import (
    accuracy_score,
    classification_report,
    f1_score,
    precision_score,
    recall_score,
)
from seqeval.scheme import IOB2

SEED = 20
CORPORA, MOST_SENTENCES, MOST_TOKENS = 50, 7, 12
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-creative-work", "I-creative-work"]
SHARES = [0.35, 0.15, 0.15, 0.1, 0.1, 0.05, 0.1]

Sentences = list[list[str]]


def draw(rng: np.random.Generator, length: int) -> list[str]:
    """Return random tags that follow no scheme."""
    return [str(tag) for tag in rng.choice(TAGS, length, p=SHARES)]


def edit(rng: np.random.Generator, tags: list[str], share: float) -> list[str]:
    """Return the tags with a share of them replaced by random ones."""
    fresh = draw(rng, len(tags))
    return [new if rng.random() < share else old for new, old in zip(fresh, tags, strict=True)]


def figures(predicted: Sentences, gold: Sentences) -> dict[str, float]:
    """Return what flaxbert.metrics.entities.score should return."""
    result = {
        "token_accuracy": accuracy_score(gold, predicted),
        "f1_macro": f1_score(gold, predicted, average="macro", zero_division=0),
    }
    metrics = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    for name, metric in metrics.items():
        result[name] = metric(gold, predicted, zero_division=0)
        result[f"strict_{name}"] = metric(
            gold, predicted, mode="strict", scheme=IOB2, zero_division=0
        )
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    for kind, values in report.items():
        if not kind.endswith(" avg"):
            result[f"precision_{kind}"] = values["precision"]
            result[f"recall_{kind}"] = values["recall"]
            result[f"f1_{kind}"] = values["f1-score"]
    return {name: round(float(value), 12) for name, value in sorted(result.items())}


def main() -> None:
    """Write entities.json."""
    rng = np.random.default_rng(SEED)
    corpora = []
    for _ in range(CORPORA):
        lengths = rng.integers(1, MOST_TOKENS, rng.integers(1, MOST_SENTENCES, endpoint=True))
        gold = [draw(rng, int(length)) for length in lengths]
        share = rng.uniform(0, 1)
        predicted = [edit(rng, tags, share) for tags in gold]
        corpora.append(
            {
                "predicted": [" ".join(tags) for tags in predicted],
                "gold": [" ".join(tags) for tags in gold],
                "figures": figures(predicted, gold),
            }
        )
    lines = ",\n".join(json.dumps(corpus) for corpus in corpora)
    Path(__file__).with_name("entities.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()

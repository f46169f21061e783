"""Make the golden file of tests/metrics/test_squad_v2_metric.py with SQuAD's official script.

    python tests/golden/make_squad_v2.py path/to/evaluate-v2.0.py

The script is linked from https://rajpurkar.github.io/SQuAD-explorer and needs numpy. The file,
squad_v2.json, has small random sets of questions and the script's metrics for each:

    figures   the official names of the metrics
    sets      each with `predictions`, `references` (none: unanswerable), `null_scores` (null: no
              --na-prob-file), `threshold` (--na-prob-thresh) and `figures`, the values of the
              metrics in the same order (null: not reported)
"""

import argparse
import contextlib
import importlib.util
import io
import json
import random
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
SEED, SETS = 20180611, 220

PHRASES = [
    "Paris", "the Paris", "PARIS.", "old red car", "the old red car", "red car", "A red, red car!",
    "car", "king of Paris", "The King", "U.S.A.", "usa", "2,000", "2000", "well-known",
    "well known", "École", "école", "l’a", "“Paris”", "1990–1991", "1990-1991", "Straße",
    "STRASSE", "東京", "İzmir", "old\u00a0king", " king  old ", "an", "the", "A", "?!", "the a.",
    "—", "theatre", "a.m.",
]  # fmt: skip

FIGURES = [
    "exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1",
    "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh",
]  # fmt: skip


def make_set(rng: random.Random) -> dict[str, Any]:
    """Return 3 to 12 questions, predictions and null scores; their shares vary between sets."""
    unanswerable = rng.choice([0.0, 0.3, 0.3, 0.6, 1.0])
    right, empty = rng.choice([(0.2, 0.2), (0.5, 0.2), (0.8, 0.0)])
    # Few values, so that many are equal; in some sets they are not probabilities.
    levels = rng.choice([[0.1, 0.5, 0.9], [0.0, 0.25, 0.5, 0.75, 1.0], [-3.5, -1.0, 0.0, 2.0]])
    smooth = rng.random() < 0.3
    predictions, references, null_scores = [], [], []
    for _ in range(rng.randint(3, 12)):
        golds = [] if rng.random() < unanswerable else rng.choices(PHRASES, k=rng.randint(1, 3))
        draw = rng.random()
        if draw < right:
            prediction = rng.choice(golds) if golds else ""
        elif draw < right + empty:
            prediction = ""
        else:
            prediction = rng.choice(PHRASES)
            if golds and rng.random() < 0.6:  # shares words with a right answer
                prediction = f"{prediction} {rng.choice(golds)}"
        references.append(golds)
        predictions.append(prediction)
        null_scores.append(round(rng.random(), 4) if smooth else rng.choice(levels))
    return {
        "predictions": predictions,
        "references": references,
        "null_scores": None if rng.random() < 0.1 else null_scores,
        "threshold": rng.choice([1.0, 1.0, 0.5, 0.25, 0.0, -1.0]),
    }


def run_official(script: ModuleType, one: dict[str, Any], folder: Path) -> list[float | None]:
    """Return the metrics that the script computes from files."""
    questions = [
        {"id": str(n), "answers": [{"text": gold} for gold in golds]}
        for n, golds in enumerate(one["references"])
    ]
    data, predictions, nulls, out = (folder / f"{name}.json" for name in ("data", "p", "na", "out"))
    data.write_text(json.dumps({"data": [{"paragraphs": [{"qas": questions}]}]}))
    predictions.write_text(json.dumps({str(n): text for n, text in enumerate(one["predictions"])}))
    if one["null_scores"] is not None:
        nulls.write_text(json.dumps({str(n): null for n, null in enumerate(one["null_scores"])}))
    script.OPTS = argparse.Namespace(  # type: ignore[attr-defined]
        data_file=data,
        pred_file=predictions,
        na_prob_file=nulls if one["null_scores"] is not None else None,
        na_prob_thresh=one["threshold"],
        out_file=out,
        out_image_dir=None,
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        script.main()
    assert not printed.getvalue()  # it prints missing predictions
    result = json.loads(out.read_text())
    unknown = {name for name in result if not name.endswith("total")} - set(FIGURES)
    assert not unknown, f"not the official script? It reports {sorted(unknown)}"
    return [result.get(name) for name in FIGURES]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Make squad_v2.json.")
    parser.add_argument("script", type=Path, help="evaluate-v2.0.py")
    path = parser.parse_args().script
    spec = importlib.util.spec_from_file_location("official", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    rng = random.Random(SEED)
    sets = [make_set(rng) for _ in range(SETS)]
    with tempfile.TemporaryDirectory() as folder:
        for one in sets:
            one["figures"] = run_official(script, one, Path(folder))
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in sets)
    text = f'{{"figures": {json.dumps(FIGURES)},\n"sets": [\n{lines}\n]}}\n'
    (HERE / "squad_v2.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Train the runs whose learning curves and confusion matrix are drawn, and write runs.json.

    python docs/pictures/record_runs.py [DIRECTORY]

Four short runs of the quick start's task, each with settings that give its curves their shape, take
about ten minutes on two CPU cores. Another machine gives slightly different numbers. The runs
are stored in DIRECTORY; one that is already there is not trained again.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import flaxbert

LABELS = ("negative", "neutral", "positive")

RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "healthy": {"train": {"log_every": 4, "eval_every": 8}},
    "overfitting": {
        "data": {"max_examples": 48},
        "train": {"epochs": 30.0, "batch_size": 16, "log_every": 3, "eval_every": 6},
    },
    "underfitting": {
        "data": {"max_examples": 48},
        "train": {"epochs": 6.0, "batch_size": 16, "log_every": 2, "eval_every": 3},
        "optim": {"learning_rate": 2e-6},
    },
    "erratic": {
        "data": {"max_examples": 48},
        "train": {"epochs": 3.0, "batch_size": 4, "log_every": 2, "eval_every": 4},
        "optim": {"learning_rate": 5e-4, "schedule": "constant", "warmup": 0.0},
    },
}
"""What differs from the quick start: {run: {section: {key: value}}}."""


def configuration(changes: dict[str, dict[str, Any]]) -> flaxbert.Config:
    """Return the configuration of the quick start with changes."""
    config = flaxbert.load_config("quickstart")
    for section, values in changes.items():
        setattr(config, section, dataclasses.replace(getattr(config, section), **values))
    return config


def curve(lines: list[dict[str, Any]], name: str) -> list[list[float]]:
    """Return [step, value] of the lines of metrics.jsonl that have a value."""
    return [[line["step"], round(line[name], 4)] for line in lines if name in line]


def jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def confusion(workdir: Path) -> list[list[int]]:
    """Return how many evaluated texts have each label (row) and prediction (column)."""
    labels, predictions = (
        [record["label"] for record in jsonl(workdir / f"eval_{kind}.jsonl")]
        for kind in ("labels", "predictions")
    )
    pairs = list(zip(labels, predictions, strict=True))
    return [[pairs.count((label, other)) for other in LABELS] for label in LABELS]


def record(directory: Path) -> dict[str, Any]:
    """Train the runs and return their numbers."""
    runs = {}
    for name, changes in RUNS.items():
        workdir = directory / name
        if not (workdir / "results.json").exists():
            flaxbert.train(configuration(changes), workdir)
        lines = jsonl(workdir / "metrics.jsonl")
        runs[name] = {
            "changes": changes,
            "train": curve(lines, "loss"),
            "eval": curve(lines, "eval/loss"),
        }
    return {"labels": LABELS, "confusion": confusion(directory / "healthy"), "runs": runs}


def main() -> None:
    """Write runs.json next to this file."""
    with tempfile.TemporaryDirectory() as temporary:
        numbers = record(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
    text = json.dumps(numbers, indent=1)
    Path(__file__).with_name("runs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

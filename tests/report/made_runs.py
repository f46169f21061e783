"""Workdirs of finished runs, written without training."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = "<script>alert('x')</script> & \"more\""
TEXTS = (
    SCRIPT,
    "مرحبا بالعالم (123)",
    "emoji \U0001f600\u202e reversed",
    "x" * 100_000,
    "a control \x00 character\nand a line",
)
"""Texts that a page must show without harm."""

Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def text(n: int) -> str:
    return TEXTS[n] if n < len(TEXTS) else f"text {n}"


def label_rows(count: int) -> Rows:
    names = ["ham", SCRIPT]
    labels, predictions = [], []
    for n in range(count):
        p = 0.9 if n % 5 else 0.2  # each fifth prediction is wrong
        gold, other = names[n % 2], names[1 - n % 2]
        labels.append({"label": gold})
        probability = {gold: p, other: 1 - p}
        probability = {name: probability[name] for name in names}
        guess = max(probability, key=lambda name: probability[name])
        predictions.append({"text": text(n), "label": guess, "probability": probability})
    return labels, predictions


def set_rows(count: int) -> Rows:
    labels, predictions = [], []
    for n in range(count):
        labels.append({"labels": ["a"] if n % 2 else []})
        p = {"a": 0.9 if n % 3 else 0.1, SCRIPT: 0.2}
        given = [name for name, value in p.items() if value >= 0.5]
        predictions.append({"text": text(n), "labels": given, "probability": p})
    return labels, predictions


def value_rows(count: int) -> Rows:
    choose = random.Random(0)
    labels = [{"value": float(n % 5)} for n in range(count)]
    predictions = [
        {"text": text(n), "pair": text(n + 1), "value": n % 5 + choose.gauss(0, 0.5)}
        for n in range(count)
    ]
    return labels, predictions


def choice_rows(count: int) -> Rows:
    labels, predictions = [], []
    for n in range(count):
        choices = [f"choice {SCRIPT}", "second", text(n)][: 2 + n % 2]
        labels.append({"index": 0, "choices": choices})
        guess = 0 if n % 3 else 1
        p = [0.1] * len(choices)
        p[guess] = 1 - 0.1 * (len(choices) - 1)
        predictions.append(
            {"question": text(n), "choice": choices[guess], "index": guess, "probability": p}
        )
    return labels, predictions


def tag_rows(count: int) -> Rows:
    labels, predictions = [], []
    for n in range(count):
        words = [SCRIPT, "Ana", "Ruiz", "مرحبا", text(n), *["word"] * (300 if n == 1 else 3)]
        gold = ["O", "B-PER", "I-PER", "O", "B-LOC", *["O"] * (len(words) - 5)]
        guess = ["O", "B-PER", "I-PER" if n % 2 else "O", "B-ORG", *gold[4:]]
        labels.append({"tags": gold})
        chances = [None if word == SCRIPT else 0.5 + 0.4 * (n % 2) for word in words]
        predictions.append({"tokens": words, "tags": guess, "probability": chances})
    return labels, predictions


def answer_rows(count: int) -> Rows:
    labels, predictions = [], []
    for n in range(count):
        context = f"{SCRIPT} Ana Ruiz wrote it. " + "word " * 100
        start = context.index("Ana")
        golds = [["Ana Ruiz", start]] if n % 3 else []
        spans = [(start, start + 8), (start, start + 3), (0, 8), (0, 0)]
        first, end = spans[n % 4]
        labels.append({"answers": golds, "context": context, "offset": 0, "length": 9999})
        predictions.append(
            {"id": str(n), "question": text(n), "answer": context[first:end], "start": first,
             "end": end, "score": float(n % 7), "span": "Ana", "null_odds": float(n % 5) - 2}
        )  # fmt: skip
    return labels, predictions


ROWS: dict[str, Callable[[int], Rows]] = {
    "classification": label_rows,
    "multi_label": set_rows,
    "regression": value_rows,
    "multiple_choice": choice_rows,
    "token_classification": tag_rows,
    "question_answering": answer_rows,
}
RESULTS = {
    "classification": {"accuracy": 0.8, "accuracy_low95": 0.6, "accuracy_high95": 0.9},
    "multi_label": {"f1_micro": 0.5},
    "regression": {"pearson": 0.9, "spearman": 0.9, "squared_error": 0.25},
    "multiple_choice": {"accuracy": 0.66},
    "token_classification": {"f1": 0.5, "f1_PER": 0.5},
    "question_answering": {"exact_match": 40.0, "f1": 50.0},
    "pretraining": {"perplexity": 12.0},
}


def write_run(workdir: Path, task: str, *, count: int = 40, seed: int = 0) -> Path:
    """Write the files of a finished run."""
    labels, predictions = ROWS[task](count) if task in ROWS else ([], [])
    places = [{"origin": f"some/dev.tsv:{n}", "slice": "<i>en"} for n in range(count)]
    config: dict[str, Any] = {"task": task, "model": {"init": "x"}, "train": {"seed": seed}}
    files: dict[str, Any] = {
        "config.json": config | {"data": {"eval": "dev.tsv", "max_length": 64}},
        "results.json": {"step": 20.0, "loss": 0.5, "padding_share": 0.1} | RESULTS[task],
        "run.json": {
            "command": "python -m flaxbert.run --config=<x>.py",
            "data": {"train": {"examples": 100, "sequences": 100, "cut": 20}},
        },
        "checkpoints/20/metadata.json": {
            "data": {"train": "0123abcd"},
            "parameters": {"loaded": 22_713_216, "new": 1155},
        },
    }
    metrics = [
        {"step": n, "loss": 1 / n, "learning_rate": 0.1, "grad_norm": 1.0, "lowest_grad_norm": 0.1}
        for n in range(1, 21)
    ]
    metrics += [{"step": n, "eval/loss": 0.2 + n / 20, "eval/accuracy": 0.5} for n in (10, 20)]
    lines = {
        "eval_labels.jsonl": [{**a, **b} for a, b in zip(places, labels, strict=False)],
        "eval_predictions.jsonl": predictions,
        "metrics.jsonl": metrics,
        "compiles.jsonl": [{"function": "<f>", "shape": "4 x 64", "seconds": 1.0, "cached": True}],
    }
    for name, content in files.items():
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text(json.dumps(content))
    for name, records in lines.items():
        text_of = "".join(json.dumps(record) + "\n" for record in records)
        (workdir / name).write_text(text_of, encoding="utf-8")
    return workdir

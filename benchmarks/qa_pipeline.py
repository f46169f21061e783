"""Compare flaxbert's answers with those of the question-answering pipeline of transformers 4.

    python benchmarks/qa_pipeline.py RUN --data=dev.json --python=/path/to/other/venv/bin/python

transformers 5 has no such pipeline, so it runs in another environment with transformers 4 and
torch. Both libraries get the same questions and the same settings: max_seq_len is data.max_length,
doc_stride is data.overlap, and max_answer_len is options.max_answer_length. Printed are the shares
of equal best answers, of equal lists of the three best, and of equal answers where there may be
none (handle_impossible_answer), and every difference. The pipeline merges equal texts after it has
chosen three, so its list may be shorter: `listed` compares as many answers as it has.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command import run_elsewhere

PIPELINE = """
import json, sys
from transformers import pipeline

job = json.load(sys.stdin)
pipe = pipeline("question-answering", model=job["model"], device="cpu")
variants = {
    "best": {"align_to_words": False, "top_k": 1},
    "three": {"align_to_words": False, "top_k": 3},
    "none": {"align_to_words": False, "top_k": 1, "handle_impossible_answer": True},
    "aligned": {"top_k": 1},
}
results = []
for question, context in job["inputs"]:
    example = pipe.create_sample(question=question, context=context)
    lengths = {"max_seq_len": job["max_seq_len"], "doc_stride": job["doc_stride"]}
    # What a call of the pipeline does, with one forward pass for all variants.
    outputs = [pipe.forward(part) for part in pipe.preprocess(example, **lengths)]
    answers = {}
    for name, options in variants.items():
        found = pipe.postprocess(outputs, max_answer_len=job["max_answer_len"], **options)
        answers[name] = [found] if isinstance(found, dict) else found
    results.append({"windows": len(outputs), **answers})
json.dump(results, sys.stdout)
"""
"""The program of the other environment."""


def ours(run: str, inputs: Sequence[Any]) -> tuple[list[Any], list[Any], dict[str, int]]:
    """Return flaxbert's best three answers, its answers where none is allowed, and the settings."""
    import dataclasses

    import flaxbert

    predictor = flaxbert.load(run)
    options = predictor.config.options
    settings = {
        "max_seq_len": predictor.config.data.max_length,
        "doc_stride": predictor.config.data.overlap,
        "max_answer_len": options.max_answer_length,
    }
    always, maybe = (dataclasses.replace(options, unanswerable=value) for value in (False, True))
    three = flaxbert.load(run, options=always).predict(inputs, top_k=3)
    none = flaxbert.load(run, options=maybe).predict(inputs)
    return three, none, settings


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="workdir of a finished run of question answering")
    parser.add_argument("--data", required=True, help="a file in SQuAD's JSON form")
    parser.add_argument("--python", required=True, help="Python with transformers 4 and torch")
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args()
    articles = json.loads(Path(given.data).read_text(encoding="utf-8"))["data"]
    pairs = [
        (question["question"], paragraph["context"])
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    inputs = pairs[:: max(1, len(pairs) // given.questions)][: given.questions]
    three, none, settings = ours(given.run, inputs)
    job = {"model": str(Path(given.run) / "export"), "inputs": inputs} | settings
    theirs = run_elsewhere(given.python, PIPELINE, job)
    compare(inputs, three, none, theirs)


def compare(
    inputs: Sequence[Any], three: Sequence[Any], none: Sequence[Any], theirs: Sequence[Any]
) -> None:
    """Print the shares of equal answers, and the differences."""
    names = ("best", "three", "listed", "none", "aligned")
    rows: dict[str, list[tuple[Any, Any]]] = {name: [] for name in names}
    for best, maybe, other in zip(three, none, theirs, strict=True):
        texts = {name: [a["answer"] for a in other[name]] for name in names if name != "listed"}
        rows["best"].append(([best["answer"]], texts["best"]))
        three_best = [answer["answer"] for answer in best["answers"]]
        rows["three"].append((three_best, texts["three"]))
        rows["listed"].append((three_best[: len(texts["three"])], texts["three"]))
        rows["none"].append(([maybe["answer"]], texts["none"]))
        rows["aligned"].append(([best["answer"]], texts["aligned"]))
    print(f"{len(inputs)} questions, {sum(item['windows'] > 1 for item in theirs)} with windows")
    print(f"no answer: flaxbert {sum(not maybe['answer'] for maybe in none)}")
    for name, pairs in rows.items():
        equal = sum(a == b for a, b in pairs)
        print(f"{name}: {equal} of {len(pairs)} equal ({equal / len(pairs):.1%})")
    for name in ("best", "three", "none"):
        for number, (a, b) in enumerate(rows[name]):
            if a != b:
                windows = theirs[number]["windows"]
                print(f"{name}, question {number}, {windows} windows: {a!r} and {b!r}")


if __name__ == "__main__":
    main()

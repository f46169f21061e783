"""Load exports in another release of transformers, and compare tokens and outputs with flaxbert's.

    python benchmarks/other_transformers.py runs/squad runs/ner --python=/path/to/venv/bin/python

The other environment needs transformers and torch. Each run's export/ is loaded there, tokenizer
and model, as its model card says. Printed are the number of texts with equal tokens, and the
largest difference of the outputs for the other library's tokens.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from command import run_elsewhere

TEXTS = (
    "The old king built a bridge in Paris.",
    "naïve café, 東京 — 12.5 % \U0001f600",
    "¿Dónde está la biblioteca?",
    "[SEP] is text here, but a special token in transformers 4",
)
OUTPUTS = ("logits", "start_logits", "end_logits")

PROGRAM = """
import json, sys
import torch, transformers

job, results = json.load(sys.stdin), []
for directory, architecture in job["models"]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model, loading = getattr(transformers, architecture).from_pretrained(
        directory, output_loading_info=True
    )
    missing = [name for key in ("missing_keys", "unexpected_keys") for name in loading[key]]
    batch = tokenizer(job["texts"], padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model.eval()(**batch)
    results.append({
        "missing": missing,
        "inputs": {name: values.tolist() for name, values in batch.items()},
        "outputs": {name: outputs[name].tolist() for name in job["outputs"] if name in outputs},
    })
json.dump({"version": transformers.__version__, "results": results}, sys.stdout)
"""


def compare(directory: Path, theirs: dict[str, Any]) -> str:
    """Return how an export differs in both libraries."""
    import flaxbert
    from flaxbert.data.tokenization import load_tokenizer

    model, params = flaxbert.from_pretrained(str(directory))
    tokenizer = load_tokenizer(directory)
    inputs = {name: np.array(values, np.int32) for name, values in theirs["inputs"].items()}
    mask = inputs["attention_mask"] > 0
    tokens = [ids[kept].tolist() for ids, kept in zip(inputs["input_ids"], mask, strict=True)]
    expected_tokens = tokenizer(list(TEXTS))["input_ids"]
    same = sum(a == b for a, b in zip(tokens, expected_tokens, strict=True))
    ours, largest = model(params, inputs), 0.0
    for name, values in theirs["outputs"].items():
        expected, array = np.array(values), np.asarray(ours[name])
        if expected.shape[:2] == mask.shape:  # outputs for padding mean nothing
            expected, array = expected[mask], array[mask]
        largest = max(largest, float(np.abs(array.reshape(expected.shape) - expected).max()))
    keys = theirs["missing"] or "none"
    return (
        f"tokens equal in {same} of {len(TEXTS)} texts; largest difference of outputs: "
        f"{largest:.1e}; keys lost: {keys}"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="workdirs of finished runs")
    parser.add_argument("--python", default=sys.executable, help="Python of the other environment")
    given = parser.parse_args()
    directories = [run / "export" for run in given.runs]
    configs = [
        json.loads((path / "config.json").read_text(encoding="utf-8")) for path in directories
    ]
    pairs = zip(directories, configs, strict=True)
    models = [(str(path), config["architectures"][0]) for path, config in pairs]
    job = {"models": models, "texts": TEXTS, "outputs": OUTPUTS}
    answer = run_elsewhere(given.python, PROGRAM, job)
    for directory, theirs in zip(directories, answer["results"], strict=True):
        print(f"{directory}, transformers {answer['version']}: {compare(directory, theirs)}")


if __name__ == "__main__":
    main()

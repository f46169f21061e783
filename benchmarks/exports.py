"""Export runs for servers, and measure the exports: certificates, sizes, and time for one text.

    python benchmarks/exports.py runs/quickstart runs/example_ner --texts=100

Each run is exported as ONNX, as ONNX with 8-bit weights and as StableHLO, to a directory that is
deleted afterwards. Then flaxbert and onnxruntime predict for single texts of the run's evaluation
set, in turns. The table has the medians; for flaxbert's, every program is compiled beforehand.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flaxbert
from flaxbert.commands.export import data_of
from flaxbert.errors import ExportError
from flaxbert.exports import runtime
from flaxbert.exports.certificate import input_of
from flaxbert.exports.export import export

FORMS: dict[str, dict[str, Any]] = {
    "onnx": {"format": "onnx"},
    "onnx int8": {"format": "onnx", "int8": True},
    "stablehlo": {"format": "stablehlo"},
}


def medians(
    ways: dict[str, Callable[[list[Any]], object]], inputs: Sequence[Any]
) -> dict[str, float]:
    """Return the median milliseconds of each way to predict for one input."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for predict in ways.values():
        for item in inputs[:3]:
            predict([item])
    for item in inputs:
        for name, predict in ways.items():
            start = time.perf_counter()
            predict([item])
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--texts", type=int, default=100)
    given = parser.parse_args()
    for run in given.runs:
        print(f"## {run}", flush=True)
        predictor = flaxbert.load(run)
        dataset, table = predictor.read(data_of(run, None), "eval")
        ways: dict[str, Callable[[list[Any]], object]] = {"flaxbert": predictor.predict}
        with tempfile.TemporaryDirectory() as temporary:
            for name, options in FORMS.items():
                directory = Path(temporary) / name.replace(" ", "_")
                try:
                    certificate = export(predictor, dataset, table.source, directory, **options)
                except ExportError as error:
                    print(f"{name}: {error}", flush=True)
                    continue
                sizes = {file.name: file.stat().st_size for file in sorted(directory.iterdir())}
                print(name, json.dumps(certificate.to_json()), json.dumps(sizes), flush=True)
                ways[name] = runtime.load(directory, threads=1).predict
            inputs = [input_of(example) for example in dataset.examples[: given.texts]]
            for name, milliseconds in medians(ways, inputs).items():
                print(f"{name}: {milliseconds:.2f} ms for one text", flush=True)


if __name__ == "__main__":
    main()

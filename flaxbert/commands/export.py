"""Export a trained model for servers, as ONNX or StableHLO, with a certificate that it is the same.

usage: flaxbert export RUN DIR [--format=onnx|stablehlo] [--int8] [--eval=DATA] [--max-drop=POINTS]

for example:
  flaxbert export runs/quickstart served
  flaxbert export runs/quickstart small --int8

RUN is the workdir of a finished run, or its URL. DIR receives the graph, the tokenizer,
decision.json, which holds all that lies between a text and an answer, and certificate.json. For the
certificate, the export predicts for the run's evaluation set. It is refused, and nothing is
written, if it decides otherwise than the model. docs/export.md describes the files and how to load
them.

exit codes:
  0   done
  1   refused: the export differs from the model; or an internal error
  2   bad usage, no such run, no evaluation data, or a package is missing
"""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from flaxbert.commands import failures, help_text
from flaxbert.config import DataConfig
from flaxbert.errors import ConfigError, check_local

log = logging.getLogger("flaxbert")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = help_text.parser("export", __doc__)
    parser.add_argument("run", metavar="RUN", help="workdir of a finished run")
    parser.add_argument("destination", metavar="DIR", type=Path, help="directory to write")
    parser.add_argument("--format", default="onnx", help="onnx (the default) or stablehlo")
    parser.add_argument("--int8", action="store_true", help="round weights to 8 bits (ONNX only)")
    parser.add_argument("--eval", metavar="DATA", help="data to compare on, instead of the run's")
    parser.add_argument(
        "--max-drop",
        metavar="POINTS",
        type=float,
        help="points of 100 that the metric may drop (default: 0, with --int8 1)",
    )
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        check_local("DIR", given.destination)
        from flaxbert.exports.export import check, export
        from flaxbert.pipeline.predictor import load  # imports JAX, which --help does not need

        check(given.destination, format=given.format, int8=given.int8, max_drop=given.max_drop)
        data = data_of(given.run, given.eval)
        predictor = load(given.run)
        dataset, table = predictor.read(data, "eval")
        certificate = export(
            predictor,
            dataset,
            table.source if data.eval else data.evaluated or "",
            given.destination,
            format=given.format,
            int8=given.int8,
            max_drop=given.max_drop,
        )
    except Exception as error:
        return failures.report(error, str(given.destination))
    print(json.dumps(certificate.to_json(), indent=2))
    for file in sorted(given.destination.iterdir()):
        print(f"{file.stat().st_size:>14,}  {file}")
    return 0


def data_of(run: str, source: str | None) -> DataConfig:
    """Return how to read the evaluation data: as the run did.

    Args:
      run: the workdir of a run, or another model.
      source: replaces the run's evaluation data.

    Raises:
      ConfigError: if there is none.
      WorkdirError: if the run's config.json is missing or corrupt.
    """
    from flaxbert.pipeline import stored
    from flaxbert.pretrained import source as sources

    workdir = stored.workdir_of(sources.local(run))
    data = stored.data_of(workdir) if stored.holds_run(workdir) else DataConfig()
    if source is not None:
        data = dataclasses.replace(data, eval=source)
    if data.evaluated is None:
        raise ConfigError(
            f"{run}: there is no evaluation data to compare the export on; name some labeled "
            "examples: --eval=FILE."
        )
    return data

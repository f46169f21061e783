"""The files of a run that a report is made from."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxbert.config import Config
from flaxbert.errors import WorkdirError
from flaxbert.runtime.mirror import METADATA
from flaxbert.runtime.workdir import flatten
from flaxbert.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of the files about one evaluation."""

    results: str
    predictions: str
    labels: str
    about: str
    config: str
    page: str


TRAINED = Names(
    "results.json",
    "eval_predictions.jsonl",
    "eval_labels.jsonl",
    "run.json",
    "config.json",
    "report.html",
)
"""The final evaluation of a run."""

EVALUATED = Names(
    "eval_results.json",
    "eval_results_predictions.jsonl",
    "eval_results_labels.jsonl",
    "eval_results_run.json",
    "eval_results_config.json",
    "eval_results_report.html",
)
"""A later evaluation (`--mode=eval`), perhaps of other data."""


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The content of a run's files. What a run has not written is empty."""

    workdir: Path
    names: Names
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    """{dotted key: value}."""
    defaults: Mapping[str, Any]
    """The same of the default configuration of the task."""
    lines: list[dict[str, Any]]
    """Those of metrics.jsonl."""
    compiles: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    about: Mapping[str, Any]
    """The command, the versions and the sizes of the data sets; see `write.facts`."""
    begun: Mapping[str, Any]
    """The metadata of the newest checkpoint: what the run began with."""
    export: Mapping[str, Any]
    """The exported config.json."""

    @property
    def name(self) -> str:
        """The name of the workdir."""
        return self.workdir.resolve().name

    @property
    def task(self) -> str:
        """The name of the task."""
        return str(self.config.get("task", ""))

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """The fingerprints of the data sets; empty without a checkpoint."""
        data = self.begun.get("data")
        return data if isinstance(data, dict) else {}


def read_run(workdir: Path, names: Names = TRAINED) -> RunFiles:
    """Read the files of a run.

    Raises:
      WorkdirError: if there are no results, or a file is corrupt.
    """
    path = workdir / names.results
    if not path.is_file():
        raise WorkdirError(
            f"{workdir}: has no {names.results}, so no run has finished in it. Give the workdir of "
            "a finished run, or run the same command again to finish it."
        )
    config = flatten(_json(workdir / names.config))
    lines = _lines(workdir / "metrics.jsonl") if names is TRAINED else []
    labels, predictions = _lines(workdir / names.labels), _lines(workdir / names.predictions)
    if len(labels) != len(predictions):  # those of another run, or of an earlier version
        labels = []
    return RunFiles(
        workdir=workdir,
        names=names,
        results=_json(path),
        config=config,
        defaults=default_settings(str(config.get("task", ""))),
        lines=lines,
        compiles=_lines(workdir / "compiles.jsonl") if names is TRAINED else [],
        labels=labels,
        predictions=predictions if labels else [],
        about=_json(workdir / names.about),
        begun=_metadata(workdir) if names is TRAINED else {},
        export=_json(workdir / "export" / "config.json"),
    )


def default_settings(task: str) -> dict[str, Any]:
    """Return {dotted key: value} of the default configuration of a task."""
    options = TASKS[task].options_type() if task in TASKS else None
    return flatten(Config(options=options).to_dict())


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _corrupt(path, error) from None
    return content if isinstance(content, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except ValueError as error:
        raise _corrupt(path, error) from None


def _corrupt(path: Path, error: ValueError) -> WorkdirError:
    return WorkdirError(f"{path}: is not JSON ({error}). Remove the file, or evaluate again.")


def _metadata(workdir: Path) -> Mapping[str, Any]:
    """Return the metadata of the newest checkpoint; empty without one."""
    steps = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
    if not steps:
        return {}
    newest = max(steps, key=lambda path: int(path.name))
    return _json(newest / METADATA)

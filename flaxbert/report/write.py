"""Writes the report of a run, and the small files that it is made from."""

import datetime
import logging
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxbert.pipeline.datasets import Dataset
from flaxbert.pretrained.model_card import command_line
from flaxbert.report.labels import label_records
from flaxbert.report.packing import first_batch
from flaxbert.report.page import make_page
from flaxbert.report.rundir import TRAINED, Names, read_run
from flaxbert.runtime import devices, files, hardware
from flaxbert.tasks.base import Task
from flaxbert.types import Prediction

log = logging.getLogger("flaxbert")

PACKAGES = ("flaxbert", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")
"""Packages whose versions a report names."""


def write_report(
    workdir: Path,
    task: Task,
    data: Mapping[str, Dataset | None],
    predictions: Sequence[Prediction],
    names: Names = TRAINED,
) -> None:
    """Write the report of a finished run or evaluation, and the files that it needs.

    An error is logged as a warning: it must not end a run whose results are complete.

    Args:
      workdir: holds the results and predictions.
      task: the task.
      data: the data sets by name; `eval` is the one that was evaluated.
      predictions: one for each example of `eval`.
      names: the names of the files.
    """
    try:
        evaluated = data.get("eval")
        if evaluated is not None and evaluated.labeled:
            records = label_records(task, evaluated.examples, predictions)
            files.write_jsonl(workdir / names.labels, records)
        files.write_json(workdir / names.about, facts(data))
        remake(workdir, names)
    except Exception as error:
        log.warning(
            f"{workdir / names.page}: no report was written ({type(error).__name__}: {error}). All "
            f"other results are complete. To try again: flaxbert report {shlex.quote(str(workdir))}"
        )


def remake(workdir: Path, names: Names = TRAINED, output: Path | None = None) -> Path:
    """Make the report of a run from its files, and return where it is.

    Raises:
      WorkdirError: if the run has no results, or a file is corrupt.
    """
    path = output or workdir / names.page
    files.write_text(path, make_page(read_run(workdir, names)))
    return path


def facts(data: Mapping[str, Dataset | None]) -> dict[str, Any]:
    """Return what a report says about the process: command, versions, devices, sizes of the data.

    Returns:
      JSON types. `cut` counts the examples that lost text to `data.max_length`. The training data
      also has its `first_batch`.
    """
    sizes: dict[str, dict[str, Any]] = {
        name: {
            "examples": len(part.examples),
            "sequences": len(part.batches.features.lengths),
            "cut": part.batches.features.truncated_count,
        }
        for name, part in data.items()
        if part is not None
    }
    versions = {name: found for name in PACKAGES if (found := hardware.version(name))}
    if (train := data.get("train")) is not None:
        sizes["train"]["first_batch"] = first_batch(train.batches)
    return {
        "command": command_line(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": devices.summary(),
        "versions": {"python": platform.python_version()} | versions,
        "data": sizes,
    }

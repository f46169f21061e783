"""A short trial of a configuration: train, evaluate, save, restore, and load the export.

`flaxbert train --smoke` runs it before hours are spent on a run. It takes two steps with the batch
size, lengths and model of the configuration, on a few examples that are spread over the data.
"""

import copy
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxbert.commands import verify_resume
from flaxbert.config import Config
from flaxbert.data import readers
from flaxbert.errors import CheckFailedError, ConfigError, check_local
from flaxbert.messages.language import plural, tr
from flaxbert.pipeline.datasets import SPLITS
from flaxbert.pipeline.predictor import Predictor
from flaxbert.report.result import Trained
from flaxbert.runtime.preemption import Preemption
from flaxbert.training import trainer

log = logging.getLogger("flaxbert")

STEPS = 2

TOLERANCE = 1e-3
"""Largest difference of numbers in the predictions of the run and of its export."""


def smoke(config: Config, workdir: Path | None, preemption: Preemption | None = None) -> None:
    """Try everything that a run does, and print what passed.

    Args:
      config: the configuration of the run.
      workdir: receives the files of the trial; None for a temporary directory.
      preemption: handles signals.

    Raises:
      ConfigError: if the workdir is not empty.
      CheckFailedError: if a step has another result than it must have.
      UserError: for a configuration, data or weights that the user can fix.
    """
    check_local("--workdir", workdir or "")
    if workdir is not None and workdir.exists() and any(workdir.iterdir()):
        raise ConfigError(
            f"--workdir={workdir}: holds files, and --smoke needs an empty directory. Leave "
            "--workdir out for a temporary one."
        )
    passed: list[tuple[str, str, float]] = []
    short = shortened(config)
    with tempfile.TemporaryDirectory(prefix="flaxbert-smoke-") as temporary:
        directory = workdir or Path(temporary)
        begun = time.monotonic()
        try:
            for name, result in _steps(short, directory, preemption):
                now = time.monotonic()
                passed.append((name, result, now - begun))
                begun = now
        finally:
            _show(passed, evaluates=bool(short.data.evaluated))


def shortened(config: Config) -> Config:
    """Return the configuration of a run of two steps, which evaluates and saves after each.

    Without evaluation data, the trial evaluates on its training data. Pre-training is the
    exception, since a single document may be a whole book.
    """
    config = copy.deepcopy(config)
    train, data = config.train, config.data
    count = STEPS * max(train.batch_size, train.eval_batch_size)
    data.max_examples = min(count, data.max_examples or count)
    train.max_steps, train.early_stopping = STEPS, 0
    config.optim.warmup = 0.0  # which would not end within these steps
    train.epochs = max(train.epochs, float(STEPS))  # few examples may be less than two batches
    train.trackers = ()  # a trial is no run of the project
    train.save_every = train.log_every = train.eval_every = 1
    if not data.evaluated and config.task != "pretraining":
        data.eval = readers.with_split(data.train, SPLITS["train"]) if data.train else None
    return config


def _steps(
    config: Config, directory: Path, preemption: Preemption | None
) -> Iterator[tuple[str, str]]:
    """Run the trial; yield the name and the result of each step that passed."""
    whole, resumed = directory / "whole", directory / "resumed"
    trained = trainer.train(config, whole, preemption=preemption, explain=False)
    lines = (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    size = config.train.batch_size
    shown = ", ".join(f"{loss:.4g}" for loss in losses)
    yield (
        "train",
        plural(
            int(trained["step"]),
            "1 step of batch size {size}, loss {loss}",
            "{n} steps of batch size {size}, loss {loss}",
            size=size,
            loss=shown,
        ),
    )
    if config.data.evaluated:
        count = len(trained.predictions)
        counted = plural(count, "1 example", "{n} examples")
        yield "evaluate", f"{counted}, {_first_metric(trained)}"
    steps = sorted(int(path.name) for path in (whole / "checkpoints").iterdir())
    yield "save", tr("checkpoints of steps {steps}", steps=", ".join(map(str, steps)))
    yield "restore", _restore(config, whole, resumed, steps, preemption)
    yield "export", _export(config, whole, trained)


def _first_metric(trained: Trained) -> str:
    """Return a metric of the evaluation, besides the numbers of steps."""
    names = [name for name in trained if "/" not in name and not name.endswith("95")]
    name = next((name for name in names if "step" not in name), "loss")
    return f"{name} {trained.get(name, math.nan):.4g}"


def _restore(
    config: Config, whole: Path, resumed: Path, steps: list[int], preemption: Preemption | None
) -> str:
    """Repeat the last step from the checkpoint before it, and compare the two runs."""
    _copy(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / str(steps[-1]))
    with _Messages() as messages:
        trainer.train(config, resumed, preemption=preemption, explain=False)
    if not any(message.startswith("resuming") for message in messages.texts):
        raise CheckFailedError(f"restore: the run did not resume from step {steps[-2]}.")
    if difference := next(verify_resume.differences(whole, resumed), None):
        raise CheckFailedError(f"restore: the resumed run differs: {difference}.")
    return tr(
        "step {last}, repeated from checkpoint {before}, is bit-identical",
        last=steps[-1],
        before=steps[-2],
    )


RESULTS = ("export", "results.json", "eval_predictions.jsonl", "report.html")
"""Files that a run writes at its end, so one that is killed has none."""


def _copy(whole: Path, resumed: Path) -> None:
    """Copy the workdir of a run without its results; checkpoints never change, so they are links.

    Large models would need twice the space otherwise.
    """

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            shutil.copy2(source, target)

    resumed.mkdir(parents=True)
    for path in whole.iterdir():
        if path.name in ("checkpoints", "best"):
            shutil.copytree(path, resumed / path.name, copy_function=link)
        elif path.name not in RESULTS:
            copy_one = shutil.copytree if path.is_dir() else shutil.copy2
            copy_one(path, resumed / path.name)


def _export(config: Config, whole: Path, trained: Trained) -> str:
    """Load the export, predict again, and compare."""
    predictor = Predictor.from_config(config, whole)
    if not config.data.evaluated:
        return tr("loaded")
    data, _ = predictor.read(predictor.config.data, "eval")
    predictions = predictor.run(data).predictions
    pairs = list(zip(trained.predictions, predictions, strict=True))
    for number, (before, after) in enumerate(pairs, start=1):
        if not _alike(json.loads(json.dumps(before)), json.loads(json.dumps(after))):
            raise CheckFailedError(
                f"export: prediction {number} is {after}, but the run predicted {before}."
            )
    return plural(
        len(pairs),
        "loaded; its prediction is that of the run",
        "loaded; its {n} predictions are those of the run",
    )


def _alike(one: Any, other: Any) -> bool:
    """Return whether two values of JSON are equal, numbers up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


class _Messages(logging.Handler):
    """The messages that are logged while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> "_Messages":
        self._level = log.level
        log.addHandler(self)
        log.setLevel(logging.INFO)
        return self

    def __exit__(self, *error: object) -> None:
        log.removeHandler(self)
        log.setLevel(self._level)


ALL = ("train", "evaluate", "save", "restore", "export")


def _show(passed: list[tuple[str, str, float]], *, evaluates: bool) -> None:
    """Print the steps that passed, and those that did not run.

    Args:
      passed: (name, result, seconds).
      evaluates: whether there is a step that evaluates.
    """
    names = {
        "train": tr("train"),
        "evaluate": tr("evaluate"),
        "save": tr("save"),
        "restore": tr("restore"),
        "export": tr("export"),
    }
    table = Table(tr("step"), tr("result"), tr("seconds"), title=tr("smoke test"))
    for name, result, seconds in passed:
        table.add_row(names[name], Text(result), f"{seconds:.1f}")
    done = [name for name, _, _ in passed]
    last = max((ALL.index(name) for name in done), default=-1)
    left = [name for name in ALL[last + 1 :] if evaluates or name != "evaluate"]
    for number, name in enumerate(left):
        table.add_row(names[name], tr("FAILED") if number == 0 else tr("not run"), "")
    Console(file=sys.stdout).print(table)

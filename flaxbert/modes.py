"""What `--mode` selects: train, eval, predict; each prints what it found."""

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxbert import memory, sharding, stored, writer
from flaxbert.config import Config, validate
from flaxbert.errors import check_local, clip
from flaxbert.evaluate import Evaluator
from flaxbert.models import weights
from flaxbert.preemption import Preemption
from flaxbert.setup import Setup, prepare, read_table
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import Record
from flaxbert.train import run

SHOWN = 8
"""Predictions in the table that a run ends with."""

CELL = 200
"""Characters of a text in that table."""

METRICS = 40
"""Metrics in the table of results; those of hundreds of labels are in its file alone."""


def train(config: Config, workdir: Path, *, preemption: Preemption, force: bool) -> None:
    """Train, then show the results and some predictions."""
    trained = run(config, workdir, preemption=preemption, force=force)
    if jax.process_index() == 0:
        show_predictions(trained.setup, trained.examples, trained.records)
        show_metrics(trained.results, "results.json")
        evaluated = "eval_predictions.jsonl  " if trained.records else ""
        print(
            f"\nFiles in {workdir}: results.json  metrics.jsonl  {evaluated}export/\n"
            "Next:\n"
            f"  predict     python -m flaxbert.run --config=... --workdir={workdir} --mode=predict "
            "--config.data.predict=FILE\n"
            f"  look        tensorboard --logdir {workdir}   (pip install tensorboard)\n"
            f"  use it      transformers loads {workdir}/export"
        )


def evaluate(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Score `data.eval`; writes eval_results.json and what belongs to it.

    Args:
      config: of the command line.
      workdir: of a run, or a new one.
      given: keys that flags set; see `stored.as_trained`.
    """
    opened = _open_trained(config, workdir, "eval", given)
    evaluation = opened.evaluator.run(opened.params)
    if jax.process_index() == 0:
        results = evaluation.metrics | {"data/eval/malformed": float(opened.malformed)}
        results |= opened.evaluator.data.batches.features.counts("eval")
        results |= opened.evaluator.data.batches.features.counts("eval")
        predictions = opened.write("eval_results", "eval_results_predictions", evaluation.records)
        writer.write_json(workdir / "eval_results.json", results)
        show_predictions(opened.setup, opened.evaluator.examples, evaluation.records)
        show_metrics(results, f"eval_results.json: {opened.setup.config.data.eval}")
        print(f"\nFiles in {workdir}: eval_results.json  {predictions}")


def predict(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Write predictions.jsonl for `data.predict`, which needs no labels; else as `evaluate`."""
    opened = _open_trained(config, workdir, "predict", given)
    records = opened.evaluator.run(opened.params).records
    if jax.process_index() == 0:
        opened.write("predictions", "predictions", records)
        show_predictions(opened.setup, opened.evaluator.examples, records)
        lacking = f"; {opened.malformed} malformed rows have none" if opened.malformed else ""
        print(f"\n{len(records)} predictions: {workdir / 'predictions.jsonl'}{lacking}")


MODES = {"eval": evaluate, "predict": predict}


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A trained model, and the data set to apply it to."""

    workdir: Path
    setup: Setup
    evaluator: Evaluator
    params: Any
    malformed: int
    """Lines, rows and answers that are left out."""
    commits: dict[str, str]
    """{config key: commit} of what is from the hub."""

    def write(self, name: str, predictions: str, records: Sequence[Record]) -> str:
        """Write predictions, and next to them what they are of; returns the names of both files.

        A run's own results are those of other data: their files have other names.
        """
        self.workdir.mkdir(parents=True, exist_ok=True)
        files = f"{predictions}.jsonl", f"{name}_config.json"
        writer.write_jsonl(self.workdir / files[0], records)
        writer.write_config(self.workdir / files[1], self.setup.config, self.commits)
        return "  ".join(files)


def _open_trained(config: Config, workdir: Path, key: str, given: Collection[str]) -> _Opened:
    """Open the workdir's own model if it holds a run, else `model.init`, which must have a head."""
    sharding.check_started()
    sharding.agree(writer.command(config, key) | {"flags": sorted(given)})
    check_local("workdir", workdir)
    ours = stored.holds_run(workdir)
    with sharding.together():
        if ours:
            config = stored.as_trained(config, workdir, given)
        validate(config, TASKS)
        if not ours:
            stored.remark(config)
        init = str(workdir) if ours else config.model.init
        setup = prepare(config, init, train=None)
        table = read_table(config.data, key)
        evaluator = Evaluator.open(setup, table, labelled=key == "eval")
        params = setup.load_params(trained=True)
    if sharding.several_hosts():
        labels = getattr(setup.task, "labels", ())
        sharding.agree(
            {"model": init, "labels": list(labels)}
            | {f"weights, {part}": digest for part, digest in weights.digests(params).items()}
            | {"examples": evaluator.data.fingerprint(labels)}
            | {"rows of a step": list(evaluator.data.batches.row_counts)}
        )
    with memory.explained("placing the parameters", memory.PARAMETERS):
        placed = sharding.put_params(params, setup.mesh)
    commits = {"model.init": setup.commit, f"data.{key}": table.commit}
    known = {name: commit for name, commit in commits.items() if commit}
    return _Opened(workdir, setup, evaluator, placed, table.malformed, known)


def show_metrics(metrics: Mapping[str, float], title: str) -> None:
    """Print a table of numbers; intervals stand beside what they belong to."""
    table = Table("metric", "value", "95 % interval", title=title)
    names = [name for name in metrics if "_low95" not in name and "_high95" not in name]
    for name in names[:METRICS]:
        value = metrics[name]
        low, high = (metrics.get(_beside(name, side)) for side in ("low95", "high95"))
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        table.add_row(Text(clip(name, CELL)), f"{value:.4g}", interval)
    if len(names) > METRICS:
        table.add_row(Text(f"... {len(names) - METRICS} more in {title}"), "", "")
    Console(file=sys.stdout).print(table)


def _beside(name: str, side: str) -> str:
    metric, slash, part = name.partition("/")
    return f"{metric}_{side}{slash}{part}"


def show_predictions(setup: Setup, examples: Sequence[Any], records: Sequence[Record]) -> None:
    """Print some predictions, spread evenly over the data set."""
    if not records:
        return
    chosen = range(0, len(records), max(1, len(records) // SHOWN))[:SHOWN]
    lines = [setup.task.show(examples[i], records[i]) for i in chosen]
    table = Table(*lines[0], title="predictions")
    for line in lines:
        cells = [clip(text, CELL) for text in line.values()]
        table.add_row(*map(Text, cells))  # not markup: a text may hold [brackets]
    Console(file=sys.stdout).print(table)

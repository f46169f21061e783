"""The modes of a run: train, eval and predict. Each prints its results."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from flaxbert.commands.tables import show_metrics, show_predictions
from flaxbert.config import Config, validate
from flaxbert.errors import check_local
from flaxbert.pipeline import stored
from flaxbert.pipeline.datasets import read_table
from flaxbert.pipeline.pipeline import Pipeline, prepare
from flaxbert.pipeline.predictor import Evaluator
from flaxbert.pretrained import mapping
from flaxbert.runtime import files, memory, multihost, sharding
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.workdir import command, flatten, write_config
from flaxbert.tasks import TASKS
from flaxbert.training.trainer import run
from flaxbert.types import Prediction


def train(config: Config, workdir: Path, *, preemption: Preemption, force: bool) -> None:
    """Train, and print the metrics and some predictions."""
    trained = run(config, workdir, preemption=preemption, force=force)
    if multihost.is_lead_host():
        show_predictions(trained.setup, trained.examples, trained.records)
        show_metrics(trained.results, "results.json")
        evaluated = "eval_predictions.jsonl  " if trained.records else ""
        print(
            f"\nFiles in {workdir}: results.json  metrics.jsonl  {evaluated}export/\n"
            "Next:\n"
            f"  predict     python -m flaxbert.run --config=... --workdir={workdir} --mode=predict "
            "--config.data.predict=FILE\n"
            f"  plot        tensorboard --logdir {workdir}   (pip install tensorboard)\n"
            f"  deploy      transformers loads {workdir}/export"
        )


def evaluate(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Evaluate on `data.eval`, and write eval_results.json, its predictions and configuration.

    Args:
      config: the configuration of the command line.
      workdir: the workdir of a run, or a new directory.
      given: keys that flags set; see `stored.as_trained`.
    """
    opened = _open_trained(config, workdir, "eval", given)
    evaluation = opened.evaluator.run(opened.params)
    if multihost.is_lead_host():
        results = evaluation.metrics | {"data/eval/malformed": float(opened.malformed)}
        results |= opened.evaluator.data.batches.features.counts("eval")
        predictions = opened.write("eval_results", "eval_results_predictions", evaluation.records)
        files.write_json(workdir / "eval_results.json", results)
        show_predictions(opened.setup, opened.evaluator.examples, evaluation.records)
        show_metrics(results, f"eval_results.json: {opened.setup.config.data.eval}")
        print(f"\nFiles in {workdir}: eval_results.json  {predictions}")


def predict(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Write predictions.jsonl for `data.predict`, which needs no labels; see `evaluate`."""
    opened = _open_trained(config, workdir, "predict", given)
    records = opened.evaluator.run(opened.params).records
    if multihost.is_lead_host():
        opened.write("predictions", "predictions", records)
        show_predictions(opened.setup, opened.evaluator.examples, records)
        lacking = f"; {opened.malformed} malformed rows were skipped" if opened.malformed else ""
        print(f"\n{len(records)} predictions: {workdir / 'predictions.jsonl'}{lacking}")


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A trained model, and the data set to apply it to."""

    workdir: Path
    setup: Pipeline
    evaluator: Evaluator
    params: Any
    malformed: int
    """Number of malformed lines, rows and answers that were skipped."""
    commits: dict[str, str]
    """{config key: commit} of the model and data that come from the hub."""

    def write(self, name: str, predictions: str, records: Sequence[Prediction]) -> str:
        """Write predictions and their configuration, and return the names of both files.

        The results of the run itself are of other data, so their files have other names.
        """
        self.workdir.mkdir(parents=True, exist_ok=True)
        names = f"{predictions}.jsonl", f"{name}_config.json"
        files.write_jsonl(self.workdir / names[0], records)
        write_config(self.workdir / names[1], self.setup.config.to_dict(), self.commits)
        return "  ".join(names)


def _open_trained(config: Config, workdir: Path, key: str, given: Collection[str]) -> _Opened:
    """Open the model of the run in the workdir; without a run, `model.init`, which needs a head."""
    multihost.check_started()
    multihost.agree(command(flatten(config.to_dict()), key) | {"flags": sorted(given)})
    check_local("workdir", workdir)
    ours = stored.holds_run(workdir)
    with multihost.fail_together():
        if ours:
            config = stored.as_trained(config, workdir, given)
        validate(config, TASKS)
        if not ours:
            stored.remark(config)
        init = str(workdir) if ours else config.model.init
        setup = prepare(config, init, train=None)
        table = read_table(config.data, key)
        evaluator = Evaluator.open(setup, table, labeled=key == "eval")
        params = setup.load_params(trained=True)
    if multihost.is_multihost():
        labels = getattr(setup.task, "labels", ())
        multihost.agree(
            {"model": init, "labels": list(labels)}
            | {f"weights, {part}": digest for part, digest in mapping.digests(params).items()}
            | {"examples": evaluator.data.fingerprint(labels)}
            | {"rows of a step": list(evaluator.data.batches.bucket_sizes)}
        )
    with memory.explain_exhaustion("placing the parameters", memory.PARAMETERS):
        placed = sharding.shard_params(params, setup.mesh)
    commits = {"model.init": setup.commit, f"data.{key}": table.commit}
    known = {name: commit for name, commit in commits.items() if commit}
    return _Opened(workdir, setup, evaluator, placed, table.malformed, known)

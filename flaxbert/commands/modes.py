"""What `--mode` selects: train, eval, predict; each prints what it found."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax

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
from flaxbert.runtime.workdir import command, write_config
from flaxbert.tasks import TASKS
from flaxbert.training.trainer import run
from flaxbert.types import Prediction


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
        predictions = opened.write("eval_results", "eval_results_predictions", evaluation.records)
        files.write_json(workdir / "eval_results.json", results)
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
    setup: Pipeline
    evaluator: Evaluator
    params: Any
    malformed: int
    """Lines, rows and answers that are left out."""
    commits: dict[str, str]
    """{config key: commit} of what is from the hub."""

    def write(self, name: str, predictions: str, records: Sequence[Prediction]) -> str:
        """Write predictions, and next to them what they are of; returns the names of both files.

        A run's own results are those of other data: their files have other names.
        """
        self.workdir.mkdir(parents=True, exist_ok=True)
        names = f"{predictions}.jsonl", f"{name}_config.json"
        files.write_jsonl(self.workdir / names[0], records)
        write_config(self.workdir / names[1], self.setup.config, self.commits)
        return "  ".join(names)


def _open_trained(config: Config, workdir: Path, key: str, given: Collection[str]) -> _Opened:
    """Open the workdir's own model if it holds a run, else `model.init`, which must have a head."""
    multihost.check_started()
    multihost.agree(command(config, key) | {"flags": sorted(given)})
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
        labels = setup.task.labels
        multihost.agree(
            {"model": init, "labels": list(labels)}
            | {f"weights, {part}": digest for part, digest in mapping.digests(params).items()}
            | {"examples": evaluator.data.fingerprint(labels)}
            | {"rows of a step": list(evaluator.data.batches.bucket_sizes)}
        )
    with memory.explained("placing the parameters", memory.PARAMETERS):
        placed = sharding.shard_params(params, setup.mesh)
    commits = {"model.init": setup.commit, f"data.{key}": table.commit}
    known = {name: commit for name, commit in commits.items() if commit}
    return _Opened(workdir, setup, evaluator, placed, evaluator.malformed, known)

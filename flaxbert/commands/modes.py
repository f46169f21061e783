"""The modes of a run: train, eval and predict. Each prints its results."""

import collections
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from flaxbert.commands.tables import show_metrics, show_predictions, spread
from flaxbert.config import Config
from flaxbert.errors import check_local
from flaxbert.messages.language import plural, tr
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pipeline.predictor import Predictor
from flaxbert.report.rundir import EVALUATED
from flaxbert.report.write import write_report
from flaxbert.runtime import files, multihost
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.workdir import command, flatten, write_config
from flaxbert.training import trainer
from flaxbert.types import Prediction


def train(
    config: Config,
    workdir: Path,
    *,
    preemption: Preemption,
    force: bool,
    profile: range,
    explain: bool | None = None,
    config_flag: str = "--config=...",
) -> None:
    """Train, and print the metrics and some predictions.

    Args:
      config: the configuration.
      workdir: see `trainer.train`, as for `preemption`, `force`, `profile` and `explain`.
      preemption: handles signals.
      force: continue even if the configuration or the data have changed.
      profile: steps whose profile is written.
      explain: whether to explain the run; None if a person watches.
      config_flag: the flag that chose the configuration, for the command that is suggested.
    """
    trained = trainer.train(
        config, workdir, preemption=preemption, force=force, profile=profile, explain=explain
    )
    if multihost.is_lead_host():
        show_predictions(trained.pipeline.task, trained.examples, trained.predictions)
        show_metrics(trained.results, "results.json")
        evaluated = "eval_predictions.jsonl  " if trained.predictions else ""
        files_of_run = f"report.html  results.json  metrics.jsonl  {evaluated}export/"
        print("\n" + tr("Files in {workdir}: {files}", workdir=workdir, files=files_of_run))
        print(
            tr(
                "Next:\n"
                "  look        open {workdir}/report.html in a browser\n"
                "  predict     flaxbert predict {config} --workdir={workdir} "
                "--config.data.predict=FILE\n"
                "  try it out  flaxbert serve {workdir}   (pip install 'flaxbert[serve]')\n"
                "  in Python   flaxbert.load({quoted}).predict([...])\n"
                "  plot        tensorboard --logdir {workdir}   (pip install tensorboard)\n"
                "  deploy      transformers loads {workdir}/export; flaxbert export {workdir} DIR\n"
                "  share       flaxbert push {workdir} NAME/MODEL --dry-run",
                workdir=workdir,
                config=config_flag,
                quoted=repr(str(workdir)),
            )
        )


def evaluate(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Evaluate on `data.eval`; write eval_results.json, predictions, configuration and report.

    Args:
      config: the configuration of the command line.
      workdir: the workdir of a run, or a new directory.
      given: keys that flags set; see `stored.as_trained`.
    """
    opened = _open(config, workdir, "eval", given)
    evaluation = opened.predictor.run(opened.data)
    if multihost.is_lead_host():
        results = evaluation.metrics | {"data/eval/malformed": float(opened.data.malformed)}
        results |= opened.data.batches.features.counts("eval")
        written = opened.write("eval_results", "eval_results_predictions", evaluation.predictions)
        files.write_json(workdir / "eval_results.json", results)
        task = opened.predictor.pipeline.task
        write_report(workdir, task, {"eval": opened.data}, evaluation.predictions, EVALUATED)
        show_predictions(task, opened.data.examples, evaluation.predictions)
        show_metrics(results, f"eval_results.json: {opened.predictor.config.data.evaluated}")
        files_of_run = f"eval_results.json  {written}  {EVALUATED.page}"
        print("\n" + tr("Files in {workdir}: {files}", workdir=workdir, files=files_of_run))


def predict(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Write predictions.jsonl for `data.predict`, which needs no labels; see `evaluate`."""
    opened = _open(config, workdir, "predict", given)
    examples, shown = opened.data.examples, dict[int, Prediction]()
    predictions = _keeping(opened.predictor.stream(opened.data), shown, len(examples))
    if multihost.is_lead_host():
        opened.write("predictions", "predictions", predictions)
        chosen = [examples[number] for number in shown]
        show_predictions(opened.predictor.pipeline.task, chosen, list(shown.values()))
        malformed = opened.data.malformed
        counted = plural(len(examples), "1 prediction", "{n} predictions")
        print(f"\n{counted}: {workdir / 'predictions.jsonl'}")
        if malformed:
            print(
                plural(malformed, "1 malformed row was skipped", "{n} malformed rows were skipped")
            )
    else:
        collections.deque(predictions, maxlen=0)  # the devices of all hosts compute each batch


def _keeping(
    predictions: Iterable[Prediction], shown: dict[int, Prediction], count: int
) -> Iterator[Prediction]:
    """Yield `count` predictions, and put those to show into `shown`."""
    chosen = spread(count)
    for number, prediction in enumerate(predictions):
        if number in chosen:
            shown[number] = prediction
        yield prediction


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A trained model, and the data set to apply it to."""

    workdir: Path
    predictor: Predictor
    data: Dataset
    commits: dict[str, str]
    """{config key: commit} of the model and data that come from the hub."""

    def write(self, name: str, predictions: str, values: Iterable[Prediction]) -> str:
        """Write predictions and their configuration, and return the names of both files.

        The names differ from those of the run's own results, which are of other data.
        """
        self.workdir.mkdir(parents=True, exist_ok=True)
        names = f"{predictions}.jsonl", f"{name}_config.json"
        files.write_jsonl(self.workdir / names[0], values)
        config = self.predictor.config.to_dict()
        write_config(self.workdir / names[1], config, self.commits)
        return "  ".join(names)


def _open(config: Config, workdir: Path, key: str, given: Collection[str]) -> _Opened:
    """Load the model of the run in the workdir, or `model.init` if there is none, and the data."""
    multihost.check_started()
    multihost.agree(command(flatten(config.to_dict()), key) | {"flags": sorted(given)})
    check_local("workdir", workdir)
    with multihost.fail_together():
        predictor = Predictor.from_config(config, workdir, given)
        data, table = predictor.read(predictor.config.data, key)
    pipeline, batches = predictor.pipeline, data.batches
    if multihost.is_multihost():
        multihost.agree(
            {"model": str(pipeline.directory), "labels": list(pipeline.task.labels)}
            | {f"weights, {part}": digest for part, digest in predictor.digests.items()}
            | {"examples": data.fingerprint(pipeline.task.labels)}
            | {"rows of a step": list(batches.bucket_sizes)}
        )
    commits = {"model.init": pipeline.commit, f"data.{key}": table.commit}
    known = {name: commit for name, commit in commits.items() if commit}
    return _Opened(workdir, predictor, data, known)

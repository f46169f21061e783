"""The modes of a run: train, eval and predict. Each prints its results."""

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from flaxbert.commands.tables import show_metrics, show_predictions
from flaxbert.config import Config
from flaxbert.messages.language import plural, tr
from flaxbert.pipeline import bulk
from flaxbert.pipeline.predictor import Predictor
from flaxbert.report.rundir import EVALUATED
from flaxbert.report.write import write_report
from flaxbert.runtime import files, mirror, multihost, storage
from flaxbert.runtime.mirror import Workdir
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.workdir import MAY_DIFFER, command, flatten, write_config
from flaxbert.training import trainer


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
                workdir=shlex.quote(str(workdir)),
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
    with mirror.opened(storage.as_path(workdir)) as place:
        _evaluate(config, place, given)


def _evaluate(config: Config, place: Workdir, given: Collection[str]) -> None:
    predictor, workdir = _load(config, place, "eval", given), place.local
    with multihost.fail_together():
        data, table = predictor.read(predictor.config.data, "eval")
    if multihost.is_multihost():
        multihost.agree(
            {"examples": data.fingerprint(predictor.pipeline.task.labels)}
            | {"rows of a step": list(data.batches.bucket_sizes)}
        )
    evaluation = predictor.run(data)
    if multihost.is_lead_host():
        results = evaluation.metrics | {"data/eval/malformed": float(data.malformed)}
        results |= data.batches.features.counts("eval")
        workdir.mkdir(parents=True, exist_ok=True)
        # The names differ from those of the run's own results, which are of other data.
        names = "eval_results_predictions.jsonl", "eval_results_config.json"
        files.write_jsonl(workdir / names[0], evaluation.predictions)
        _write_config(workdir / names[1], predictor, {"data.eval": table.commit})
        files.write_json(workdir / "eval_results.json", results)
        task = predictor.pipeline.task
        write_report(workdir, task, {"eval": data}, evaluation.predictions, EVALUATED)
        show_predictions(task, data.examples, evaluation.predictions)
        show_metrics(results, f"eval_results.json: {predictor.config.data.evaluated}")
        files_of_run = "  ".join(["eval_results.json", *names, EVALUATED.page])
        print("\n" + tr("Files in {workdir}: {files}", workdir=place, files=files_of_run))


def predict(config: Config, workdir: Path, *, given: Collection[str] = ()) -> None:
    """Write predictions.jsonl for `data.predict`, which needs no labels; see `evaluate`.

    If an earlier command with the same model was stopped, its finished parts are kept.
    """
    with mirror.opened(storage.as_path(workdir)) as place:
        _predict(config, place, given)


def _predict(config: Config, place: Workdir, given: Collection[str]) -> None:
    predictor, name = _load(config, place, "predict", given), "predictions.jsonl"
    written = bulk.predict(predictor, place, name)
    if multihost.is_lead_host():
        commits = {"data.predict": written.commit}
        _write_config(place.local / "predictions_config.json", predictor, commits)
        show_predictions(predictor.pipeline.task, written.examples, written.predictions)
        counted = plural(written.count, "1 prediction", "{n} predictions")
        print(f"\n{counted}: {place.home / name}")
        if malformed := written.malformed:
            print(
                plural(malformed, "1 malformed row was skipped", "{n} malformed rows were skipped")
            )


def _load(config: Config, place: Workdir, mode: str, given: Collection[str]) -> Predictor:
    """Load the model of the run in the workdir, or `model.init` if there is none."""
    multihost.check_started()
    flags = sorted(set(given) - set(MAY_DIFFER))
    multihost.agree(command(flatten(config.to_dict()), mode) | {"flags": flags})
    with multihost.fail_together():
        predictor = Predictor.from_config(config, place.local, given)
    pipeline = predictor.pipeline
    multihost.agree(
        {"model": place.shown(pipeline.directory), "labels": list(pipeline.task.labels)}
        | {f"weights, {part}": digest for part, digest in predictor.digests.items()}
    )
    return predictor


def _write_config(path: Path, predictor: Predictor, commits: Mapping[str, str | None]) -> None:
    """Write the configuration of a command, with the commits of what comes from the hub."""
    commits = {"model.init": predictor.pipeline.commit, **commits}
    known = {name: commit for name, commit in commits.items() if commit}
    write_config(path, predictor.config.to_dict(), known)

"""Training, from a configuration to a directory of results."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from flaxbert.config import Config, validate
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained import mapping
from flaxbert.pretrained.source import SKELETON
from flaxbert.report.result import Trained
from flaxbert.report.rundir import default_settings
from flaxbert.report.write import write_report
from flaxbert.runtime import devices, files, multihost, notebook, program_cache, storage
from flaxbert.runtime.checkpoint import Metadata
from flaxbert.runtime.ledger import Ledger
from flaxbert.runtime.mirror import Workdir
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.profiling import Profile
from flaxbert.runtime.trackers.background import BackgroundTrackers
from flaxbert.runtime.workdir import command, flatten, lock, write_config
from flaxbert.tasks import TASKS
from flaxbert.training import freezing, microbatches
from flaxbert.training.card import card_of
from flaxbert.training.data import Sources, TrainingData, read_sources, tokenize
from flaxbert.training.explain import Explainer
from flaxbert.training.loop import fit
from flaxbert.training.optim import make_optimizer, require_float32
from flaxbert.training.plan import Plan
from flaxbert.training.programs import compile_programs
from flaxbert.training.resume import SavedRun, encoder_digest
from flaxbert.training.run import Evaluators, Run, thresholds_of
from flaxbert.training.state import TrainState
from flaxbert.types import Params

log = logging.getLogger("flaxbert")


def train(
    config: Config,
    workdir: str | Path,
    *,
    preemption: Preemption | None = None,
    force: bool = False,
    profile: range = range(0),
    explain: bool | None = None,
) -> Trained:
    """Fine-tune, evaluate and export; called again with the same `workdir`, resume the run.

    Args:
      config: see flaxbert/config.py.
      workdir: receives all files of the run, such as results.json, report.html and export/.
      preemption: handles signals; by default none, but in a notebook an interrupt saves the run.
      force: continue even if the configuration or the data have changed since the run began.
      profile: steps, from 1, whose profile is written to the directory profile/ in the workdir.
      explain: explain the run in sentences, in English or Spanish; None does if a person watches.

    Raises:
      Preempted: if a signal came; the state is saved.
      UserError: for a configuration, data or weights that the user can fix.
    """
    _require_trainable(config, force)
    home, preemption = storage.as_path(workdir, "workdir"), preemption or Preemption()
    with _opened(home, config, preemption, force) as (saved, ledger, background):
        place, config = saved.workdir, saved.settled(config)
        devices.log_use(config.model.dtype)
        sources, pipeline, data = _read(config, saved)
        plan = _plan(config, pipeline, data, profile, saved.step or 0)
        optimizer, schedule = make_optimizer(config.optim, plan.schedule_steps, config.train.ema)
        ready = microbatches.prepare(config, pipeline, data, optimizer, saved.attention)
        config, pipeline, data = ready.config, ready.pipeline, ready.data
        with multihost.fail_together():
            evaluators = Evaluators.make(pipeline, data, config.train)
            commits = saved.commits(pipeline, sources.commits)
            params, metadata = _begin(saved, pipeline, data, config)
        _require_agreement(pipeline, metadata, data, plan, params)
        explainer = Explainer.begin(explain, config, plan, data, metadata, saved.step or 0)
        state = saved.place(params, pipeline, optimizer)
        del params  # on the devices now
        best = evaluators.open_best(home / "best", metadata)
        _write_config(place.local, config, pipeline, commits)
        loader = Loader(data.train.batches, pipeline.mesh)
        train_step, seconds = compile_programs(
            ready, optimizer, state, loader, evaluators, plan, ledger
        )
        ledger.write(place.local / "compiles.jsonl")
        parts = saved, metadata, state, plan, schedule, data.train, evaluators, best, background
        run = Run(*parts, explainer, config.train)
        run.profile = Profile(place.local / "profile", profile, active=multihost.is_lead_host())
        with ledger.steady():
            state = fit(state, plan, train_step, loader, run, preemption)
        ledger.write(place.local / "compiles.jsonl")  # again, should any be late
        card = card_of(pipeline, data, config, commits)
        return _finish(place, pipeline, data, run, state, seconds, card, preemption)


@contextlib.contextmanager
def _opened(
    workdir: Path, config: Config, preemption: Preemption, force: bool
) -> Iterator[tuple[SavedRun, Ledger, BackgroundTrackers]]:
    """Lock the workdir, and open what lasts as long as the run."""
    program_cache.enable()
    background = BackgroundTrackers(config.train.trackers, config.train.project)
    settings, defaults = flatten(config.to_dict()), default_settings(config.task)
    with notebook.session(preemption), lock(workdir) as place, background, Ledger() as ledger:
        saved = SavedRun.open(place, settings, defaults, force=force)
        with contextlib.closing(saved.checkpoints):
            yield saved, ledger, background


def _require_trainable(config: Config, force: bool) -> None:
    """Check the hosts and the configuration, before any file is read."""
    multihost.check_started()
    multihost.agree(command(flatten(config.to_dict()), "train") | {"force": force})
    validate(config, TASKS)
    require_float32(config.model.param_dtype)


def _read(config: Config, saved: SavedRun) -> tuple[Sources, Pipeline, TrainingData]:
    """Read and tokenize the data; build the pipeline."""
    with multihost.fail_together():  # any of this may fail on one host alone
        sources = read_sources(config.task, config.data, config.options)
        sections = config.task, config.model, config.data, config.options
        init, examples = saved.init(config.model), sources.train.examples
        pipeline = Pipeline.build(*sections, init=init, train=examples, **config.train.division)
        data = tokenize(pipeline, sources, config.train)
    return sources, pipeline, data


def _plan(
    config: Config, pipeline: Pipeline, data: TrainingData, profile: range, done: int
) -> Plan:
    """Return the plan of the run, which has taken `done` steps; check what depends on it."""
    with multihost.fail_together():
        plan = Plan.make(config.train, config.optim, data.train.batches)
        plan.check_profile(profile, done)
        freezing.check(config.optim.freeze, pipeline.model.shapes)
    return plan


def _begin(
    saved: SavedRun,
    pipeline: Pipeline,
    data: TrainingData,
    config: Config,
) -> tuple[Params | None, Metadata]:
    """Read the weights of a new run, or check that one that resumes has the same data and weights.

    Returns:
      The parameters on the host, None for a run that resumes, and the run's metadata.
    """
    fingerprints, seed = data.fingerprints(pipeline.task), config.train.seed
    if saved.step is not None:
        return None, saved.resume(fingerprints, pipeline, config.model, seed)
    params, loaded = pipeline.read_params(seed=seed, **config.model.reinit)
    pipeline.log_loaded(loaded, config.model.reinit_layers)
    thresholds = thresholds_of(pipeline.task)
    digest = encoder_digest(params, config.model.reinit_layers)
    way = pipeline.model.config.attention
    attention = None if way == "auto" else way
    settings = flatten(config.to_dict())
    sizes = None if config.model.reinit_layers else loaded.sizes
    return params, saved.begin(thresholds, fingerprints, settings, digest, attention, sizes)


def _require_agreement(
    pipeline: Pipeline, metadata: Metadata, data: TrainingData, plan: Plan, params: Params | None
) -> None:
    """Check that all hosts have the same data, weights and plan."""
    if not multihost.is_multihost():
        return
    digests = {} if params is None else mapping.digests(params)
    multihost.agree(
        {"labels": list(pipeline.task.labels)}
        | {f"examples, {name}": digest for name, digest in metadata.data.items()}
        | {f"weights, {part}": digest for part, digest in digests.items()}
        | {"type of arithmetic": pipeline.model.config.dtype}
        | {"steps": (plan.schedule_steps, plan.stop_step)}
        | {"rows of a step": list(data.train.batches.bucket_sizes)}
    )


def _write_config(
    workdir: Path, config: Config, pipeline: Pipeline, commits: Mapping[str, str]
) -> None:
    """Write config.json, and the model's config and tokenizer, which checkpoints lack.

    Call it after every check that may refuse the run: a refused run leaves the workdir unchanged.
    """
    with multihost.fail_together():
        if multihost.is_lead_host():
            write_config(workdir / "config.json", config.to_dict(), commits)
            if pipeline.directory != workdir / SKELETON:
                pipeline.export(None, workdir / SKELETON)


def _finish(
    place: Workdir,
    pipeline: Pipeline,
    data: TrainingData,
    run: Run,
    state: TrainState,
    compile_seconds: float,
    card: Callable[[Mapping[str, float]], str],
    preemption: Preemption,
) -> Trained:
    """Evaluate the final parameters, export them, and write results.json.

    Args:
      place: receives export/, eval_predictions.jsonl, results.json and the report.
      pipeline: writes the export.
      data: the data sets, whose left-out examples are counted in the results.
      run: holds the best parameters and the last evaluation.
      state: the state after the last step.
      compile_seconds: written to the results.
      card: makes the text of the model card from the results.
      preemption: checked while evaluating.
    """
    workdir = place.local
    results = {"step": float(state.step), "skipped_steps": float(state.skipped)}
    params, task, evaluation, best_step = run.final(state, preemption)
    if best_step is not None:
        results["best_step"] = float(best_step)
    if run.patience:
        results["stopped_early"] = float(run.stops_early(int(state.step)))
    results |= evaluation.metrics if evaluation is not None else {}
    results |= data.counts | {"padding_share": data.train.batches.padding_share()}
    results |= {"perf/compile_seconds": compile_seconds} | run.clock.totals()
    predictions = evaluation.predictions if evaluation is not None else []
    with multihost.fail_together():
        if multihost.is_lead_host():
            pipeline.export(params, workdir / "export", task, card(results))
            if evaluation is not None:
                files.write_jsonl(workdir / "eval_predictions.jsonl", predictions)
            files.write_json(workdir / "results.json", results)
            place.fetch_metadata()
            write_report(workdir, task, {"train": data.train, "eval": data.eval}, predictions)
    run.summarize(results)
    run.explainer.finish(workdir)
    examples = data.eval.examples if data.eval is not None else ()
    return Trained(results, pipeline, examples, predictions, place.home)

"""Training: from a configuration to a directory of results."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from flaxbert.config import Config, validate
from flaxbert.errors import ConfigError, HubError, WeightsError, check_local
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained import mapping
from flaxbert.pretrained.model_card import model_card
from flaxbert.pretrained.source import SKELETON, resolve
from flaxbert.runtime import files, memory, multihost, sharding
from flaxbert.runtime.checkpoint import BestParams, Checkpoints, Metadata
from flaxbert.runtime.compilation import compile_buckets
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.workdir import (
    changed_commits,
    command,
    flatten,
    lock,
    read_commits,
    require_not_finished,
    require_unchanged,
    resume_fields,
    with_defaults,
    write_config,
)
from flaxbert.tasks import TASKS
from flaxbert.training import state
from flaxbert.training.loop import Loop
from flaxbert.training.optim import make_optimizer
from flaxbert.training.plan import Plan, thresholds_of
from flaxbert.training.state import TrainState
from flaxbert.training.step import TrainStep, make_train_step
from flaxbert.types import Params, Prediction

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a finished run leaves in memory; everything else is in its workdir."""

    results: dict[str, float]
    setup: Pipeline
    examples: Sequence[Any]
    """Of `data.eval`; empty without it."""
    records: list[Prediction]
    """The final prediction for each of them."""


def train(config: Config, workdir: str | Path) -> dict[str, float]:
    """`run`, for those who want the results alone: {metric: number}, as in results.json."""
    return run(config, workdir).results


def run(
    config: Config,
    workdir: str | Path,
    *,
    preemption: Preemption | None = None,
    force: bool = False,
) -> Trained:
    """Fine-tune, evaluate and export; a rerun on the same `workdir` continues where it stopped.

    Args:
      config: what to do; see flaxbert/config.py.
      workdir: receives config.json, metrics.jsonl, checkpoints/, results.json,
        eval_predictions.jsonl, export/ and tensorboard/.
      preemption: what listens to signals; without it nothing does.
      force: continue though configuration or data are not those that the run began with.

    Raises:
      Preempted: told to stop; what was done is saved.
      UserError: for a configuration, data or weights that the user can mend.
    """
    multihost.check_started()
    multihost.agree(command(flatten(config.to_dict()), "train") | {"force": force})
    validate(config, TASKS)
    if config.model.param_dtype != "float32":
        raise ConfigError(
            f"model.param_dtype={config.model.param_dtype!r}: training needs float32. An update of "
            "AdamW is smaller than half the spacing of bfloat16, so most parameters would never "
            "change. For arithmetic in bfloat16 set model.dtype=bfloat16 and leave this key out."
        )
    check_local("workdir", workdir)
    with lock(Path(workdir)):
        return _run(config, Path(workdir), preemption or Preemption(), force)


def _run(config: Config, workdir: Path, preemption: Preemption, force: bool) -> Trained:
    checkpoints = Checkpoints(workdir / "checkpoints")
    newest = checkpoints.latest_step()
    with multihost.fail_together():
        plan, notes, fresh = _prepare(config, workdir, checkpoints, newest, force)
    setup, chief = plan.setup, multihost.is_lead_host()
    if multihost.is_multihost():
        multihost.agree(plan.compared(fresh))
    optimizer, schedule = make_optimizer(config.optim, plan.steps)
    parts = optimizer, setup.mesh, setup.task.loss_names
    with memory.explain_exhaustion("placing parameters and optimizer state", memory.PARAMETERS):
        if fresh is not None:
            now = state.create(fresh, *parts)
            del fresh
        else:
            assert newest is not None
            checkpoints.delete_after(newest)
            now = checkpoints.restore(newest, state.shapes(setup.model.shapes, *parts))
    if newest is not None:
        left = f"learning rate {float(schedule(newest)):.2g}"
        left = left if newest < plan.last else "nothing left to train"
        log.info(f"resuming {workdir} after step {newest} of {plan.last}: {left}")
    wanted, best = config.train.keep_best, None
    if wanted and plan.evaluator is not None:
        lower = plan.evaluator.lower_is_better(wanted)
        best = BestParams(
            workdir / "best", wanted, notes.best, better_is="lower" if lower else "higher"
        )
    if best is not None and best.best is None:  # it may be wanted only now
        notes = dataclasses.replace(notes, evaluated=False)
    commits = plan.commits
    if setup.directory == workdir / SKELETON:  # a copy, which does not know where it is from
        commits = read_commits(workdir / "config.json") | commits
    with multihost.fail_together():
        if chief:  # not before it is known that the run can go on
            write_config(workdir / "config.json", config.to_dict(), commits)
            if setup.directory != workdir / SKELETON:  # what a checkpoint lacks to be a model
                setup.export(None, workdir / SKELETON)

    start = time.perf_counter()
    train_step = _compile(plan, optimizer, now)
    compile_seconds = time.perf_counter() - start
    log.info(
        f"compiled for {jax.device_count()} {jax.devices()[0].platform} device(s): rows of "
        f"{plan.batches.row_length} tokens, {plan.batches.bucket_sizes} a step, "
        f"{compile_seconds:.0f} s"
    )
    loop = Loop(
        plan,
        workdir,
        train_step=train_step,
        schedule=schedule,
        now=now,
        notes=notes,
        checkpoints=checkpoints,
        best=best,
        preemption=preemption,
    )
    loop.run()

    params, task, final = loop.now.params, loop.task, loop.final
    results = {"step": float(loop.step), "skipped_steps": float(loop.now.skipped)}
    if best is not None:
        best_step, params = best.restore(params)
        results["best_step"] = float(best_step)
        final = final if best_step == loop.step else None
        best.close()
    if final is None:  # resumed at the end, or other weights selected
        task, final = plan.evaluate(params, preemption)
    results |= final.metrics if final is not None else {}
    results |= plan.left_out | {"padding_share": plan.batches.padding_share()}
    results |= {"perf/compile_seconds": compile_seconds} | loop.clock.totals()
    with multihost.fail_together():
        if chief:
            card = model_card(setup.model, config.to_dict(), results, commits)
            setup.export(params, workdir / "export", task, card)
            if final is not None:
                files.write_jsonl(workdir / "eval_predictions.jsonl", final.records)
            files.write_json(workdir / "results.json", results)
    examples = plan.evaluator.examples if plan.evaluator is not None else ()
    return Trained(results, setup, examples, final.records if final is not None else [])


def _prepare(
    config: Config, workdir: Path, checkpoints: Checkpoints, newest: int | None, force: bool
) -> tuple[Plan, Metadata, Params | None]:
    """Read model, data and, for a new run, weights; one that continues must be of the same ones."""
    kept = resume_fields(flatten(config.to_dict()))
    if newest is None:
        require_not_finished(workdir, force=force)
        plan = Plan.make(config, config.model.init)
        calibration = thresholds_of(plan.setup.task)
        params = plan.setup.load_params()
        encoder = mapping.digests(params)["encoder"]
        data = plan.fingerprints()
        return plan, Metadata(calibration, False, data, kept, None, encoder), params
    before = checkpoints.metadata(newest)
    options = None if config.options is None else type(config.options)()
    old = with_defaults(before.config, flatten(Config(options=options).to_dict()))
    require_unchanged("configuration", old, kept, workdir, force=force)
    source = _source(config, workdir)
    plan = Plan.make(config, source)
    data = plan.fingerprints()
    for line in changed_commits(read_commits(workdir / "config.json"), plan.commits):
        log.warning(line)
    require_unchanged("data", before.data, data, workdir, force=force)
    if before.weights and source == config.model.init:
        with contextlib.suppress(WeightsError):  # weights may be gone: those of the run are kept
            params, _ = plan.setup.read_params()
            found = {config.model.init: mapping.digests(params)["encoder"]}
            stored = {config.model.init: before.weights}
            require_unchanged("pre-trained model", stored, found, workdir, force=force)
    return plan, dataclasses.replace(before, data=data, config=kept), None


def _source(config: Config, workdir: Path) -> str:
    """Where a run that continues has config and tokenizer from: weights it needs no more."""
    try:
        resolve(config.model.init, config.model.revision)
    except (HubError, WeightsError) as error:
        copy = workdir / SKELETON
        if not copy.is_dir():
            raise
        log.warning(f"{error} Going on with the copy of config and tokenizer in {copy}.")
        return str(copy)
    return config.model.init


def _compile(plan: Plan, optimizer: Any, now: TrainState) -> TrainStep:
    """The train step for every height of a batch; the evaluations' programs too."""
    config, batches, mesh = plan.setup.config.train, plan.batches, plan.setup.mesh
    step = make_train_step(
        plan.setup.model,
        plan.setup.task,
        optimizer,
        now,
        mesh,
        accumulation_steps=config.accumulation_steps,
        seed=config.seed,
        log_every=config.log_every,
    )
    for each in (plan.evaluator, plan.calibrator):
        if each is not None:
            each.compile(now.params)
    with memory.explain_exhaustion(
        "compiling the training step", memory.TRAINING, plan.batch_shape
    ):
        return compile_buckets(
            step,
            now,
            batches.bucket_sizes,
            lambda rows: sharding.make_global_batch([[]] * rows, batches.build, mesh),
        )

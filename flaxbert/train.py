"""Training: the loop, from a configuration to a directory of results."""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from flaxbert import sharding, state, writer
from flaxbert.card import model_card
from flaxbert.checkpoint import BestParams, Checkpoints
from flaxbert.config import Config, validate
from flaxbert.errors import ConfigError
from flaxbert.evaluate import Evaluation, Evaluator, objective_means
from flaxbert.models.model import Params
from flaxbert.optim import make_optimizer
from flaxbert.progress import Clock, Progress, note, summary
from flaxbert.setup import Setup, prepare, read_table
from flaxbert.step import compile_heights, make_train_step
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import Calibrated, Record, Task

log = logging.getLogger("flaxbert")

IN_FLIGHT = 2
"""Steps handed to the device before the host waits for the oldest: it never runs out of work."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a finished run leaves in memory; everything else is in its workdir."""

    results: dict[str, float]
    setup: Setup
    examples: Sequence[Any]
    """Of `data.eval`; empty without it."""
    records: list[Record]
    """The final prediction for each of them."""


def train(config: Config, workdir: str | Path) -> dict[str, float]:
    """`run`, for those who want the results alone: {metric: number}, as in results.json."""
    return run(config, workdir).results


def run(config: Config, workdir: str | Path) -> Trained:
    """Fine-tune, evaluate and export; a rerun on the same `workdir` continues where it stopped.

    Args:
      config: what to do; see flaxbert/config.py.
      workdir: receives config.json, metrics.jsonl, checkpoints/, results.json,
        eval_predictions.jsonl, export/ and tensorboard/.

    Raises:
      UserError: for a configuration, data or weights that the user can mend.
    """
    validate(config, TASKS)
    workdir = Path(workdir)
    chief = jax.process_index() == 0
    # Every host checks, so that all end with the same message; one writes, when all have looked.
    writer.claim_workdir(workdir, config)
    sharding.wait_for_all_hosts("workdir")
    if chief:
        workdir.mkdir(parents=True, exist_ok=True)
        writer.write_json(workdir / "config.json", config.to_dict())

    # Data first: a mistake in it shows before any weight is read or program compiled.
    table = read_table(config.data, "train")
    setup = prepare(config, config.model.init, table)
    kept, held_out = setup.hold_out(setup.task.examples(table, labelled=True))
    batches = setup.dataset(
        kept, table.source, batch_size=config.train.batch_size, labelled=True, training=True
    ).batches
    total = math.ceil(batches.steps_per_epoch * config.train.epochs)
    last = min(total, config.train.max_steps or total)
    # Heights for the whole schedule: max_steps must not change how a step is computed.
    batches = dataclasses.replace(batches, steps=total)
    evaluator = Evaluator.open(setup, "eval", labelled=True) if config.data.eval else None
    calibrator = Evaluator.of(setup, held_out, "held out", labelled=True) if held_out else None
    task = setup.task

    wanted = config.train.keep_best
    if wanted and evaluator is not None and wanted not in evaluator.metric_names:
        known = ", ".join(evaluator.metric_names)
        raise ConfigError(f"train.keep_best={wanted!r}: the evaluation gives {known}")

    optimizer, schedule = make_optimizer(config.optim, total)
    now = state.create(setup.load_params(), optimizer, setup.mesh, setup.task.objectives)
    checkpoints = Checkpoints(workdir / "checkpoints", save_every=config.train.save_every)
    calibration = calibration_of(task)
    if checkpoints.latest() is not None:
        now = checkpoints.restore(now)
        calibration = checkpoints.calibration()
        left = "" if int(now.step) < last else ": nothing left to train"
        log.info(f"resuming {workdir} after step {int(now.step)} of {last}{left}")
    step = int(now.step)
    best = BestParams(workdir / "best", wanted, step=step) if wanted else None

    start = time.perf_counter()
    train_step = compile_heights(
        make_train_step(
            setup.model,
            setup.task,
            optimizer,
            now,
            setup.mesh,
            accumulate=config.train.accumulate,
            seed=config.train.seed,
            log_every=config.train.log_every,
        ),
        now,
        batches.row_counts,
        lambda rows: sharding.put_rows([[]] * rows, batches.build, setup.mesh),
    )
    for each in (evaluator, calibrator):
        if each is not None:
            each.compile(now.params)
    compile_seconds = time.perf_counter() - start
    log.info(
        f"compiled for {jax.device_count()} {jax.devices()[0].platform} device(s): rows of "
        f"{batches.row_length} tokens, {batches.row_counts} a step, {compile_seconds:.0f} s"
    )

    def evaluation_due(step: int) -> bool:
        every = config.train.eval_every
        every = batches.steps_per_epoch if every is None else every
        return step == last or (every > 0 and step % every == 0)

    def evaluate(params: Params) -> tuple[Task, Evaluation | None]:
        task = setup.task
        if calibrator is not None and isinstance(task, Calibrated):
            task = task.calibrate(calibrator.examples, calibrator.run(params).records)
        return task, None if evaluator is None else evaluator.run(params, task)

    # A resumed interval's sums hold steps that another process took.
    clock, text = Clock(jax.device_get(now.sums) if step % config.train.log_every else {}), ""
    flying: collections.deque[Any] = collections.deque()
    final: Evaluation | None = None
    evaluated = False
    with (
        contextlib.closing(writer.MetricsWriter(workdir, step=step, active=chief)) as metrics,
        contextlib.closing(Progress("train", last, done=step, active=chief)) as bar,
    ):
        while step < last:
            build = functools.partial(batches.build, step=step)
            batch = sharding.put_rows(batches.full_rows(step), build, setup.mesh)
            now, sums = train_step(now, batch)
            step += 1
            flying.append(sums)
            if len(flying) > IN_FLIGHT:
                jax.block_until_ready(flying.popleft())
            if step % config.train.log_every == 0 or step == last:
                reached = jax.device_get(sums)
                line = objective_means(reached)
                line["grad_norm"] = float(reached["grad_norm"]) / float(reached["steps"])
                line["learning_rate"] = float(schedule(step - 1))
                line["epoch"] = step / batches.steps_per_epoch
                line |= clock.lap(reached)
                metrics.write(step, line)
                text = note(line)
            bar.advance(note=text)
            # Log, evaluate, then save: a checkpoint's step has all its lines, so resuming cuts the
            # file right behind them.
            evaluated = evaluation_due(step)
            if evaluated:
                jax.block_until_ready(sums)
                clock.pause()
                task, final = evaluate(now.params)
                calibration = calibration_of(task)
                if final is not None:
                    metrics.write(step, {prefixed(k): v for k, v in final.metrics.items()})
                    log.info(f"step {step}: {summary(final.metrics)}")
                    if best is not None:
                        best.offer(now.params, step, final.metrics)
                clock.resume()
            checkpoints.save(now, step, force=evaluated, calibration=calibration)

    params = now.params
    results: dict[str, float] = {"step": float(step)}
    if best is not None:
        best_step, params = best.restore(params)
        results["best_step"] = float(best_step)
        evaluated = evaluated and best_step == step
        best.close()
    if not evaluated:  # resumed at the end, or other weights selected
        task, final = evaluate(params)
    results |= final.metrics if final is not None else {}
    results |= {"padding_share": batches.padding_share(), "perf/compile_seconds": compile_seconds}
    results |= clock.totals()
    if chief:
        card = model_card(config, setup.model, results)
        setup.export(params, workdir / "export", task, card)
        if final is not None:
            writer.write_jsonl(workdir / "eval_predictions.jsonl", final.records)
        writer.write_json(workdir / "results.json", results)
    checkpoints.close()
    sharding.wait_for_all_hosts("done")
    examples = evaluator.examples if evaluator is not None else ()
    return Trained(results, setup, examples, final.records if final is not None else [])


def calibration_of(task: Task) -> dict[str, Any]:
    """The thresholds of a task that has any."""
    return task.calibration if isinstance(task, Calibrated) else {}


def prefixed(name: str) -> str:
    """The name of an evaluation's metric in metrics.jsonl; `perf/` stays in front."""
    return name if name.startswith("perf/") else f"eval/{name}"

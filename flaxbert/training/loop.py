"""The training loop: steps, lines of metrics, evaluations, checkpoints, and stopping if told to."""

import contextlib
import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

import jax

from flaxbert.errors import Preempted
from flaxbert.pipeline.predictor import Evaluation, objective_means
from flaxbert.runtime import memory, sharding
from flaxbert.runtime.checkpoint import BestParams, Checkpoints, Metadata
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.progress import Clock, Progress, note, summary
from flaxbert.runtime.trackers import jsonl
from flaxbert.tasks.base import Task
from flaxbert.training.monitors import FiniteGuard, LearningMonitor
from flaxbert.training.optim import Schedule, warmup_steps
from flaxbert.training.plan import Plan, thresholds_of
from flaxbert.training.state import TrainState
from flaxbert.training.step import TrainStep

log = logging.getLogger("flaxbert")

CLOCK_STEPS = 10
"""Steps between looks at the clock for `train.save_minutes`: all hosts ask the first one."""


class Loop:
    """A run from the step that it begins or continues at to its last one.

    Attributes:
      now: the state after `step`.
      step: optimizer steps taken.
      task: with the thresholds of the last evaluation.
      final: the last evaluation; None if it is not of `now`.
      clock: of the training speed.
    """

    def __init__(
        self,
        plan: Plan,
        workdir: Path,
        *,
        train_step: TrainStep,
        schedule: Schedule,
        now: TrainState,
        notes: Metadata,
        checkpoints: Checkpoints,
        best: BestParams | None,
        preemption: Preemption,
    ):
        """Everything compiled and restored; `notes` are of the checkpoint, or of a new run."""
        self._plan, self._workdir, self._config = plan, workdir, plan.setup.config.train
        self._train_step, self._schedule = train_step, schedule
        self._checkpoints, self._best, self._preemption = checkpoints, best, preemption
        self._notes = notes
        self.now, self.step = now, int(now.step)
        self.task: Task = plan.setup.task
        self.final: Evaluation | None = None
        # A resumed interval's sums hold steps that another process took.
        inside = self.step % self._config.log_every
        self.clock = Clock(jax.device_get(now.sums) if inside else {})
        self._flight = FiniteGuard(
            skipped=int(now.skipped),
            most=self._config.max_nonfinite_steps,
            describe=lambda step: (
                f"{float(schedule(step - 1)):.2g}",
                plan.data.origins(step - 1),
            ),
        )

    def run(self) -> None:
        """Take all steps; returns when the last checkpoint is written.

        Raises:
          Preempted: told to stop; the state is saved.
          DivergedError: see `Flight`.
        """
        active = jax.process_index() == 0
        metrics = jsonl.MetricsWriter(
            self._workdir, step=self.step, evaluated=self._notes.evaluated, active=active
        )
        bar = Progress("train", self._plan.last, done=self.step, active=active)
        warmup = warmup_steps(self._plan.setup.config.optim, self._plan.steps)
        after = min(3 * warmup, (warmup + self._plan.steps) // 2)
        watch = LearningMonitor(
            first_loss=metrics.first_loss,
            after=after,
            labels=len(self.task.labels),
            active=active,
        )
        # First in, last out: whatever ends this, what is being written is written to its end.
        with (
            memory.explained("training", memory.TRAINING, self._plan.batches),
            contextlib.closing(self._checkpoints),
            self._preemption.holding(),
            contextlib.closing(metrics),
            contextlib.closing(bar),
        ):
            if self.step == self._plan.last and metrics.logged < self.step:
                self._write_line(self.now.sums, metrics, watch)  # it was not the last one before
            if self.step and not self._notes.evaluated:  # nor was it evaluated, or a signal came
                self._conclude(metrics, watch)
            while self.step < self._plan.last:
                sums = self._take_step()
                if self.step % self._config.log_every == 0 or self.step == self._plan.last:
                    bar.note = self._write_line(sums, metrics, watch)
                bar.advance()
                # Log, evaluate, then save: a checkpoint's step has all its lines, so resuming cuts
                # the file right behind them. Only a signal comes between.
                self._conclude(metrics, watch)
            self._checkpoints.wait()
            if self._preemption.asked():  # after the last question
                raise self._stopped()

    def _take_step(self) -> Any:
        setup, batches = self._plan.setup, self._plan.batches
        build = functools.partial(batches.build, step=self.step)
        batch = sharding.make_global_batch(batches.full_rows(self.step), build, setup.mesh)
        self.now, sums = self._train_step(self.now, batch)
        self.step += 1
        self.final = None
        self._flight.add(self.step, sums)
        return sums

    def _write_line(self, sums: Any, metrics: jsonl.MetricsWriter, watch: LearningMonitor) -> str:
        """A line of metrics.jsonl; gives what stands beside the progress bar."""
        self._flight.settle()
        reached = jax.device_get(sums)
        steps = max(1.0, float(reached["steps"]))
        line = objective_means(reached)
        line |= {name: float(reached[name]) / steps for name in ("grad_norm", "lowest_grad_norm")}
        line["learning_rate"] = float(self._schedule(self.step - 1))
        line["epoch"] = self.step / self._plan.batches.steps_per_epoch
        watch.line(self.step, line)
        line |= self.clock.lap(reached)
        metrics.write(self.step, line)
        return note(line)

    def _conclude(self, metrics: jsonl.MetricsWriter, watch: LearningMonitor) -> None:
        """Evaluate and save, where that is due after a step or asked for by a signal."""
        due = self._plan.evaluation_due(self.step)
        stopping = self._preemption.asked()
        evaluated = due and not stopping and self._evaluate(metrics, watch)
        stopping = stopping or (due and not evaluated)
        save = stopping or evaluated or self.step % self._config.save_every == 0
        looked = self.step % CLOCK_STEPS == 0
        if save or (looked and self._checkpoints.late(self._config.save_minutes)):
            self._flight.settle()  # a checkpoint holds sound numbers or none
            best = self._best.noted if self._best is not None else None
            self._notes = dataclasses.replace(self._notes, evaluated=evaluated, best=best)
            metrics.sync()  # a checkpoint has the lines of all its steps, whatever is cut off when
            self._checkpoints.save(self.now, self.step, self._notes)
        if stopping:
            raise self._stopped()

    def _stopped(self) -> Preempted:
        return Preempted(
            f"stopped and saved after step {self.step} of {self._plan.last}; the same command "
            "continues"
        )

    def _evaluate(self, metrics: jsonl.MetricsWriter, watch: LearningMonitor) -> bool:
        """Evaluate; False if a signal cut it off."""
        self._flight.settle()
        self.clock.pause()
        try:
            self.task, self.final = self._plan.evaluate(self.now.params, self._preemption)
        except Preempted:
            return False
        self.clock.resume()
        self._notes = dataclasses.replace(self._notes, thresholds=thresholds_of(self.task))
        if self.final is not None:
            found = {prefixed(name): value for name, value in self.final.metrics.items()}
            metrics.write(self.step, found)
            log.info(f"step {self.step}: {summary(self.final.metrics)}")
            watch.records(self.step, self.final.records)
            if self._best is not None:
                self._best.offer(self.now.params, self.step, self.final.metrics)
        return True


def prefixed(name: str) -> str:
    """The name of an evaluation's metric in metrics.jsonl; `perf/` stays in front."""
    return name if name.startswith("perf/") else f"eval/{name}"

"""Metrics, evaluations and checkpoints of a run while it trains."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from flaxbert.config import TrainConfig
from flaxbert.errors import ConfigError, Preempted
from flaxbert.messages.language import tr
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pipeline.evaluator import Evaluation, Evaluator, mean_losses
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import multihost, sharding
from flaxbert.runtime.checkpoint import BestParams, Metadata
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.profiling import Profile
from flaxbert.runtime.progress import Clock, Progress, note, summary
from flaxbert.runtime.trackers import open_trackers
from flaxbert.runtime.trackers.background import BackgroundTrackers
from flaxbert.tasks.base import HasThresholds, Task
from flaxbert.tasks.classes import ClassTask
from flaxbert.training.data import TrainingData
from flaxbert.training.explain import Explainer
from flaxbert.training.monitors import FiniteGuard, LearningMonitor
from flaxbert.training.optim import Schedule
from flaxbert.training.plan import Plan
from flaxbert.training.resume import SavedRun
from flaxbert.training.state import StepSums, TrainState
from flaxbert.types import Params

log = logging.getLogger("flaxbert")

CLOCK_STEPS = 10
"""Steps between checks of the clock for `train.save_minutes`, which all hosts make together."""


@dataclasses.dataclass(frozen=True)
class Evaluators:
    """The evaluators of a run. Thresholds are fitted first, if the task has any."""

    task: Task
    eval: Evaluator | None
    """The evaluator of `data.eval`."""
    thresholds: Evaluator | None
    """The evaluator of the examples that thresholds are fitted on (`data.threshold_split`)."""
    keep_best: str | None = None
    """The metric that selects the parameters to export: `train.keep_best`, or the first one if
    only early stopping needs it; None exports the last parameters."""

    @classmethod
    def make(cls, pipeline: Pipeline, data: TrainingData, config: TrainConfig) -> "Evaluators":
        """Make the evaluators of a run's data sets.

        Raises:
          ConfigError: if `train.keep_best` names a metric that no evaluation gives.
        """
        evaluated, thresholds = (
            Evaluator(pipeline, part) if part else None for part in (data.eval, data.thresholds)
        )
        if evaluated is None:
            return cls(pipeline.task, None, thresholds)
        keep_best, known = config.keep_best, evaluated.metric_names
        if keep_best and keep_best not in known:
            raise ConfigError(
                f"train.keep_best={keep_best!r}: the evaluation gives {', '.join(known)}"
            )
        if config.early_stopping and not keep_best:
            keep_best = known[0]
        return cls(pipeline.task, evaluated, thresholds, keep_best)

    def start_compiling(self, params: Params) -> Callable[[], None]:
        """Start to compile all programs; return a function that waits until they are compiled."""
        evaluators = [part for part in (self.eval, self.thresholds) if part is not None]
        pending = [evaluator.start_compiling(params) for evaluator in evaluators]

        def finish() -> None:
            for finish_evaluator in pending:
                finish_evaluator()

        return finish

    def run(self, params: Params, preemption: Preemption) -> tuple[Task, Evaluation | None]:
        """Fit thresholds, then evaluate with them.

        Returns:
          The task with its thresholds, and the evaluation; None without `data.eval`.

        Raises:
          Preempted: if a signal came.
        """
        task: Any = self.task
        if self.thresholds is not None and isinstance(task, HasThresholds):
            predictions = self.thresholds.run(params, preemption=preemption).predictions
            task = task.calibrate(self.thresholds.data.examples, predictions)
        if self.eval is None:
            return task, None
        return task, self.eval.run(params, task, preemption=preemption)

    def open_best(self, directory: Path, metadata: Metadata) -> BestParams | None:
        """Open the parameters with the best value of `keep_best`; None without that metric."""
        if not self.keep_best or self.eval is None:
            return None
        better_is: Literal["lower", "higher"] = (
            "lower" if self.eval.lower_is_better(self.keep_best) else "higher"
        )
        return BestParams(directory, self.keep_best, metadata.best, better_is=better_is)


class Run:
    """Metric lines, evaluations and checkpoints of a run, and the monitors that read them.

    Attributes:
      task: the task, with the thresholds that were fitted last.
      evaluation: the evaluation of the current parameters; None if they were not evaluated.
      checkpoints: the checkpoints of the training state.
      profile: records some of the steps; the caller may set it.
      explainer: explains the run to a person.
      clock: measures the training speed.
      evaluated: whether the evaluation after the step that the run resumes from is complete.
    """

    def __init__(
        self,
        saved: SavedRun,
        metadata: Metadata,
        state: TrainState,
        plan: Plan,
        schedule: Schedule,
        data: Dataset,
        evaluators: Evaluators,
        best: BestParams | None,
        background: BackgroundTrackers,
        explainer: Explainer,
        config: TrainConfig,
    ):
        """Open the log files of a run, cut back to the step of its state.

        Args:
          saved: the workdir and its checkpoints.
          metadata: metadata of the checkpoint that the run resumes from, or of a new run.
          state: the state that it begins or resumes with.
          plan: when to log, evaluate and save.
          schedule: the learning rate by step, from 0.
          data: the training data, to name the examples of a step.
          evaluators: the evaluators of the run.
          best: from `Evaluators.open_best`.
          background: receives all metric lines and the results too; the caller closes it.
          explainer: explains the evaluations to a person.
          config: the section `train` of the configuration.
        """
        step, active = int(state.step), multihost.is_lead_host()
        _log_resumed(saved, step, plan, schedule)
        self._metadata, self._plan, self._schedule = metadata, plan, schedule
        self._evaluators, self._save_minutes = evaluators, config.save_minutes
        self.checkpoints, self.profile = saved.checkpoints, Profile(saved.workdir.local, range(0))
        self._best, self.explainer, self._workdir = best, explainer, saved.workdir
        # If train.keep_best is new, the checkpoint's evaluation has not chosen any parameters.
        self.evaluated = metadata.evaluated and (best is None or best.best is not None)
        self.task: Task = evaluators.task
        self.evaluation: Evaluation | None = None
        # Between two lines, the sums include steps that another process took.
        self.clock = Clock(_sizes(jax.device_get(state.sums)) if step % plan.log_every else {})
        self._trackers = open_trackers(
            saved.workdir.local, background, step=step, evaluated=self.evaluated, active=active
        )
        self._bar = Progress(tr("train"), plan.stop_step, done=step, active=active)
        self._lines: list[tuple[int, StepSums]] = []
        """Lines whose sums the device may not have computed yet, by step."""
        self._guard = FiniteGuard(
            step=step,
            skipped=int(state.skipped),
            max_skipped=config.max_nonfinite_steps,
            learning_rate=lambda step: float(schedule(step - 1)),
            origins=lambda step: data.origins(step - 1),
        )
        self._monitor = LearningMonitor(
            first_loss=self._trackers.first_loss,
            after=plan.learning_by,
            labels=len(self.task.labels) if isinstance(self.task, ClassTask) else 0,
            active=active,
        )

    @property
    def last_logged_step(self) -> int:
        """The step of the last line about training when the run was opened."""
        return self._trackers.last_logged_step

    def add(self, step: int, skipped: Any) -> None:
        """Record a step that was sent to the device; check an earlier one, and write its line.

        The guard waits for the step before the previous one, so that the host does not run too far
        ahead. Its sums are then on the device, and reading them stalls nothing.

        Raises:
          DivergedError: see `FiniteGuard`.
        """
        self.evaluation = None  # it was of the previous parameters
        self._guard.add(step, skipped)
        self._write_lines()
        self.profile.finish(step, skipped)

    def advance(self) -> None:
        """Move the progress bar."""
        self._bar.advance()

    def log(self, step: int, sums: StepSums) -> None:
        """Log the means over the steps since the last line, as soon as `step` was checked."""
        self._lines.append((step, sums))

    def flush(self) -> None:
        """Wait for the device, check all steps, and write the lines about them.

        Raises:
          DivergedError: see `FiniteGuard`.
        """
        try:
            self._guard.drain()
        finally:
            self._write_lines()

    def _write_lines(self) -> None:
        while self._lines and self._lines[0][0] <= self._guard.checked:
            self._write_line(*self._lines.pop(0))

    def _write_line(self, step: int, sums: StepSums) -> None:
        host: StepSums = jax.tree.map(float, jax.device_get(sums))
        if not host.steps:  # all steps were skipped, and have no loss
            return
        steps = float(host.steps)
        line = mean_losses(host.losses)
        line["grad_norm"] = float(host.grad_norm) / steps
        line["lowest_grad_norm"] = float(host.first_layer_grad_norm) / steps
        line["learning_rate"] = float(self._schedule(step - 1))
        line["epoch"] = self._plan.epoch(step)
        self._monitor.check_line(step, line)
        line |= self.clock.lap(_sizes(host))
        self._trackers.log(step, line)
        self._bar.note = note(line)
        self.explainer.logged(step, line)

    def evaluate(self, step: int, params: Params, preemption: Preemption) -> bool:
        """Evaluate and log; return False if a signal interrupted the evaluation."""
        self.flush()
        self.clock.pause()
        try:
            self.task, self.evaluation = self._evaluators.run(params, preemption)
        except Preempted:
            return False
        self.clock.resume()
        thresholds = thresholds_of(self.task)
        self._metadata = dataclasses.replace(self._metadata, thresholds=thresholds)
        if self.evaluation is not None:
            metrics = self.evaluation.metrics
            self._trackers.log(step, {eval_name(name): value for name, value in metrics.items()})
            log.info(f"step {step}: {summary(metrics)}")
            self._monitor.check_predictions(
                step,
                self.evaluation.predictions,
                self.task.answer_key,
                self.task.same_answer_advice,
            )
            self.explainer.evaluated(step, metrics)
            if self._best is not None:
                # On several hosts, Orbax's messages about two writings at once would collide.
                self.checkpoints.wait()
                self._best.maybe_save(params, step, metrics)
        return True

    @property
    def patience(self) -> int:
        """Evaluations without a better one that end the run; 0 without early stopping."""
        return self._plan.patience

    def stops_early(self, step: int) -> bool:
        """Return whether the run ends with the evaluation after `step`; see `Plan.stops_early`."""
        best = self._best.best if self._best is not None else None
        return best is not None and self._plan.stops_early(step, best["step"])

    def summarize(self, results: Mapping[str, float]) -> None:
        """Log the final results with the trackers that are still open."""
        self._trackers.summarize(results)

    def save_due(self, step: int) -> bool:
        """Return whether a checkpoint is due by the clock (`train.save_minutes`)."""
        return step % CLOCK_STEPS == 0 and self.checkpoints.save_due(self._save_minutes)

    def save(self, step: int, state: TrainState, *, evaluated: bool) -> None:
        """Save the state after `step`, once it is known to be finite."""
        self.flush()
        best = self._best.best if self._best is not None else None
        self._metadata = dataclasses.replace(self._metadata, evaluated=evaluated, best=best)
        self._trackers.sync()  # a checkpoint's step has all its lines, even if the machine is lost
        self._workdir.upload()
        self.checkpoints.save(state, step, self._metadata)

    def close(self) -> None:
        """Close the profile, the progress bar and the trackers.

        If an error ended the training, the lines of steps that were computed are written first.
        """
        with (
            contextlib.closing(self._trackers),
            contextlib.closing(self._bar),
            contextlib.closing(self.profile),
            contextlib.suppress(Exception),  # the device may have failed: that error is raised
        ):
            self.flush()

    def final(
        self, state: TrainState, preemption: Preemption
    ) -> tuple[Params, Task, Evaluation | None, int | None]:
        """Return the parameters to export, with their task and evaluation.

        Returns:
          The parameters in the memory of the lead host; the task with its thresholds; the
          evaluation, None without `data.eval`; the step of the best parameters, None without
          `train.keep_best`.

        Raises:
          Preempted: if a signal came in an evaluation.
        """
        params, evaluation, best_step = state.averaged, self.evaluation, None
        if self._best is not None:
            if self.stops_early(int(state.step)):
                log.info(
                    f"step {int(state.step)}: training ended before step {self._plan.stop_step}, "
                    f"because {self.patience} evaluations (train.early_stopping) gave no better "
                    f"value than {self._best.describe()}"
                )
            best_step, params = self._best.restore(params)
            self._best.close()
            evaluation = evaluation if best_step == int(state.step) else None
        task = self.task
        if evaluation is None:  # the run had already ended, or the best are not the last ones
            task, evaluation = self._evaluators.run(params, preemption)
        return sharding.on_lead_host(params), task, evaluation, best_step


def _log_resumed(saved: SavedRun, step: int, plan: Plan, schedule: Schedule) -> None:
    if saved.step is None:
        return
    left = f"learning rate {float(schedule(step)):.2g}"
    left = left if step < plan.stop_step else "nothing left to train"
    log.info(f"resuming {saved.workdir} after step {step} of {plan.stop_step}: {left}")


def _sizes(sums: StepSums) -> dict[str, Any]:
    return {"examples": sums.examples, "tokens": sums.tokens, "steps": sums.steps}


def eval_name(name: str) -> str:
    """Return the name in metrics.jsonl of an evaluation's metric; `perf/` stays in front."""
    return name if name.startswith("perf/") else f"eval/{name}"


def thresholds_of(task: Task) -> dict[str, Any]:
    """Return a task's thresholds, of JSON's types; empty for a task without any."""
    return task.stored_thresholds if isinstance(task, HasThresholds) else {}

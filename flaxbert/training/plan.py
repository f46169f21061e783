"""The plan of a run: the step numbers at which it logs, evaluates, saves and stops."""

import dataclasses
import logging
from collections.abc import Iterator

from flaxbert.config import OptimConfig, TrainConfig
from flaxbert.data.batching import Batches
from flaxbert.errors import ConfigError
from flaxbert.runtime import multihost
from flaxbert.training.optim import warmup_steps

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a run, and what is due after each. Steps count from 1 once they are taken."""

    schedule_steps: int
    """Steps of the learning-rate schedule."""
    stop_step: int
    """The last step: `schedule_steps`, or `train.max_steps` if that is lower."""
    steps_per_epoch: int
    warmup: int
    """Steps of warm-up."""
    log_every: int
    eval_every: int
    """0: only the last step is evaluated."""
    save_every: int
    patience: int = 0
    """Evaluations without a better one after which the run stops (`train.early_stopping`)."""

    @classmethod
    def make(cls, train: TrainConfig, optim: OptimConfig, batches: Batches) -> "Plan":
        """Return the plan of a run; warn about a learning rate that is probably a mistake.

        Args:
          train: how long it trains, and how often it logs, evaluates and saves.
          optim: the warm-up of the learning rate.
          batches: the training batches, which give the number of steps.
        """
        steps, steps_per_epoch = batches.steps, batches.steps_per_epoch
        plan = cls(
            schedule_steps=steps,
            stop_step=min(steps, train.max_steps or steps),
            steps_per_epoch=steps_per_epoch,
            warmup=warmup_steps(optim, steps),
            log_every=train.log_every,
            eval_every=steps_per_epoch if train.eval_every is None else train.eval_every,
            save_every=train.save_every,
            patience=train.early_stopping,
        )
        if multihost.is_lead_host():
            for warning in schedule_warnings(plan, train, optim):
                log.warning(warning)
        return plan

    def log_due(self, step: int) -> bool:
        """Return whether a line of metrics is due after `step`."""
        return step % self.log_every == 0 or step == self.stop_step

    def eval_due(self, step: int) -> bool:
        """Return whether an evaluation is due after `step`."""
        return step == self.stop_step or (self.eval_every > 0 and step % self.eval_every == 0)

    def save_due(self, step: int) -> bool:
        """Return whether a checkpoint is due after `step`, apart from those of evaluations."""
        return step % self.save_every == 0

    def stops_early(self, step: int, best_step: int) -> bool:
        """Return whether the evaluation after `step` ends the run (Prechelt 1998, "Early stopping
        - but when?"): as many evaluations as the patience gave nothing better than `best_step`.

        They are counted from the steps alone, so a run that resumes counts on.
        """
        waited = step - best_step
        return 0 < self.patience * self.eval_every <= waited and step < self.stop_step

    @property
    def learning_by(self) -> int:
        """The step by which a model that learns should have a lower loss than at the start."""
        return min(3 * self.warmup, (self.warmup + self.schedule_steps) // 2)

    def check_profile(self, steps: range, done: int) -> None:
        """Check that the run still takes the steps to profile; warn if a resumed run does not.

        Args:
          steps: the steps to profile; may be empty.
          done: the steps that the run has taken.

        Raises:
          ConfigError: if the run ends before them.
        """
        if steps and steps.start > self.stop_step:
            raise ConfigError(
                f"--profile={steps.start}:{steps.stop}: the run ends after step {self.stop_step}. "
                "Give earlier steps."
            )
        if steps and steps.stop - 1 <= done and multihost.is_lead_host():
            log.warning(
                f"--profile={steps.start}:{steps.stop}: no profile, because the run resumes after "
                f"step {done}. Give later steps."
            )

    def epoch(self, step: int) -> float:
        """Return the number of passes over the training data after `step`."""
        return step / self.steps_per_epoch


def schedule_warnings(plan: Plan, train: TrainConfig, optim: OptimConfig) -> Iterator[str]:
    """Yield a warning for each setting of the learning rate that is probably a mistake."""
    steps, stop = plan.schedule_steps, train.max_steps
    if optim.warmup >= 1 and round(optim.warmup) > plan.warmup:
        yield (
            f"optim.warmup={optim.warmup:g} steps, but the run has {steps}: the warm-up ends "
            f"before the last step, after {plan.warmup}. Give a share of the run, such as "
            "--config.optim.warmup=0.1."
        )
    elif stop and stop <= plan.warmup:
        yield (
            f"train.max_steps={stop} stops in the warm-up of {plan.warmup} steps: the learning "
            f"rate stays below optim.learning_rate={optim.learning_rate:g}. For a short run, lower "
            "train.epochs instead; the schedule follows it."
        )
    if stop and stop > steps:
        yield (
            f"train.max_steps={stop}, but train.epochs={train.epochs:g} gives {steps} steps: the "
            "run ends there. To train longer, raise train.epochs."
        )

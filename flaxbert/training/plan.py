"""What a run does at which step: a function of the configuration and the data alone."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from flaxbert.config import Config
from flaxbert.data import checks
from flaxbert.data.batching import Batches
from flaxbert.errors import ConfigError, DataError, shortened
from flaxbert.pipeline.datasets import Dataset, read_table
from flaxbert.pipeline.pipeline import Pipeline, prepare, read_examples
from flaxbert.pipeline.predictor import Evaluation, Evaluator
from flaxbert.pretrained import mapping
from flaxbert.runtime.preemption import Preemption
from flaxbert.tasks.base import HasThresholds, HasUnits, Task
from flaxbert.training.optim import warmup_steps
from flaxbert.types import Params

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The data sets of a run, and its steps."""

    setup: Pipeline
    data: Dataset
    """To train on."""
    steps: int
    """Of the learning-rate schedule."""
    last: int
    """The step to stop after: `steps`, or `train.max_steps` if that is less."""
    evaluator: Evaluator | None
    calibrator: Evaluator | None
    left_out: dict[str, float]
    """Lines, rows and answers left out of each data set (`data.on_bad_row=skip`), and questions
    that no prediction can answer."""
    commits: dict[str, str]
    """{config key: commit} of what is from the hub, where data may change under the same name."""

    @classmethod
    def make(cls, config: Config, init: str) -> "Plan":
        """Read and tokenise all data: a mistake in it shows before any weight is read.

        Args:
          config: validated.
          init: `config.model.init`, or what stands for it in a run that continues.

        Raises:
          UserError: see `setup.prepare`; for `train.keep_best` that no evaluation gives.
        """
        table = read_table(config.data, "train")
        raw = read_examples(config, table, labeled=True)
        setup = prepare(config, init, raw)
        reading = setup.task.resolve(raw)
        checks.log_issues(reading.issues)
        examples = list(reading)
        kept, held_out = setup.hold_out(examples)
        size = config.train.batch_size
        data = setup.dataset(kept, table, batch_size=size, labeled=True, training=True)
        if reason := setup.task.nothing_to_learn(data.batches.features):
            raise DataError(f"{table.source}: nothing to learn from: {reason}.")
        steps = math.ceil(data.batches.steps_per_epoch * config.train.epochs)
        # Heights for the whole schedule: max_steps must not change how a step is computed.
        data = dataclasses.replace(data, batches=dataclasses.replace(data.batches, steps=steps))
        calibrator = None
        if held_out:
            apart = dataclasses.replace(table, source=f"{table.source}, held out")
            calibrator = Evaluator.of(setup, held_out, apart, labeled=True)
        commits = {"model.init": setup.commit, "data.train": table.commit}
        malformed = table.malformed + reading.malformed + len(data.batches.features.dropped)
        malformed += len(calibrator.data.batches.features.dropped) if calibrator else 0
        left_out = {"data/train/malformed": float(malformed)}
        left_out |= data.batches.features.counts("train")
        evaluator = None
        if config.data.eval:
            evaluated = read_table(config.data, "eval")
            evaluator = Evaluator.open(setup, evaluated, labeled=True)
            commits["data.eval"] = evaluated.commit
            left_out["data/eval/malformed"] = float(evaluator.malformed)
            left_out |= evaluator.data.batches.features.counts("eval")
        _remark(setup.task, examples, evaluator.examples if evaluator else ())
        wanted = config.train.keep_best
        if wanted and evaluator is not None and wanted not in evaluator.metric_names:
            known = ", ".join(evaluator.metric_names)
            raise ConfigError(f"train.keep_best={wanted!r}: the evaluation gives {known}")
        last = min(steps, config.train.max_steps or steps)
        if jax.process_index() == 0:
            for line in doubtful_schedule(config, steps):
                log.warning(line)
        pinned = {key: commit for key, commit in commits.items() if commit}
        return cls(setup, data, steps, last, evaluator, calibrator, left_out, pinned)

    @property
    def batches(self) -> Batches:
        """Of training."""
        return self.data.batches

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each data set's examples, and the units of training if they differ.

        By them a file that has changed under its name is known, and a run of an earlier version
        whose weights compute in other units.
        """
        parts = {"train": self.data}
        parts |= {"eval": self.evaluator.data} if self.evaluator else {}
        parts |= {"held out": self.calibrator.data} if self.calibrator else {}
        task = self.setup.task
        labels = task.labels
        units = {"units": task.units} if isinstance(task, HasUnits) and task.units else {}
        return {name: data.fingerprint(labels) for name, data in parts.items()} | units

    def compared(self, params: Params | None) -> dict[str, Any]:
        """Return what must be the same on all hosts; `params` are those of a new run."""
        parts = {f"examples, {name}": digest for name, digest in self.fingerprints().items()}
        digests = {} if params is None else mapping.digests(params)
        return {
            "labels": list(self.setup.task.labels),
            **parts,
            **{f"weights, {part}": digest for part, digest in digests.items()},
            "steps": (self.steps, self.last),
            "rows of a step": list(self.batches.bucket_sizes),
        }

    def evaluation_due(self, step: int) -> bool:
        """Whether there is an evaluation after `step`."""
        every = self.setup.config.train.eval_every
        every = self.batches.steps_per_epoch if every is None else every
        return step == self.last or (every > 0 and step % every == 0)

    def evaluate(self, params: Params, preemption: Preemption) -> tuple[Task, Evaluation | None]:
        """Fit thresholds where there are any, then evaluate with them.

        Raises:
          Preempted: told to stop.
        """
        task: Any = self.setup.task
        if self.calibrator is not None and isinstance(task, HasThresholds):
            records = self.calibrator.run(params, preemption=preemption).records
            task = task.calibrate(self.calibrator.examples, records)
        if self.evaluator is None:
            return task, None
        return task, self.evaluator.run(params, task, preemption=preemption)


def doubtful_schedule(config: Config, steps: int) -> Iterator[str]:
    """Yield what is probably not meant about the learning rate of a run of `steps`."""
    optim, stop = config.optim, config.train.max_steps
    wanted, warmup = round(optim.warmup), warmup_steps(optim, steps)
    if optim.warmup >= 1 and wanted > warmup:
        yield (
            f"optim.warmup={optim.warmup:g} steps, but the run has {steps}: the warm-up ends "
            f"before the last step, after {warmup}. Give a share of the run, such as "
            "--config.optim.warmup=0.1."
        )
    elif stop and stop <= warmup:
        yield (
            f"train.max_steps={stop} stops in the warm-up of {warmup} steps: the learning rate "
            f"stays below optim.learning_rate={optim.learning_rate:g}. For a short run of its own "
            "lower train.epochs instead, which the schedule follows."
        )
    if stop and stop > steps:
        yield (
            f"train.max_steps={stop}, but train.epochs={config.train.epochs:g} gives {steps} "
            "steps: the run ends there. For a longer one raise train.epochs."
        )


def _remark(task: Task, train: Sequence[Any], evaluated: Sequence[Any]) -> None:
    """Warn of what is doubtful in examples; to read the files once more is left to the linter."""
    if jax.process_index() != 0:
        return
    names = task.labels
    if counts := checks.label_counts(train, names):
        shown = shortened([f"{name} {counts[name]}" for name in names])
        log.info(f"labels of {len(train)} training examples: {', '.join(shown)}")
    found = [
        *checks.check_examples([*train, *evaluated]),
        *checks.compare_splits(train, evaluated, names),
    ]
    for line in checks.summarize(found, "flaxbert lint --config=..."):
        log.warning(line)


def thresholds_of(task: Task) -> dict[str, Any]:
    """The thresholds of a task that has any."""
    return task.stored_thresholds if isinstance(task, HasThresholds) else {}

"""What a run does and why, in sentences for a person who watches it.

The sentences about numbers are those of the report (report/words.py).
"""

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from flaxbert.config import Config
from flaxbert.messages.language import language, plural, tr
from flaxbert.report import words
from flaxbert.report.hints import hint_texts
from flaxbert.report.page import assess, evaluated_of
from flaxbert.report.rundir import read_run
from flaxbert.runtime import multihost, progress
from flaxbert.runtime.checkpoint import Metadata
from flaxbert.training.data import TrainingData
from flaxbert.training.plan import Plan

log = logging.getLogger("flaxbert")

SHORT = 20.0
"""Seconds of training that need no forecast."""

EVALUATIONS = 10
"""Evaluations that are explained; of more, some at equal distances."""

HINTS = 3
"""Hints at the end of a run; the report has all."""


class Explainer:
    """Explains a run to a person: before the first step, at evaluations, and at the end.

    It only reads what the run has anyway, so it changes no result.
    """

    def __init__(self, task: str = "", plan: Plan | None = None):
        """Create an explainer.

        Args:
          task: the name of the task.
          plan: the steps of the run; None explains nothing.
        """
        self._task, self._plan = task, plan
        self._evaluations = 0
        self._losses: list[float] = []
        self._forecast = False

    @classmethod
    def begin(
        cls,
        active: bool | None,
        config: Config,
        plan: Plan,
        data: TrainingData,
        metadata: Metadata,
        done: int,
    ) -> "Explainer":
        """Return the explainer of a run, after it has explained what the run begins with.

        Args:
          active: whether to explain anything; None if a person watches, see `progress.is_watched`.
          config: the configuration.
          plan: the steps of the run.
          data: its data sets.
          metadata: holds the numbers of loaded and new parameters.
          done: the steps that are taken already.
        """
        language()  # an unknown one is an error now, not after hours
        if not (progress.is_watched() if active is None else active):
            return cls()
        if not multihost.is_lead_host():
            return cls()
        explainer = cls(config.task, plan)
        sizes = metadata.parameters or {}
        parts = {"train": data.train, "eval": data.eval}
        counts = {name: len(part.examples) for name, part in parts.items() if part is not None}
        cut = data.train.batches.features.truncated_count
        _show(words.weights(sizes.get("loaded", 0), sizes.get("new", 0)))
        _show(words.examples(config.task, counts, cut, config.data.max_length))
        _show(explainer._steps(counts["train"], done))
        return explainer

    def _steps(self, count: int, done: int) -> Iterable[str]:
        """Yield what the steps do."""
        assert self._plan is not None
        each, last = self._plan.steps_per_epoch, self._plan.stop_step
        yield tr(
            "An epoch reads every example once, in {each} of {batch}; {epochs} are {all}.",
            each=plural(each, "1 step", "{n} steps"),
            batch=plural(max(1, round(count / each)), "1 example", "about {n} examples"),
            epochs=self._epochs(last),
            all=plural(last, "1 step", "{n} steps"),
        )
        yield tr(
            "In each step the model predicts, its error (the loss) is measured, and the weights "
            "move a little so that it gets smaller."
        )
        if 0 < done < last:
            yield tr("The run continues after step {done}.", done=done)

    def _epochs(self, step: int) -> str:
        assert self._plan is not None
        epochs = self._plan.epoch(step)
        return tr("1 epoch") if epochs == 1 else tr("{n} epochs", n=f"{epochs:.3g}")

    def logged(self, step: int, line: Mapping[str, float]) -> None:
        """Forecast, once, how long the training takes, from a line of metrics.jsonl."""
        if self._plan is None or self._forecast:
            return
        self._forecast = True
        seconds = line["perf/step_seconds"] * (self._plan.stop_step - step)
        if seconds > SHORT:
            _show([tr("The rest of the training takes about {time}.", time=duration(seconds))])

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Explain an evaluation after a step."""
        if self._plan is None:
            return
        self._evaluations += 1
        planned = self._plan.stop_step / (self._plan.eval_every or self._plan.stop_step)
        if self._evaluations % math.ceil(planned / EVALUATIONS) and step < self._plan.stop_step:
            return
        if "loss" in metrics:
            self._losses.append(metrics["loss"])
        text = words.evaluated(self._task, metrics, self._losses)
        _show([tr("After {epochs}: {text}.", epochs=self._epochs(step), text=text)])

    def finish(self, workdir: Path) -> None:
        """Explain the results, and suggest what to try next, from the files of the run."""
        if self._plan is None:
            return
        try:
            files = read_run(workdir)
            quality = assess(evaluated_of(files))
            _show(words.score(files, quality))
            for hint in list(hint_texts(files, quality))[:HINTS]:
                _show([hint])
        except Exception as error:  # the results are complete
            log.warning(f"{workdir}: cannot be explained ({type(error).__name__}: {error})")


def _show(sentences: Iterable[str]) -> None:
    """Show sentences as one paragraph."""
    if text := " ".join(sentences):
        progress.show(text)


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return plural(round(seconds), "1 second", "{n} seconds")
    if seconds < 5400:
        return plural(round(seconds / 60), "1 minute", "{n} minutes")
    return plural(round(seconds / 3600), "1 hour", "{n} hours")

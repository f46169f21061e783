"""Monitors of training: values that are not finite, and runs that learn nothing.

A step whose loss or gradient is not finite changes nothing (see step.py). The host detects it
here, a few steps later.
"""

import collections
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from flaxbert.errors import DivergedError
from flaxbert.types import Prediction

log = logging.getLogger("flaxbert")

IN_FLIGHT = 2
"""Steps that may be queued on the device before the host waits for the oldest of them."""

SHOWN = 8
"""Examples of a batch that an error lists; the log has all of them."""

VANISHED = 1e-6
"""Share of the gradient's norm below which the lowest layer learns nothing in float32."""

UNMOVED = 0.98
"""By the end of the warm-up a loss should be below this share of its first value, or be falling."""

NEAR, LINES = 0.02, 5
"""A loss within this relative distance of guessing, in this many lines in a row, is guessing. A
trend of the loss also needs this many lines."""

RISK = 0.05
"""Probability that a loss without any trend is taken for a falling one."""


class FiniteGuard:
    """A queue of steps that checks each for non-finite values once the device has computed it.

    Attributes:
      checked: the last step that was checked, and did not end the run.
    """

    def __init__(
        self,
        *,
        step: int,
        skipped: int,
        max_skipped: int,
        learning_rate: Callable[[int], float],
        origins: Callable[[int], list[str]],
    ):
        """Create a guard.

        Args:
          step: the last step before.
          skipped: steps skipped before.
          max_skipped: steps that may be skipped in all; 0 stops at the first.
          learning_rate: returns the learning rate of a step.
          origins: returns the places that a step's examples were read from.
        """
        self.checked, self._skipped, self._max_skipped = step, skipped, max_skipped
        self._learning_rate, self._origins = learning_rate, origins
        self._queued: collections.deque[tuple[int, Any]] = collections.deque()

    def add(self, step: int, skipped: Any) -> None:
        """Add a queued step; `skipped` is the device's count of skipped steps after it.

        Raises:
          DivergedError: see `drain`.
        """
        self._queued.append((step, skipped))
        self.drain(IN_FLIGHT)

    def drain(self, in_flight: int = 0) -> None:
        """Wait until at most `in_flight` steps are queued, and check the others.

        Raises:
          DivergedError: at a step that is not finite, if no more steps may be skipped.
        """
        while len(self._queued) > in_flight:
            step, pending = self._queued.popleft()
            skipped = int(jax.device_get(pending))
            if skipped > self._skipped:
                self._skipped = skipped
                self._report(step)
            self.checked = step

    def _report(self, step: int) -> None:
        origins = self._origins(step)
        shown = ", ".join(origins[:SHOWN]) + (", ..." if len(origins) > SHOWN else "")
        problem = (
            f"step {step}: the loss or its gradient is not finite (learning rate "
            f"{self._learning_rate(step):.2g}; examples {shown})"
        )
        if self._skipped <= self._max_skipped:
            log.warning(f"{problem}; skipped, {self._skipped} of at most {self._max_skipped}")
            return
        self._queued.clear()  # later steps do not count
        log.info(f"the examples of step {step}: {', '.join(origins)}")
        raise DivergedError(
            f"{problem}. The checkpoints before it are intact. Lower optim.learning_rate or "
            "lengthen optim.warmup, look at these examples, and with bfloat16 try "
            "model.dtype=float32; or skip such steps: "
            f"--config.train.max_nonfinite_steps={self._skipped + 9}."
        )


class LearningMonitor:
    """A monitor that warns, once for each symptom, about a run that does not learn."""

    def __init__(
        self, *, first_loss: float | None, after: int, labels: int = 0, active: bool = True
    ):
        """Create a monitor.

        Args:
          first_loss: the loss of a resumed run's first line; None for a new run.
          after: the step by which a run that learns shows it (`Plan.learning_by`).
          labels: the number of labels of which one is predicted; 0 for other tasks.
          active: whether to warn; only one of several hosts does.
        """
        self._after, self._active = after, active
        self._chance = math.log(labels) if labels > 1 else math.inf
        self._losses = [] if first_loss is None else [first_loss]
        self._guessed = 0
        self._warned: set[str] = set()

    def check_line(self, step: int, line: Mapping[str, float]) -> None:
        """Check a line of metrics.jsonl."""
        if not self._active:
            return
        loss = line["loss"]
        self._losses.append(loss)
        enough = step >= self._after and len(self._losses) >= LINES
        if enough and "loss" not in self._warned:
            self._warned.add("loss")  # checked once: later it may be constant
            if loss > UNMOVED * self._losses[0] and not falls(self._losses):
                self._warned.add("chance")  # it would repeat this warning
                log.warning(
                    f"step {step}: the warm-up is over, and the training loss ({loss:.4f}) is "
                    f"where it began ({self._losses[0]:.4f}): the model has learned nothing so "
                    "far. If that does not change, try another optim.learning_rate (2e-5 to 5e-5 "
                    "are usual for BERT-base, up to 2e-4 for smaller models), more epochs or "
                    "another train.seed, and check that the labels fit the texts (flaxbert lint)."
                )
        self._guessing(step, loss)
        vanished = line["lowest_grad_norm"] <= VANISHED * line["grad_norm"]
        if vanished and "gradient" not in self._warned:
            self._warned.add("gradient")
            log.warning(
                f"step {step}: the gradient of the encoder's first layer has vanished "
                f"({line['lowest_grad_norm']:.1e} of {line['grad_norm']:.1e}): the encoder does "
                "not learn. Start again with a lower optim.learning_rate or a longer optim.warmup, "
                "and keep optim.bias_correction=true."
            )

    def _guessing(self, step: int, loss: float) -> None:
        near = step >= self._after and abs(loss - self._chance) < NEAR * self._chance
        self._guessed = self._guessed + 1 if near else 0
        guessing = self._guessed >= LINES and not falls(self._losses[-self._guessed :])
        if guessing and "chance" not in self._warned:
            self._warned.add("chance")
            log.warning(
                f"step {step}: the training loss ({loss:.4f}) stays at that of guessing among the "
                f"labels ({self._chance:.4f}). Start again with a lower optim.learning_rate (2e-5 "
                "to 5e-5 are usual for BERT), a longer optim.warmup, or another train.seed."
            )

    def check_predictions(
        self, step: int, predictions: Sequence[Prediction], answer_key: str | None, advice: str = ""
    ) -> None:
        """Check the predictions of an evaluation: they should not all be the same.

        Args:
          step: the step of the evaluation.
          predictions: the predictions for its examples.
          answer_key: `Task.answer_key`; None checks nothing.
          advice: `Task.same_answer_advice`.
        """
        if "predictions" in self._warned or not self._active or len(predictions) < 2:
            return
        if answer_key not in predictions[0] or step < self._after:
            return  # nothing to compare; or early, when every model predicts one answer
        # A sentence whose words all have one tag counts as that tag, whatever its length.
        answers = {json.dumps(_single(p[answer_key]), ensure_ascii=False) for p in predictions}
        if len(answers) == 1:
            self._warned.add("predictions")
            log.warning(
                f"step {step}: all {len(predictions)} predictions have the same {answer_key}, "
                f"{answers.pop()}. If it stays like that, train longer, try another "
                f"optim.learning_rate or another train.seed{advice and f'; {advice}'}."
            )


def falls(losses: Sequence[float]) -> bool:
    """Return whether losses fall, however slowly, by Kendall's test: it ignores their scale."""
    import scipy.stats  # takes a second

    order = scipy.stats.kendalltau(range(len(losses)), losses, alternative="less")
    return bool(order.pvalue < RISK)


def _single(answer: Any) -> Any:
    """Return the only element of a list of equal elements, as a list; else the answer itself."""
    values = answer if isinstance(answer, list) else []
    equal = len(values) > 1 and all(value == values[0] for value in values)
    return values[:1] if equal else answer

"""What goes wrong in training without an error: NaN and infinity, runs that learn nothing.

A step that meets a NaN or an infinity changes nothing (see step.py); here the host hears of it.
"""

import collections
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import scipy.stats

from flaxbert.errors import DivergedError
from flaxbert.types import Prediction

log = logging.getLogger("flaxbert")

IN_FLIGHT = 2
"""Steps handed to the device before the host waits for the oldest: it never runs out of work."""

SHOWN = 8
"""Examples of a batch that a message names; a log line has them all."""

VANISHED = 1e-6
"""Share of the gradient's norm below which the lowest layer learns nothing in float32."""

UNMOVED = 0.98
"""Share of its first value that a loss should be below when the warm-up is over, or fall."""

NEAR, LINES = 0.02, 5
"""A loss so near (relatively) to that of guessing, in so many lines running, is guessing; so many
lines at least show whether a loss falls."""

RISK = 0.05
"""Probability that a loss without any trend is taken for one that falls."""

ANSWERS = ("label", "labels", "tags", "answer")
"""The entries of tasks' records that hold what was predicted."""


class FiniteGuard:
    """Steps handed to the device, of which the host has not heard yet whether they were sound."""

    def __init__(
        self, *, skipped: int, most: int, describe: Callable[[int], tuple[str, list[str]]]
    ):
        """Start.

        Args:
          skipped: steps skipped before.
          most: steps that may be skipped in all (0: stop at the first one).
          describe: a step's learning rate, and where the examples of its batch come from.
        """
        self._skipped, self._most, self._describe = skipped, most, describe
        self._steps: collections.deque[tuple[int, Any]] = collections.deque()

    def add(self, step: int, sums: Mapping[str, Any]) -> None:
        """A step has been handed over; `sums` are what it will give."""
        self._steps.append((step, sums["skipped"]))
        self.settle(IN_FLIGHT)

    def settle(self, most: int = 0) -> None:
        """Wait until at most `most` steps are in flight.

        Raises:
          DivergedError: at a step that was not sound, if no more may be skipped.
        """
        while len(self._steps) > most:
            step, pending = self._steps.popleft()
            skipped = int(jax.device_get(pending))
            if skipped > self._skipped:
                self._skipped = skipped
                self._tell(step)

    def _tell(self, step: int) -> None:
        rate, origins = self._describe(step)
        shown = ", ".join(origins[:SHOWN]) + (", ..." if len(origins) > SHOWN else "")
        what = (
            f"step {step}: the loss or its gradient is not finite (learning rate {rate}; examples "
            f"{shown})"
        )
        if self._skipped <= self._most:
            log.warning(f"{what}; skipped, {self._skipped} of at most {self._most}")
            return
        log.info(f"the examples of step {step}: {', '.join(origins)}")
        raise DivergedError(
            f"{what}. The checkpoints before it are sound. Lower optim.learning_rate or lengthen "
            "optim.warmup, look at these examples, and with bfloat16 try model.dtype=float32; or "
            f"let it pass: --config.train.max_nonfinite_steps={self._skipped + 9}."
        )


class LearningMonitor:
    """Warns, once each, of runs that go on without learning."""

    def __init__(
        self, *, first_loss: float | None, after: int, labels: int = 0, active: bool = True
    ):
        """Start.

        Args:
          first_loss: of a resumed run's first line, None for a new run.
          after: the step from which it should have learnt something: warm-up is over.
          labels: how many there are to choose one from; 0 or 1: that is not the task.
          active: whether to warn; one of several hosts does.
        """
        self._after, self._active = after, active
        self._chance = math.log(labels) if labels > 1 else math.inf
        self._losses = [] if first_loss is None else [first_loss]
        self._guessed = 0
        self._warned: set[str] = set()

    def line(self, step: int, line: Mapping[str, float]) -> None:
        """Look at a line of metrics.jsonl."""
        if not self._active:
            return
        loss = line["loss"]
        self._losses.append(loss)
        enough = step >= self._after and len(self._losses) >= LINES
        if enough and "loss" not in self._warned:
            self._warned.add("loss")  # looked at once: later it may well stand still
            if loss > UNMOVED * self._losses[0] and not falls(self._losses):
                self._warned.add("chance")  # said once is enough
                log.warning(
                    f"step {step}: the warm-up is over, and the training loss ({loss:.4f}) is "
                    f"where it began ({self._losses[0]:.4f}): nothing is learned so far. If that "
                    "remains so: another optim.learning_rate (2e-5 to 5e-5 serve BERT), more "
                    "epochs, or another train.seed; check that the labels fit the texts (python -m "
                    "flaxbert lint)."
                )
        self._guessing(step, loss)
        vanished = line["lowest_grad_norm"] <= VANISHED * line["grad_norm"]
        if vanished and "gradient" not in self._warned:
            self._warned.add("gradient")
            log.warning(
                f"step {step}: the lowest layer's gradient has vanished "
                f"({line['lowest_grad_norm']:.1e} of {line['grad_norm']:.1e}): the encoder does "
                "not learn. Lower optim.learning_rate or lengthen optim.warmup, and start again; "
                "keep optim.bias_correction=true."
            )

    def _guessing(self, step: int, loss: float) -> None:
        near = step >= self._after and abs(loss - self._chance) < NEAR * self._chance
        self._guessed = self._guessed + 1 if near else 0
        guessing = self._guessed >= LINES and not falls(self._losses[-self._guessed :])
        if guessing and "chance" not in self._warned:
            self._warned.add("chance")
            log.warning(
                f"step {step}: the training loss ({loss:.4f}) stays at that of guessing among the "
                f"labels ({self._chance:.4f}). Lower optim.learning_rate (2e-5 to 5e-5 serve "
                "BERT), lengthen optim.warmup, or try another train.seed; and start again."
            )

    def records(self, step: int, records: Sequence[Prediction]) -> None:
        """Look at the predictions of an evaluation."""
        name = next((n for n in ANSWERS if records and n in records[0]), None)
        if name is None or len(records) < 2 or "records" in self._warned or not self._active:
            return
        if step < self._after:
            return  # at first every run is like that
        # A sentence whose words all have one tag says no more than the tag does.
        found = {json.dumps(_single(record[name]), ensure_ascii=False) for record in records}
        if len(found) == 1:
            self._warned.add("records")
            log.warning(
                f"step {step}: all {len(records)} predictions have the same {name}, {found.pop()}. "
                "If that remains so: train longer, lower optim.learning_rate, try another "
                "train.seed; for rare labels, options.balanced_class_weights=true (classification)."
            )


def falls(losses: Sequence[float]) -> bool:
    """Whether losses fall, however slowly: by Kendall's test, which does not depend on scale."""
    order = scipy.stats.kendalltau(range(len(losses)), losses, alternative="less")
    return bool(order.pvalue < RISK)


def _single(answer: Any) -> Any:
    values = answer if isinstance(answer, list) else []
    alike = len(values) > 1 and all(value == values[0] for value in values)
    return values[:1] if alike else answer

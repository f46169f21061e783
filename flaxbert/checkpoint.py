"""Checkpoints: the only module that knows Orbax."""

import logging
import math
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from flaxbert.errors import ConfigError
from flaxbert.models.model import Params
from flaxbert.state import TrainState
from flaxbert.tasks.base import Metrics

log = logging.getLogger("flaxbert")

KEEP = 2
"""Checkpoints kept; the older one serves if the newer is damaged."""


class Checkpoints:
    """The checkpoints of a run, written in the background while training goes on."""

    def __init__(self, directory: Path, *, save_every: int):
        policy = ocp.checkpoint_managers.FixedIntervalPolicy(save_every)
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, save_decision_policy=policy)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, step: int, *, force: bool = False, calibration: dict[str, Any]
    ) -> None:
        """Save at multiples of `save_every`, or if `force`; returns before it is written.

        `calibration`, the thresholds last fitted, becomes the checkpoint's metadata.
        """
        if self._manager.latest_step() != step:
            args = ocp.args.StandardSave(state)
            self._manager.save(step, args=args, force=force, custom_metadata=calibration)

    def calibration(self) -> dict[str, Any]:
        """The thresholds of the newest checkpoint."""
        return self._manager.metadata(self.latest()).custom_metadata or {}

    def restore(self, like: TrainState) -> TrainState:
        """The newest checkpoint that can be read, placed as `like` is."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # Orbax and TensorStore raise many types
                if step == steps[-1]:
                    raise
                log.warning(f"the checkpoint of step {step} cannot be read ({error}); an older one")
                continue
            for damaged in steps[: steps.index(step)]:
                self._manager.delete(damaged)
            return state
        raise ValueError("no checkpoint to restore")

    def close(self) -> None:
        """Wait until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


class BestParams:
    """The parameters with the best value of a metric so far (`train.keep_best`)."""

    def __init__(self, directory: Path, metric: str, *, step: int):
        """Open; what was kept after `step`, the one that the run continues from, is dropped."""
        self._metric = metric
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, best_fn=lambda metrics: metrics[metric], best_mode=mode(metric)
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        for later in [kept for kept in self._manager.all_steps() if kept > step or step == 0]:
            self._manager.delete(later)
        held = self._manager.best_step()
        self._best = None if held is None else self._manager.metrics(held)[metric]

    def offer(self, params: Params, step: int, metrics: Metrics) -> None:
        """Keep the parameters of `step` if better than all before; of equals, the first.

        Returns once they are written: the checkpoint of this step must not be there without them.

        Raises:
          ConfigError: if the evaluation did not give the metric.
        """
        if self._metric not in metrics:
            given = ", ".join(name for name in metrics if not name.startswith("perf/"))
            raise ConfigError(
                f"train.keep_best={self._metric!r}: nothing in data.eval has it; the evaluation "
                f"gave {given}"
            )
        value, best = metrics[self._metric], self._best
        low = mode(self._metric) == "min"
        if best is None or math.isnan(best) or (value < best if low else value > best):
            self._best = value
            self._manager.save(
                step, args=ocp.args.StandardSave(params), metrics={self._metric: value}
            )
            self._manager.wait_until_finished()

    def restore(self, like: Params) -> tuple[int, Params]:
        """(step, parameters) of the best evaluation."""
        self._manager.wait_until_finished()
        step = self._manager.best_step()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return step, self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def close(self) -> None:
        """Wait until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def mode(metric: str) -> str:
    """Whether a metric is better high ("max") or low ("min"): by what its name ends with."""
    name = metric.split("/")[0]
    return "min" if name.endswith(("loss", "error", "perplexity")) else "max"

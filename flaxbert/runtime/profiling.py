"""A profile of some training steps, for Perfetto, TensorBoard and XProf."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger("flaxbert")


class Profile:
    """Writes what the host and the devices do during some steps.

    Each step is annotated with its number, also in a profile that another program takes.
    """

    def __init__(self, directory: Path, steps: range, *, active: bool = True):
        """Create a profile; nothing is recorded before its first step.

        Args:
          directory: receives the profile.
          steps: the steps to record, from 1; empty records nothing.
          active: whether this host records.
        """
        self._directory, self._steps = directory, steps if active else range(0)
        self._recording = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Annotate the block as step `number`; begin to record if it is in the range."""
        if number in self._steps and not self._recording:
            self._directory.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._recording = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def finish(self, number: int, results: Any) -> None:
        """Write the profile if `number` is its last step, once the device has `results`."""
        if self._recording and number == self._steps[-1]:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Write the profile if it is still being recorded."""
        if not self._recording:
            return
        self._recording = False
        jax.profiler.stop_trace()
        traces = self._directory.glob("plugins/profile/*/perfetto_trace.json.gz")
        trace = max(traces, key=lambda path: path.stat().st_mtime)  # a resumed run adds its own
        log.info(
            f"profile: open {trace} in https://ui.perfetto.dev, or run `tensorboard --logdir "
            f"{self._directory}` (pip install tensorboard xprof)"
        )

"""Checkpoints: the only module that knows Orbax."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from flaxbert.errors import ConfigError, WorkdirError, clip
from flaxbert.runtime import memory, multihost
from flaxbert.runtime.files import finite
from flaxbert.types import Metrics, Params

log = logging.getLogger("flaxbert")

KEEP = 2
"""Checkpoints kept; the older one serves if the newer is damaged."""

KEEP_BEST = KEEP + 1
"""Best weights kept: those of each checkpoint, and others written since the newest one."""

CHECKSUMS = "checksums.json"
"""{file: SHA-256} of a checkpoint, inside it."""

NOTES = "notes.json"
"""What is kept beside the arrays, inside a checkpoint."""

LAST = "_CHECKPOINT_METADATA"
"""Orbax's own times, which it writes when all else is done; nothing is read from it."""

LONGEST = 1000
"""Characters of a message of Orbax, which names every array that differs."""

NONE = -1
"""No step, where a number has to go from the first host to the others."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a checkpoint says beside the state; of JSON's types."""

    thresholds: dict[str, Any]
    """The thresholds last fitted."""
    evaluated: bool
    """Whether there was an evaluation after its step: a signal may have come before or in it."""
    data: dict[str, str]
    """Fingerprints of the examples that the run works with."""
    config: dict[str, Any]
    """The run's configuration, but for what may change (see `writer.settled`)."""
    best: dict[str, Any] | None
    """{metric, step, value} of the best evaluation so far; None without `train.keep_best`."""
    weights: str | None = None
    """Digest of the pre-trained encoder that the run began with; older checkpoints have none."""


class _Manager(ocp.CheckpointManager):  # type: ignore[misc]
    """Orbax's manager, without its questions about preemption.

    It asks JAX with the number of the step, also in a thread, and JAX takes that for the count of
    `Preemption.asked`. Hosts would then be told to stop at different places.
    """

    def reached_preemption(self, step: int) -> bool:
        """Return False: the loop decides when a run stops."""
        return False


class Store:
    """A directory of Orbax checkpoints, each with the checksums of its files.

    A checkpoint is written under another name, checksums last, and then renamed: what is found
    under a step's number was once whole.
    """

    def __init__(self, directory: Path, **options: Any):
        self._directory = directory.absolute()
        self._writing, self._notes = NONE, dict[str, Any]()
        sealed = ocp.AsyncOptions(post_finalization_callback=self._seal)
        with self._told_if_failing():
            self._manager = _Manager(
                self._directory,
                item_handlers=ocp.StandardCheckpointHandler(),  # else `shapes` finds nothing
                options=ocp.CheckpointManagerOptions(async_options=sealed, **options),
            )
        # Hosts would wait for each other where they save, restore or delete what only one sees.
        multihost.agree({str(directory): self.steps()})

    def steps(self) -> list[int]:
        """Steps that there are checkpoints of, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any, notes: dict[str, Any]) -> None:
        """Start writing; returns as soon as `tree` may change. Of one step the first one counts."""
        if step in self.steps():
            return
        with self._told_if_failing():
            self._manager.wait_until_finished()
            self._writing, self._notes = step, notes
            self._manager.save(step, args=ocp.args.StandardSave(tree), force=True)

    def restore(self, step: int, like: Any) -> Any:
        """The tree of a checkpoint, placed as `like` is."""
        if not isinstance(jax.tree.leaves(like)[0], np.ndarray):
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # Orbax and TensorStore raise many types
            if memory.exhausted(error):
                raise
            raise WorkdirError(
                f"{self._directory / str(step)}: its files are intact, but they do not fit this "
                f"run's model ({clip(str(error), LONGEST)}). Use the configuration that it was "
                "made with. If another version of flaxbert made it, start a new run from its "
                f"weights: flaxbert convert {self._directory.parent} DIR, then "
                "--config.model.init=DIR --workdir=NEW."
            ) from error

    def shapes(self, step: int) -> Any:
        """Numpy arrays like those of a checkpoint, whatever devices they were on."""
        found = self._manager.item_metadata(step).tree
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)

    def fault(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint; None if they are as they were written.

        Raises:
          WorkdirError: if they cannot be read now, whatever they hold.
        """
        directory = self._directory / str(step)
        try:
            expected = json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))
            for name, digest in expected.items():
                if _digest(directory / name) != digest:
                    return f"{name} is not as it was written"
        except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"
        except OSError as error:  # the disk or its mount, which may answer again
            raise WorkdirError(
                f"{directory}: cannot be read ({error}); nothing was changed."
            ) from None
        return None

    def delete(self, step: int) -> None:
        """Remove a checkpoint."""
        self._manager.delete(step)

    def notes(self, step: int) -> dict[str, Any]:
        """What `save` was given beside the tree."""
        text = (self._directory / str(step) / NOTES).read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    def wait(self) -> None:
        """Return once everything is written."""
        with self._told_if_failing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait, and let go."""
        try:
            self.wait()
        except WorkdirError:
            with contextlib.suppress(Exception):  # it would tell of the same fault
                self._manager.close()
            raise
        self._manager.close()

    def _seal(self) -> None:
        if jax.process_index() != 0:
            return
        # Orbax's callback says neither which checkpoint nor where; its name begins with the step.
        # On a bucket it has its last name at once.
        names = (f"{self._writing}.orbax-checkpoint-tmp*", str(self._writing))
        directory = next(path for name in names for path in self._directory.glob(name))
        (directory / NOTES).write_text(json.dumps(finite(self._notes), indent=1), encoding="utf-8")
        files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != LAST)
        found = {str(path.relative_to(directory)): _digest(path) for path in files}
        (directory / CHECKSUMS).write_text(json.dumps(found, indent=1), encoding="utf-8")

    @contextlib.contextmanager
    def _told_if_failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # as in `restore`
            if memory.exhausted(error):  # of the steps that led to what is saved
                raise
            raise WorkdirError(
                f"{self._directory}: a checkpoint could not be written ({error}). Those written "
                "before it are whole: make room or mend the place, and run the same command again."
            ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checkpoints:
    """The checkpoints of a run, written in the background while training goes on."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._store = Store(directory, max_to_keep=KEEP, cleanup_tmp_directories=True)
        self._saved = time.monotonic()
        self.wait, self.close = self._store.wait, self._store.close

    def save(self, state: Any, step: int, notes: Metadata) -> None:
        """Start writing the state after `step`; the next step may be taken at once."""
        self._store.save(step, state, dataclasses.asdict(notes))
        self._saved = time.monotonic()

    def late(self, minutes: float) -> bool:
        """Whether the last one is `minutes` old, by the first host's clock (0: never)."""
        if not minutes:
            return False
        return bool(
            multihost.broadcast_from_host0(int(time.monotonic() - self._saved >= 60 * minutes))
        )

    def newest(self) -> int | None:
        """Step of the newest intact checkpoint; None if there is none at all.

        Raises:
          WorkdirError: if all are damaged. To start again would lose work in silence.
        """
        with multihost.fail_together():
            found = self._newest() if jax.process_index() == 0 else NONE
        found = int(multihost.exchange(str(found))[0])
        steps = self._store.steps()
        if found == NONE and steps:
            raise WorkdirError(
                f"{self._directory}: no checkpoint is sound (steps {steps}; the first host's log "
                "tells what is wrong with each). Bring a copy back, or remove the directory to "
                "start again."
            )
        return None if found == NONE else found

    def delete_after(self, step: int) -> None:
        """Delete damaged checkpoints newer than `step`: the run comes to their steps again."""
        for damaged in [kept for kept in self._store.steps() if kept > step]:
            self._store.delete(damaged)

    def _newest(self) -> int:
        for step in reversed(self._store.steps()):
            fault = self._store.fault(step)
            if fault is None:
                return step
            log.warning(f"{self._directory / str(step)} is damaged ({fault}); an older one, then")
        return NONE

    def notes(self, step: int) -> Metadata:
        """What was saved beside the state of a step."""
        return Metadata(**self._store.notes(step))

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, placed as `like` is."""
        return self._store.restore(step, like)


class BestParams:
    """The parameters with the best value of a metric so far (`train.keep_best`).

    Attributes:
      noted: {metric, step, value} of them, for the notes of the next checkpoint.
    """

    def __init__(self, directory: Path, metric: str, noted: dict[str, Any] | None, *, lower: bool):
        """Open.

        Args:
          directory: of the weights.
          metric: that selects them.
          noted: what the checkpoint that the run continues from says.
          lower: whether a lower value is better.

        What was kept after it is dropped: the run comes to it again. A new metric starts anew.

        Raises:
          WorkdirError: if the weights that it speaks of are gone or damaged.
        """
        self._metric, self._directory, self._lower = metric, directory, lower
        self.noted = noted if noted and noted["metric"] == metric else None
        self._store = Store(directory, max_to_keep=KEEP_BEST, cleanup_tmp_directories=True)
        last = self.noted["step"] if self.noted else NONE
        for later in [kept for kept in self._store.steps() if kept > last]:
            self._store.delete(later)
        if self.noted:
            self._sound(last)
        self.close = self._store.close

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
        value, best = metrics[self._metric], self.noted["value"] if self.noted else None
        # A value that is not finite was noted as null.
        if best is None or math.isnan(best) or (value < best if self._lower else value > best):
            self.noted = {"metric": self._metric, "step": step, "value": value}
            self._store.save(step, params, self.noted)
            self._store.wait()

    def restore(self, like: Params) -> tuple[int, Params]:
        """(step, parameters) of the best evaluation.

        Raises:
          WorkdirError: if they are gone or damaged.
        """
        assert self.noted is not None  # the last step is evaluated
        step = self._sound(self.noted["step"])
        return step, self._store.restore(step, like)

    def _sound(self, step: int) -> int:
        if fault := self._store.fault(step):
            raise WorkdirError(
                f"{self._directory / str(step)}, the best weights, are damaged ({fault}). Bring a "
                "copy back; or, for the last weights in their place, --config.train.keep_best=none "
                "--force."
            )
        return step


def read_newest(directory: Path) -> tuple[int, Metadata, dict[str, np.ndarray]]:
    """(step, notes, {path: array}) of the newest sound checkpoint, as it lies in its files.

    Raises:
      WorkdirError: if there is none.
    """
    store = Store(directory, max_to_keep=None)
    try:
        steps = [step for step in store.steps() if store.fault(step) is None]
        if not steps:
            raise WorkdirError(f"{directory}: holds no sound checkpoint.")
        tree = store.restore(steps[-1], store.shapes(steps[-1]))
        notes = Metadata(**store.notes(steps[-1]))
    finally:
        store.close()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    return steps[-1], notes, {name: np.asarray(leaf) for name, leaf in named.items()}

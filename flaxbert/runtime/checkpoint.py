"""Checkpoints of a run, and its best parameters: the only module that imports Orbax."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from flaxbert.errors import ConfigError, WorkdirError, clip
from flaxbert.runtime import memory, multihost, storage
from flaxbert.runtime.copies import COMPLETE, Copies
from flaxbert.runtime.files import nonfinite_to_none
from flaxbert.runtime.mirror import METADATA
from flaxbert.types import Metrics, Params

log = logging.getLogger("flaxbert")

KEEP = 2
"""Number of checkpoints kept. If the newer one is corrupt, the run continues from the older one."""

KEEP_BEST = KEEP + 1
"""Number of best parameters kept: one for each checkpoint, and one written after the newest."""

CHECKSUMS = "checksums.json"
"""{file: SHA-256} of all other files of a checkpoint; if Orbax wrote it to a bucket, the MD5 that
the store computed, with MD5 in front."""

MARKERS = "commit_success.txt", COMPLETE
"""The last file of a checkpoint in a bucket: Orbax's in gs://, and that of copies.py in s3://."""

MD5 = "md5:"
"""Begins a checksum of a store."""

ORBAX_METADATA = "_CHECKPOINT_METADATA"
"""Orbax's timestamps. Orbax writes them after the checksums, and nothing is read from them."""

LONGEST_MESSAGE = 1000
"""Characters kept of an Orbax message, which names every array that differs."""

NO_STEP = -1
"""Stands for "no step" where the hosts exchange a number."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The data that a checkpoint stores next to the training state; all values are JSON types."""

    thresholds: dict[str, Any]
    """The thresholds fitted last."""
    evaluated: bool
    """Whether the evaluation after this step is complete; a signal may have cut it off."""
    data: dict[str, str]
    """Fingerprints of the run's examples."""
    config: dict[str, Any]
    """The run's configuration without what may change on resume (`workdir.resume_fields`)."""
    best: dict[str, Any] | None
    """{metric, step, value} of the best evaluation so far; None if none is chosen."""
    weights: str | None = None
    """Digest of the pre-trained encoder that the run started from; None in older checkpoints."""
    attention: str | None = None
    """The way to compute attention that a trial at the start of the run chose; None without one."""
    parameters: dict[str, int] | None = None
    """The numbers of parameters that the run loaded, and of those that were new; None in older
    checkpoints, and for a run with new layers (`model.reinit_layers`)."""


class _Manager(ocp.CheckpointManager):  # type: ignore[misc]
    """Orbax's manager, which does not check for preemption.

    Orbax passes the step's number to JAX's sync point, also from a thread. JAX takes that number
    for the count of `Preemption.requested`, and the hosts would stop at different steps.
    """

    def reached_preemption(self, step: int) -> bool:
        """Return False: the training loop decides when a run stops."""
        return False


class Store:
    """A directory of Orbax checkpoints, each with the checksums of its files.

    A checkpoint is written under a temporary name, checksums last, and then renamed. A directory
    named by a step number was therefore complete at some time. In gs:// Orbax writes a file that
    marks the checkpoint as complete in place of the renaming. It cannot write to s3://, so there
    it works in a temporary directory, and the bucket has `Copies`.

    Attributes:
      name: the directory, for messages.
    """

    def __init__(self, directory: Path, *, max_to_keep: int | None, **options: Any):
        self.name = directory if storage.is_remote(directory) else directory.absolute()
        self._copies = Copies(directory) if str(directory).startswith("s3:") else None
        self._directory = self._copies.fetch() if self._copies else self.name
        self._max_to_keep = max_to_keep
        self._pending_step, self._pending_metadata = NO_STEP, dict[str, Any]()
        self._closed = False
        async_options = ocp.AsyncOptions(post_finalization_callback=self._write_checksums)
        with self._as_workdir_error():
            self._manager = _Manager(
                self._directory,
                # Without it `item_metadata` has no tree for `shapes` to read.
                item_handlers=ocp.StandardCheckpointHandler(),
                options=ocp.CheckpointManagerOptions(
                    async_options=async_options, max_to_keep=max_to_keep, **options
                ),
            )
        # If the hosts saw different steps, they would wait for each other forever.
        multihost.agree({str(directory): self.steps()})

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any, metadata: dict[str, Any]) -> None:
        """Start to write a checkpoint, unless the step has one; `tree` may change on return."""
        if step in self.steps():
            return
        with self._as_workdir_error():
            self._manager.wait_until_finished()
            self._pending_step, self._pending_metadata = step, metadata
            self._manager.save(step, args=ocp.args.StandardSave(tree), force=True)

    def restore(self, step: int, like: Any) -> Any:
        """Return the tree of a checkpoint, placed on devices as `like` is.

        Raises:
          WorkdirError: if it does not fit `like`.
        """
        if not isinstance(jax.tree.leaves(like)[0], np.ndarray):
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # Orbax and TensorStore raise many types
            if memory.is_exhausted(error):
                raise
            raise WorkdirError(
                f"{self.name / str(step)}: its files are intact, but they do not fit this "
                f"run's model ({clip(str(error), LONGEST_MESSAGE)}). Use the configuration that "
                "wrote the checkpoint. If another version of flaxbert wrote it, start a new run "
                f"from its weights: flaxbert convert {self.name.parent} DIR, then "
                "--config.model.init=DIR --workdir=NEW."
            ) from error

    def shapes(self, step: int) -> Any:
        """Return a tree of NumPy arrays with the shapes and dtypes of a checkpoint."""
        tree = self._manager.item_metadata(step).tree
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)

    def corruption(self, step: int) -> str | None:
        """Return what is wrong with the files of a checkpoint, or None if they are intact.

        Raises:
          WorkdirError: if the files cannot be read now. They may still be intact.
        """
        directory = self._directory / str(step)
        try:
            checksums = json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))
            stored = storage.files(directory) if storage.is_remote(directory) else {}
            for name, digest in checksums.items():
                if _digest(directory / name, digest, stored.get(name)) != digest:
                    return f"{name} has changed since it was written"
        except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"
        except WorkdirError:
            raise
        except Exception as error:  # a failing disk, mount or store, which may recover
            raise WorkdirError(
                f"{directory}: cannot be read ({error}); nothing was changed."
            ) from None
        return None

    def delete(self, step: int) -> None:
        """Delete a checkpoint."""
        if self._copies is not None:
            self._copies.delete(step)
        self._manager.delete(step)

    def metadata(self, step: int) -> dict[str, Any]:
        """Return the metadata that `save` received."""
        text = (self._directory / str(step) / METADATA).read_text(encoding="utf-8")
        metadata: dict[str, Any] = json.loads(text)
        return metadata

    def wait(self) -> None:
        """Return once every checkpoint is written.

        Raises:
          WorkdirError: if one could not be written.
        """
        with self._as_workdir_error():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait for pending writes, then release Orbax's resources, unless that was done before."""
        if self._closed:
            return
        self._closed = True
        try:
            self.wait()
        except WorkdirError:
            with contextlib.suppress(Exception):  # it would raise the same error again
                self._manager.close()
            raise
        self._manager.close()

    def _write_checksums(self) -> None:
        """Write the metadata and then the checksums, before Orbax renames the checkpoint.

        Orbax's `Composite(state=StandardSave, metadata=JsonSave)` could write the metadata. The
        checksums would still need this callback and the temporary directory, so that would be a
        second mechanism, not a simpler one.
        """
        if not multihost.is_lead_host():
            return
        text = json.dumps(nonfinite_to_none(self._pending_metadata), indent=1)
        if storage.is_remote(self._directory):
            _write_remote_checksums(self._directory / str(self._pending_step), text)
            return
        # Orbax passes the callback neither the step nor the directory. The temporary name begins
        # with the step; in a bucket the directory has its final name from the start.
        directory = next(self._directory.glob(f"{self._pending_step}.orbax-checkpoint-tmp*"))
        (directory / METADATA).write_text(text, encoding="utf-8")
        files = sorted(
            path for path in directory.rglob("*") if path.is_file() and path.name != ORBAX_METADATA
        )
        checksums = {str(path.relative_to(directory)): _digest(path) for path in files}
        (directory / CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")
        if self._copies is not None:
            self._copies.upload(directory, self._pending_step, self._max_to_keep)

    @contextlib.contextmanager
    def _as_workdir_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many types
            if memory.is_exhausted(error):  # of the steps that computed the state
                raise
            raise WorkdirError(
                f"{self.name}: a checkpoint could not be written ({error}). The earlier ones "
                "are intact: make room or fix the location, and run the same command again."
            ) from error


def _write_remote_checksums(directory: Path, metadata: str) -> None:
    """Write the metadata of a checkpoint in a bucket, and then the checksums of its files."""
    storage.write(directory / METADATA, metadata.encode())
    checksums = {
        name: _digest(directory / name, MD5, digest)
        for name, digest in sorted(storage.files(directory).items())
        if not name.endswith(ORBAX_METADATA)
    }
    storage.write(directory / CHECKSUMS, json.dumps(checksums, indent=1).encode())


def _digest(path: Path, like: str = "", stored: str | None = None) -> str:
    """Return the checksum of a file.

    Args:
      path: the file.
      like: a checksum of the kind to return.
      stored: the MD5 that the file's store gives, if it is in one.
    """
    if like.startswith(MD5):
        if stored is None and not storage.is_remote(path):  # a copy of a checkpoint from a bucket
            stored = storage.md5(path)
        if stored is not None:
            return MD5 + stored
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checkpoints:
    """The checkpoints of a run, written in the background while training continues."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._store = Store(directory, max_to_keep=KEEP, cleanup_tmp_directories=True)
        self._last_save = time.monotonic()
        self._was_due: Callable[[], str] | None = None
        self.wait, self.close = self._store.wait, self._store.close

    def save(self, state: Any, step: int, metadata: Metadata) -> None:
        """Start to write the state after `step`; the next step may run on return."""
        self._store.save(step, state, dataclasses.asdict(metadata))
        self._last_save, self._was_due = time.monotonic(), None

    def save_due(self, minutes: float) -> bool:
        """Return whether the last save is `minutes` old, by the lead host's clock (0: never).

        With several hosts, the result is that of the lead host's previous call since the last save.
        If they exchanged the present one, each device would wait for the message.
        """
        if not minutes:
            return False
        due = time.monotonic() - self._last_save >= 60 * minutes
        if not multihost.is_multihost():
            return due
        previous, self._was_due = self._was_due, multihost.send_from_host0(str(due))
        return previous is not None and previous() == str(True)

    def latest_step(self) -> int | None:
        """Return the step of the newest intact checkpoint; None if there are no checkpoints.

        Raises:
          WorkdirError: if all are corrupt. Starting again would silently lose the run's work.
        """
        with multihost.fail_together():
            local = self._latest_step() if multihost.is_lead_host() else NO_STEP
        step = int(multihost.all_gather(str(local))[0])
        steps = self._store.steps()
        if step == NO_STEP and steps:
            raise WorkdirError(
                f"{self._directory}: no checkpoint is intact (steps {steps}; the log of the first "
                "host says what is wrong with each). Restore one from a copy, or remove the "
                "directory to start again."
            )
        return None if step == NO_STEP else step

    def delete_after(self, step: int) -> None:
        """Delete the corrupt checkpoints newer than `step`; the run will write them again."""
        for later in [saved for saved in self._store.steps() if saved > step]:
            self._store.delete(later)

    def _latest_step(self) -> int:
        for step in reversed(self._store.steps()):
            corruption = self._store.corruption(step)
            if corruption is None:
                return step
            log.warning(
                f"{self._directory / str(step)} is corrupt ({corruption}); trying an older one"
            )
        return NO_STEP

    def metadata(self, step: int) -> Metadata:
        """Return what was saved next to the state of a step."""
        return Metadata(**self._store.metadata(step))

    def restore(self, step: int, like: Any) -> Any:
        """Return the state of a step, placed on devices as `like` is."""
        return self._store.restore(step, like)


class BestParams:
    """The parameters with the best value of a metric so far.

    `train.keep_best` and `train.early_stopping` need them.

    Attributes:
      best: their {metric, step, value}, for the next checkpoint's metadata; None before the first.
    """

    def __init__(
        self,
        directory: Path,
        metric: str,
        best: dict[str, Any] | None,
        *,
        better_is: Literal["higher", "lower"],
    ):
        """Open the directory and delete what was kept after `best`: the run computes it again.

        Args:
          directory: the directory of the parameters, in the workdir.
          metric: the metric that selects them. If it is not that of `best`, all are deleted.
          best: `Metadata.best` of the checkpoint; None for a new run.
          better_is: which value of the metric is better.

        Raises:
          WorkdirError: if the parameters that `best` names are missing or corrupt.
        """
        self._metric, self._directory, self._better_is = metric, directory, better_is
        self.best = best if best and best["metric"] == metric else None
        self._store = Store(directory, max_to_keep=KEEP_BEST, cleanup_tmp_directories=True)
        best_step = self.best["step"] if self.best else NO_STEP
        for later in [saved for saved in self._store.steps() if saved > best_step]:
            self._store.delete(later)
        if self.best:
            self._verify(best_step)
        self.close = self._store.close

    def maybe_save(self, params: Params, step: int, metrics: Metrics) -> None:
        """Save the parameters of `step` if they are better than all earlier ones.

        Returns once they are written: a checkpoint's metadata must never name missing parameters.

        Raises:
          ConfigError: if the evaluation did not compute the metric.
        """
        if self._metric not in metrics:
            computed = ", ".join(name for name in metrics if not name.startswith("perf/"))
            raise ConfigError(
                f"train.keep_best={self._metric!r}: the evaluation did not compute it, because no "
                f"example of data.eval has it. Choose one of those it gave: {computed}"
            )
        value, best = metrics[self._metric], self.best["value"] if self.best else None
        # In a checkpoint's metadata, null stands for a value that was not finite.
        if best is None or math.isnan(best) or self._is_better(value, best):
            self.best = {"metric": self._metric, "step": step, "value": value}
            self._store.save(step, params, self.best)
            self._store.wait()

    def describe(self) -> str:
        """Return the best value with its metric and step, for the log."""
        best = self.best or {}
        return f"{best['metric']} {best['value']:.4f} of step {best['step']}"

    def restore(self, like: Params) -> tuple[int, Params]:
        """Return (step, parameters) of the best evaluation.

        Raises:
          WorkdirError: if they are missing or corrupt.
        """
        assert self.best is not None  # a run always evaluates its last step
        step = self.best["step"]
        self._verify(step)
        return step, self._store.restore(step, like)

    def _is_better(self, value: float, best: float) -> bool:
        return value < best if self._better_is == "lower" else value > best

    def _verify(self, step: int) -> None:
        if corruption := self._store.corruption(step):
            raise WorkdirError(
                f"{self._directory / str(step)}: the best weights are corrupt ({corruption}). "
                "Restore them from a copy. To use the last weights instead, add "
                "--config.train.keep_best=none --config.train.early_stopping=0 --force."
            )


def read_newest(directory: Path) -> tuple[int, Metadata, dict[str, np.ndarray]]:
    """Return (step, metadata, {path: array}) of the newest intact checkpoint of any run.

    Raises:
      WorkdirError: if there is none.
    """
    store = Store(directory, max_to_keep=None)
    try:
        intact = [step for step in store.steps() if store.corruption(step) is None]
        if not intact:
            raise WorkdirError(f"{directory}: no intact checkpoint.")
        step = intact[-1]
        tree = store.restore(step, store.shapes(step))
        metadata = Metadata(**store.metadata(step))
    finally:
        store.close()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    return step, metadata, {name: np.asarray(leaf) for name, leaf in named.items()}

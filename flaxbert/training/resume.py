"""Resuming: find the checkpoint of an earlier process, and check that the run may continue."""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import optax

from flaxbert.config import Config, ModelConfig
from flaxbert.errors import ConfigError, HubError, WeightsError
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained import mapping
from flaxbert.pretrained.source import SKELETON, resolve
from flaxbert.runtime import devices, memory, multihost, sharding
from flaxbert.runtime.checkpoint import Checkpoints, Metadata
from flaxbert.runtime.mirror import Workdir
from flaxbert.runtime.workdir import (
    changed_commits,
    read_commits,
    require_not_finished,
    require_unchanged,
    resume_fields,
    with_defaults,
)
from flaxbert.training.state import TrainState, init_state, state_shapes
from flaxbert.types import Params

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The state of a workdir before a process trains in it."""

    workdir: Workdir
    checkpoints: Checkpoints
    step: int | None
    """The step of the newest intact checkpoint; None for a new run."""
    metadata: Metadata | None
    """The metadata of that checkpoint; None for a new run."""
    force: bool
    """Whether the run may continue with another configuration or other data."""

    @classmethod
    def open(
        cls,
        workdir: Workdir,
        config: Mapping[str, Any],
        defaults: Mapping[str, Any],
        *,
        force: bool,
    ) -> "SavedRun":
        """Look for a checkpoint, and check that the run has the configuration that it began with.

        Args:
          workdir: locked.
          config: the configuration of this process, {dotted key: value}.
          defaults: the default configuration in the same form, for keys that were added after
            the run began.
          force: continue although the configuration has changed.

        Raises:
          ConfigError: for a configuration that differs.
          WorkdirError: if the run has finished and its checkpoints are gone, or all are corrupt.
        """
        checkpoints = Checkpoints(workdir.home / "checkpoints")
        step = checkpoints.latest_step()
        with multihost.fail_together():  # a mount may fail on one host only
            if step is None:
                require_not_finished(workdir, force=force)
                return cls(workdir, checkpoints, None, None, force)
            metadata = checkpoints.metadata(step)
            before, now = with_defaults(metadata.config, defaults), resume_fields(config)
            for key in ("model.dtype", "train.accumulation_steps"):
                if now.get(key) == "auto":  # the run keeps the value that it began with
                    now[key] = before[key]
            require_unchanged("configuration", before, now, workdir.home, force=force)
        return cls(workdir, checkpoints, step, dataclasses.replace(metadata, config=now), force)

    def settled(self, config: Config) -> Config:
        """Return the configuration with the values that `auto` stands for.

        A run that resumes keeps those that it began with, also on other devices. For a new run the
        type of arithmetic is that of the devices; the number of micro-batches is chosen later.
        """
        if self.metadata is None:
            return config.with_dtype(devices.resolve_dtype(config.model.dtype))
        begun = self.metadata.config
        config = config.with_dtype(devices.resolve_dtype(begun["model.dtype"]))
        return config.with_accumulation_steps(int(begun["train.accumulation_steps"]))

    @property
    def attention(self) -> str | None:
        """The way to compute attention that the run began with; None for a new run."""
        return None if self.metadata is None else self.metadata.attention

    def init(self, model: ModelConfig) -> str:
        """Return where config and tokenizer come from: `model.init`, or the workdir's copy.

        A run that resumes has its weights in the checkpoint, so it can continue if the pre-trained
        model is gone.
        """
        if self.step is None:
            return model.init
        try:
            resolve(model.init, model.revision)
        except (HubError, WeightsError) as error:
            copy = self.workdir.local / SKELETON
            if not copy.is_dir():
                raise
            log.warning(f"{error} Continuing with the copy of config and tokenizer in {copy}.")
            return str(copy)
        return model.init

    def commits(self, pipeline: Pipeline, commits: Mapping[str, str]) -> dict[str, str]:
        """Return {config key: commit} of the model and of data sets from the hub, for config.json.

        Warn about commits that have changed since the run began.

        Args:
          pipeline: gives the commit of the model.
          commits: the commits of the data sets.
        """
        now = ({"model.init": pipeline.commit} if pipeline.commit else {}) | dict(commits)
        before = read_commits(self.workdir.local / "config.json")
        if self.step is not None:
            for line in changed_commits(before, now):
                log.warning(line)
        # The name of the copy does not contain its commit.
        copied = pipeline.directory == self.workdir.local / SKELETON
        return before | now if copied else now

    def begin(
        self,
        thresholds: dict[str, Any],
        data: dict[str, str],
        config: Mapping[str, Any],
        digest: str,
        attention: str | None,
        parameters: dict[str, int] | None = None,
    ) -> Metadata:
        """Return the metadata of a new run.

        Args:
          thresholds: the thresholds of the task before any is fitted.
          data: fingerprints of the data sets.
          config: {dotted key: value}.
          digest: hash of the pre-trained encoder.
          attention: the way to compute attention that was chosen; None without a choice.
          parameters: see `Metadata`.
        """
        fields = resume_fields(config)
        return Metadata(thresholds, False, data, fields, None, digest, attention, parameters)

    def resume(
        self, data: dict[str, str], pipeline: Pipeline, model: ModelConfig, seed: int
    ) -> Metadata:
        """Check that data and pre-trained weights are those that the run began with.

        Args:
          data: fingerprints of the data sets.
          pipeline: reads the weights; if it uses the workdir's copy, there are none.
          model: names the weights, and says whether their output layer is left out.
          seed: the seed of the run.

        Returns:
          The metadata to continue with.

        Raises:
          ConfigError: for data or weights that differ, unless the run is forced to continue.
        """
        metadata = self.metadata
        assert metadata is not None
        require_unchanged("data", metadata.data, data, self.workdir.home, force=self.force)
        if metadata.weights and pipeline.directory != self.workdir.local / SKELETON:
            # They may be gone: the run continues with its own.
            with contextlib.suppress(WeightsError):
                params, _ = pipeline.read_params(seed=seed, **model.reinit)
                require_unchanged(
                    "pre-trained model",
                    {model.init: metadata.weights},
                    {model.init: encoder_digest(params, model.reinit_layers)},
                    self.workdir.home,
                    force=self.force,
                )
        return dataclasses.replace(metadata, data=data)

    def place(
        self,
        params: Params | None,
        pipeline: Pipeline,
        optimizer: optax.GradientTransformation,
    ) -> TrainState:
        """Return the state on the devices: a new one, or that of the newest intact checkpoint.

        Args:
          params: the parameters of a new run, on the host; None for a run that resumes.
          pipeline: task, model and devices.
          optimizer: from `optim.make_optimizer`.

        Raises:
          OutOfMemoryError: if it needs more memory than a device has.
        """
        parts = optimizer, pipeline.mesh, pipeline.task.loss_names
        shapes = state_shapes(pipeline.model.shapes, *parts)
        usage = memory.Usage.of_arrays(shapes)
        what = "placing parameters and optimizer state"

        def advise(_: memory.Usage | None) -> str:
            return _sharing(pipeline, optimizer)

        with memory.explain_exhaustion(what, memory.PARAMETERS, usage=usage, advise=advise):
            memory.require(usage)
            if params is not None:
                return init_state(params, *parts)
            assert self.step is not None
            self.checkpoints.delete_after(self.step)
            state: TrainState = self.checkpoints.restore(self.step, shapes)
            return state


def _sharing(pipeline: Pipeline, optimizer: optax.GradientTransformation) -> str:
    """Return the smallest `train.fsdp` with which the state fits, and what it needs; "" if none."""
    devices = pipeline.mesh.size
    for shared in range(sharding.fsdp(pipeline.mesh) + 1, devices + 1):
        if devices % shared:
            continue
        with contextlib.suppress(ConfigError):  # it divides no size of some parameter
            mesh = sharding.make_mesh(fsdp=shared)
            shapes = state_shapes(pipeline.model.shapes, optimizer, mesh, pipeline.task.loss_names)
            if (usage := memory.Usage.of_arrays(shapes)).fits:
                return f"train.fsdp={shared}, which needs {usage} for them"
    return ""


def encoder_digest(params: Params, new_layers: int = 0) -> str:
    """Return a hash of the encoder's pre-trained parameters.

    Args:
      params: all parameters.
      new_layers: the number of top layers that are new (`model.reinit_layers`). They are left out:
        kinds of devices compute random numbers with other rounding.
    """
    encoder = params["encoder"]
    kept = sorted(encoder["layers"])[: len(encoder["layers"]) - new_layers]
    layers = {number: encoder["layers"][number] for number in kept}
    return mapping.digests({"encoder": encoder | {"layers": layers}})["encoder"]

"""The batches of a run on the devices of a plan: those that the run itself would compute."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxbert.config import Config, validate
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.errors import ConfigError, DataError, HubError
from flaxbert.models.model import Model
from flaxbert.pipeline.costs import shape_costs
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.planning.topology import Target
from flaxbert.pretrained import formats
from flaxbert.pretrained.source import resolve
from flaxbert.runtime import sharding
from flaxbert.tasks import TASKS
from flaxbert.training.data import Sources, read_sources, tokenize
from flaxbert.training.microbatches import divisible
from flaxbert.training.optim import require_float32

log = logging.getLogger("flaxbert")

ANY_LABELS = ("O", "B-X", "I-X")
"""Labels of a plan without data that would give them. Their number changes next to nothing."""


TARGETS: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "classification": ((), {"label": np.int32}),
    "multi_label": ((), {}),
    "multiple_choice": ((), {"right": np.int32}),
    "pretraining": (("masked", "label"), {"follows": np.int32}),
    "question_answering": ((), {"start": np.int32, "end": np.int32}),
    "regression": ((), {"label": np.float32}),
    "token_classification": (("label", "first"), {}),
}
"""The arrays of each task's features besides the tokens: names of values per token, and of values
per sequence with their types."""


@dataclasses.dataclass(frozen=True)
class Work:
    """The batches of a run on the devices of a target."""

    pipeline: Pipeline
    arrays: Mapping[str, np.ndarray]
    """The largest batch, empty."""
    buckets: Mapping[int, int]
    """{rows: steps} of the whole run, ascending; without data, the number of steps is 0 unless
    `train.max_steps` gives it."""
    schedule_steps: int
    features: float
    """Features in a batch, the largest one."""
    padding: float | None
    """Share of the computed places that hold no token; None without data."""
    microbatches: int
    """Parts that a step is computed in, one after another."""
    divisible: bool
    """Whether these can be halved."""

    @property
    def rows(self) -> int:
        """R of the largest batch, over all devices."""
        return max(self.buckets)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return sum(self.buckets.values())


@dataclasses.dataclass(frozen=True)
class Job:
    """A configuration with its data, tokenized once for all devices that are planned for."""

    config: Config
    pipeline: Pipeline
    """Built for the devices of this machine; `on` replaces these."""
    features: Features
    """Without data, one that has only the names and types of the arrays."""
    note: str
    """Why there is no data; "" if there is."""

    @classmethod
    def read(cls, config: Config, *, use_data: bool = True) -> "Job":
        """Read the configuration's model, without weights, and its training data if it can be read.

        Raises:
          UserError: for a configuration, model or malformed data that the user can fix.
        """
        validate(config, TASKS)
        require_float32(config.model.param_dtype)
        sources, note = _sources(config) if use_data else (None, "--data=none")
        if sources is None:
            return _without_data(config, note)
        config = _without_evaluation(config)
        sections = config.task, config.model, config.data, config.options
        init = str(_directory(config))
        pipeline = Pipeline.build(*sections, init=init, train=sources.train.examples)
        data = tokenize(pipeline, sources, config.train)
        return cls(config, pipeline, data.train.batches.features, "")

    def on(self, target: Target, microbatches: int | None = None) -> Work:
        """Return the batches of the run on the devices of a target.

        Args:
          target: the devices.
          microbatches: instead of `train.accumulation_steps`.
        """
        config, train = self.config, self.config.train
        parts = microbatches or train.microbatches
        encoder = dataclasses.replace(
            self.pipeline.model.config,
            dtype=target.dtype if config.model.dtype == "auto" else config.model.dtype,
            attention=attention_way(config.model.attention, target),
        )
        pipeline = dataclasses.replace(
            self.pipeline,
            mesh=sharding.make_mesh(target.devices, fsdp=train.fsdp),
            model=Model.create(encoder, self.pipeline.model.make_head),
        )
        if self.note:
            return _full_rows(pipeline, self.features, config, parts)
        batches = pipeline.batches(
            self.features,
            batch_size=train.batch_size,
            seed=train.seed,
            epochs=train.epochs,
            accumulation_steps=parts,
        )
        steps = min(batches.steps, train.max_steps or batches.steps)
        rows, _ = batches.largest_shape
        return Work(
            pipeline,
            _empty(batches, rows),
            batches.bucket_counts(steps),
            batches.steps,
            features=min(train.batch_size, len(self.features)),
            padding=batches.padding_share(),
            microbatches=parts,
            divisible=divisible(batches, rows),
        )


def attention_way(way: str, target: Target) -> str:
    """Return how a run on a target probably computes attention; see `attention.attend`.

    With `auto` a run times both ways at its start. A plan cannot, and takes the kernel where one
    fits, as the run does on TPUs.
    """
    return "kernel" if way == "auto" and target.platform != "cpu" else way


def _sources(config: Config) -> tuple[Sources | None, str]:
    """Return the training data as read, or None and why it cannot be read."""
    if not config.data.train:
        return None, "data.train is not set"
    data = _without_evaluation(config).data
    try:
        return read_sources(config.task, data, config.options), ""
    except (DataError, HubError) as error:
        return None, str(error)


def _without_evaluation(config: Config) -> Config:
    """Return the configuration without a file to evaluate on, which a plan does not need."""
    if not config.data.eval:
        return config
    data = dataclasses.replace(config.data, eval=None, eval_split=0.0)
    return dataclasses.replace(config, data=data)


def _directory(config: Config) -> Path:
    """Return the directory of the model; of a model of the hub only config.json and tokenizer."""
    return resolve(config.model.init, config.model.revision, weights=False)


def _without_data(config: Config, note: str) -> Job:
    """Return a job of full rows, with any labels if neither configuration nor model gives some."""
    options = config.options or TASKS[config.task].options_type()
    directory = _directory(config)
    given = formats.read_config(directory).get("id2label")
    if "labels" in vars(options) and not (options.labels or given):
        options = dataclasses.replace(options, labels=ANY_LABELS)
    config = dataclasses.replace(config, options=options)
    sections = config.task, config.model, config.data, config.options
    pipeline = Pipeline.build(*sections, init=str(directory))
    return Job(config, pipeline, _one_feature(config.task, len(pipeline.task.labels)), note)


def _one_feature(task: str, labels: int) -> Features:
    """Return one feature of empty sequences with the arrays of a task; only these are used.

    Raises:
      ConfigError: for a task that does not come with flaxbert.
    """
    if task not in TARGETS:
        raise ConfigError(f"task={task!r}: a plan needs its data; set --config.data.train=FILE.")
    tokens, sequences = TARGETS[task]
    count = 2 if task == "multiple_choice" else 1
    label = {"label": np.zeros((count, labels), np.int32)} if task == "multi_label" else {}
    return Features.build(
        {name: np.zeros(0) for name in ("input_ids", "token_type_ids", *tokens)},
        lengths=np.zeros(count, np.int32),
        feature_index=np.zeros(count, np.int64),
        per_sequence={n: np.zeros(count, dtype) for n, dtype in sequences.items()} | label,
    )


def _full_rows(pipeline: Pipeline, features: Features, config: Config, parts: int) -> Work:
    """Return one batch of full rows, a row for each feature."""
    train, devices = config.train, sharding.data_parallelism(pipeline.mesh)
    multiple = devices * parts
    rows = math.ceil(train.batch_size / multiple) * multiple
    tile = shape_costs(pipeline.model.config, pipeline.mesh).tile
    length = config.data.row_length or math.ceil(config.data.max_length / tile) * tile
    batches = Batches(
        features,
        batch_size=train.batch_size,
        row_length=length,
        segments=1,
        data_parallelism=devices,
        steps=0,
        microbatches=parts,
        power_of_two_buckets=True,  # K is `segments`
    )
    steps = train.max_steps or 0
    arrays = _empty(batches, rows)
    return Work(
        pipeline,
        arrays,
        {rows: steps},
        max(1, steps),
        features=train.batch_size,
        padding=None,
        microbatches=parts,
        divisible=divisible(batches, rows),
    )


def _empty(batches: Batches, rows: int) -> dict[str, Any]:
    """Return the arrays of a batch of empty rows."""
    built = batches.build([[] for _ in range(rows)])
    named = {field.name: getattr(built, field.name) for field in dataclasses.fields(built)}
    extra = named.pop("extra")
    return {name: array for name, array in (named | extra).items() if array is not None}

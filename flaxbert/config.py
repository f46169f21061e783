"""The configuration of a run: typed, with defaults and help, validated before anything is loaded.

A file in configs/ builds a `Config`, and the command line overrides single fields. Options of a
single task (column names, answer lengths) are fields of that task's `options_type`.
"""

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from flaxbert.errors import ConfigError, input_problem, url_problem

FORMATS = ("csv", "tsv", "json", "jsonl", "conll", "parquet", "txt")
"""Formats of local files: the values of `data.format` besides "auto"."""

TRACKERS = ("wandb", "mlflow", "trackio")
"""Values of `train.trackers`: modules of flaxbert/runtime/trackers/, and extras that install
them."""

SEPARATORS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|"}
"""Names for `data.separator`, since some of these characters are special in a shell."""


def option(default: Any, help: str, *, column: bool = False) -> Any:
    """Return a dataclass field with a default and its text for `--help`.

    Args:
      default: value of the field.
      help: its text for `--help`.
      column: whether the field names something in a data file, such as a column. Other files may
        use other names, so the value may change when a run is evaluated.
    """
    return dataclasses.field(default=default, metadata={"help": help, "column": column})


@dataclasses.dataclass
class ModelConfig:
    """The pre-trained model, and the precision and memory of its computation."""

    init: str = option(
        "google-bert/bert-base-uncased",
        "pre-trained weights: a hub id, a directory, the workdir of a finished run, the URL of one "
        "of these, such as gs://BUCKET/DIR, or package://NAME",
    )
    revision: str | None = option(None, "branch, tag or commit, if model.init is a hub id")
    dtype: str = option(
        "auto",
        "type of matrix products and activations: float32, bfloat16, or auto (bfloat16 on TPUs and "
        "on NVIDIA GPUs, Ampere or newer, else float32; a run keeps its type). In training, "
        "parameters, gradients and the optimizer state are always float32",
    )
    param_dtype: str = option(
        "float32",
        "type of the parameters in memory: float32, or for --mode=eval and predict also bfloat16",
    )
    remat: str = option(
        "none",
        "recompute activations in the backward pass, to save memory: none, dots (all but matrix "
        "products) or full",
    )
    attention: str = option(
        "auto",
        "kernel uses a kernel that stores no attention probabilities, for TPUs and GPUs, where one "
        "fits; plain uses none; auto checks and times both at the start of training, and without "
        "training is kernel on TPUs, else plain. The log names the choice",
    )
    dropout: float | None = option(
        None, "rate of all dropout layers (default: the checkpoint's rates)"
    )
    reinit_head: bool = option(
        False, "initialize a new output layer even if the checkpoint has one"
    )
    reinit_layers: int = option(
        0, "number of top layers, with the pooler, to initialize anew before training"
    )
    max_position_embeddings: int | None = option(
        None,
        "resize the position table (truncate, or repeat its rows) for sequences of this length "
        "(default: its size in the checkpoint)",
    )
    resize_vocab: bool = option(
        False,
        "extend the embedding table to the size of the tokenizer's vocabulary; new rows are the "
        "mean of the others",
    )

    @property
    def reinit(self) -> dict[str, Any]:
        """The keywords of `Pipeline.load_params` for what is initialized anew."""
        return {"reinit_head": self.reinit_head, "reinit_layers": self.reinit_layers}


@dataclasses.dataclass
class DataConfig:
    """The data, and how texts become rows of tokens."""

    train: str | None = option(
        None,
        "training data: a file, a pattern of files, FILE+FILE (side by side, a line for each "
        "example), the URL of one of these, such as gs://BUCKET/*.csv, or a hub data set "
        "ID[:CONFIG][@SPLIT][#REVISION] (default split: train)",
    )
    eval: str | None = option(
        None, "evaluation data, in the same form as data.train (default split: validation)"
    )
    eval_split: float = option(
        0.0,
        "without data.eval: share of the training examples to hold out for evaluation; chosen by a "
        "hash of their texts, so equal texts, and questions on one context, stay together",
    )
    max_examples: int | None = option(
        None,
        "use at most this many examples of each data set, evenly spread, for a quick try (default: "
        "all); label names still come from all",
    )
    predict: str | None = option(
        None,
        "data for --mode=predict, in the same form as data.train; needs no labels (default split: "
        "test)",
    )
    slices: str | None = option(
        None,
        "column that names a group, such as a language; metrics are also reported for each group "
        "(accuracy/en)",
    )
    weight: str | None = option(
        None,
        "column of the training data with a number from 0 for each example: its weight in the loss",
        column=True,
    )
    teacher: str | None = option(
        None,
        "column of the training data with a list of probabilities, one for each label in order, "
        "that the model learns instead of the label",
        column=True,
    )
    format: str = option(
        "auto",
        "format of local files: auto (detected from extension and content), csv, tsv, json, jsonl, "
        "conll, parquet or txt",
    )
    columns: tuple[str, ...] = option(
        (), "column names of files without a header line, such as label,text"
    )
    separator: str | None = option(
        None,
        "separator of columns: comma, tab, semicolon, pipe, or a character (default: detected)",
    )
    quoting: str = option(
        "auto",
        "whether double quotes enclose cells, which may then hold separators and line breaks: "
        'auto, yes, escaped (a quote in a cell is written \\"), or no (quotes are text)',
    )
    encoding: str = option("utf-8", "encoding of text files: utf-8, utf-16, cp1252, cp1251, ...")
    on_bad_row: str = option(
        "error", "what to do with a malformed line, row or answer: error, or skip (and count)"
    )
    threshold_split: float = option(
        0.0, "share of the training examples to hold out for fitting thresholds"
    )
    max_length: int = option(128, "maximum tokens of a feature, including special tokens")
    overlap: int = option(
        32,
        "tokens that consecutive windows of a long document share; a quarter of max_length is a "
        "good value",
    )
    packing: bool = option(True, "pack several short features into one row")
    row_length: int | None = option(
        None,
        "tokens of a row, at least max_length (default: chosen for the lengths of the texts; "
        "max_length for single requests)",
    )
    feature_cache: str | None = option(
        "auto",
        "directory where large tokenized data sets are stored, for other runs on the same data: "
        "auto (flaxbert/features in $XDG_CACHE_HOME or ~/.cache), a path, or none; also for the "
        "temporary files of large pre-training text (with none: $TMPDIR)",
    )

    @property
    def evaluated(self) -> str | None:
        """The evaluation data, in words for messages; None without any."""
        return evaluation_data(self.train, self.eval, self.eval_split)


def evaluation_data(train: str | None, given: str | None, share: float) -> str | None:
    """Return the evaluation data in words: `data.eval`, or the part of `data.train` held out."""
    return given if given or not share else f"{share:.0%} of {train}, held out"


@dataclasses.dataclass
class TrainConfig:
    """Length and schedule of training. Batch sizes are global, over all devices and hosts."""

    epochs: float = option(3.0, "passes over the training data")
    batch_size: int = option(32, "features in an optimizer step")
    eval_batch_size: int = option(64, "features in an evaluation step")
    accumulation_steps: int | Literal["auto"] = option(
        1,
        "micro-batches per step; more need less memory, and the result is the same. auto is the "
        "smallest of 1, 2, 4, ... whose program fits the memory of the devices; a run keeps its "
        "number",
    )
    fsdp: int = option(
        1,
        "devices that share one copy of the parameters, gradients and moments: more devices, less "
        "memory on each (1: each device has its own copy; -1: all devices share one)",
    )
    reduce_dtype: str = option(
        "float32",
        "type in which devices sum the gradients of dense layers: float32; or, if model.dtype is "
        "bfloat16, bfloat16, which sends half as many bytes and rounds the sums",
    )
    max_steps: int | None = option(
        None, "stop after this step; the learning-rate schedule does not change"
    )
    seed: int = option(0, "seed of the data order, dropout and the new output layer")
    log_every: int = option(10, "steps between lines of metrics.jsonl")
    eval_every: int | None = option(
        None, "steps between evaluations (default: one epoch; 0: only at the end)"
    )
    save_every: int = option(
        500, "steps between checkpoints; evaluations and the last step save too"
    )
    save_minutes: float = option(15.0, "maximum minutes between checkpoints (0: no limit)")
    max_nonfinite_steps: int = option(
        0,
        "how many steps with a non-finite loss or gradient to skip before the run fails",
    )
    keep_best: str | None = option(
        None, "export the weights with the best value of this metric (default: the last weights)"
    )
    ema: float = option(
        0.0,
        "decay of an exponential moving average of the parameters, such as 0.999, which is "
        "evaluated and exported in their place (0: none)",
    )
    early_stopping: int = option(
        0,
        "stop after this many evaluations in a row without a better value of train.keep_best (by "
        "default the task's first metric), and export the best weights (0: train to the end)",
    )
    trackers: tuple[str, ...] = option(
        (),
        "trackers to log to, besides metrics.jsonl and TensorBoard: wandb, mlflow, trackio; their "
        "environment variables apply (see docs/trackers.md)",
    )
    project: str | None = option(
        None,
        "project of train.trackers, in MLflow the experiment (default: that of their environment "
        "variables, else flaxbert)",
    )

    @property
    def division(self) -> dict[str, Any]:
        """The arguments of `Pipeline.build` on how devices share the work."""
        return {"fsdp": self.fsdp, "reduce_dtype": self.reduce_dtype}

    @property
    def microbatches(self) -> int:
        """The number of micro-batches; 1 as long as `accumulation_steps` is auto."""
        return 1 if self.accumulation_steps == "auto" else self.accumulation_steps


@dataclasses.dataclass
class OptimConfig:
    """AdamW with linear warm-up and then a schedule (see flaxbert/training/optim.py)."""

    learning_rate: float = option(5e-5, "peak learning rate")
    warmup: float = option(
        0.1,
        "linear warm-up: a fraction of all steps if below 1, else a number of steps; it ends "
        "before the last step",
    )
    schedule: str = option(
        "linear",
        "the learning rate after the warm-up: linear, cosine or polynomial (see optim.power) decay "
        "to 0, or constant",
    )
    power: float = option(
        2.0, "exponent of optim.schedule=polynomial: the rate is the share of steps left to it"
    )
    weight_decay: float = option(0.01, "decoupled weight decay, except for biases and LayerNorm")
    clip_norm: float = option(1.0, "maximum global gradient norm (0: no clipping)")
    b1: float = option(0.9, "decay of Adam's first moment")
    b2: float = option(0.999, "decay of Adam's second moment")
    eps: float = option(1e-6, "Adam's epsilon")
    freeze: tuple[str, ...] = option(
        (),
        "regular expressions of parameter paths that are not trained, with all below them, such as "
        "encoder/embeddings,encoder/layers/[0-5]",
    )
    layer_decay: float = option(
        1.0,
        "factor of the learning rate for each layer below the top one; the embeddings have the "
        "lowest rate (1: all the same)",
    )
    bias_correction: bool = option(True, "Adam's bias correction (the original BERT has none)")


@dataclasses.dataclass
class Config:
    """The configuration of one run."""

    task: str = option("", "name of the task, a key of flaxbert.tasks.TASKS")
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    options: Any = None
    """Options of the task, an instance of its `options_type`."""

    def with_dtype(self, dtype: str) -> "Config":
        """Return the configuration with another `model.dtype`."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, dtype=dtype))

    def with_accumulation_steps(self, steps: int | Literal["auto"]) -> "Config":
        """Return the configuration with another `train.accumulation_steps`."""
        train = dataclasses.replace(self.train, accumulation_steps=steps)
        return dataclasses.replace(self, train=train)

    def to_dict(self) -> dict[str, Any]:
        """Return a nested dict with the types of JSON."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result


def fields(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yield (dotted name, field, value) for every leaf of a config, in order of declaration."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{name}.")
        elif not (name == "options" and value is None):
            yield name, field, value


def unknown_key(name: str, config: Any) -> ConfigError:
    """Return the error for a key that does not exist; it lists the valid keys of the section."""
    known = [key for key, _, _ in fields(config)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    section = name.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == section] or known
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"unknown config key {name!r}.{hint} Valid keys: {', '.join(siblings)}.")


def _is_encoding(name: str) -> bool:
    try:
        "a".encode(name)  # LookupError also for codecs of bytes, such as base64
    except (LookupError, ValueError):
        return False
    return True


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return bool(text)


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(
            _fits(item, typing.get_args(kind)[0]) for item in value
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def words_of(kind: Any) -> list[str]:
    """Return the words that a key of a type takes besides numbers: `auto` of int or "auto"."""
    literals = [part for part in typing.get_args(kind) if typing.get_origin(part) is Literal]
    return [word for part in literals for word in typing.get_args(part)]


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def validate(config: Config, tasks: Mapping[str, Any]) -> None:
    """Check types, ranges and combinations, without loading anything.

    Args:
      config: the configuration to check.
      tasks: the known tasks by name, with their `options_type`.

    Raises:
      ConfigError: with every invalid key, and its valid values.
    """
    problems = []
    for name, field, value in fields(config):
        if not _fits(value, field.type):
            kind = getattr(field.type, "__name__", str(field.type))
            if choices := words_of(field.type):
                kind = " or ".join(["int", *choices])
            problems.append(f"{name}={value!r}: expected {kind}")
        elif not all(map(_finite, value if isinstance(value, tuple) else (value,))):
            problems.append(f"{name}={value!r}: expected a finite number")
    if not problems:
        problems = list(_problems(config, tasks))
    if problems:
        raise ConfigError("invalid configuration:\n  " + "\n  ".join(problems))


def _problems(config: Config, tasks: Mapping[str, Any]) -> Iterator[str]:
    model, data, train, optim = config.model, config.data, config.train, config.optim
    if config.task not in tasks:
        yield f"task={config.task!r}: expected one of {', '.join(sorted(tasks))}"
    elif config.options is not None and not isinstance(
        config.options, tasks[config.task].options_type
    ):
        yield (
            f"options: {type(config.options).__name__} does not fit task={config.task!r}; expected "
            f"{tasks[config.task].options_type.__name__}. Use a config of this task"
        )
    for name, column in (("weight", data.weight), ("teacher", data.teacher)):
        able = [task for task, kind in sorted(tasks.items()) if name in kind.training_columns]
        if column and config.task in tasks and config.task not in able:
            yield f"data.{name}={column!r}: the tasks that can use it are {', '.join(able)}"
    for name, value, valid in (
        ("model.dtype", model.dtype, ("auto", "float32", "bfloat16")),
        ("model.param_dtype", model.param_dtype, ("float32", "bfloat16")),
        ("model.remat", model.remat, ("none", "dots", "full")),
        ("model.attention", model.attention, ("auto", "plain", "kernel")),
        ("train.reduce_dtype", train.reduce_dtype, ("float32", "bfloat16")),
        ("data.format", data.format, ("auto", *FORMATS)),
        ("data.quoting", data.quoting, ("auto", "yes", "escaped", "no")),
        ("data.on_bad_row", data.on_bad_row, ("error", "skip")),
        ("optim.schedule", optim.schedule, ("linear", "cosine", "polynomial", "constant")),
    ):
        if value not in valid:
            yield f"{name}={value!r}: expected one of {', '.join(valid)}"
    for name, number, least in (
        ("model.reinit_layers", model.reinit_layers, 0),
        ("data.max_length", data.max_length, 8),
        ("data.overlap", data.overlap, 0),
        ("data.max_examples", data.max_examples, 1),
        ("train.batch_size", train.batch_size, 1),
        ("train.eval_batch_size", train.eval_batch_size, 1),
        ("train.accumulation_steps", train.microbatches, 1),
        ("train.max_steps", train.max_steps, 1),
        ("train.log_every", train.log_every, 1),
        ("train.eval_every", train.eval_every, 0),
        ("train.save_every", train.save_every, 1),
        ("train.save_minutes", train.save_minutes, 0),
        ("train.max_nonfinite_steps", train.max_nonfinite_steps, 0),
        ("train.early_stopping", train.early_stopping, 0),
        ("train.seed", train.seed, 0),
        ("optim.learning_rate", optim.learning_rate, 0),
        ("optim.warmup", optim.warmup, 0),
        ("optim.weight_decay", optim.weight_decay, 0),
        ("optim.clip_norm", optim.clip_norm, 0),
    ):
        if number is not None and number < least:
            yield f"{name}={number!r}: expected at least {least}"
    if train.fsdp < 1 and train.fsdp != -1:
        yield f"train.fsdp={train.fsdp!r}: expected at least 1, or -1 for all devices"
    for tracker in train.trackers:
        if tracker not in TRACKERS:
            yield f"train.trackers={tracker!r}: expected some of {', '.join(TRACKERS)}"
    if data.separator is not None and len(SEPARATORS.get(data.separator, data.separator)) != 1:
        yield (
            f"data.separator={data.separator!r}: expected one of {', '.join(SEPARATORS)}, or one "
            "character"
        )
    if len(set(data.columns)) != len(data.columns) or not all(data.columns):
        yield f"data.columns={data.columns!r}: each column needs a unique name"
    if not _is_encoding(data.encoding):
        yield f"data.encoding={data.encoding!r}: expected a Python encoding, such as cp1252"
    is_package = model.init.startswith("package://")
    for name, source in (
        ("model.init", None if is_package else model.init),
        ("data.train", data.train),
        ("data.eval", data.eval),
        ("data.predict", data.predict),
    ):
        if problem := input_problem(name, source):
            yield problem
    for name, path in (
        ("model.init", model.init.removeprefix("package://") if is_package else None),
        ("data.feature_cache", data.feature_cache),
    ):
        if problem := url_problem(name, path):
            yield problem
    for name, positive in (("train.epochs", train.epochs), ("optim.power", optim.power)):
        if not positive > 0:
            yield f"{name}={positive!r}: expected more than 0"
    for name, share in (
        ("optim.b1", optim.b1),
        ("optim.b2", optim.b2),
        ("train.ema", train.ema),
    ):
        if not 0 <= share < 1:
            yield f"{name}={share!r}: expected at least 0 and less than 1"
    if not 0 < optim.layer_decay <= 1:
        yield f"optim.layer_decay={optim.layer_decay!r}: expected more than 0 and at most 1"
    for pattern in optim.freeze:
        if not _is_pattern(pattern):
            yield f"optim.freeze: {pattern!r} is not a regular expression"
    for name, share in (
        ("data.threshold_split", data.threshold_split),
        ("data.eval_split", data.eval_split),
    ):
        if not 0 <= share <= 0.5:
            yield f"{name}={share!r}: expected 0 to 0.5"
    if model.dropout is not None and not 0 <= model.dropout < 1:
        yield f"model.dropout={model.dropout!r}: expected at least 0 and less than 1"
    if data.row_length is not None and data.row_length < data.max_length:
        yield (
            f"data.row_length={data.row_length}: expected at least data.max_length="
            f"{data.max_length}, because a row must hold the longest feature"
        )
    for name, is_on in (
        ("train.keep_best", bool(train.keep_best)),
        ("train.early_stopping", train.early_stopping > 0),
    ):
        if is_on and not data.evaluated:
            yield f"{name} needs evaluations, but data.eval is not set, nor data.eval_split"
        if is_on and train.eval_every == 0:
            yield (
                f"{name} needs evaluations during training, but train.eval_every=0; set it to a "
                "number of steps, or to none for one evaluation per epoch"
            )

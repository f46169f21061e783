"""The configuration of a run: typed, with defaults and help, checked before anything is loaded.

A file under configs/ builds a `Config`; the command line overrides single fields. The options of
one task (column names, answer lengths) live in that task's own `Options` class.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from flaxbert.errors import ConfigError, url_problem

FORMATS = ("csv", "tsv", "json", "jsonl", "conll", "parquet", "txt")
"""The forms of local files, values of `data.format` besides "auto"."""

SEPARATORS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|"}
"""Names of separators, for `data.separator`: a shell swallows some of these characters."""


def option(default: Any, help: str, *, column: bool = False) -> Any:
    """Return a dataclass field with a default and a line for `--help`.

    `column`: it says how a data file names something. Another file may name it otherwise, so a run
    can be evaluated with another value.
    """
    return dataclasses.field(default=default, metadata={"help": help, "column": column})


@dataclasses.dataclass
class ModelConfig:
    """Which pre-trained model, and how it computes."""

    init: str = option(
        "google-bert/bert-base-uncased",
        "pre-trained weights: hub id, directory, a finished run's workdir, or package://NAME",
    )
    revision: str | None = option(None, "branch, tag or commit of a hub id")
    dtype: str = option(
        "float32",
        "matrix products and activations: float32 or bfloat16; parameters, their gradients, the "
        "optimizer and output layers are float32 in both",
    )
    param_dtype: str = option(
        "float32", "parameters in memory: float32; for --mode=eval and predict also bfloat16"
    )
    remat: str = option("none", "memory for time in the backward pass: none, dots or full")
    dropout: float | None = option(None, "every dropout rate (default: the checkpoint's)")
    reinit_head: bool = option(False, "start a new output layer even if the checkpoint has one")
    max_position_embeddings: int | None = option(
        None, "longest sequence: cuts the table of positions, or repeats it (default: its size)"
    )
    resize_vocab: bool = option(
        False, "add rows for tokens that the tokenizer has more, equal to the mean of all others"
    )


@dataclasses.dataclass
class DataConfig:
    """Which data, and how texts become rows of tokens."""

    train: str | None = option(
        None, "file, or hub data set ID[:CONFIG][@SPLIT][#REVISION] (split train)"
    )
    eval: str | None = option(None, "the same for evaluation (split validation)")
    predict: str | None = option(None, "the same for --mode=predict; needs no labels (split test)")
    slices: str | None = option(None, "column whose values get metrics of their own (accuracy/en)")
    format: str = option(
        "auto",
        "form of local files: auto (by ending and content), csv, tsv, json, jsonl, conll, parquet, "
        "txt",
    )
    columns: tuple[str, ...] = option(
        (), "names of the columns of a file whose first line does not name them: label,text"
    )
    separator: str | None = option(
        None,
        "between columns: comma, tab, semicolon, pipe, or a character (default: by the content)",
    )
    quoting: str = option(
        "auto",
        "cells in double quotes, which may hold separators and line breaks: auto, yes, escaped (a "
        'quote within is written \\"), or no (a quote is a character)',
    )
    encoding: str = option("utf-8", "of text files: utf-8, utf-16, cp1252, cp1251, latin1, ...")
    on_bad_row: str = option("error", "malformed lines, rows and answers: error, or skip and count")
    threshold_split: float = option(
        0.0, "share of the training examples kept out of training, on which thresholds are fitted"
    )
    max_length: int = option(128, "longest feature in tokens, special tokens included")
    overlap: int = option(
        32,
        "tokens that two neighbouring windows of a long document share; a quarter of max_length "
        "serves well",
    )
    packing: bool = option(True, "several short features share a row")
    row_length: int | None = option(None, "tokens of a row (default: max_length)")


@dataclasses.dataclass
class TrainConfig:
    """How long and how to train. Batch sizes are global: over all devices and hosts."""

    epochs: float = option(3.0, "passes over the training data")
    batch_size: int = option(32, "features an optimizer step")
    eval_batch_size: int = option(64, "features an evaluation step")
    accumulation_steps: int = option(1, "parts a step is computed in (less memory, equal result)")
    max_steps: int | None = option(None, "stop early; the learning-rate schedule stays the same")
    seed: int = option(0, "order, dropout and the new output layer")
    log_every: int = option(10, "steps between lines of metrics.jsonl")
    eval_every: int | None = option(None, "steps between evaluations (default: each epoch; 0: end)")
    save_every: int = option(500, "steps between checkpoints; each evaluation and the end save too")
    save_minutes: float = option(15.0, "minutes between checkpoints at most (0: by steps alone)")
    max_nonfinite_steps: int = option(
        0, "steps to skip whose loss or gradient is not finite, before the run stops (0: at once)"
    )
    keep_best: str | None = option(None, "metric that selects the weights (default: the last ones)")


@dataclasses.dataclass
class OptimConfig:
    """AdamW as BERT uses it (see flaxbert/optim.py)."""

    learning_rate: float = option(5e-5, "peak learning rate")
    warmup: float = option(
        0.1,
        "linear warm-up: a share of all steps if below 1, else steps; it ends before the last step",
    )
    weight_decay: float = option(0.01, "decoupled; not on biases and LayerNorm")
    clip_norm: float = option(1.0, "largest global gradient norm; 0: no clipping")
    b1: float = option(0.9, "Adam: decay of the first moment")
    b2: float = option(0.999, "Adam: decay of the second moment")
    eps: float = option(1e-6, "Adam: epsilon")
    bias_correction: bool = option(True, "Adam's bias correction (the original BERT has none)")


@dataclasses.dataclass
class Config:
    """One run."""

    task: str = option("", "a name in flaxbert.tasks.TASKS")
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    options: Any = None
    """The task's own options, an instance of its `options_type`."""

    def to_dict(self) -> dict[str, Any]:
        """Nested, of JSON's types."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result


def fields(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every leaf of a config as (dotted name, field, value), in reading order."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{name}.")
        elif not (name == "options" and value is None):
            yield name, field, value


def unknown_key(name: str, config: Any) -> ConfigError:
    """The error for a key that does not exist, with the valid ones of its section."""
    known = [known for known, _, _ in fields(config)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    section = name.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == section] or known
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"unknown config key {name!r}.{hint} Valid: {', '.join(siblings)}.")


def _is_encoding(name: str) -> bool:
    try:
        "a".encode(name)  # LookupError also for codecs that are not of text, such as base64
    except (LookupError, ValueError):
        return False
    return True


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(
            _fits(each, typing.get_args(kind)[0]) for each in value
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def validate(config: Config, tasks: Mapping[str, Any]) -> None:
    """Check types, ranges and combinations; nothing is loaded.

    Args:
      config: what to check.
      tasks: the known tasks by name; each has an `options_type`.

    Raises:
      ConfigError: naming every key that is wrong, and the valid values.
    """
    problems = []
    for name, field, value in fields(config):
        if not _fits(value, field.type):
            kind = getattr(field.type, "__name__", str(field.type))
            problems.append(f"{name}={value!r}: expected {kind}")
        elif not all(map(_finite, value if isinstance(value, tuple) else (value,))):
            problems.append(f"{name}={value!r}: expected a finite number")
    if not problems:
        problems = list(_problems(config, tasks))
    if problems:
        raise ConfigError("bad configuration:\n  " + "\n  ".join(problems))


def _problems(config: Config, tasks: Mapping[str, Any]) -> Iterator[str]:
    model, data, train, optim = config.model, config.data, config.train, config.optim
    if config.task not in tasks:
        yield f"task={config.task!r}: known tasks are {', '.join(sorted(tasks))}"
    elif config.options is not None and not isinstance(
        config.options, tasks[config.task].options_type
    ):
        yield f"task={config.task!r}: the config's options are of another task; take its own config"
    for name, value, valid in (
        ("model.dtype", model.dtype, ("float32", "bfloat16")),
        ("model.param_dtype", model.param_dtype, ("float32", "bfloat16")),
        ("model.remat", model.remat, ("none", "dots", "full")),
        ("data.format", data.format, ("auto", *FORMATS)),
        ("data.quoting", data.quoting, ("auto", "yes", "escaped", "no")),
        ("data.on_bad_row", data.on_bad_row, ("error", "skip")),
    ):
        if value not in valid:
            yield f"{name}={value!r}: one of {', '.join(valid)}"
    for name, number, least in (
        ("data.max_length", data.max_length, 8),
        ("data.overlap", data.overlap, 0),
        ("train.batch_size", train.batch_size, 1),
        ("train.eval_batch_size", train.eval_batch_size, 1),
        ("train.accumulation_steps", train.accumulation_steps, 1),
        ("train.max_steps", train.max_steps, 1),
        ("train.log_every", train.log_every, 1),
        ("train.eval_every", train.eval_every, 0),
        ("train.save_every", train.save_every, 1),
        ("train.save_minutes", train.save_minutes, 0),
        ("train.max_nonfinite_steps", train.max_nonfinite_steps, 0),
        ("train.seed", train.seed, 0),
        ("optim.learning_rate", optim.learning_rate, 0),
        ("optim.warmup", optim.warmup, 0),
        ("optim.weight_decay", optim.weight_decay, 0),
        ("optim.clip_norm", optim.clip_norm, 0),
    ):
        if number is not None and number < least:
            yield f"{name}={number!r}: at least {least}"
    if data.separator is not None and len(SEPARATORS.get(data.separator, data.separator)) != 1:
        yield f"data.separator={data.separator!r}: one of {', '.join(SEPARATORS)}, or one character"
    if len(set(data.columns)) != len(data.columns) or not all(data.columns):
        yield f"data.columns={data.columns!r}: each column needs a name of its own"
    if not _is_encoding(data.encoding):
        yield f"data.encoding={data.encoding!r}: an encoding that Python has, such as utf-8, cp1252"
    for name, path in (
        ("model.init", model.init.removeprefix("package://")),
        ("data.train", data.train),
        ("data.eval", data.eval),
        ("data.predict", data.predict),
    ):
        if problem := url_problem(name, path):
            yield problem
    if not train.epochs > 0:
        yield f"train.epochs={train.epochs!r}: above 0"
    for name, share in (("optim.b1", optim.b1), ("optim.b2", optim.b2)):
        if not 0 <= share < 1:
            yield f"{name}={share!r}: from 0 to below 1"
    if not 0 <= data.threshold_split <= 0.5:
        yield f"data.threshold_split={data.threshold_split!r}: from 0 to 0.5"
    if model.dropout is not None and not 0 <= model.dropout < 1:
        yield f"model.dropout={model.dropout!r}: from 0 to below 1"
    if data.row_length is not None and data.row_length < data.max_length:
        yield (
            f"data.row_length={data.row_length} below data.max_length={data.max_length}: a row "
            "must hold the longest feature; lower max_length or raise row_length"
        )
    if train.keep_best and not data.eval:
        yield "train.keep_best needs data.eval, on which it selects"
    if train.keep_best and train.eval_every == 0:
        yield "train.keep_best needs evaluations during training; train.eval_every=0 has none"

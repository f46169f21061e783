"""The configuration of the run in a workdir, which `eval` and `predict` use as it was trained."""

import copy
import dataclasses
import functools
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from flaxbert.config import Config, DataConfig, fields
from flaxbert.errors import ConfigError, WorkdirError
from flaxbert.pretrained import source
from flaxbert.runtime.workdir import flatten
from flaxbert.tasks import TASKS

log = logging.getLogger("flaxbert")

BOUND = (
    "model.init",
    "model.revision",
    "model.max_position_embeddings",
    "data.max_length",
    "data.overlap",
    "data.eval_split",  # another share would hold out examples that the run has trained on
)
"""Keys that the run fixes, like all options except columns. Another value in a flag is an error."""

SPEED = ("data.packing", "data.row_length")
"""Keys of the run that a flag may change, like columns, because no prediction depends on them."""


def holds_run(workdir: Path) -> bool:
    """Return whether a directory is a run's workdir, finished or not."""
    return (workdir / "export").is_dir() or (workdir / "checkpoints").is_dir()


def workdir_of(model: Path) -> Path:
    """Return the workdir that a directory of a model belongs to: its parent for an export."""
    return model.parent if model.name == "export" else model


def as_trained(
    config: Config, workdir: Path, given: Collection[str], *, level: int = logging.INFO
) -> Config:
    """Return the configuration with the run's own lengths, options and model.

    Args:
      config: the configuration of the command line, or one built in Python.
      workdir: the workdir of a run.
      given: the keys that flags set. A flag overrides the run if the key may change, and is an
        error otherwise. All other values are replaced by those of the run.
      level: of the log line that lists the replaced values.

    Raises:
      WorkdirError: if the run's config.json is missing or corrupt.
      ConfigError: for another task, or a flag that contradicts the run.
    """
    path = workdir / "config.json"
    try:
        stored = _read(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WorkdirError(
            f"{path}: not the configuration of a run ({reason}), so the lengths and "
            f"options that it was trained with are unknown. Restore the file, or give them as "
            f"flags, with --config.model.init={workdir} and another --workdir."
        ) from None
    if config.task != stored["task"]:
        raise ConfigError(
            f"{workdir} holds a run of the task {stored['task']!r}, but the configuration is of "
            f"{config.task!r}. Use the --config that it was trained with, or another --workdir."
        )
    config = copy.deepcopy(config)
    if config.options is None and config.task in TASKS:
        config.options = TASKS[config.task].options_type()
    if config.model.dtype == "auto" and stored.get("model.dtype") == "float32":
        config.model.dtype = "float32"  # its results were computed so, whatever the devices are
    differing = list(_differences(config, stored))
    refused = [
        f"{name}: {old!r} in the run, {now!r} in the flag"
        for name, old, now, loose in differing
        if name in given and not loose
    ]
    if refused:
        raise ConfigError(
            f"{workdir} holds a run that these flags contradict:\n  "
            + "\n  ".join(refused)
            + f"\nLeave the flags out to use the run's values. To try others, give "
            f"--config.model.init={workdir} and another --workdir."
        )
    taken = [(name, old, now) for name, old, now, _ in differing if name not in given]
    for name, old, _ in taken:
        section, _, key = name.rpartition(".")
        value = tuple(old) if isinstance(old, list) else old
        setattr(functools.reduce(getattr, section.split("."), config), key, value)
    if taken:
        values = ", ".join(f"{name}={old!r} instead of {now!r}" for name, old, now in taken)
        log.log(level, f"{workdir}: using the run's values: {values}")
    return config


def config_of(workdir: Path) -> Config:
    """Return the configuration of a run: its task, lengths, options and columns.

    Raises:
      WorkdirError: if the run's config.json is missing or corrupt.
    """
    try:
        task = _read(workdir / "config.json")["task"]
    except (OSError, ValueError):
        task = ""
    return as_trained(Config(task=task), workdir, given=(), level=logging.DEBUG)  # of defaults


def data_of(workdir: Path) -> DataConfig:
    """Return the data section of a run: its files and how they were read.

    Raises:
      WorkdirError: if the run's config.json is missing or corrupt.
    """
    path = workdir / "config.json"
    try:
        values = {name: value for name, value in _read(path).items() if name.startswith("data.")}
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: not the configuration of a run ({error}).") from None
    data, known = DataConfig(), {field.name for field in dataclasses.fields(DataConfig)}
    for name, value in values.items():
        if (key := name.removeprefix("data.")) in known:
            setattr(data, key, tuple(value) if isinstance(value, list) else value)
    return data


def warn_about_differences(config: Config) -> None:
    """Warn if `model.init` is a run that was trained with other lengths or options."""
    workdir = workdir_of(source.local(config.model.init))
    try:
        stored = _read(workdir / "config.json") if holds_run(workdir) else {}
    except (OSError, ValueError):  # nothing to compare with
        return
    differing = [
        f"{name}={old!r} (here {now!r})"
        for name, old, now, loose in _differences(config, stored)
        if not loose and not name.startswith("model.")
    ]
    if differing:
        log.warning(f"{workdir}: was trained with {', '.join(differing)}")


def _read(path: Path) -> dict[str, Any]:
    """Return a run's config.json as {key: value}.

    Raises:
      ValueError: if the file holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("task"), str):
        raise ValueError("no task in it")
    return flatten(content)


def _differences(config: Config, stored: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, bool]]:
    """Yield (key, run's value, value now, whether a flag may change it) of the run's own keys."""
    now = flatten(config.to_dict())
    for name, field, _ in fields(config):
        option = name.startswith("options.")
        if name not in stored or stored[name] == now[name]:  # the run may lack new keys
            continue
        if not (option or name in BOUND or name in SPEED):
            continue
        # Labels that the run took from its data are in its export, and compared there.
        derived = name == "options.labels" and not stored[name]
        renamed = field.metadata.get("column", False) and None not in (stored[name], now[name])
        yield name, stored[name], now[name], name in SPEED or renamed or derived

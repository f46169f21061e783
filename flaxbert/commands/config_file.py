"""Config files: Python files whose `get_config()` returns a configuration.

A file is given by its path, or by its name if it comes with flaxbert: `squad` is configs/squad.py.
"""

import dataclasses
import re
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxbert import packaged
from flaxbert.config import Config, unknown_key
from flaxbert.errors import ConfigError


def load_config(spec: str) -> Config:
    """Execute the config file NAME[:ARG] or FILE[:ARG] once and return its configuration.

    `get_config()` may also return an `ml_collections.ConfigDict` with the keys of `Config`.

    Raises:
      ConfigError: if there is no such file, if it fails, or if it returns something else.
    """
    file, argument = split(spec)
    path = _find(file)
    module = types.ModuleType(f"flaxbert_config_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look up the module of their class
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        exec(code, module.__dict__)
        config = module.get_config(*[] if argument is None else [argument])
        if not isinstance(config, Config):
            config = _from_config_dict(config)
    except Exception as error:  # the file is the user's and may raise anything
        raise ConfigError(f"--config={spec}: {_reason(error, str(path))}") from error
    return config


def split(spec: str) -> tuple[str, str | None]:
    """Return NAME or FILE, and ARG if there is one; the colon after a Windows drive is no mark."""
    drive = spec[:2] if re.match(r"[A-Za-z]:[\\/]", spec) else ""
    file, colon, argument = spec.removeprefix(drive).partition(":")
    return f"{drive}{file}", argument if colon else None


def run_name(spec: str) -> str:
    """Return a name for the directory of a run: `squad_es` for squad:es and configs/squad.py:es."""
    file, argument = split(spec)
    stem = Path(file).stem
    return re.sub(r"[^\w.-]+", "_", f"{stem}_{argument}" if argument else stem)


def _find(name: str) -> Path:
    """Return a config file that the user has, or that comes with flaxbert.

    Raises:
      ConfigError: if there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if shipped := packaged.configs().get(name):
        return shipped
    if path.stem in packaged.configs():
        raise ConfigError(
            f"--config: no file {path} (from {Path.cwd()}). The config of this name that comes "
            f"with flaxbert is --config={path.stem}."
        )
    raise ConfigError(
        f"--config: no file {path} (from {Path.cwd()}), and flaxbert comes with "
        f"{', '.join(packaged.configs())}. Give one of these names, or the path of your file."
    )


def _reason(error: Exception, file: str) -> str:
    """Return what failed, with the line of the config file where it did."""
    if isinstance(
        error, ConfigError | ValueError
    ):  # the config file raised it with its own message
        return str(error)
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"


def _from_config_dict(values: Any) -> Config:
    """Convert an `ml_collections.ConfigDict` with the keys of `Config`.

    Raises:
      ConfigError: for anything else, and for a key that does not exist.
    """
    import ml_collections

    if not isinstance(values, ml_collections.ConfigDict):
        raise ConfigError("get_config() must return flaxbert's Config (or a ConfigDict).")
    config, entries = Config(), values.to_dict()
    options = entries.pop("options", None)
    if entries.get("task"):  # its options have a type of their own
        from flaxbert.tasks import TASKS

        task = TASKS.get(entries["task"])
        config.options = task.options_type() if task else None
    _fill(config, entries | ({} if options is None else {"options": options}), config, "")
    return config


def _fill(section: Any, entries: Mapping[str, Any], config: Config, prefix: str) -> None:
    names = {field.name for field in dataclasses.fields(section)}
    for name, value in entries.items():
        current = getattr(section, name, None)
        if name not in names or (isinstance(value, Mapping) and current is None):
            raise unknown_key(f"{prefix}{name}", config)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            _fill(current, value, config, f"{prefix}{name}.")
        else:
            setattr(section, name, tuple(value) if isinstance(value, list) else value)

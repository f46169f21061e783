"""The command line that all commands share: flags, `--config=NAME[:ARG]` and its overrides.

The configuration decides which overrides exist and of which type they are, so the config file is
executed first, and once; then one pass over the arguments assigns everything.
"""

import ast
import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxbert.commands import config_file, help_text
from flaxbert.commands.help_text import DESCRIPTIONS, Flag
from flaxbert.config import Config, fields, unknown_key
from flaxbert.errors import ConfigError
from flaxbert.runtime import storage

MODES = tuple(DESCRIPTIONS)
PLATFORMS = ("cpu", "gpu", "tpu")
HELP = ("-h", "-help", "--help", "--helpfull")

MODE = Flag("mode", "train", "what to do", MODES)
RUN_FLAGS = (
    Flag("workdir", "", "directory for the files of this run; runs/NAME if it is not given"),
    MODE,
    Flag(
        "distributed",
        "",
        "run on several hosts: auto (TPU slices, SLURM and similar), or HOST:PORT,COUNT,INDEX with "
        "the first host's address, the number of hosts, and this host's index from 0",
    ),
    Flag("require", "", "stop before anything is read, unless JAX uses this platform", PLATFORMS),
    Flag("force", False, "resume even if the configuration or the data have changed (train only)"),
    Flag(
        "smoke",
        False,
        "try the configuration in a temporary directory: train two steps, evaluate, save, restore "
        "and load the export, and print what passed (train only)",
    ),
    Flag(
        "profile",
        "",
        "START:STOP: write a profile of the steps from START to before STOP to the directory "
        "profile/ in the workdir, for Perfetto and TensorBoard (train only)",
    ),
    Flag(
        "explain",
        None,
        "explain in sentences what the run does and what its numbers mean, in the language of the "
        "environment variable FLAXBERT_LANG (en or es) or of the locale; auto: on a terminal "
        "(train only)",
    ),
)
"""Flags of a run; `train`, `eval` and `predict` have all of them but --mode."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A parsed command line."""

    config: Config
    workdir: Path
    flags: Mapping[str, Any]
    """Values of all flags but --config, by name."""
    config_flags: tuple[str, ...]
    """`--config=NAME[:ARG]` and its overrides, each one argument: another process can take them."""
    given: frozenset[str]
    """Keys of the configuration that flags set; all others come from the config file."""

    @property
    def mode(self) -> str:
        """One of MODES."""
        return str(self.flags["mode"])

    @property
    def distributed(self) -> str:
        """The value of --distributed, which finds the other hosts; "" for a single host."""
        return str(self.flags["distributed"])

    @property
    def require(self) -> str:
        """The value of --require, one of PLATFORMS; "" without it."""
        return str(self.flags["require"])

    @property
    def force(self) -> bool:
        """Whether to resume although something has changed."""
        return bool(self.flags["force"])

    @property
    def smoke(self) -> bool:
        """Whether to try the configuration only; see commands/smoke.py.

        Raises:
          ConfigError: if it is combined with several hosts.
        """
        if self.flags["smoke"] and self.distributed:
            raise ConfigError("--smoke runs on one host; leave --distributed out.")
        return bool(self.flags["smoke"])

    @property
    def explain(self) -> bool | None:
        """Whether to explain the run; None without the flag."""
        explain: bool | None = self.flags["explain"]
        return explain

    @property
    def profile(self) -> range:
        """The steps to profile, from 1; empty without --profile.

        Raises:
          ConfigError: for a range that is malformed or has no steps.
        """
        text = str(self.flags["profile"])
        if not text:
            return range(0)
        match = re.fullmatch(r"(\d+):(\d+)", text)
        steps = range(int(match[1]), int(match[2])) if match else range(0)
        if not steps or steps.start < 1:
            raise ConfigError(
                f"--profile={text}: expected START:STOP, two step numbers with 1 <= START < STOP. "
                "--profile=10:15 writes a profile of the steps 10 to 14."
            )
        return steps


class HelpRequested(Exception):
    """`--help` was given; the message is the text to print."""


def parse(
    argv: Sequence[str],
    description: str,
    *,
    flags: Sequence[Flag] = RUN_FLAGS,
    workdir: str = "runs/{}",
) -> Arguments:
    """Parse a command line.

    Args:
      argv: the program's name and its arguments.
      description: what --help prints before flags and keys.
      flags: the command's flags besides --config.
      workdir: the directory without --workdir, with {} for the name of the configuration.

    Raises:
      HelpRequested: for --help.
      ConfigError: for an unknown flag or key, a value of the wrong type, or a bad config file.
    """
    tokens = [token for token in argv[1:] if token not in HELP]
    wants_help = len(tokens) < len(argv) - 1
    spec = value_of("config", tokens)
    if spec is None:
        if wants_help:
            raise HelpRequested(help_text.render(description, flags))
        raise ConfigError("no --config=NAME. Try --config=quickstart, or see --help.")
    config = config_file.load_config(spec)
    values, overrides = _split(tokens, flags, config)
    types_by_key = {name: field.type for name, field, _ in fields(config)}
    for key, words in overrides.items():
        _assign(config, key, _read_override(key, words, types_by_key[key]))
    if wants_help:
        raise HelpRequested(help_text.render(description, flags, config))
    directory = str(values.get("workdir") or workdir.format(config_file.run_name(spec)))
    repeated = [f"--config.{key}={word}" for key, words in overrides.items() for word in words]
    return Arguments(
        config,
        storage.as_path(directory).expanduser(),
        values,
        (f"--config={spec}", *repeated),
        frozenset(overrides),
    )


def value_of(name: str, tokens: Sequence[str]) -> str | None:
    """Return a flag's last value in arguments that are not parsed yet; None without the flag."""
    value = None
    for index, token in enumerate(tokens):
        if match := re.fullmatch(rf"--?{name}(?:=(.*))?", token, re.DOTALL):
            following = (tokens[index + 1 : index + 2] or [""])[0]
            value = following if match[1] is None else match[1]
    return value


def _split(
    tokens: Sequence[str], flags: Sequence[Flag], config: Config
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the values of flags, and {key: its texts in order} of overrides.

    Raises:
      ConfigError: for an unknown flag or key, a missing or bad value of a flag, or a stray word.
    """
    kinds: dict[str, Any] = {"config": str} | {
        flag.name: bool if flag.default is None else type(flag.default) for flag in flags
    }
    kinds |= {f"config.{name}": field.type for name, field, _ in fields(config)}
    values: dict[str, Any] = {flag.name: flag.default for flag in flags}
    choices = {flag.name: flag.choices for flag in flags}
    overrides: dict[str, list[str]] = {}
    stray = []
    rest = iter(tokens)
    for token in rest:
        match = re.fullmatch(r"--?([A-Za-z][^=]*)(?:=(.*))?", token, re.DOTALL)
        if match is None:
            stray.append(token)
            continue
        name, text = match.groups()
        if text is None and name.startswith("no") and kinds.get(name[2:]) is bool:
            name, text = name[2:], "false"
        if name not in kinds:
            raise _unknown(name, flags, config)
        if text is None:
            text = "true" if kinds[name] is bool else next(rest, None)
        if text is None:
            raise ConfigError(f"--{name} needs a value: --{name}=VALUE.")
        if name.startswith("config."):
            overrides.setdefault(name.removeprefix("config."), []).append(text)
        elif name != "config":
            values[name] = _read(f"--{name}={text}", text, kinds[name])
            if choices[name] and text not in choices[name]:
                raise ConfigError(f"--{name}={text}: expected {'|'.join(choices[name])}.")
    if stray:
        raise ConfigError(f"unexpected arguments: {' '.join(stray)}. Write --FLAG=VALUE.")
    return values, overrides


def _unknown(name: str, flags: Sequence[Flag], config: Config) -> ConfigError:
    if match := re.fullmatch(r"(?:no)?config\.(.+)", name):
        return unknown_key(match[1], config)
    known = {flag.name: f"--{flag.name}" for flag in flags}
    known |= {key.rpartition(".")[2]: f"--config.{key}" for key, _, _ in fields(config)}
    similar = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {known[similar[0]]}?" if similar else ""
    return ConfigError(f"unknown flag --{name}.{hint} --help lists flags and keys.")


def _assign(config: Config, key: str, value: Any) -> None:
    *sections, name = key.split(".")
    setattr(functools.reduce(getattr, sections, config), name, value)


def _read_override(key: str, words: Sequence[str], kind: Any) -> Any:
    """Return the value of a key; a tuple takes all its flags, any other key the last one."""
    readings = [_read(f"--config.{key}={word}", word, kind) for word in words]
    if typing.get_origin(kind) is tuple:
        return tuple(item for reading in readings for item in reading)
    return readings[-1]


EXPECTED = {bool: "true or false", int: "an integer", float: "a number"}
BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def _read(flag: str, text: str, kind: Any) -> Any:
    """Return a text as a value of a type; `flag` is the argument, for the message.

    Raises:
      ConfigError: if the text is no such value.
    """
    optional = types.NoneType in typing.get_args(kind)
    if optional:
        if text.lower() == "none":
            return None
        kind, *_ = (part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return _read_tuple(flag, text, typing.get_args(kind)[0])
    try:
        return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, TypeError, ValueError):
        expected = EXPECTED.get(kind, str(kind)) + (", or none" if optional else "")
        raise ConfigError(f"{flag}: expected {expected}, not {text!r}.") from None


def _read_tuple(flag: str, text: str, kind: Any) -> tuple[Any, ...]:
    """Read `a,b`, or the Python literal `('a', 'b')`."""
    if not text.startswith(("(", "[", "'", '"')):
        return tuple(_read(flag, item.strip(), kind) for item in text.split(",") if text)
    try:
        literal = ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError):
        raise ConfigError(f"{flag}: expected a,b or ('a', 'b'), not {text!r}.") from None
    items = literal if isinstance(literal, tuple | list) else (literal,)
    return tuple(_read(flag, str(item), kind) for item in items)

"""The command line that all entry points share: `--config=FILE[:ARG]` and its overrides."""

import dataclasses
import functools
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from flaxbert.config import Config, fields, unknown_key
from flaxbert.errors import ConfigError, check_local

MODES = ("train", "eval", "predict")
HELP = ("-h", "-help", "--help", "--helpfull")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A parsed command line."""

    config: Config
    workdir: Path
    mode: str
    distributed: str
    force: bool
    given: frozenset[str]
    """Keys of the configuration that flags set; all others come from the config file."""


class HelpRequested(Exception):  # noqa: N818 (not an error)
    """`--help` was given; the text is the message."""


def parse(argv: Sequence[str], description: str, *, workdir: bool = True) -> Arguments:
    """Parse `argv` (with the program's name first); `workdir`: whether the command needs one.

    Raises:
      HelpRequested: for `--help`.
      ConfigError: for an unknown flag or key, a value of the wrong type, or a bad config file.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "directory of this run's files", flag_values=values)
    flags.DEFINE_enum("mode", "train", MODES, "what to do", flag_values=values)
    flags.DEFINE_string(
        "distributed",
        "",
        "several hosts: 'auto' on a TPU slice, SLURM and the like; else HOST:PORT,COUNT,INDEX",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "force",
        False,
        "continue a workdir's run though the configuration or the data have changed",
        flag_values=values,
    )
    wants_help = any(arg in HELP for arg in argv[1:])
    argv = [arg for arg in argv if arg not in HELP]
    config_file = _config_file(argv)
    if config_file is None:
        if wants_help:
            raise HelpRequested(_help(description, values, None))
        raise ConfigError("no --config=FILE; try --config=configs/quickstart.py, or --help.")
    path = Path(config_file.partition(":")[0])
    if not path.is_file():
        shipped = ", ".join(sorted(str(file) for file in Path("configs").glob("*.py")))
        raise ConfigError(f"--config: no file {path}; shipped: {shipped or 'see configs/'}.")
    given = _overridden(argv, config_file)
    argv = _joined(argv, load_config(config_file))
    argv, unset = _take_unset(argv, load_config(config_file))
    argv = _quote_tuples(argv, load_config(config_file))
    config_flags.DEFINE_config_file(
        "config", None, "FILE[:ARG]", flag_values=values, lock_config=False, sys_argv=list(argv)
    )
    try:
        rest = values(list(argv))[1:]
    except flags.Error as error:
        raise ConfigError(str(error)) from None
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"--config={config_file}: {error}") from None
    if rest:
        raise ConfigError(f"unexpected arguments: {' '.join(rest)}")
    config = values["config"].value
    for name in unset:
        section, _, key = name.rpartition(".")
        setattr(functools.reduce(getattr, section.split("."), config), key, None)
    if wants_help:
        raise HelpRequested(_help(description, values, config))
    if workdir and not values["workdir"].value:
        raise ConfigError("no --workdir=DIR: where should this run's files go?")
    chosen = values["workdir"].value or ""
    check_local("--workdir", chosen)
    return Arguments(
        config,
        Path(chosen).expanduser(),
        values["mode"].value,
        values["distributed"].value,
        values["force"].value,
        given,
    )


def distributed(argv: Sequence[str]) -> str:
    """Return --distributed of a command line that cannot be parsed; "" without it."""
    for i, arg in enumerate(argv):
        if match := re.fullmatch(r"--?distributed(?:=(.*))?", arg):
            return match.group(1) or (argv[i + 1 : i + 2] or [""])[0]
    return ""


def _config_file(argv: Sequence[str]) -> str | None:
    for i, arg in enumerate(argv):
        if match := re.fullmatch(r"--?config(?:=(.*))?", arg):
            return (
                match.group(1) if match.group(1) is not None else (argv[i + 1 : i + 2] or [""])[0]
            )
    return None


def load_config(config_file: str) -> Config:
    """Load `FILE[:ARG]` without overrides.

    Raises:
      ConfigError: if it does not give a Config.
    """
    parser = config_flags.config_flags.ConfigFileFlagParser("config", lock_config=False)
    try:
        config = parser.parse(config_file)
    except Exception as error:  # it runs the user's file, which may raise anything
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, TypeError | ValueError):  # config_flags has put the traceback in
            reason = str(error).strip().splitlines()[-1]
        elif isinstance(error, SyntaxError):
            reason = f"line {error.lineno}: {error.msg}"
        raise ConfigError(f"--config={config_file}: {reason}") from error
    if not isinstance(config, Config):
        raise ConfigError(f"--config={config_file}: get_config() must return flaxbert's Config.")
    return config


def _overridden(argv: Sequence[str], config_file: str) -> frozenset[str]:
    """Return the keys that flags set.

    Raises:
      ConfigError: for an unknown key, with the valid ones; config_flags would only say KeyError.
    """
    config = load_config(config_file)
    known = {name for name, _, _ in fields(config)}
    matches = [re.match(r"--?(?:no)?config\.([^=]+)", arg) for arg in argv]
    given = [match.group(1) for match in matches if match]
    for name in given:
        if name not in known:
            raise unknown_key(name, config)
    return frozenset(given)


def _joined(argv: Sequence[str], config: Config) -> list[str]:
    """Write `--config.KEY VALUE` as `--config.KEY=VALUE`; a switch has no VALUE."""
    valued = {name for name, field, _ in fields(config) if field.type is not bool}
    joined: list[str] = []
    rest = iter(argv)
    for arg in rest:
        match = re.fullmatch(r"--?config\.([^=]+)", arg)
        value = next(rest, None) if match and match.group(1) in valued else None
        joined.append(arg if value is None else f"{arg}={value}")
    return joined


def _take_unset(argv: Sequence[str], config: Config) -> tuple[list[str], list[str]]:
    """Take `--config.KEY=none` of optional keys out of `argv`; config_flags has no word for it."""
    optional = {name for name, field, _ in fields(config) if "None" in str(field.type)}
    rest, unset = [], []
    for arg in argv:
        match = re.fullmatch(r"--?config\.([^=]+)=none", arg, flags=re.IGNORECASE)
        if match and match.group(1) in optional:
            unset.append(match.group(1))
        else:
            rest.append(arg)
    return rest, unset


def _quote_tuples(argv: Sequence[str], config: Config) -> list[str]:
    """Write `--config.KEY=a,b` of a tuple of texts as ('a', 'b'), the form of config_flags."""
    tuples = {name for name, field, _ in fields(config) if field.type == tuple[str, ...]}
    quoted = []
    for arg in argv:
        match = re.fullmatch(r"(--?config\.([^=]+)=)([^(\['\"].*)", arg)
        if match and match.group(2) in tuples:
            arg = f"{match.group(1)}{tuple(map(str.strip, match.group(3).split(',')))!r}"
        quoted.append(arg)
    return quoted


def _help(description: str, values: flags.FlagValues, config: Config | None) -> str:
    lines = [description.strip(), "", "flags:"]
    ours = ("config", "workdir", "mode", "distributed", "force")
    names = [name for name in ours if name in values]
    for name in names:
        default = "" if name == "config" else f" (default: {values[name].default!r})"
        lines.append(f"  --{name}: {values[name].help}{default}")
    if config is None:
        lines += ["", "--config=FILE --help also lists every key of that configuration."]
        return "\n".join(lines)
    lines += ["", "configuration keys, --config.KEY=VALUE:"]
    for name, field, value in fields(config):
        about = f"{field.metadata.get('help', '')} [{value!r}]"
        lines += textwrap.wrap(
            f"{name}: {about}", 98, initial_indent="  ", subsequent_indent="      "
        )
    return "\n".join(lines)

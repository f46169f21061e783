"""Print a script that completes flaxbert's commands, flags and configs in your shell.

usage: flaxbert completion bash|zsh|fish

for example:
  flaxbert completion bash > ~/.local/share/bash-completion/completions/flaxbert

New shells read this file. For zsh, write the script to a file _flaxbert in a directory of $fpath,
and for fish to ~/.config/fish/completions/flaxbert.fish. Run the command again after an update.

exit codes:
  0   done
  2   bad usage
  1   internal error
"""

import sys
from collections.abc import Callable, Mapping, Sequence

from flaxbert import packaged
from flaxbert.commands.args import HELP, MODES, PLATFORMS, RUN_FLAGS
from flaxbert.config import Config, fields

RUN = ("config", *(flag.name for flag in RUN_FLAGS if flag.name != "mode"))

FLAGS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(MODES, RUN),
    "plan": ("topology", "gpu", "count", "price", "efficiency", "data", "json", *RUN),
    "lint": ("all", *RUN),
    "report": ("output",),
    "serve": (
        *("host", "port", "max-length", "batch-size", "max-wait-ms", "queue", "timeout"),
        *("max-body", "access-log"),
    ),
    "convert": ("inspect", "certify", "architecture", "revision"),
    "export": ("format", "int8", "eval", "max-drop"),
    "push": ("private", "dry-run"),
    "verify-resume": ("config", "workdir", "kills"),
    "init": (
        *("eval", "output", "task", "text", "pair", "label", "model"),
        *("format", "separator", "quoting", "encoding", "columns", "force"),
    ),
    "doctor": (),
    "completion": (),
}
"""The names of the flags of each command; whoever has `config` also has the keys."""

SWITCHES = (
    "all",
    "force",
    "smoke",
    "explain",
    "inspect",
    "json",
    "certify",
    "int8",
    "private",
    "dry-run",
    "access-log",
)
"""Flags without a value."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(word in HELP for word in arguments):
        print((__doc__ or "").strip())
        return 0
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        given = " ".join(arguments) or "nothing"
        message = f"error: {given}: expected one of {', '.join(SHELLS)}."
        print(f"{message} See flaxbert completion --help.", file=sys.stderr)
        return 2
    print(SHELLS[arguments[0]]())
    return 0


def keys() -> list[str]:
    """Return the keys of every configuration; options depend on the task."""
    return [name for name, _, _ in fields(Config())]


def words(command: str) -> list[str]:
    """Return the flags of a command as they are typed, with `=` if a value follows."""
    flags = [f"--{name}" if name in SWITCHES else f"--{name}=" for name in FLAGS[command]]
    if "config" in FLAGS[command]:
        flags += [f"--config.{key}=" for key in keys()]
    return flags if command != "completion" else list(SHELLS)


BASH = """_flaxbert() {
  # Bash splits words at = and : before it asks.
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} flag= list=
  if [[ $word == = ]]; then
    flag=$before word=
  elif [[ $before == = ]]; then
    flag=${COMP_WORDS[COMP_CWORD-2]}
  fi
  if (( COMP_CWORD == 1 )); then
    list='@COMMANDS'
  elif [[ $flag == --config ]]; then
    list='@CONFIGS'
  elif [[ $flag == --require ]]; then
    list='@PLATFORMS'
  elif [[ ! $flag && ( $word == -* || ${COMP_WORDS[1]} == completion ) ]]; then
    case ${COMP_WORDS[1]} in
@CASES
    esac
  fi
  COMPREPLY=($(compgen -W "$list" -- "$word"))
  if [[ $flag == --config || ! $list ]]; then
    COMPREPLY+=($(compgen -f -- "$word"))
    compopt -o filenames 2>/dev/null
  fi
  [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
}
complete -F _flaxbert flaxbert"""

ZSH = """#compdef flaxbert
_flaxbert() {
  if (( CURRENT == 2 )); then
    compadd -- @COMMANDS
  elif compset -P '--config='; then
    compadd -- @CONFIGS
    _files -g '*.py'
  elif compset -P '--require='; then
    compadd -- @PLATFORMS
  elif compset -P '--*='; then
    _files
  else
    case $words[2] in
@CASES
    esac
    [[ $PREFIX == -* || $words[2] == completion ]] || _files
  fi
}
if [[ $funcstack[1] == _flaxbert ]]; then  # the file in $fpath is the function
  _flaxbert "$@"
else
  compdef _flaxbert flaxbert
fi"""


def bash() -> str:
    """Return the script for bash."""
    return _filled(BASH, [f"      {name}) list='{' '.join(words(name))}' ;;" for name in FLAGS])


def zsh() -> str:
    """Return the script for zsh."""
    cases = []
    for command in FLAGS:
        flags = [word for word in words(command) if word.endswith("=")]
        others = [word for word in words(command) if not word.endswith("=")]
        cases.append(
            f"      {command}) compadd -S '' -- {' '.join(flags)}; compadd -- {' '.join(others)} ;;"
        )
    return _filled(ZSH, cases)


def _filled(script: str, cases: Sequence[str]) -> str:
    """Return a script with its lists of words."""
    lists = {"@COMMANDS": FLAGS, "@CONFIGS": packaged.configs(), "@PLATFORMS": PLATFORMS}
    for mark, names in lists.items():
        script = script.replace(mark, " ".join(names))
    return script.replace("@CASES", "\n".join(cases))


def fish() -> str:
    """Return the script for fish."""
    start = "complete -c flaxbert -n __fish_use_subcommand -f"
    lines = [start, *(f"{start} -a {command}" for command in FLAGS)]
    lines.append(_fish("completion", f"-f -a '{' '.join(SHELLS)}'"))
    values = {"config": packaged.configs(), "require": PLATFORMS}
    for command, names in FLAGS.items():
        for name in names:
            value = "" if name in SWITCHES else " -x" if name == "require" else " -r"
            value += f" -a '{' '.join(values[name])}'" if name in values else ""
            lines.append(_fish(command, f"-l {name}{value}"))
    configured = " ".join(command for command, names in FLAGS.items() if "config" in names)
    lines += [_fish(configured, f"-l config.{key} -r") for key in keys()]
    return "\n".join(lines)


def _fish(commands: str, what: str) -> str:
    """Return a line that completes an argument of some commands, separated by spaces."""
    return f"complete -c flaxbert -n '__fish_seen_subcommand_from {commands}' {what}"


SHELLS: Mapping[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""The shells, and what makes their scripts."""

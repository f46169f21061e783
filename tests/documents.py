"""What tests find in documents: blocks of code, commands, headings, links and pictures."""

import importlib.util
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from conftest import ROOT

from flaxbert.commands import args, completion, lint, plan, verify_resume
from flaxbert.config import validate
from flaxbert.tasks import TASKS

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "bash")


def fences(text: str) -> list[tuple[str, str]]:
    """(language, code) of each block of code."""
    return [(language, textwrap.dedent(code)) for _, language, code in FENCE.findall(text)]


def blocks(text: str, *languages: str) -> list[str]:
    return [code for language, code in fences(text) if language in languages]


def prose(text: str) -> str:
    """A document without its code and comments."""
    text = re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)


# --- commands ------------------------------------------------------------------------------------

LAUNCHERS = {f"launch/{file.name}" for file in (ROOT / "launch").glob("*.sh")} - {
    "launch/common.sh"  # part of the others
}
PROGRAMS = {"flaxbert", "flaxbert.run", *LAUNCHERS}
ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "2>", "<"}
FLAGS = {
    "lint": (lint.ALL, *args.RUN_FLAGS),
    "plan": (*plan.FLAGS, *args.RUN_FLAGS),
    "verify-resume": verify_resume.FLAGS,
}
OWN = "sentiment"
"""The config that stands for a file of the reader's own, which these tests do not have."""


def words(line: str) -> Iterator[list[str]]:
    """The words of each program that a line of shell runs."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if word in ENDS:
            if command:
                yield command
            command = []
        else:
            command.append(word)


def commands(text: str) -> list[list[str]]:
    """The words of each command of flaxbert in the shell blocks of a document."""
    lines = "\n".join(blocks(text, *SHELL)).replace("\\\n", " ").splitlines()
    return [
        command
        for line in lines
        if any(program in line for program in PROGRAMS)
        for command in words(line)
        if PROGRAMS & set(command)
    ]


def train_command(command: list[str]) -> list[str]:
    """Check a launcher's own flags; return the command of flaxbert that it runs."""
    own, train = command, ["--help"]
    if "--" in command:
        own, train = command[: command.index("--")], command[command.index("--") + 1 :]
    help_text = (ROOT / own[0]).read_text(encoding="utf-8")
    for flag in (word.partition("=")[0] for word in own[2:]):
        assert re.search(rf"^#   {flag}\b", help_text, re.MULTILINE), flag
    return ["flaxbert", "train", *train]


def check_command(command: list[str]) -> None:
    """Fail for an unknown command, flag, config or key, and for a value of the wrong type."""
    program = next(number for number, word in enumerate(command) if word in PROGRAMS)
    if command[0] == "pip" or command[program + 1 :] in (["--help"], []):
        return
    if command[program] in LAUNCHERS:
        command = train_command(command[program:])
        program = 0
    name = command[program + 1] if command[program] == "flaxbert" else "train"
    assert name in completion.FLAGS, name
    given = [word for word in command if word.startswith("--")]
    if "config" not in completion.FLAGS[name]:
        names = {word.removeprefix("--").partition("=")[0] for word in given}
        assert names <= {*completion.FLAGS[name], "help"}
        return
    config = args.value_of("config", given)
    if config and config.endswith(".py") and not (ROOT / config).exists():
        given[given.index(f"--config={config}")] = f"--config={OWN}"
    try:
        parsed = args.parse(["x", *given], "", flags=FLAGS.get(name, args.RUN_FLAGS))
    except args.HelpRequested:
        return
    validate(parsed.config, TASKS)


# --- text ----------------------------------------------------------------------------------------


def headings(text: str) -> list[tuple[int, str]]:
    """(level, text) of each heading."""
    found = re.findall(r"^(#+) (.*)$", FENCE.sub("", text), flags=re.MULTILINE)
    return [(len(marks), heading) for marks, heading in found]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, by the rule of GitHub, and those it sets itself."""
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for _, heading in headings(text))
    named = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in plain}
    return named | set(re.findall(r'\bid="([^"]+)"', text))


LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*)\]\(([^)\s]+)(?: [^)]*)?\)")


def links(text: str) -> list[str]:
    """The relative targets of a document's links and pictures."""
    targets = [target for _, _, target in LINK.findall(prose(text))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def pictures(text: str) -> list[tuple[str, str]]:
    """(alt text, target) of each picture."""
    return [(alt, target) for mark, alt, target in LINK.findall(prose(text)) if mark]


def script(path: str) -> ModuleType:
    """A script of the repository, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

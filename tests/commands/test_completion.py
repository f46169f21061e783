"""Completion: the words are those that the commands accept, and bash offers them."""

import re
import subprocess

import pytest
from conftest import ROOT

from flaxbert.__main__ import MODULES, main
from flaxbert.commands import (
    args,
    completion,
    convert,
    export,
    init,
    lint,
    push,
    report,
    serve,
    verify_resume,
)
from flaxbert.config import Config, fields


def test_the_flags_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(completion.FLAGS) == [*args.MODES, *MODULES]
    run = ["config", *(flag.name for flag in args.RUN_FLAGS if flag is not args.MODE)]
    for mode in args.MODES:
        assert list(completion.FLAGS[mode]) == run
    assert list(completion.FLAGS["lint"]) == [lint.ALL.name, *run]
    kills = [flag.name for flag in verify_resume.FLAGS]
    assert list(completion.FLAGS["verify-resume"]) == ["config", *kills]
    modules = (convert, export, init, push, report, serve)
    for module in modules:
        command = module.__name__.rpartition(".")[2]
        with pytest.raises(SystemExit):
            module.main(["--help"])
        text = capsys.readouterr().out.partition("options:")[2].partition("exit codes:")[0]
        text = re.split("for example|SOURCE", text)[0]
        flags = set(re.findall(r"^  .*--([\w-]+)", text, re.MULTILINE))
        assert flags == {*completion.FLAGS[command], "help"}
    switches = {flag.name for flag in (*args.RUN_FLAGS, lint.ALL) if flag.default in (False, None)}
    assert switches == set(completion.SWITCHES[:4])


def test_the_keys_are_those_of_every_configuration() -> None:
    assert completion.keys() == [name for name, _, _ in fields(Config())]
    assert "--config.train.epochs=" in completion.words("train")
    assert completion.words("doctor") == []


def bash(*words: str, directory: object = ROOT) -> list[str]:
    """Return what bash offers for the last of the words of a command line."""
    script = f"""{completion.bash()}
COMP_WORDS=("$@")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_flaxbert
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    command = ["bash", "-c", script, "bash", "flaxbert", *words]
    ended = subprocess.run(command, cwd=str(directory), capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["train"]),
        (["train", "--req"], ["--require="]),
        (["train", "--require", "="], ["cpu", "gpu", "tpu"]),
        (["train", "--config", "=", "squ"], ["squad", "squad_v2"]),
        (["train", "--config", "=", "configs/squ"], ["configs/squad.py", "configs/squad_v2.py"]),
        (["train", "--config.train.ep"], ["--config.train.epochs="]),
        (["train", "--fo"], ["--force"]),
        (["train", "--workdir", "=", "exam"], ["examples"]),
        (["convert", "--i"], ["--inspect"]),
        (["convert", "exam"], ["examples"]),
        (["completion", "f"], ["fish"]),
        (["doctor", "--"], []),
    ],
)
def test_bash_offers_what_fits(words: list[str], offered: list[str]) -> None:
    assert sorted(bash(*words)) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script_with_all_words(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "@" not in script.replace('"$@"', "")
    for word in ("verify-resume", "quickstart", "config.train.epochs", "distributed", "tpu"):
        assert word in script

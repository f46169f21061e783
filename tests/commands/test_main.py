"""The console command: every command's help and exit codes, and who may print."""

import ast
import importlib
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from flaxbert.__main__ import MODULES, main
from flaxbert.commands import modes
from flaxbert.commands.args import MODES
from flaxbert.errors import DivergedError, Preempted, UserError

COMMANDS = [*MODES, *MODULES]
CONFIGURED = [
    name
    for name in COMMANDS
    if name not in ("report", "serve", "convert", "export", "push", "init", "doctor", "completion")
]
SQUAD = f"--config={ROOT}/configs/squad.py"


def test_the_overview_and_the_package_need_no_jax() -> None:
    program = (
        "import sys, flaxbert\n"
        "from flaxbert.__main__ import main\n"
        "codes = [main([]), main(['trian']), main(['completion', 'bash'])]\n"
        "flaxbert.Config()\n"
        "assert codes == [0, 2, 0]\n"
        "assert not {'jax', 'numpy', 'transformers', 'rich'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)


def exit_code(*argv: str) -> int:
    """Return what the process would exit with."""
    try:
        return main(argv)
    except SystemExit as end:  # argparse
        return int(end.code or 0)


def test_the_commands_are_those_of_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    overview = capsys.readouterr().out
    listed = overview.partition("commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    for flag in ("--help", "-h", "help"):
        assert main([flag]) == 0
        assert capsys.readouterr().out == overview


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_usage_example_flags_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(command, "--help") == 0
    text = capsys.readouterr().out
    assert re.search(rf"^usage: flaxbert {command}\b", text, re.MULTILINE)
    assert re.search(rf"^for example:\n  flaxbert {command}\b", text, re.MULTILINE)
    assert "exit codes:\n  0   " in text
    assert "  2   " in text
    assert ("flags:\n  --config: " in text) == (command in CONFIGURED)
    assert ("configuration keys" in text) == (command in CONFIGURED)
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("command", CONFIGURED)
def test_help_with_a_config_lists_its_keys(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, SQUAD, "--config.train.epochs=7", "--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"^usage: flaxbert {command}\b", text, re.MULTILINE)
    assert "  train.epochs: passes over the training data [7.0]\n" in text


@pytest.mark.parametrize(
    ("command", "flag", "there"),
    [
        *((mode, "mode", False) for mode in MODES),
        *((mode, "distributed", True) for mode in MODES),
        ("lint", "all", True),
        ("verify-resume", "kills", True),
        ("verify-resume", "mode", False),
        ("verify-resume", "workdir", True),
    ],
)
def test_help_lists_the_flags_of_the_command(
    command: str, flag: str, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert (f"\n  --{flag}: " in capsys.readouterr().out) == there


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("trian", "Did you mean 'train'?"),
        ("verify_resume", "Did you mean 'verify-resume'?"),
        ("fly", "Expected one of train, eval, predict, plan, lint, "),
        ("--config=configs/quickstart.py", "Expected one of train"),
    ],
)
def test_an_unknown_command_is_one_error_with_a_suggestion(
    command: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("error: ") == 1
    assert f"unknown command {command!r}. {hint}" in printed.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "no --config=NAME"),
        (["predict", SQUAD, "--mode=train"], "unknown flag --mode."),
        *(
            (
                ["train", SQUAD, "--workdir=x", f"--profile={steps}"],
                f"--profile={steps}: expected START:STOP, two step numbers with 1 <= START < STOP.",
            )
            for steps in ("5", "5:5", "9:5", "0:5", "-1:5", "a:b", "5:6:7")
        ),
        (["lint", "--config=absent.py"], "no file absent.py"),
        (["lint", SQUAD, "--config.data.train=none", "--config.data.eval=none"], "no data: "),
        (["doctor", "--all"], "unexpected arguments: --all."),
        (["completion"], "nothing: expected one of bash, zsh, fish."),
        (["completion", "csh"], "csh: expected one of bash, zsh, fish."),
        (["convert", "absent", "out"], "absent"),
        (["convert", "absent"], "name a DEST, or --inspect"),
        (["report", "absent"], "absent: is not a directory."),
        (["report", "az://bucket/run"], "RUN=az://bucket/run: expected a local path"),
        (["verify-resume", SQUAD, "--workdir=x", "--kills=0"], "--kills=0: expected at least 1."),
        (
            ["verify-resume", SQUAD, "--workdir=x", "--kills=some"],
            "--kills=some: expected an integer, not 'some'.",
        ),
    ],
)
def test_bad_usage_exits_with_2_and_one_error(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("error: ") == 1
    assert message in printed.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("bad row"), 2, "error: bad row [UserError]\n"),
        (DivergedError("loss is NaN"), 3, "error: loss is NaN [DivergedError]\n"),
        (Preempted("saved after step 7"), 75, "saved after step 7\n"),
        (OSError(28, "No space left on device", "a/b"), 2, "error: a/b: No space left on device\n"),
        (OSError(28, "No space left on device"), 2, "error: writing to --workdir: No space left"),
        (RuntimeError("a bug"), 1, "Traceback"),
    ],
)
def test_the_exit_code_says_how_a_run_ended(
    error: Exception,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(modes, "train", fail)
    assert main(["train", SQUAD, f"--workdir={tmp_path}"]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "function"), [("train", "train"), ("eval", "evaluate"), ("predict", "predict")]
)
def test_a_mode_calls_its_function_with_the_configuration(
    mode: str, function: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []
    monkeypatch.setattr(modes, function, lambda *arguments, **_: calls.append(arguments))
    assert main([mode, SQUAD, f"--workdir={tmp_path}", "--config.train.seed=3"]) == 0
    ((config, workdir),) = calls
    assert (config.train.seed, workdir) == (3, tmp_path)


@pytest.mark.parametrize(
    ("spec", "workdir"),
    [
        ("squad", "runs/squad"),
        ("squad:es", "runs/squad_es"),
        (f"{ROOT}/configs/squad.py:es", "runs/squad_es"),
        (f"{ROOT}/configs/quickstart.py", "runs/quickstart"),
    ],
)
def test_without_workdir_a_run_is_named_after_its_config(
    spec: str,
    workdir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []
    monkeypatch.setattr(modes, "train", lambda _, workdir, **__: calls.append(workdir))
    assert main(["train", f"--config={spec}"]) == 0
    assert calls == [Path(workdir)]
    assert f"workdir: {workdir} " in capsys.readouterr().err


def test_profile_is_a_range_of_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiles = []
    monkeypatch.setattr(modes, "train", lambda *_, profile, **__: profiles.append(profile))
    for flags in ([], ["--profile=10:15"]):
        assert main(["train", SQUAD, f"--workdir={tmp_path}", *flags]) == 0
    assert profiles == [range(0), range(10, 15)]


def test_the_package_runs_as_a_module(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flaxbert", "trian"])
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # restores them afterwards
    monkeypatch.delitem(sys.modules, "flaxbert.__main__")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("flaxbert", run_name="__main__")
    assert end.value.code == 2
    assert capfd.readouterr().err.startswith("error: unknown command 'trian'.")


def test_the_console_script_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"].keys() == {"flaxbert"}
    module, _, name = project["scripts"]["flaxbert"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def prints(file: Path) -> bool:
    """Return whether a file calls print, or uses rich's Console for stdout."""
    names = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    ]
    return "print" in names or "Console" in names


def test_only_commands_print() -> None:
    package = ROOT / "flaxbert"
    printing = {str(file.relative_to(package)) for file in package.rglob("*.py") if prints(file)}
    allowed = {"run.py", "__main__.py"}
    assert {name for name in printing if not name.startswith("commands/")} <= allowed
    assert "commands/tables.py" in printing

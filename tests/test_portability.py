"""Other operating systems: no import or lock needs POSIX, and no file the locale's encoding."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from flaxbert.errors import ConfigError
from flaxbert.runtime import multihost

# What Windows lacks. Modules of the standard library and of JAX that need it are imported before.
SCRIPT = """
import signal, os, sys, warnings
import jax, multiprocessing.pool, subprocess
warnings.simplefilter("ignore", UserWarning)  # filelock reports that it has no native locks
for module in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[module] = None
for module in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
    del sys.modules[module]  # JAX has imported it
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGQUIT", "pthread_sigmask"):
    delattr(signal, name)
for name in ("set_blocking", "fork", "getuid", "sysconf", "sched_getaffinity", "statvfs"):
    delattr(os, name)
import importlib, pathlib
import flaxbert.__main__ as command_line
from flaxbert.runtime import workdir
from flaxbert.runtime.preemption import Preemption
for module in command_line.MODULES.values():
    importlib.import_module(module)
Preemption().listen()
directory = pathlib.Path(sys.argv[1])
with workdir.lock(directory):
    print(sorted(path.name for path in directory.iterdir()))
print(command_line.main(["train", "--config=quickstart", "--help"]))
"""


def test_commands_signals_and_locks_need_no_posix(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("['.lock']\n")
    assert ended.stdout.endswith("\n0\n")
    assert "cannot be locked" in ended.stderr


def test_several_hosts_on_windows_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multihost.os, "name", "nt")
    try:
        with pytest.raises(ConfigError, match="need Linux or macOS"):
            multihost.start("auto")
    finally:
        monkeypatch.undo()  # pathlib looks at it too


SOURCES = [
    file
    for folder in ("flaxbert", "configs", "docs", "benchmarks")
    for file in sorted((ROOT / folder).rglob("*.py"))
]


def without_encoding(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that open a text file in the encoding of the machine's locale."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="read_text"), args=[], keywords=keywords):
                pass
            case ast.Call(func=ast.Attribute(attr="write_text"), args=[_], keywords=keywords):
                pass
            case ast.Call(func=ast.Name(id="open"), args=[_], keywords=keywords):
                pass
            case ast.Call(func=ast.Attribute(attr="open"), args=[], keywords=keywords):
                pass
            case (
                ast.Call(func=ast.Name(id="open"), args=[_, ast.Constant(value=str() as mode)])
                | ast.Call(
                    func=ast.Attribute(attr="open"), args=[ast.Constant(value=str() as mode)]
                )
            ):
                if "b" in mode:
                    continue
                keywords = node.keywords
            case _:
                continue
        if not {"encoding", None} & {keyword.arg for keyword in keywords}:
            yield node.lineno


def test_every_way_to_open_a_text_file_is_seen() -> None:
    bad = ["p.read_text()", "p.write_text(x)", "open(p)", "open(p, 'w')", "p.open()", "p.open('a')"]
    good = ["p.read_text('utf-8')", "p.open('rb')", "open(p, 'wb')", "open(p, encoding='utf-8')"]
    assert list(without_encoding(ast.parse("\n".join(bad)))) == [1, 2, 3, 4, 5, 6]
    assert list(without_encoding(ast.parse("\n".join(good)))) == []


def test_text_files_are_opened_with_their_encoding() -> None:
    places = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in SOURCES
        for line in without_encoding(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert places == []

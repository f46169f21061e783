import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaxbert.runtime import huge_pages

ON_REQUEST = "always [madvise] never\n"


def restarted(monkeypatch: pytest.MonkeyPatch, kernel: Path) -> list[list[str]]:
    """Return the command lines that `restart` would run."""
    commands = list[list[str]]()
    monkeypatch.setattr(huge_pages, "KERNEL", kernel)
    monkeypatch.setattr(os, "execv", lambda _, argv: commands.append(argv))
    huge_pages.restart()
    return commands


def test_a_process_starts_again_once_with_the_same_arguments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel = tmp_path / "enabled"
    kernel.write_text(ON_REQUEST)
    monkeypatch.delenv(huge_pages.TUNABLES, raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "flaxbert.run", "--help"])
    command = [sys.executable, "-m", "flaxbert.run", "--help"]
    assert restarted(monkeypatch, kernel) == [command]
    assert os.environ[huge_pages.TUNABLES] == huge_pages.HUGE_PAGES
    assert restarted(monkeypatch, kernel) == []


@pytest.mark.parametrize("setting", ["", "glibc.malloc.arena_max=1"])
def test_a_setting_of_the_user_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str
) -> None:
    kernel = tmp_path / "enabled"
    kernel.write_text(ON_REQUEST)
    monkeypatch.setenv(huge_pages.TUNABLES, setting)
    assert restarted(monkeypatch, kernel) == []
    assert os.environ[huge_pages.TUNABLES] == setting


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_nothing_starts_again_where_it_would_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    kernel = tmp_path / "enabled"
    if text is not None:
        kernel.write_text(text)
    monkeypatch.delenv(huge_pages.TUNABLES, raising=False)
    assert restarted(monkeypatch, kernel) == []


@pytest.mark.parametrize("module", ["flaxbert", "flaxbert.run"])
def test_the_command_line_works_after_the_restart(module: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != huge_pages.TUNABLES}
    outputs = [
        subprocess.run(
            [sys.executable, "-m", module, "--help"],
            env=env | setting,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for setting in ({}, {huge_pages.TUNABLES: ""})
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("Fine-tune")

"""The scripts under benchmarks/: their help, and their errors."""

import contextlib
import runpy
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = sorted(
    path for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()
)
CONFIGURED = [path for path in SCRIPTS if "command.run" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_describes_the_script(script: Path, monkeypatch, capsys):
    if "\nimport torch\n" in script.read_text():
        pytest.importorskip("torch")
    monkeypatch.setattr("sys.argv", [script.name, "--help"])
    with contextlib.suppress(SystemExit):  # argparse
        runpy.run_path(str(script), run_name="__main__")
    first = script.read_text().split("\n")[0].strip('"')
    assert first in capsys.readouterr().out


@pytest.mark.parametrize("script", CONFIGURED, ids=lambda path: path.stem)
def test_a_missing_configuration_is_one_clear_error(script: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script.name, "--config=no_such_file.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert "no file no_such_file.py" in captured.err
    assert "Traceback" not in captured.err

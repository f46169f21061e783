"""The doctor: works without JAX, finds what does not fit, and prints nothing private."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from flaxbert.commands import doctor
from flaxbert.runtime import hardware

REPORT = doctor.Report(
    system={"system": "Linux", "environment": "A=1\nB=2"},
    versions={"jax": "0.10.2"},
    present={},
    jax={"platform": "cpu", "devices": "1 x cpu", "dtype": "float32", "memory": None},
    error="",
    conflicts=(),
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "")


def test_it_works_if_jax_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "jax.py").write_text("raise ImportError('no symbol')\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "flaxbert", "doctor"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert "\nJAX               cannot be used: ImportError: no symbol\n" in ended.stdout
    version = importlib.metadata.version("jax")
    assert f'pip install --force-reinstall "jax=={version}"' in ended.stdout
    assert f"\njax               {version}\n" in ended.stdout


def test_the_block_is_complete_and_problems_follow_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: REPORT)
    assert doctor.main([]) == 0
    assert capsys.readouterr().out == (
        "```\n"
        "system       Linux\n"
        "environment  A=1\n"
        "             B=2\n"
        "jax          0.10.2\n"
        "JAX uses     1 x cpu; model.dtype=auto is float32\n"
        "```\n"
        "\n"
        "no problem found\n"
    )
    broken = dataclasses.replace(REPORT, conflicts=["jax needs jaxlib"], jax=None, error="aborted")
    monkeypatch.setattr(doctor, "examine", lambda: broken)
    assert doctor.main([]) == 2
    printed = capsys.readouterr().out
    assert "\nproblem: jax needs jaxlib\n" in printed
    assert "\nproblem: JAX cannot be used: aborted. Install it again: pip install" in printed


def test_an_unused_gpu_is_a_problem_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "present", lambda *_: {"gpu": "/dev/nvidia0"})
    report = dataclasses.replace(REPORT, error="Falling back to cpu.")
    (problem,) = doctor.problems(report)
    assert problem.startswith("this machine has a GPU (/dev/nvidia0), but JAX uses the CPU. ")
    assert 'pip install "jax[cuda12]' in problem
    assert problem.endswith("JAX reports: Falling back to cpu.")
    used = dataclasses.replace(REPORT, jax={**(REPORT.jax or {}), "platform": "gpu"})
    assert list(doctor.problems(used)) == []


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"jax": "1.0", "jaxlib": "1.0"}, []),
        (
            {"jax": "1.0", "jaxlib": "0.9"},
            ["jax 1.0 needs jaxlib<=1.0,>=1.0, but 0.9 is installed."],
        ),
        ({"jax": "1.0"}, ["jax 1.0 needs jaxlib<=1.0,>=1.0, but it is not installed."]),
        (
            {"jax": "1.0", "jaxlib": "1.0", "libtpu": "0.7"},
            ["jax 1.0 needs libtpu==0.8.*, but 0.7 is installed."],
        ),
        ({"jax": "1.0", "jaxlib": "1.0", "libtpu": "0.8.1"}, []),
        (
            {"jax": "1.0", "jaxlib": "1.0", "jax-cuda12-plugin": "0.9"},
            ["jax 1.0 needs jax-cuda12-plugin<=1.0,>=1.0, but 0.9 is installed."],
        ),
    ],
)
def test_versions_that_do_not_fit_are_reported(
    versions: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = {
        "jax": [
            "jaxlib<=1.0,>=1.0",
            'jaxlib==0.1; extra == "minimum-jaxlib"',
            'libtpu==0.8.*; extra == "tpu"',
            'jax-cuda12-plugin[with-cuda]<=1.0,>=1.0; extra == "cuda12"',
            'requests; extra == "tpu"',
            'tomli; python_version < "3.0"',
        ]
    }
    monkeypatch.setattr(doctor, "CHECKED", ("jax",))
    monkeypatch.setattr(hardware, "version", versions.get)
    monkeypatch.setattr(importlib.metadata, "requires", requirements.get)
    conflicts = list(doctor.conflicts())
    assert len(conflicts) == len(expected)
    for conflict, beginning in zip(conflicts, expected, strict=True):
        assert conflict.startswith(f"{beginning} Install it: pip install ")


def test_names_and_home_directories_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ana"))
    text = "a=/home/ana/x b=/home/ana, c=/home/anatol /data/ana/y /tmp/banana ana"
    assert doctor.anonymous(text) == "a=~/x b=~, c=/home/anatol /data/USER/y /tmp/banana ana"


def test_the_devices_are_those_of_jax() -> None:
    devices, _ = doctor.ask_jax()
    assert devices is not None
    assert devices["platform"] == "cpu"
    assert str(devices["devices"]).endswith("cpu")

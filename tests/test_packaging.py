"""The wheel: it holds all packages, the configs and the example data, and needs no clone."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from flaxbert import packaged
from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.errors import DataError

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_package_and_mapped_folder_is_in_the_wheel() -> None:
    modules = [*(ROOT / "flaxbert").rglob("*.py")]
    packages = {".".join(file.relative_to(ROOT).parent.parts) for file in modules}
    assert set(SETUP["packages"]) == packages | set(SETUP["package-dir"])
    # A wheel has the same layout as a clone, one level lower: `packaged` relies on it.
    for package, folder in SETUP["package-dir"].items():
        assert package == f"flaxbert.{folder.replace('/', '.')}"
        assert (ROOT / folder).is_dir()


def test_files_that_are_no_modules_are_in_the_wheel() -> None:
    files = [f for f in (ROOT / "flaxbert").rglob("*") if f.is_file() and f.suffix != ".py"]
    others = [file.relative_to(ROOT) for file in files if file.suffix != ".pyc"]
    assert others
    for file in others:
        patterns = SETUP["package-data"][".".join(file.parent.parts)]
        assert any(file.match(pattern) for pattern in patterns), file


def test_example_data_is_found_in_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = "examples/data/sentiment_eval.tsv"
    assert len(readers.read(spec, DataConfig(), split="test").rows) == 192
    assert readers.files(spec) == [ROOT / spec]
    with pytest.raises(DataError, match=r"examples/data/absent\.tsv: no such file"):
        readers.read("examples/data/absent.tsv", DataConfig(), split="test")
    (tmp_path / "examples/data").mkdir(parents=True)  # a file of the user comes first
    (tmp_path / spec).write_text("text\tlabel\ngood\tpositive\n", encoding="utf-8")
    assert len(readers.read(spec, DataConfig(), split="test").rows) == 1


def test_the_configs_are_those_of_the_repository() -> None:
    files = sorted((ROOT / "configs").glob("*.py"))
    assert packaged.configs() == {file.stem: file for file in files}


@pytest.mark.slow  # builds a wheel with the network's setuptools, and trains
def test_quickstart_trains_from_the_wheel_in_an_empty_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves files there
    for name in ("flaxbert", "configs", "examples"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = ["wheel", "--no-deps", f"--wheel-dir={tmp_path}", str(source)]
    subprocess.run([*pip, *wheels], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, folder = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    folder.mkdir()
    command = [sys.executable, "-m", "flaxbert", "train", "--config=quickstart"]
    ended = subprocess.run(
        [*command, "--config.train.max_steps=2"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert (folder / "runs/quickstart/results.json").is_file()
    assert str(ROOT) not in ended.stderr

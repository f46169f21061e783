"""A notebook in a real kernel: what its reader sees of training, and what an interrupt does."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytestmark = [
    pytest.mark.slow,  # trains in another process
    pytest.mark.filterwarnings("ignore"),  # of the libraries that run notebooks
]

SETUP = """
import dataclasses
import flaxbert
config = flaxbert.load_config("quickstart")
config.train = dataclasses.replace(config.train, max_steps=20, eval_every=10, log_every=1)
config.data.max_length = 32  # less to compile
"""
TRAIN = 'flaxbert.train(config, "runs/first")'
INTERRUPTED = """
import os, pathlib, signal
pathlib.Path("pid").write_text(str(os.getpid()))
config.model.init = "TINY"
config.train = dataclasses.replace(config.train, max_steps=None, epochs=200.0)
flaxbert.train(config, "runs/second")
"""
AFTER = """
import logging
log = logging.getLogger("flaxbert")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, log.handlers, log.level)
last = max(int(path.name) for path in pathlib.Path("runs/second/checkpoints").iterdir())
config.train = dataclasses.replace(config.train, max_steps=last + 5)
print(flaxbert.train(config, "runs/second")["step"] - last)
"""
WRONG = 'config.data.eval = "absent.tsv"\nflaxbert.train(config, "runs/third")'
PREDICT = 'flaxbert.load("runs/first").predict(["A lovely evening."])'


def interrupt(directory: Path, metrics: Path) -> None:
    """Interrupt the kernel, as Jupyter's stop button does, once the run has a few lines."""
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        time.sleep(0.1)
    os.kill(int((directory / "pid").read_text()), signal.SIGINT)


@pytest.fixture(scope="module")
def cells(one_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, and a copy of the notebook as a file."""
    nbclient = pytest.importorskip("nbclient", reason='needs pip install -e ".[notebook]"')
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason='needs pip install -e ".[notebook]"')
    directory = tmp_path_factory.mktemp("notebook")
    interrupted = INTERRUPTED.replace("TINY", str(one_layer))
    texts = [SETUP, TRAIN, interrupted, AFTER, WRONG, PREDICT]
    new = nbformat.v4.new_code_cell
    notebook = nbformat.v4.new_notebook(cells=[new(text.strip()) for text in texts])
    for number in (2, 4):
        notebook.cells[number].metadata["tags"] = ["raises-exception"]
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(directory)}}
    )
    metrics = directory / "runs" / "second" / "metrics.jsonl"
    threading.Thread(target=interrupt, args=(directory, metrics), daemon=True).start()
    client.execute(
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    )
    (directory / "executed.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    return [cell.outputs for cell in notebook.cells]


def printed(outputs: list[dict[str, Any]], name: str = "stdout") -> str:
    return "".join(output["text"] for output in outputs if output.get("name") == name)


def shown(outputs: list[dict[str, Any]], kind: str) -> list[dict[str, str]]:
    return [output["data"] for output in outputs if output["output_type"] == kind]


def test_training_shows_its_log_one_bar_and_its_result(cells):
    outputs = cells[1]
    text = printed(outputs)
    assert "step 10: " in text
    assert "step 20: " in text
    assert "\x1b" not in text
    assert "flaxbert" not in printed(outputs, "stderr")
    (bar,) = shown(outputs, "display_data")  # updated in place
    assert bar["text/plain"].startswith("train 20/20 ")
    assert 'value="20" max="20"' in bar["text/html"]
    (result,) = shown(outputs, "execute_result")
    assert "accuracy" in result["text/html"]
    assert result["text/html"].count("<figure>") == 2
    assert "95 % interval" in result["text/html"]
    assert 'href="runs/first/report.html"' in result["text/html"]
    assert result["text/plain"].startswith("Run in runs/first, 20 steps")


def test_an_interrupt_saves_the_run_and_the_next_cell_continues_it(cells):
    text = printed(cells[2])
    assert "stopping once this step is saved" in text
    (error,) = [output for output in cells[2] if output["output_type"] == "error"]
    assert error["ename"] == "Preempted"
    assert "stopped and saved after step" in error["traceback"][0]
    assert error["traceback"][1] == "In a notebook: run this cell again to continue."
    after = printed(cells[3])
    assert after.startswith("True [] 0\n")
    assert "resuming runs/second after step" in after
    assert after.endswith("\n5.0\n")


def test_errors_are_one_message(cells):
    (error,) = [output for output in cells[4] if output["output_type"] == "error"]
    assert error["traceback"][0].startswith("DataError: absent.tsv: ")
    assert len(error["traceback"]) == 1


def test_predictions_are_a_list(cells):
    (result,) = shown(cells[5], "execute_result")
    assert result["text/plain"].startswith("[{'text': 'A lovely evening.'")

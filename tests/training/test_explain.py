"""Explanations of a run: what they say of its numbers, in which language, and to whom."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import write_run

from flaxbert.commands import args, failures, modes
from flaxbert.errors import DataError
from flaxbert.messages.language import VARIABLE
from flaxbert.messages.spanish import SPANISH
from flaxbert.report import words
from flaxbert.report.hints import hint_texts
from flaxbert.report.page import assess, evaluated_of, make_page
from flaxbert.report.rundir import read_run
from flaxbert.run import main
from flaxbert.training.explain import Explainer, duration
from flaxbert.training.plan import Plan

PLAN = Plan(
    schedule_steps=40, stop_step=40, steps_per_epoch=8, warmup=4, log_every=1, eval_every=8,
    save_every=8,
)  # fmt: skip


def test_nothing_is_explained_unless_a_person_watches(capsys: pytest.CaptureFixture[str]) -> None:
    unused: Any = None  # neither the data nor the metadata are read
    explainer = Explainer.begin(None, unused, PLAN, unused, unused, 0)  # stderr is no terminal
    explainer.evaluated(8, {"accuracy": 0.5, "loss": 0.7})
    explainer.logged(1, {"perf/step_seconds": 60.0})
    explainer.finish(Path("absent"))
    assert capsys.readouterr() == ("", "")


def test_evaluations_say_what_the_loss_does(capsys: pytest.CaptureFixture[str]) -> None:
    explainer = Explainer("classification", PLAN)
    losses = 0.8, 0.5, 0.501, 0.52, 0.6, 0.7, 0.7
    for n, loss in enumerate(losses, 1):
        explainer.evaluated(4 * n, {"accuracy": 0.75, "loss": loss})
    said = capsys.readouterr().err.replace("\n  ", " ").splitlines()
    assert [line.partition("% right; ")[2][:20].rstrip() for line in said] == [
        "loss on the evaluati",
        "the loss falls, from",
        "the loss hardly chan",
        "the loss rises, from",
        "the loss rises, from",
        "the loss, 0.700, sta",
        "the loss is 0.700, a",
    ]
    assert said[0].startswith("> After 0.5 epochs: 75 % right")
    assert "(overfitting)" in said[-2]


def test_a_long_run_has_few_explanations(capsys: pytest.CaptureFixture[str]) -> None:
    explainer = Explainer("classification", dataclasses.replace(PLAN, eval_every=1))
    for step in range(1, 41):
        explainer.evaluated(step, {"accuracy": 0.75, "loss": 1 / step})
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 10
    assert said[-1].startswith("> After 5 epochs: 75 % right; the loss falls")


def test_losses_near_zero_are_no_overfitting() -> None:
    assert words.change([0.7, 0.008, 0.011]) == "falls"
    assert words.change([0.008, 0.007], scale=0.7) == "flat"
    assert words.change([0.05, 0.03, 0.04]) == "overfits"


def test_the_remaining_time_is_forecast_once(capsys: pytest.CaptureFixture[str]) -> None:
    explainer = Explainer("classification", PLAN)
    for step in (10, 20):
        explainer.logged(step, {"perf/step_seconds": 4.0})
    assert capsys.readouterr().err == "> The rest of the training takes about 2 minutes.\n"
    assert [duration(s) for s in (1, 60, 5000, 7200)] == [
        "1 second",
        "60 seconds",
        "83 minutes",
        "2 hours",
    ]


SCORES = {
    "classification": "The model is right on 32 of 40 evaluation examples: 80 %. With other "
    "examples of the same kind the result would be between 65 % and 90 % (95 % interval). Without "
    "reading the texts the result would be 50 % (always the most frequent label, 'ham').",
    "multi_label": "The predicted labels agree with the right ones to 50 % (F1",
    "regression": "with a correlation of 0.90 (1 is perfect, 0 is chance)",
    "multiple_choice": "The model is right on 26 of 40 evaluation examples: 66 %.",
    "token_classification": "The predicted entities agree with the right ones to 50 % (F1",
    "question_answering": "40 % of the answers are exactly right; their words agree with the right "
    "ones to 50 % (F1).",
}


@pytest.mark.parametrize("task", SCORES)
def test_the_score_of_each_task_has_a_meaning(task: str, tmp_path: Path) -> None:
    files = read_run(write_run(tmp_path, task))
    said = " ".join(words.score(files, assess(evaluated_of(files))))
    assert SCORES[task] in said
    assert "between" in said


def with_losses(workdir: Path, trained: list[float], evaluated: list[float]) -> Path:
    """Write the losses of a run, with an evaluation after each of the last steps."""
    write_run(workdir, "classification")
    lines = [{"step": n, "loss": loss} for n, loss in enumerate(trained, 1)]
    first = len(trained) - len(evaluated) + 1
    lines += [{"step": n, "eval/loss": loss} for n, loss in enumerate(evaluated, first)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


@pytest.mark.parametrize(
    ("trained", "evaluated", "course", "hint"),
    [
        ([1.0, 0.4], [0.9, 0.5, 0.3], "fell from 0.900 to 0.300", "still falling"),
        ([1.0, 0.1], [0.5, 0.3, 0.6], "lowest at 0.300, and rose to 0.600", "by heart"),
        ([1.0, 0.4], [0.5, 0.501], "hardly changed", ""),
        ([1.0, 1.01], [0.9, 0.9], "learned nothing", "did not fall"),
        ([1.0, 0.4], [0.5, 0.53], "rose a little", ""),
        ([1.0, 0.4], [], "training data fell from 1 to 0.400", ""),
    ],
)
def test_the_losses_say_what_happened_and_what_to_try(
    trained: list[float], evaluated: list[float], course: str, hint: str, tmp_path: Path
) -> None:
    files = read_run(with_losses(tmp_path, trained, evaluated))
    assert course in " ".join(words.course(files))
    hints = [text for text in hint_texts(files, None) if "loss on" in text]
    assert bool(hint) == bool(hints)
    assert hint in " ".join(hints)


def test_weights_and_examples_are_counted_in_words() -> None:
    assert "Only the output layer is new" in " ".join(words.weights(22_713_216, 1155))
    assert list(words.weights(12_345, 0)) == [
        "All 12,345 parameters come from the checkpoint, also those of the output layer."
    ]
    assert list(words.weights(0, 0)) == []  # a checkpoint of an earlier version
    said = " ".join(words.examples("classification", {"train": 1}, 1, 64))
    assert said.startswith("The model learns from 1 example (texts with their label). No examples")
    assert said.endswith("1 text is longer than 64 tokens (data.max_length), and was cut.")


def test_the_report_is_spanish_throughout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "es")
    english = [text for text in SPANISH if text.count(" ") > 1 and "{" not in text]
    for task in ("classification", "token_classification", "question_answering"):
        page = make_page(read_run(write_run(tmp_path / task, task)))
        assert '<html lang="es">' in page
        assert (
            '<h2 id="en-pocas-palabras">En pocas palabras</h2><p>22\xa0713\xa0216 parámetros'
            in page
        )
        assert [text for text in english if text in page] == []


def test_results_are_explained_in_spanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "es")
    Explainer("classification", PLAN).finish(write_run(tmp_path, "classification"))
    said = capsys.readouterr().err.replace("\n  ", " ")
    assert "> El modelo acierta en 32 de 40 ejemplos de evaluación: 80 %." in said
    assert "(siempre la etiqueta más frecuente, «ham»)" in said
    assert "Prueba con menos épocas" in said


@pytest.mark.parametrize(
    ("flag", "explain"),
    [("--explain", True), ("--explain=false", False), ("--noexplain", False), ("", None)],
)
def test_the_flag_reaches_the_run(
    flag: str, explain: bool | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(modes, "train", lambda *_, **named: given.append(named["explain"]))
    flags = [flag] if flag else []
    assert main(["x", "--config=quickstart", f"--workdir={tmp_path}", *flags]) == 0
    assert given == [explain]
    assert "explain" in [flag.name for flag in args.RUN_FLAGS]


def test_errors_have_an_english_code_after_a_line_in_spanish(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = DataError("train.tsv: no such file.")
    failures.report(error)
    assert capsys.readouterr().err == "error: train.tsv: no such file. [DataError]\n"
    monkeypatch.setenv(VARIABLE, "es")
    failures.report(error)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Falta un archivo de datos")
    assert second == "error: train.tsv: no such file. [DataError]"
    monkeypatch.setenv(VARIABLE, "fr")
    failures.report(error)
    assert capsys.readouterr().err == "error: train.tsv: no such file. [DataError]\n"

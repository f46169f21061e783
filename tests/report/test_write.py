"""What a run stores for its report, and what happens if it cannot be made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import write_run
from toy import make_config

from flaxbert.commands import report as command
from flaxbert.config import DataConfig
from flaxbert.pipeline.datasets import read_examples, read_table
from flaxbert.report import page, write
from flaxbert.report.labels import AROUND, label_records
from flaxbert.tasks import TASKS
from flaxbert.tasks.question_answering import QuestionAnswering, QuestionAnsweringOptions
from flaxbert.tasks.questions import QuestionExample

# What is stored of the second toy example of each task.
EXPECTED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "classification": lambda example: {"label": "positive"},
    "multi_label": lambda example: {"labels": ["place"]},
    "multiple_choice": lambda example: {"index": example.label, "choices": [*example.choices]},
    "pretraining": lambda example: {},
    "question_answering": lambda example: {"answers": [[*example.answers[0]]]},
    "regression": lambda example: {"value": example.label},
    "token_classification": lambda example: {"tags": [*example.tags]},
}


@pytest.mark.parametrize("name", TASKS)
def test_labels_have_the_keys_of_predictions(name: str, tmp_path: Path) -> None:
    config = make_config(name, tmp_path, tmp_path, count=3)
    table = read_table(config.data, "train")
    read = read_examples(name, table, config.data, config.options, labeled=True)
    task = TASKS[name].create(config.data, config.options, read, {})
    examples = task.resolve(read)
    predictions: list[dict[str, Any]] = [{"answer": "", "start": 0, "end": 0}] * len(examples)
    records = list(label_records(task, examples, predictions))
    assert records[0]["origin"].startswith(str(tmp_path))
    assert json.loads(json.dumps(records)) == records
    assert records[1] | EXPECTED[name](examples[1]) == records[1]
    known = [key for key in page.ASSESS if key in records[0]]
    assert len(known) == (name != "pretraining")


def test_excerpt_of_a_context_holds_both_answers() -> None:
    context = "a " * 5000 + "Ana Ruiz" + " b" * 50 + " Lima" + " c" * 5000
    task = QuestionAnswering.create(DataConfig(), QuestionAnsweringOptions(), None, {})
    place, other = context.index("Ana"), context.index("Lima")
    example = QuestionExample("1", "Who?", context, (("Ana Ruiz", place),), None, "x:1")
    guess = {"answer": "Lima", "start": other, "end": other + 4}
    (record,) = label_records(task, [example], [guess])
    excerpt, offset = record["context"], record["offset"]
    assert excerpt[place - offset :].startswith("Ana Ruiz")
    assert excerpt[other - offset :].startswith("Lima")
    assert len(excerpt) <= 8 * AROUND
    assert record["answers"] == [["Ana Ruiz", place]]


def test_a_report_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> str:
        raise ZeroDivisionError("none")

    monkeypatch.setattr(write, "make_page", fail)
    task = QuestionAnswering.create(DataConfig(), QuestionAnsweringOptions(), None, {})
    write.write_report(write_run(tmp_path, "classification"), task, {}, [])
    assert "no report was written (ZeroDivisionError: none)" in caplog.text
    assert not (tmp_path / "report.html").exists()
    assert "versions" in json.loads((tmp_path / "run.json").read_text())


def test_command_makes_the_report_of_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = write_run(tmp_path / "run", "classification")
    assert command.main([str(workdir)]) == 0
    assert capsys.readouterr().out == f"written: {workdir}/report.html\n"
    results = (workdir / "results.json").read_text()
    (workdir / "eval_results.json").write_text(results)
    assert command.main([str(workdir)]) == 0
    assert (workdir / "eval_results_report.html").is_file()
    assert command.main([str(workdir), f"--output={tmp_path / 'a.html'}"]) == 0
    assert (tmp_path / "a.html").read_text() == (workdir / "report.html").read_text()


def test_command_compares_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [str(write_run(tmp_path / name, "regression")) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    assert command.main(runs) == 0
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
    assert command.main([*runs, str(tmp_path / "absent")]) == 2

"""Exports decide as the model does, and an export that does not is refused."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.export
import numpy as np
import pytest
from conftest import write_checkpoint
from test_predictor import INPUTS, assert_equal
from toy import OPTIONS, SUFFIXES, WRITERS

import flaxbert
from flaxbert import Config, DataConfig
from flaxbert.commands import export as command
from flaxbert.errors import ConfigError, DataError, ExportError, WeightsError, WorkdirError
from flaxbert.exports import export, onnx_graph, runtime, stablehlo
from flaxbert.models.heads import HEADS
from flaxbert.tasks import TASKS

pytestmark = pytest.mark.usefixtures("one_device")

LONG = "the king is old and " * 20 + "he is in paris"
MODELS: dict[str, tuple[str, tuple[str, ...], dict[str, Any], list[Any]]] = {
    "classification": (
        "ForSequenceClassification",
        ("negative", "positive"),
        {"long_texts": "head_tail"},
        [*INPUTS["classification"], LONG],
    ),
    "multi_label": (
        "ForSequenceClassification",
        ("opinion", "place"),
        {"long_texts": "windows"},
        [*INPUTS["classification"], LONG],
    ),
    "regression": (
        "ForSequenceClassification",
        ("LABEL_0",),
        {},
        [("the king", "the queen"), (LONG, "paris")],
    ),
    "token_classification": (
        "ForTokenClassification",
        ("B-LOC", "I-LOC", "O"),
        {},
        [*INPUTS["token_classification"], LONG.split()],
    ),
    "question_answering": (
        "ForQuestionAnswering",
        (),
        {"unanswerable": True, "n_best": 5},
        [*INPUTS["question_answering"], ("who?", LONG)],
    ),
    "multiple_choice": ("ForMultipleChoice", (), {}, []),
}
"""{task: (output layer, labels, options, inputs)}."""
STORED: dict[str, dict[str, Any]] = {
    "multi_label": {"thresholds": {"opinion": 0.4, "place": 0.6}},
    "question_answering": {"null_threshold": 0.5},
    "regression": {"mean": 30.0, "scale": 20.0},
}
"""What training has fitted."""
QUICK = ("multi_label", "question_answering")
"""The others take as long each, and are marked slow."""


class Case:
    """A model with random weights, and labeled examples."""

    def __init__(self, task: str, directory: Path):
        head, labels, options, self.inputs = MODELS[task]
        self.source = directory / "model"
        write_checkpoint(
            self.source, HEADS[head].maker(len(labels)), num_hidden_layers=1, seed=len(task)
        )
        config = json.loads((self.source / "config.json").read_text())
        if labels:
            config["id2label"] = dict(enumerate(labels))
        config["problem_type"] = TASKS[task].problem_type
        config["flaxbert"] = STORED.get(task, {})
        (self.source / "config.json").write_text(json.dumps(config))
        settings = TASKS[task].options_type(**OPTIONS.get(task, {}) | options)
        self.predictor = flaxbert.load(self.source, task=task, options=settings, max_length=32)
        self.file = directory / f"eval.{SUFFIXES.get(task, 'jsonl')}"
        WRITERS[task](self.file, 24, seed=0, most_words=40)
        self.dataset, _ = self.predictor.read(DataConfig(eval=str(self.file)), "eval")

    @functools.cached_property
    def exported(self) -> Path:
        """The directory of an export as ONNX, for tests that change nothing in it."""
        self.certificate = self.export(self.source.parent / "exported")
        return self.source.parent / "exported"

    def export(self, directory: Path, **options: Any) -> Any:
        return export.export(self.predictor, self.dataset, "eval", directory, **options)


@pytest.fixture(scope="module")
def cases(one_device: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Case] = {}

    def get(task: str) -> Case:
        if task not in made:
            made[task] = Case(task, tmp_path_factory.mktemp(task))
        return made[task]

    return get


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=() if t in QUICK else pytest.mark.slow) for t in MODELS]
)
def test_an_export_decides_as_the_model(task, cases):
    case = cases(task)
    out = case.exported
    certificate = case.certificate
    assert certificate.problems == []
    assert certificate.export == pytest.approx(certificate.flaxbert, abs=1e-4)
    assert certificate.examples == 24
    assert certificate.sequences >= 24
    stored = json.loads((out / "certificate.json").read_text())
    assert stored["passed"]
    assert stored["logit_difference"] == certificate.logit_difference < certificate.logit_tolerance
    reader = runtime.load(out, threads=1)
    assert_equal(reader.predict(case.inputs), case.predictor.predict(case.inputs))
    if task == "question_answering":
        ours = case.predictor.predict(case.inputs, top_k=3)
        assert_equal(reader.predict(case.inputs, top_k=3), ours)


@pytest.mark.parametrize(
    "task", ["multi_label", pytest.param("question_answering", marks=pytest.mark.slow)]
)
def test_a_wrong_threshold_is_refused(task, cases, tmp_path, monkeypatch):
    decision_of = export.decision_of

    def broken(pipeline: Any) -> dict[str, Any]:
        return decision_of(pipeline) | {"thresholds": [0.99, 0.01], "null_threshold": -99.0}

    monkeypatch.setattr(export, "decision_of", broken)
    with pytest.raises(ExportError, match="answers differ") as caught:
        cases(task).export(tmp_path / "out")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_weight_is_refused(cases, tmp_path, monkeypatch):
    write = onnx_graph.write

    def broken(model: Any, params: Any, directory: Path) -> None:
        head = params["head"]["classifier"]
        changed = {**head, "bias": head["bias"] + np.array([0, 3e-4], np.float32)}
        write(model, params | {"head": params["head"] | {"classifier": changed}}, directory)

    monkeypatch.setattr(onnx_graph, "write", broken)
    with pytest.raises(ExportError, match=r"logits differ by up to 3\.0e-04, and 1e-04 is allowed"):
        cases("multi_label").export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_rounded_weights_are_accepted_by_the_metric(cases, tmp_path):
    case = cases("classification")
    certificate = case.export(tmp_path / "out", int8=True, max_drop=100.0)
    assert certificate.logit_tolerance is None
    assert certificate.max_drop == 1.0
    assert 1e-4 < certificate.logit_difference < 1
    with pytest.raises(ExportError, match="Export without --int8"):
        case.export(tmp_path / "refused", int8=True, max_drop=-101.0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_stablehlo_computes_the_same(cases, tmp_path):
    case = cases("multi_label")
    certificate = case.export(tmp_path / "out", format="stablehlo")
    program = bytearray((tmp_path / "out" / stablehlo.STABLEHLO).read_bytes())
    assert "HIGHEST" in jax.export.deserialize(program).mlir_module()  # float32 on any device
    assert certificate.changed_answers == 0
    assert_equal(
        runtime.load(tmp_path / "out").predict(case.inputs), case.predictor.predict(case.inputs)
    )


def test_the_reader_needs_no_jax(cases):
    case = cases("question_answering")
    program = (
        "import json, sys\n"
        "for name in ('jax', 'flax', 'transformers', 'datasets', 'pyarrow', 'onnx'):\n"
        "    sys.modules[name] = None\n"  # importing it fails
        "from flaxbert.exports.runtime import load\n"
        f"print(json.dumps(load({str(case.exported)!r}).predict(json.load(sys.stdin))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(case.inputs),
        capture_output=True,
        text=True,
        check=True,
    )
    assert_equal(json.loads(done.stdout), case.predictor.predict(case.inputs))


@pytest.mark.slow
def test_the_command_writes_the_certificate_and_refuses_bad_usage(cases, tmp_path, capsys):
    case, out = cases("token_classification"), str(tmp_path / "out")
    assert command.main([str(case.source), out, f"--eval={case.file}"]) == 0
    printed = capsys.readouterr().out
    assert '"passed": true' in printed
    assert "model.onnx" in printed
    for arguments, message in (
        ([str(case.source), out, f"--eval={case.file}"], "exists and is not empty"),
        ([str(case.source), f"{out}2"], "there is no evaluation data"),
        ([str(case.source), f"{out}2", f"--eval={case.file}", "--format=tf"], "--format=tf"),
        (
            [str(case.source), f"{out}2", f"--eval={case.file}", "--int8", "--format=stablehlo"],
            "--int8 is for --format=onnx",
        ),
    ):
        assert command.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()


def test_evaluation_data_is_read_as_in_the_run(tmp_path):
    config = Config(task="classification")
    config.data = DataConfig(eval="dev.csv", columns=("label", "text"), separator="pipe", overlap=8)
    (tmp_path / "export").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert command.data_of(str(tmp_path), None) == config.data
    assert command.data_of(str(tmp_path / "export"), None) == config.data
    assert command.data_of(str(tmp_path), "test.csv").eval == "test.csv"
    config.data = DataConfig(train="train.csv", eval_split=0.1)  # a part is held out
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert command.data_of(str(tmp_path), None) == config.data
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(WorkdirError, match="not the configuration of a run"):
        command.data_of(str(tmp_path), None)


def test_another_version_or_another_form_of_input_is_one_clear_error(cases, tmp_path):
    case = cases("question_answering")
    out = shutil.copytree(case.exported, tmp_path / "out")
    reader = runtime.load(out)
    with pytest.raises(DataError, match=r"inputs:2: expected \(question, context\)"):
        reader.predict([("who?", "he"), ("who?",)])
    with pytest.raises(DataError, match="inputs: expected a list"):
        reader.predict("who?")
    with pytest.raises(DataError, match="inputs:1: the question has"):
        reader.predict([("who is the old king of the city by the river " * 3, "he")])
    with pytest.raises(ConfigError, match="top_k=0"):
        reader.predict([("who?", "he")], top_k=0)
    assert reader.predict([]) == []
    decision = json.loads((out / "decision.json").read_text())
    (out / "decision.json").write_text(json.dumps(decision | {"version": 2}))
    with pytest.raises(WeightsError, match="version 2, but this release of flaxbert reads"):
        runtime.load(out)
    with pytest.raises(WeightsError, match="cannot be read"):
        runtime.load(tmp_path)

"""Whole runs on tiny data: what they write, that they learn, and that they resume exactly."""

import contextlib
import copy
import dataclasses
import io
import json
import math
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from toy import build_pipeline, load_data, make_config

import flaxbert
from flaxbert import run
from flaxbert.data import batching
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.errors import ConfigError
from flaxbert.pipeline.costs import PLATFORMS
from flaxbert.pipeline.evaluator import Evaluation, Evaluator
from flaxbert.pretrained import formats
from flaxbert.report.page import assess, evaluated_of
from flaxbert.report.rundir import read_run
from flaxbert.runtime import files, sharding
from flaxbert.tasks import TASKS

LINE = ("step", "loss", "grad_norm", "lowest_grad_norm", "learning_rate", "epoch")


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def reproducible(metrics: dict) -> dict:
    """Return the metrics that do not depend on the clock."""
    return {name: value for name, value in metrics.items() if not name.startswith("perf/")}


def read_results(workdir: Path, file: str = "results.json") -> dict:
    return json.loads((workdir / file).read_text())


def exported(workdir: Path) -> bytes:
    return (workdir / "export" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def config(one_layer, tmp_path_factory):
    """Sentiment: 8 steps per epoch, with the checkpoint's dropout of 0.1."""
    directory = tmp_path_factory.mktemp("sentiment")
    config = make_config("classification", one_layer, directory, count=64, most_words=8)
    config.train.epochs = 5.0
    config.optim.learning_rate = 1e-2
    config.optim.weight_decay = 0.0
    config.train.seed = 1
    return config


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("finished")
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        returned = flaxbert.train(config, workdir, explain=True)
    workdir.with_suffix(".txt").write_text(shown.getvalue())
    assert dict(returned) == returned.results == read_results(workdir)
    assert returned == read_results(workdir)
    assert repr(returned).startswith(f"Run in {workdir}, 40 steps\n")
    return workdir


def test_run_learns(finished):
    trained = [line for line in lines(finished) if "loss" in line]
    first, last = (np.mean([line["loss"] for line in part]) for part in (trained[:4], trained[-4:]))
    assert last < first / 2
    # Half of the 64 evaluation texts are positive; 48 right by chance: p < 0.0001.
    assert read_results(finished)["accuracy"] >= 0.75


def test_run_is_explained_in_few_sentences(finished):
    lines = finished.with_suffix(".txt").read_text().splitlines()
    assert len(lines) < 30
    text = " ".join(line[2:] for line in lines)
    for sentence in (
        "Only the output layer is new and random: its 50 parameters have everything to learn.",
        "The model learns from 64 examples (texts with their label). 64 others, which",
        "in 8 steps of about 8 examples; 5 epochs are 40 steps.",
        "After 1 epoch: ",
        "After 5 epochs: ",
        "of 64 evaluation examples: ",
    ):
        assert sentence in text


def test_run_writes_its_results(finished, config):
    results = read_results(finished)
    for name in ("accuracy", "accuracy_low95", "accuracy_high95", "f1", "f1_macro", "matthews"):
        assert math.isfinite(results[name])
    assert results["step"] == 40
    assert 0 < results["padding_share"] < 1
    assert results["loss"] > 0
    for name in ("compile_seconds", "train_seconds", "examples_per_s", "eval_seconds"):
        assert results[f"perf/{name}"] > 0
    assert all(isinstance(value, float) for value in results.values())
    assert (
        json.loads((finished / "config.json").read_text()) == config.with_dtype("float32").to_dict()
    )
    for name in ("eval_predictions.jsonl", "eval_labels.jsonl"):
        assert len((finished / name).read_text().splitlines()) == 64


def test_run_writes_a_report_of_its_own_results(finished):
    page = (finished / "report.html").read_text()
    for part in ("Metrics", "Training", "Predictions", "Calibration", "Data and speed"):
        assert f">{part}</h2>" in page
    results = read_results(finished)
    assert f"<b>{results['accuracy']:.3f}</b>" in page.replace("<b>1</b>", "<b>1.000</b>")
    quality = assess(evaluated_of(read_run(finished)))
    for name, estimate in quality.estimates.items():
        assert estimate.value == pytest.approx(results[name])
    sizes = read_results(finished, "run.json")["data"]
    assert sizes["eval"] == {"examples": 64, "sequences": 64, "cut": 0}


def test_metrics_jsonl_has_a_line_for_each_log_and_each_evaluation(finished):
    metrics = lines(finished)
    assert [line["step"] for line in metrics] == sorted(line["step"] for line in metrics)
    logs = [line for line in metrics if "loss" in line]
    assert [line["step"] for line in logs] == list(range(1, 41))
    for line in logs:
        assert set(reproducible(line)) == set(LINE)
        assert line["epoch"] == line["step"] / 8
    assert logs[0]["learning_rate"] == 0.0  # warm-up begins at 0
    evaluations = [line for line in metrics if "eval/accuracy" in line]
    assert [line["step"] for line in evaluations] == [8, 16, 24, 32, 40]
    last = {name.removeprefix("eval/"): value for name, value in evaluations[-1].items()}
    results = read_results(finished)
    assert all(results[name] == value for name, value in last.items())


def test_export_gives_the_predictions_of_the_run(finished):
    model, params = flaxbert.from_pretrained(str(finished / "export"))
    records = [
        json.loads(x) for x in (finished / "eval_predictions.jsonl").read_text().splitlines()
    ]
    tokenizer = load_tokenizer(finished / "export")
    encoded = tokenizer([r["text"] for r in records], padding=True, return_tensors="np")
    logits = model(params, dict(encoded))["logits"][:, 0]
    labels = formats.read_json(finished / "export" / "config.json")["id2label"]
    for record, row in zip(records, np.asarray(jax.nn.softmax(logits)), strict=True):
        probabilities = {labels[str(i)]: float(p) for i, p in enumerate(row)}
        assert probabilities == pytest.approx(record["probability"], rel=1e-4, abs=1e-6)


def test_exported_tokenizer_does_not_truncate(finished):
    stored = json.loads((finished / "export" / "tokenizer.json").read_text())
    assert stored["truncation"] is None
    assert stored["padding"] is None


@pytest.mark.parametrize("positions", [None, 128, 32])
def test_exported_tokenizer_has_the_maximum_length_of_the_model(config, tmp_path, positions):
    config = copy.deepcopy(config)
    config.model.max_position_embeddings = positions
    build_pipeline(config).export(None, tmp_path / "export")
    max_length, table = (
        formats.read_json(tmp_path / "export" / file)[key]
        for file, key in [
            ("tokenizer_config.json", "model_max_length"),
            ("config.json", "max_position_embeddings"),
        ]
    )
    assert max_length == table == (positions or 64)


def test_rerun_of_a_finished_run_changes_nothing(finished, config, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    flaxbert.train(config, workdir)
    assert reproducible(read_results(workdir)) == reproducible(read_results(finished))
    for name in ("metrics.jsonl", "eval_predictions.jsonl", "export/model.safetensors"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes(), name


def test_run_without_a_checkpoint_may_start_again_with_another_configuration(config, tmp_path):
    # For example out of memory at the first step, which a smaller batch fixes.
    files.write_json(tmp_path / "config.json", config.to_dict())
    (tmp_path / "checkpoints").mkdir()
    other = copy.deepcopy(config)
    other.train.batch_size, other.train.max_steps, other.data.eval = 4, 1, None
    flaxbert.train(other, tmp_path)
    assert (
        json.loads((tmp_path / "config.json").read_text()) == other.with_dtype("float32").to_dict()
    )


def test_changed_configuration_is_refused_with_the_difference(finished, config):
    other = copy.deepcopy(config)
    other.optim.learning_rate = 0.5
    before = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"optim\.learning_rate: 0\.01 there, 0\.5 now"):
        flaxbert.train(other, finished)
    assert (finished / "metrics.jsonl").read_bytes() == before
    assert (
        json.loads((finished / "config.json").read_text()) == config.with_dtype("float32").to_dict()
    )


@pytest.mark.slow  # test_preemption.py has a quick one
def test_interrupted_run_resumes_bit_for_bit(one_layer, tmp_path, monkeypatch):
    one_device = sharding.make_mesh(jax.devices()[:1])  # compiles faster
    monkeypatch.setattr(sharding, "make_mesh", lambda **_: one_device)
    free = dataclasses.replace(PLATFORMS["cpu"], program_seconds=0)
    monkeypatch.setitem(PLATFORMS, "cpu", free)  # otherwise so short a run has one program
    monkeypatch.setattr(batching, "MAX_SHAPES", 2)
    config = make_config("classification", one_layer, tmp_path, count=64)
    config.train.epochs = 3.0
    config.train.batch_size = 16
    config.train.log_every = 4
    config.train.eval_every = config.train.save_every = 3
    whole, stopped, killed = (tmp_path / name for name in ("whole", "stopped", "killed"))
    config.train.max_steps = 10
    _, data = load_data(config)
    assert len(data.train.batches.bucket_sizes) == 2
    flaxbert.train(config, whole)

    config.train.max_steps = 5
    flaxbert.train(config, stopped)
    assert [line["step"] for line in lines(stopped)] == [3, 4, 5, 5]
    # As if killed before the checkpoint of step 5 and in the middle of a line: step 3 is the last
    # saved, so what comes after it is removed.
    shutil.copytree(stopped, killed)
    shutil.rmtree(killed / "checkpoints" / "5")
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')

    # A step that was already reached: the newest checkpoint is exported as it is.
    reached = tmp_path / "reached"
    shutil.copytree(killed, reached)
    shutil.rmtree(reached / "export")
    config.train.max_steps = 1
    assert flaxbert.train(config, reached)["step"] == 3
    assert len(exported(reached)) == len(exported(stopped))
    assert exported(reached) != exported(stopped)

    config.train.max_steps = 10
    for workdir in (stopped, killed):
        flaxbert.train(config, workdir)
        assert exported(workdir) == exported(whole)
        assert reproducible(read_results(workdir)) == reproducible(read_results(whole))
    expected = [reproducible(line) for line in lines(whole)]
    assert [line["step"] for line in expected] == [3, 4, 6, 8, 9, 10, 10]
    assert [reproducible(line) for line in lines(killed)] == expected
    # Step 5 was the last of its run, and so logged and evaluated.
    later = [reproducible(line) for line in lines(stopped) if line["step"] > 5]
    assert later == [line for line in expected if line["step"] > 5]


def test_keep_best_exports_the_parameters_with_the_best_metric(config, tmp_path, monkeypatch):
    config = copy.deepcopy(config)
    config.train.max_steps, config.train.eval_every = 6, 1
    config.train.keep_best = "accuracy"
    scripted = iter([0.1, 0.7, 0.9, 0.9, 0.2, 0.3])
    seen = []

    def evaluate(self: Evaluator, params, task, *, preemption) -> Evaluation:
        seen.append(jax.device_get(params))
        return Evaluation([], {"accuracy": next(scripted, 0.5)})

    monkeypatch.setattr(Evaluator, "run", evaluate)
    results = flaxbert.train(config, tmp_path)
    assert results["best_step"] == 3  # of equals, the first
    assert results["step"] == 6
    _, kept = flaxbert.from_pretrained(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, kept, seen[2])
    # These parameters are evaluated once more, for the results.
    jax.tree.map(np.testing.assert_array_equal, seen[-1], seen[2])
    assert results["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("task", "metric", "lower"),
    [
        ("token_classification", "f1_error", False),  # of entities of the type "error"
        ("token_classification", "precision_loss", False),
        ("multi_label", "f1_perplexity", False),
        ("token_classification", "loss", True),
        ("classification", "accuracy/loss", False),  # of the slice "loss"
        ("regression", "squared_error", True),
        ("regression", "squared_error/en", True),
        ("regression", "pearson", False),
        ("pretraining", "nsp_loss", True),
        ("pretraining", "perplexity", True),
        ("pretraining", "mlm_accuracy", False),
    ],
)
def test_keep_best_compares_by_the_whole_name_of_a_metric(task, metric, lower):
    kind = TASKS[task]
    labels = {"token_classification": ("O", "B-X"), "multi_label": ("a", "b")}.get(task)
    labels = ("a", "b") if task == "classification" else labels
    options = kind.options_type(**({"labels": labels} if labels else {}))
    made = kind.create(flaxbert.DataConfig(), options, None, {})
    pipeline = types.SimpleNamespace(task=made, mesh=None)
    evaluator = Evaluator(pipeline, types.SimpleNamespace(batches=None))
    assert evaluator.lower_is_better(metric) is lower


def test_keep_best_with_an_unknown_metric_fails_before_training(config, tmp_path):
    config = copy.deepcopy(config)
    config.train.keep_best = "acuracy"
    with pytest.raises(ConfigError, match=r"acuracy.*accuracy"):
        flaxbert.train(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def config_file(directory: Path, task: str) -> str:
    """Write a file for --config that sets only the task, and return the flag."""
    path = directory / f"{task}.py"
    path.write_text(
        "from flaxbert import Config\nfrom flaxbert.tasks import TASKS\n\n"
        f"def get_config():\n    task = {task!r}\n"
        "    return Config(task=task, options=TASKS[task].options_type())\n"
    )
    return f"--config={path}"


@pytest.fixture
def sentiment_flags(config, tmp_path) -> list[str]:
    return ["run", config_file(tmp_path, "classification")]


def test_mode_eval_gives_the_results_of_the_training_run(
    finished, config, sentiment_flags, tmp_path, capsys
):
    shutil.copytree(finished, tmp_path / "run")
    where = [
        f"--workdir={tmp_path / 'run'}",
        "--mode=eval",
        f"--config.data.eval={config.data.eval}",
    ]
    assert run.main([*sentiment_flags, *where]) == 0
    run_predictions = (finished / "eval_predictions.jsonl").read_bytes()
    assert (tmp_path / "run/eval_predictions.jsonl").read_bytes() == run_predictions
    own = (tmp_path / "run/eval_results_predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in own] == [
        json.loads(line)["label"] for line in run_predictions.decode().splitlines()
    ]
    used = read_results(tmp_path / "run", "eval_results_config.json")["data"]
    assert (used["max_length"], used["eval"]) == (config.data.max_length, config.data.eval)
    out = capsys.readouterr().out
    assert (tmp_path / "run" / "eval_results_report.html").is_file()
    assert "eval_results.json  eval_results_predictions.jsonl  eval_results_config.json" in out
    evaluated = reproducible(read_results(tmp_path / "run", "eval_results.json"))
    assert evaluated["data/eval/malformed"] == 0
    results = read_results(finished)
    assert evaluated == pytest.approx({name: results[name] for name in evaluated}, rel=1e-5)


def test_mode_predict_labels_texts_without_labels(finished, sentiment_flags, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "texts.tsv").write_text("text\nthe film was good\nthe food was awful\n")
    where = [f"--workdir={tmp_path / 'run'}", "--mode=predict"]
    flags = [*sentiment_flags, *where, f"--config.data.predict={tmp_path / 'texts.tsv'}"]
    assert run.main(flags) == 0
    records = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(record)["label"] for record in records] == ["positive", "negative"]
    used = read_results(tmp_path / "run", "predictions_config.json")["data"]
    assert (used["max_length"], used["predict"]) == (32, str(tmp_path / "texts.tsv"))


def test_mode_eval_of_a_model_without_a_trained_head_is_refused(
    checkpoint, config, sentiment_flags, tmp_path, capsys
):
    flags = [
        f"--config.model.init={checkpoint}",
        f"--workdir={tmp_path / 'none'}",
        "--mode=eval",
        "--config.data.max_length=32",
        f"--config.data.eval={config.data.eval}",
        "--config.options.labels=negative",
        "--config.options.labels=positive",
    ]
    assert run.main([*sentiment_flags, *flags]) == 2
    assert "no trained output layer" in capsys.readouterr().err


@pytest.mark.slow
def test_question_answering_trains_from_the_command_line(checkpoint, tmp_path, capsys):
    data = make_config("question_answering", checkpoint, tmp_path, most_words=40).data
    flags = [
        f"--workdir={tmp_path / 'run'}",
        f"--config.model.init={checkpoint}",
        f"--config.data.train={data.train}",
        f"--config.data.eval={data.eval}",
        "--config.data.max_length=32",
        "--config.data.overlap=8",
        "--config.train.batch_size=16",
        "--config.train.epochs=6",
        "--config.train.eval_every=0",
        "--config.optim.learning_rate=1e-2",
    ]
    assert run.main(["run", config_file(tmp_path, "question_answering"), *flags]) == 0
    results = read_results(tmp_path / "run")
    assert "results.json" in capsys.readouterr().out
    # Five place names, each context has one: chance picks the right word of thirty 1 time in 30.
    assert 20 < results["exact_match"] <= results["f1"] <= 100
    trained = [line["loss"] for line in lines(tmp_path / "run") if "loss" in line]
    assert trained[-1] < trained[0] / 2

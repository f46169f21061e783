"""The predictor: loads every kind of directory, and predicts and evaluates as the commands do."""

import copy
import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from toy import FILLERS, OPINIONS, PLACES, make_config, write_lines

import flaxbert
from flaxbert import Config
from flaxbert.commands import modes
from flaxbert.data import readers
from flaxbert.errors import ConfigError, DataError, WeightsError
from flaxbert.pipeline import bulk
from flaxbert.pipeline.datasets import read_table
from flaxbert.runtime.parts import Parts

TASKS = ("classification", "question_answering", "token_classification")
KINDS = ("workdir", "export", "hugging face")

# Of several lengths; none is longer than a row.
INPUTS: dict[str, list[Any]] = {
    "classification": [
        "the film was good",
        "awful",
        "the food is very bad and the book was old and it is awful",
    ],
    "question_answering": [
        ("where is the king?", "the king is in paris and the queen is in london"),
        ("what is old?", "the bridge"),
        ("who?", "he visited the city by the river"),
    ],
    "token_classification": [
        "the king visited paris, london and the city.",
        "paris",
        "he was very old (and she, too)",
    ],
}


pytestmark = pytest.mark.usefixtures("one_device")


@dataclasses.dataclass
class Run:
    """A finished run."""

    config: Config
    workdir: Path
    directories: dict[str, Path]
    """Its forms by name: see KINDS."""
    predictor: flaxbert.Predictor


@pytest.fixture(scope="module")
def runs(
    one_device: None, one_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    finished = {}
    for task in TASKS:
        directory = tmp_path_factory.mktemp(task)
        config = make_config(task, one_layer, directory, count=32, most_words=8)
        config.optim.learning_rate = 1e-2
        workdir = directory / "run"
        flaxbert.train(config, workdir)
        alone = directory / "alone"  # as downloaded: no config.json of a run above it
        shutil.copytree(workdir / "export", alone)
        paths = workdir, workdir / "export", alone
        directories = dict(zip(KINDS, paths, strict=True))
        finished[task] = Run(config, workdir, directories, flaxbert.load(workdir))
    return finished


@pytest.fixture(params=TASKS)
def run(runs: dict[str, Run], request: pytest.FixtureRequest) -> Run:
    return runs[request.param]


def assert_equal(ours: Any, theirs: Any) -> None:
    """Compare values of JSON's types; floats may differ in rounding, as rows differ."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_equal(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_equal(a, b)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    else:
        assert ours == theirs


def write_inputs(run: Run, directory: Path) -> Path:
    """Write the task's inputs as a file for --mode=predict."""
    task, inputs = run.config.task, INPUTS[run.config.task]
    if task == "classification":
        path, rows = directory / "inputs.jsonl", [{"text": text} for text in inputs]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif task == "question_answering":
        path = directory / "inputs.json"
        paragraphs = [
            {"context": context, "qas": [{"id": f"q{n}", "question": question}]}
            for n, (question, context) in enumerate(inputs)
        ]
        path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    else:
        path = directory / "inputs.jsonl"
        words = [p["tokens"] for p in run.predictor.predict(inputs)]
        path.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in words))
    return path


def test_predictions_equal_those_of_mode_predict(run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    config = dataclasses.replace(run.config)
    config.data = dataclasses.replace(config.data, predict=str(write_inputs(run, tmp_path)))
    modes.predict(config, workdir)
    lines = [json.loads(x) for x in (workdir / "predictions.jsonl").read_text().splitlines()]
    predictions = run.predictor.predict(INPUTS[run.config.task])
    assert len(predictions) == len(lines) == 3
    for prediction, line in zip(predictions, lines, strict=True):
        shared = [name for name in prediction if name in line]
        assert set(prediction) - set(shared) <= {"entities"}
        assert {"label", "answer", "tags"} & set(shared)
        assert_equal({k: prediction[k] for k in shared}, {k: line[k] for k in shared})


def test_streamed_predictions_are_those_of_a_whole_run(run, tmp_path, monkeypatch):
    predictor = copy.copy(run.predictor)
    train = dataclasses.replace(run.config.train, eval_batch_size=2)
    predictor.config = dataclasses.replace(run.config, train=train)
    predict = str(write_inputs(run, tmp_path))
    data, _ = predictor.read(dataclasses.replace(run.config.data, predict=predict), "predict")
    assert data.batches.steps_per_epoch > 1
    expected = predictor.run(data).predictions
    kind, sizes = type(predictor.pipeline.task), []
    decode = kind.decode

    def counted(task, examples, features, outputs):
        sizes.append(len(examples))
        return decode(task, examples, features, outputs)

    monkeypatch.setattr(kind, "decode", counted)
    stream = predictor.stream(data)
    assert next(stream) == expected[0]
    assert 0 < sum(sizes) < len(expected)  # the others are not predicted yet
    assert list(stream) == expected[1:]
    assert sum(sizes) == len(expected)


# --- in parts ------------------------------------------------------------------------------------


def write_shards(run: Run, directory: Path) -> str:
    """Write 5 files of the task's inputs, one in Parquet; return their pattern."""
    path = write_inputs(run, directory)
    data = dataclasses.replace(run.config.data, predict=str(path))
    rows = [row.values for row in read_table(data, "predict").rows]
    shards = directory / "shards"
    shards.mkdir()
    for number in range(5):
        shard = rows[number % 3 :] + rows[: number % 3]
        write_lines(shards / f"{number}.jsonl", shard)
    (shards / "3.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), shards / "3.parquet")  # 3 rotates by 0
    return str(shards / "*")


class StoppedError(Exception):
    """Stands for a signal that ends the process."""


def predict_in_parts(
    run: Run, pattern: str, workdir: Path, monkeypatch: pytest.MonkeyPatch, *, stop: int = 99
) -> list[int]:
    """Predict for 4 rows at a time; return the parts that are computed, `stop` being the last."""
    monkeypatch.setattr(bulk, "ROWS", 4)
    add, computed = Parts.add, list[int]()

    def counted(self, number, *values):
        if number == stop:
            raise StoppedError
        computed.append(number)
        add(self, number, *values)

    monkeypatch.setattr(Parts, "add", counted)
    config = copy.deepcopy(run.config)
    config.data.predict, config.train.eval_batch_size = pattern, 2
    workdir.mkdir(exist_ok=True)
    if not (workdir / "export").exists():
        shutil.copytree(run.workdir, workdir, dirs_exist_ok=True)
    try:
        modes.predict(config, workdir)
    except StoppedError:
        pass
    finally:
        monkeypatch.setattr(Parts, "add", add)
    return computed


@pytest.mark.parametrize(
    "task", [TASKS[0], *(pytest.param(task, marks=pytest.mark.slow) for task in TASKS[1:])]
)
def test_prediction_in_parts_continues_and_is_that_of_one_part(
    runs, task, tmp_path, monkeypatch, capsys
):
    run = runs[task]
    pattern = write_shards(run, tmp_path)
    whole, parted, stopped = tmp_path / "whole", tmp_path / "parted", tmp_path / "stopped"
    names = [path / "predictions.jsonl" for path in (whole, parted, stopped)]
    config = copy.deepcopy(run.config)
    config.data.predict = pattern
    shutil.copytree(run.workdir, whole)
    modes.predict(config, whole)
    assert predict_in_parts(run, pattern, parted, monkeypatch) == [0, 1, 2, 3]
    lines = [list(map(json.loads, path.read_text().splitlines())) for path in names[:2]]
    assert len(lines[0]) == 15
    assert_equal(lines[1], lines[0])
    assert predict_in_parts(run, pattern, stopped, monkeypatch, stop=2) == [0, 1]
    assert not names[2].exists()
    assert predict_in_parts(run, pattern, stopped, monkeypatch) == [2, 3]
    assert names[2].read_bytes() == names[1].read_bytes()
    assert not list(stopped.glob(".predictions*"))
    assert "15 predictions: " in capsys.readouterr().out


def test_finished_parts_of_other_rows_or_settings_are_not_used(runs, tmp_path, monkeypatch):
    run = runs["classification"]
    pattern, workdir = write_shards(run, tmp_path), tmp_path / "run"
    assert predict_in_parts(run, pattern, workdir, monkeypatch, stop=3) == [0, 1, 2]
    shard = tmp_path / "shards" / "1.jsonl"  # rows 4 to 6, in part 0 and part 1
    shard.write_text(shard.read_text().replace("awful", "great"))
    assert predict_in_parts(run, pattern, workdir, monkeypatch, stop=3) == [0, 1]
    weights = workdir / "export" / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] += 1
    save_file(tensors, weights)
    assert predict_in_parts(run, pattern, workdir, monkeypatch) == [0, 1, 2, 3]


def test_parts_share_the_shapes_of_the_first(runs, tmp_path):
    run = runs["classification"]
    pipeline = run.predictor.pipeline

    def batches(texts, like=None):
        _, features = run.predictor.tokenize(texts)
        return pipeline.batches(features, batch_size=8, like=like)

    first = batches(["the film was good"] * 20 + ["awful"] * 20)
    more = batches(["the film was good"] * 9, first)
    assert (more.row_length, more.slots) == (first.row_length, first.slots)
    assert set(more.bucket_sizes) == set(first.bucket_sizes)
    assert sorted(sequence for row in more.rows(0) for sequence in row) == list(range(8))
    longer = batches(["the film was good and " * 5] * 8, first)
    assert (longer.row_length, longer.slots) == (pipeline.row_length, first.slots)
    assert max(longer.bucket_sizes) >= len(longer.rows(0))


def test_rows_are_read_when_they_are_needed(tmp_path):
    paths = [write_lines(tmp_path / f"{n}.jsonl", [{"text": "a"}] * 3) for n in range(3)]
    paths[2].write_text("no JSON")
    tables = readers.stream(str(tmp_path / "*"), flaxbert.DataConfig(), split="test", size=4)
    assert [row.origin for row in next(tables).rows][-1] == f"{paths[1]}:1"
    with pytest.raises(DataError, match=r"2\.jsonl:1: not valid JSON"):
        next(tables)
    exactly = readers.stream(str(paths[0]), flaxbert.DataConfig(), split="test", size=3)
    assert [len(table.rows) for table in exactly] == [3]
    paths[0].write_text("")
    empty = readers.stream(str(paths[0]), flaxbert.DataConfig(), split="test", size=3)
    assert [len(table.rows) for table in empty] == [0]


def test_predictions_are_of_json_types(run):
    predictions = run.predictor.predict(INPUTS[run.config.task])
    assert json.loads(json.dumps(predictions)) == predictions


def test_evaluate_equals_mode_eval(run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    modes.evaluate(run.config, workdir)
    written = json.loads((workdir / "eval_results.json").read_text())
    metrics = run.predictor.evaluate(run.config.data.eval)
    stripped = {
        name: value for name, value in written.items() if not name.startswith(("perf/", "data/"))
    }
    assert metrics == stripped
    assert metrics["loss"] > 0


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_of_directory_predicts_and_evaluates_alike(run, kind):
    # A Hugging Face directory names no length: by default it is that of the model.
    length = 32 if kind == "hugging face" else None
    other = flaxbert.load(str(run.directories[kind]), max_length=length)
    assert other.config.task == run.config.task
    assert other.config.data.max_length == 32
    inputs = INPUTS[run.config.task]
    assert_equal(other.predict(inputs), run.predictor.predict(inputs))
    theirs = run.predictor.evaluate(run.config.data.eval)
    assert_equal(other.evaluate(run.config.data.eval), theirs)


def test_hugging_face_directory_has_the_length_of_the_model(run):
    loaded = flaxbert.load(run.directories["hugging face"])
    assert (loaded.config.data.max_length, loaded.config.data.overlap) == (64, 16)


def test_directory_without_an_output_layer_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="BertModel, which fits no task that can predict"):
        flaxbert.load(checkpoint)
    with pytest.raises(WeightsError, match="no trained output layer"):
        flaxbert.load(checkpoint, task="question_answering")


def test_order_and_number_of_inputs_do_not_change_predictions(run):
    inputs = INPUTS[run.config.task]
    together = run.predictor.predict(inputs)
    assert_equal([run.predictor.predict([item])[0] for item in inputs], together)
    assert_equal(run.predictor.predict(inputs[::-1])[::-1], together)
    assert_equal(run.predictor.predict(inputs * 50), together * 50)  # more than a batch


def test_no_inputs_give_no_predictions(run):
    assert run.predictor.predict([]) == []
    assert run.predictor.predict(np.array([], str)) == []


def test_inputs_may_be_an_array_or_a_generator(runs):
    predictor, inputs = runs["classification"].predictor, INPUTS["classification"]
    predictions = predictor.predict(inputs)
    assert predictor.predict(np.array(inputs)) == predictions
    assert predictor.predict(text for text in inputs) == predictions


def test_input_that_does_not_fit_is_an_error_even_if_files_skip_such_rows(runs):
    config = copy.deepcopy(runs["question_answering"].predictor.config)
    config.data.on_bad_row = "skip"
    predictor = flaxbert.Predictor.from_config(config)
    with pytest.raises(DataError, match=r"^inputs:2: "):
        predictor.predict([("who?", "he"), ("who " * 40, "he"), ("what?", "it")])


def edit_config(run: Run, directory: Path, **sections: dict[str, Any]) -> Path:
    """Copy a run's workdir with other values in its config.json."""
    workdir = directory / "run"
    shutil.copytree(run.workdir, workdir)
    content = json.loads((workdir / "config.json").read_text())
    for section, values in sections.items():
        content[section] |= values
    (workdir / "config.json").write_text(json.dumps(content))
    return workdir


@pytest.mark.parametrize("kind", ["", "export"])
def test_run_of_a_revision_of_a_hub_model_is_loaded(runs, tmp_path, kind):
    run = runs["classification"]
    workdir = edit_config(run, tmp_path, model={"init": "user/model", "revision": "abc"})
    predictor = flaxbert.load(workdir / kind)
    assert_equal(predictor.predict(["good"]), run.predictor.predict(["good"]))


def test_run_with_rows_of_a_fixed_length_is_loaded_for_longer_texts(runs, tmp_path):
    run = runs["classification"]
    workdir = edit_config(run, tmp_path, data={"row_length": 40})
    assert flaxbert.load(workdir).pipeline.row_length == 40
    assert flaxbert.load(workdir, max_length=64).pipeline.row_length == 64


@pytest.mark.parametrize("kind", ["", "export"])
def test_unfinished_run_is_refused_with_the_command_that_exports_it(runs, tmp_path, kind):
    workdir = edit_config(runs["classification"], tmp_path)
    shutil.rmtree(workdir / "export")
    with pytest.raises(WeightsError, match=rf"has not finished.*flaxbert convert {workdir} DIR"):
        flaxbert.load(workdir / kind)


# --- the forms of inputs -------------------------------------------------------------------------


def test_dicts_with_the_columns_of_a_file_are_inputs_too(runs):
    for task, dicts in {
        "classification": [{"text": text} for text in INPUTS["classification"]],
        "question_answering": [
            {"question": question, "context": context}
            for question, context in INPUTS["question_answering"]
        ],
    }.items():
        predictor = runs[task].predictor
        assert_equal(predictor.predict(dicts), predictor.predict(INPUTS[task]))
    predictor = runs["token_classification"].predictor
    words = ["the", "king", "visited", "paris"]
    assert_equal(predictor.predict([{"tokens": words}]), predictor.predict([words]))


@pytest.mark.parametrize(
    ("task", "inputs", "message"),
    [
        (
            "classification",
            "one text",
            r"^inputs: expected a list\..*put it in a list: \[input\]\.$",
        ),
        ("classification", {"text": "good"}, r"^inputs: expected a list\."),
        ("classification", ["good", 3], r"^inputs:2: .*expected a text, or a dict"),
        ("classification", [("good", "bad")], r"^inputs:1: .*expected a text, or a dict"),
        ("classification", [None], r"^inputs:1: .*expected a text"),
        ("classification", [{"txt": "good"}], r"text"),
        ("question_answering", ["who?"], r"^inputs:1: .*expected \(question, context\)"),
        ("question_answering", [("who?", "he"), ("who?",)], r"^inputs:2: .*expected \(question"),
        ("token_classification", [["the", 3]], r"^inputs:1: .*expected a sentence, or a list"),
        ("token_classification", ["good", b"bad"], r"^inputs:2: .*expected a sentence"),
    ],
)
def test_input_of_another_form_is_one_error_with_its_number(runs, task, inputs, message):
    with pytest.raises(DataError, match=message) as caught:
        runs[task].predictor.predict(inputs)
    assert len(str(caught.value).splitlines()) == 1


# --- what predictions hold -----------------------------------------------------------------------


def test_entities_have_the_characters_of_the_sentence(runs, monkeypatch):
    predictor = runs["token_classification"].predictor
    kind = type(predictor.pipeline.task)
    decode = kind.decode

    def scripted(self, examples, features, outputs):
        """Tag the places, as a perfect model does."""
        predictions = decode(self, examples, features, outputs)
        for prediction in predictions:
            before, tags = "O", []
            for word in prediction["tokens"]:
                before = ("B-LOC" if before == "O" else "I-LOC") if word in PLACES else "O"
                tags.append(before)
            prediction["tags"] = tags
        return predictions

    monkeypatch.setattr(kind, "decode", scripted)
    text = "  the king (of paris), visited london bridge.And city  "
    (prediction,) = predictor.predict([text])
    assert prediction["tokens"] == [
        *("the", "king", "(", "of", "paris", ")", ",", "visited", "london", "bridge", "."),
        *("And", "city"),
    ]
    entities = prediction["entities"]
    assert [entity["text"] for entity in entities] == ["paris", "london bridge", "city"]
    for entity in entities:
        assert entity["type"] == "LOC"
        assert text[entity["start"] : entity["end"]] == entity["text"]
    # A list of words counts as joined by spaces.
    words = ["king", "of", "london", "bridge", ",", "paris"]
    (prediction,) = predictor.predict([words])
    assert [(e["text"], e["start"], e["end"]) for e in prediction["entities"]] == [
        ("london bridge", 8, 21),
        ("paris", 24, 29),
    ]
    assert " ".join(words)[24:29] == "paris"


@pytest.mark.parametrize("count", [2, 3, 10])
def test_top_k_gives_the_best_answers_in_their_order(runs, count):
    predictor, inputs = runs["question_answering"].predictor, INPUTS["question_answering"]
    best = predictor.predict(inputs)
    for (_, context), first, prediction in zip(
        inputs, best, predictor.predict(inputs, top_k=count), strict=True
    ):
        answers = prediction.pop("answers")
        assert_equal(prediction, first)
        assert_equal(answers[0], first)
        assert 1 <= len(answers) <= count
        assert len(answers) == count or len(context.split()) < 4
        scores = [answer["score"] for answer in answers]
        assert scores == sorted(scores, reverse=True)
        places = {(answer["start"], answer["end"]) for answer in answers}
        assert len(places) == len(answers)
        for answer in answers:
            assert context[answer["start"] : answer["end"]] == answer["answer"]


def test_top_k_below_one_or_for_a_task_without_alternatives_is_refused(runs):
    with pytest.raises(ConfigError, match="top_k=0: expected at least 1"):
        runs["question_answering"].predictor.predict([("who?", "he")], top_k=0)
    with pytest.raises(ConfigError, match="top_k=2: only question answering has alternatives"):
        runs["token_classification"].predictor.predict(["paris"], top_k=2)


# --- serving -------------------------------------------------------------------------------------


def compilations(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what JAX logged about compiling."""
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("jax")]
    return [message for message in messages if message.startswith(("Compiling", "Finished XLA"))]


def test_thousand_single_predictions_after_the_first_compile_nothing(runs, caplog):
    predictor = flaxbert.load(runs["classification"].workdir)
    with jax.log_compiles():
        predictor.predict(["the film was good"])
        assert compilations(caplog)  # otherwise the count below would always be 0
        assert predictor._step._cache_size() == 1
        caplog.clear()
        for n in range(1000):
            words = [*FILLERS[: 1 + n % len(FILLERS)], OPINIONS[n % 2][0]]
            predictor.predict([" ".join(words)])
        assert compilations(caplog) == []
    assert predictor._step._cache_size() == 1


def test_requests_of_all_sizes_share_few_programs(runs):
    predictor = flaxbert.load(runs["classification"].workdir)
    for count in (1, 2, 3, 5, 9, 17, 30, 33, 64, 100):
        assert len(predictor.predict(["the film was good and the food is bad"] * count)) == count
    assert predictor._step._cache_size() <= 7  # 1, 2, 4, ... 64 rows
    compiled = predictor._step._cache_size()
    predictor.predict(["awful"] * 60)
    assert predictor._step._cache_size() == compiled


def test_predict_prints_and_logs_nothing(runs, capfd, caplog):
    caplog.set_level(logging.INFO, "flaxbert")
    for task in TASKS:
        runs[task].predictor.predict(INPUTS[task])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert caplog.records == []


def test_text_longer_than_the_limit_is_cut_and_long_contexts_are_windowed(runs):
    (prediction,) = runs["classification"].predictor.predict(["the film was good " * 50])
    assert prediction["label"] in ("negative", "positive")
    context = "the king is old and " * 40 + "he is in paris"
    (prediction,) = runs["question_answering"].predictor.predict([("where is he?", context)])
    assert context[prediction["start"] : prediction["end"]] == prediction["answer"]

"""Evaluation and prediction take lengths and options from the run; flags must not contradict."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from flaxbert.commands import args, modes
from flaxbert.config import Config, DataConfig, ModelConfig, fields
from flaxbert.errors import ConfigError, UserError, WorkdirError
from flaxbert.pipeline import stored
from flaxbert.tasks import TASKS

OPTIONS = TASKS["classification"].options_type


def config(data: dict[str, Any] | None = None, **options: Any) -> Config:
    return Config(
        task="classification",
        model=ModelConfig(init="tiny"),
        data=DataConfig(**(data or {})),
        options=OPTIONS(**options),
    )


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A run with lengths, options and columns of its own."""
    run = config(
        {"max_length": 384, "overlap": 100, "row_length": 512, "train": "train.tsv"},
        long_texts="windows",
        text="review",
        labels=("bad", "good"),
    )
    (tmp_path / "export").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(run.to_dict()))
    return tmp_path


def test_values_of_the_run_replace_those_of_the_config_file_and_are_logged(workdir, caplog):
    caplog.set_level("INFO", "flaxbert")
    before = config({"max_length": 64, "eval": "dev.tsv", "slices": "lang"})
    found = stored.as_trained(before, workdir, ())
    assert (found.data.max_length, found.data.overlap, found.data.row_length) == (384, 100, 512)
    assert (found.options.long_texts, found.options.text) == ("windows", "review")
    assert found.options.labels == ("bad", "good")
    # The data set is the evaluation's own, and the given configuration is left alone.
    assert (found.data.eval, found.data.train, found.data.slices) == ("dev.tsv", None, "lang")
    assert before.data.max_length == 64
    (record,) = caplog.records
    assert "data.max_length=384 instead of 64" in record.getMessage()
    assert "options.long_texts='windows' instead of 'head'" in record.getMessage()


def test_unset_options_are_those_of_the_run(workdir):
    bare = Config(task="classification", model=ModelConfig(init="tiny"))
    assert stored.as_trained(bare, workdir, ()).options.long_texts == "windows"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("data.max_length", 64, "data.max_length: 384 in the run, 64 in the flag"),
        ("data.overlap", 10, "data.overlap: 100 in the run, 10 in the flag"),
        ("data.eval_split", 0.3, "data.eval_split: 0.0 in the run, 0.3 in the flag"),
        (
            "options.long_texts",
            "head",
            "options.long_texts: 'windows' in the run, 'head' in the flag",
        ),
        (
            "options.pair",
            "other",
            "options.pair: None in the run, 'other' in the flag",
        ),  # no other name: a pair
        ("options.labels", ("good", "bad"), "options.labels: ['bad', 'good'] in the run, ['good'"),
        ("model.init", "other", "model.init: 'tiny' in the run, 'other' in the flag"),
        (
            "model.max_position_embeddings",
            1024,
            "model.max_position_embeddings: None in the run, 1024 in the flag",
        ),
    ],
)
def test_flag_that_contradicts_the_run_is_refused_with_both_values(workdir, name, value, message):
    chosen = config({"max_length": 384})
    section, key = name.split(".")
    setattr(getattr(chosen, section), key, value)
    with pytest.raises(ConfigError) as caught:
        stored.as_trained(chosen, workdir, {name})
    assert message in str(caught.value)
    assert f"--config.model.init={workdir} and another --workdir" in str(caught.value)


def test_flag_that_repeats_the_value_of_the_run_is_accepted(workdir):
    chosen = config({"max_length": 384}, long_texts="windows")
    given = {"data.max_length", "options.long_texts"}
    assert stored.as_trained(chosen, workdir, given).data.max_length == 384


def test_flags_may_change_columns_and_settings_of_speed(workdir):
    chosen = config({"packing": False, "row_length": 400}, text="sentence")
    given = {"data.packing", "data.row_length", "options.text"}
    found = stored.as_trained(chosen, workdir, given)
    assert (found.data.packing, found.data.row_length) == (False, 400)
    assert found.options.text == "sentence"
    assert found.options.long_texts == "windows"


def test_labels_may_be_given_if_the_run_took_them_from_its_data(workdir):
    run = json.loads((workdir / "config.json").read_text())
    run["options"]["labels"] = []
    (workdir / "config.json").write_text(json.dumps(run))
    found = stored.as_trained(config(labels=("bad", "good")), workdir, {"options.labels"})
    assert found.options.labels == ("bad", "good")


def test_every_option_that_names_a_column_is_marked_as_one():
    for task in TASKS.values():
        options = task.options_type()
        for name, field, _ in fields(options):
            about_columns = field.metadata["help"].startswith("column")
            assert about_columns <= field.metadata["column"], name


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_another_task_is_refused_with_both_names(workdir, mode):
    other = Config(task="regression", options=TASKS["regression"].options_type())
    with pytest.raises(ConfigError, match=r"the task 'classification'.* is of 'regression'"):
        getattr(modes, mode)(other, workdir)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b'{"task": "classif', "Unterminated string"),
        (b"\xff\xfe", "can't decode"),
        (b"[]", "no task in it"),
        (b'{"model_type": "bert"}', "no task in it"),
    ],
)
def test_run_without_its_configuration_is_refused(workdir, content, reason):
    if content is None:
        (workdir / "config.json").unlink()
    else:
        (workdir / "config.json").write_bytes(content)
    with pytest.raises(WorkdirError) as caught:
        modes.evaluate(config(), workdir)
    assert str(caught.value).startswith(f"{workdir / 'config.json'}: not the configuration")
    assert reason in str(caught.value)
    assert f"--config.model.init={workdir}" in str(caught.value)


def test_invalid_value_of_the_run_is_refused(workdir):
    run = json.loads((workdir / "config.json").read_text())
    run["data"]["max_length"] = "long"
    (workdir / "config.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match=r"data\.max_length='long': expected int"):
        modes.predict(config(), workdir)


@pytest.mark.parametrize("init", ["{}", "{}/export"])
def test_initial_model_of_a_run_with_other_lengths_gives_a_warning(workdir, caplog, init):
    chosen = config({"max_length": 384, "overlap": 100}, text="sentence", labels=("bad", "good"))
    chosen.model.init = init.format(workdir)
    stored.warn_about_differences(chosen)
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"{workdir}: was trained with options.long_texts='windows' (here 'head')"
    )


def test_initial_model_that_is_no_run_gives_no_warning(checkpoint, caplog):
    chosen = dataclasses.replace(config(), model=ModelConfig(init=str(checkpoint)))
    stored.warn_about_differences(chosen)
    assert not caplog.records


def test_command_line_returns_the_keys_that_flags_set(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from flaxbert import Config\n"
        "from flaxbert.tasks.classification import ClassificationOptions as Options\n\n"
        "def get_config():\n    return Config(task='classification', options=Options())\n"
    )
    flags = [
        "--config.data.max_length=384",
        "--config.options.text",
        "review",
        "--noconfig.data.packing",
        "--config.data.slices=none",
        "-config.options.labels=a",
        "--config.options.labels=b",
    ]
    found = args.parse(["run", f"--config={file}", "--workdir=w", *flags], "about")
    assert found.given == {
        "data.max_length",
        "options.text",
        "data.packing",
        "data.slices",
        "options.labels",
    }
    assert (found.config.data.max_length, found.config.options.text) == (384, "review")

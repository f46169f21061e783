"""Config files: executed once, with errors that say where, as Config or as ConfigDict."""

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from flaxbert.commands import args, config_file
from flaxbert.config import Config, validate
from flaxbert.errors import ConfigError
from flaxbert.tasks import TASKS
from flaxbert.tasks.classification import ClassificationOptions


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(text)
    return str(file)


def test_a_command_line_executes_the_config_file_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    file = write(
        tmp_path,
        "from pathlib import Path\n"
        "from flaxbert.config import Config\n"
        f"log = Path({str(log)!r})\n"
        "def write(text):\n"
        "    log.write_text((log.read_text() if log.exists() else '') + text)\n"
        "write('executed ')\n"
        "def get_config(task):\n"
        "    write('called ')\n"
        "    return Config(task=task)\n",
    )
    flags = ["--config.train.epochs=2", "--config.data.eval=none", "--config.data.columns=a,b"]
    args.parse(["run", f"--config={file}:classification", "--workdir=w", *flags], "")
    assert log.read_text() == "executed called "


def test_a_changed_config_file_is_read_again(tmp_path: Path) -> None:
    text = "from flaxbert.config import Config\ndef get_config(): return Config(task='a')\n"
    assert config_file.load_config(write(tmp_path, text)).task == "a"
    assert config_file.load_config(write(tmp_path, text.replace("'a'", "'b'"))).task == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]  # no __pycache__


def test_a_config_file_may_define_dataclasses(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from flaxbert.config import Config\n"
        "@dataclasses.dataclass\n"
        "class Sizes:\n"
        "    epochs: float = 2.0\n"
        "def get_config():\n"
        "    config = Config(task='classification')\n"
        "    config.train.epochs = Sizes().epochs\n"
        "    return config\n",
    )
    assert config_file.load_config(file).train.epochs == 2.0


def test_a_config_of_the_package_is_found_by_name_in_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file.load_config("squad") == config_file.load_config(f"{ROOT}/configs/squad.py")
    assert config_file.load_config("examples:qa").task == "question_answering"
    (tmp_path / "squad").mkdir()  # a directory is no config
    assert config_file.load_config("squad:es").data.train is None


def test_a_file_of_the_user_comes_before_one_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "from flaxbert.config import Config\ndef get_config(): return Config(task='mine')\n"
    (tmp_path / "squad.py").write_text(text, encoding="utf-8")
    assert config_file.load_config("squad.py").task == "mine"
    assert config_file.load_config("squad").task == "question_answering"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("configs/squad.py:es", r"no file configs/squad\.py \(from .*is --config=squad\."),
        ("mine.py", r"no file mine\.py \(from .*comes with examples, glue, .*your file\."),
        ("sqaud", r"no file sqaud .*comes with .*squad"),
    ],
)
def test_an_absent_config_file_names_those_of_the_package(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        config_file.load_config(spec)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("squad", ("squad", None)),
        ("squad:", ("squad", "")),
        ("configs/glue.py:a:b", ("configs/glue.py", "a:b")),
        ("C:\\mine.py", ("C:\\mine.py", None)),
        ("c:/mine.py:es", ("c:/mine.py", "es")),
    ],
)
def test_the_argument_follows_the_first_colon_after_a_drive(
    spec: str, parts: tuple[str, str | None]
) -> None:
    assert config_file.split(spec) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = {}['a']\n", "mine.py: line 2: KeyError: 'a'"),
        ("def get_config():\n    return 1 / 0\n", "mine.py: line 2: ZeroDivisionError"),
        ("def get_config(:\n", "mine.py: line 1: "),
        ("import nothing_of_this_name\n", "mine.py: line 1: ModuleNotFoundError"),
        ("def get_config():\n    raise ValueError('one of a, b')\n", "mine.py: one of a, b"),
    ],
)
def test_an_error_in_a_config_file_has_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_file.load_config(write(tmp_path, text))
    assert message in str(caught.value)


def from_config_dict(tmp_path: Path, entries: dict[str, Any], *flags: str) -> Config:
    text = f"import ml_collections\ndef get_config(): return ml_collections.ConfigDict({entries})\n"
    file = write(tmp_path, text)
    return args.parse(["run", f"--config={file}", "--workdir=w", *flags], "").config


def test_a_config_dict_becomes_a_config(tmp_path: Path) -> None:
    entries = {
        "task": "classification",
        "train": {"epochs": 2.0, "max_steps": 7},
        "data": {"train": "a.tsv"},
        "options": {"labels": ["bad", "good"]},
    }
    config = from_config_dict(tmp_path, entries, "--config.train.seed=3", "--config.options.text=t")
    expected = Config(
        task="classification", options=ClassificationOptions(text="t", labels=("bad", "good"))
    )
    expected.train.epochs, expected.train.max_steps, expected.train.seed = 2.0, 7, 3
    expected.data.train = "a.tsv"
    assert config == expected
    validate(config, TASKS)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"train": {"epoch": 2}}, "unknown config key 'train.epoch'. Did you mean 'train.epochs'?"),
        ({"trian": {"epochs": 2}}, "unknown config key 'trian'. "),
        ({"options": {"labels": ()}}, "unknown config key 'options'. "),  # without a task
        ({"task": "classification", "options": {"label_s": 1}}, "Did you mean 'options.labels'?"),
    ],
)
def test_an_unknown_key_of_a_config_dict_is_refused(
    tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_config_dict(tmp_path, entries)
    assert message in str(caught.value)


def test_a_config_dict_is_validated_like_a_config(tmp_path: Path) -> None:
    config = from_config_dict(tmp_path, {"task": "classification", "train": {"epochs": "3"}})
    with pytest.raises(ConfigError, match=r"train\.epochs='3': expected float"):
        validate(config, TASKS)
    with pytest.raises(ConfigError, match="task='translation': expected one of"):
        validate(from_config_dict(tmp_path, {"task": "translation"}), TASKS)

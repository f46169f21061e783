"""`flaxbert train --smoke`: what it runs, what it prints, and what it refuses."""

import dataclasses
import logging
from pathlib import Path

import pytest
from toy import make_config

from flaxbert.commands import smoke, verify_resume
from flaxbert.config import Config
from flaxbert.errors import CheckFailedError, ConfigError, DataError
from flaxbert.report.result import Trained
from flaxbert.training import trainer


@pytest.fixture
def config(one_layer: Path, tmp_path: Path) -> Config:
    config = make_config("classification", one_layer, tmp_path, most_words=8)
    data = dataclasses.replace(config.data, eval=None, eval_split=0.25, packing=False)
    return dataclasses.replace(config, data=data)


@pytest.mark.slow  # compiles and trains twice
@pytest.mark.usefixtures("one_device")
def test_every_step_runs_and_is_checked(config, tmp_path, capsys, monkeypatch):
    restored = []
    train = trainer.train

    def counted(config: Config, workdir: Path, **arguments: object) -> Trained:
        restored.append(sorted(path.name for path in workdir.glob("checkpoints/*")))
        return train(config, workdir, **arguments)

    monkeypatch.setattr(trainer, "train", counted)
    smoke.smoke(config, tmp_path / "trial")
    assert restored == [[], ["1"]]  # a new run, and one that resumes from the first step
    text = " ".join(capsys.readouterr().out.split())
    for part in ("2 steps of batch size 8", "10 examples", "steps 1 and 2", "is bit-identical",
                 "its 10 predictions are those of the run"):  # fmt: skip
        assert part in text
    assert "FAILED" not in text


def whole(directory: Path) -> Path:
    """Write what the trial needs of a run."""
    for step in (1, 2):
        (directory / "whole" / "checkpoints" / str(step)).mkdir(parents=True)
        (directory / "whole" / "checkpoints" / str(step) / "state").write_text(str(step))
    (directory / "whole" / "results.json").touch()
    (directory / "whole" / "config.json").touch()
    return directory / "whole"


@pytest.mark.parametrize(
    ("message", "differences", "result"),
    [
        ("resuming x after step 1 of 2", [], "step 2, repeated from checkpoint 1"),
        ("resuming x after step 1 of 2", ["metrics.jsonl:2"], r"run differs: metrics\.jsonl:2"),
        ("a new run", [], "the run did not resume from step 1"),
    ],
)
def test_a_run_must_resume_and_be_identical(
    message, differences, result, config, tmp_path, monkeypatch
):
    def train(config: Config, workdir: Path, **arguments: object) -> None:
        names = sorted(str(path.relative_to(workdir)) for path in workdir.rglob("*"))
        assert names == ["checkpoints", "checkpoints/1", "checkpoints/1/state", "config.json"]
        logging.getLogger("flaxbert").info(message)

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(verify_resume, "differences", lambda *_: iter(differences))
    arguments = config, whole(tmp_path), tmp_path / "resumed", [1, 2], None
    if differences or message == "a new run":
        with pytest.raises(CheckFailedError, match=result):
            smoke._restore(*arguments)
    else:
        assert result in smoke._restore(*arguments)
    assert (tmp_path / "whole/checkpoints/2/state").read_text() == "2"  # the copy has links only


def test_an_error_of_a_step_is_raised_after_the_table(config, tmp_path, capsys):
    config.data.train = str(tmp_path / "absent.tsv")
    with pytest.raises(DataError, match="no such file"):
        smoke.smoke(config, None)
    text = capsys.readouterr().out
    assert text.count("FAILED") == 1
    assert text.count("not run") == 4


def test_a_directory_with_files_is_refused(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    with pytest.raises(ConfigError, match="needs an empty directory"):
        smoke.smoke(config, tmp_path / "run")


def test_the_trial_keeps_the_batch_and_evaluates_on_what_there_is(config):
    short = smoke.shortened(config)
    assert short.train.batch_size == config.train.batch_size
    assert (short.train.max_steps, short.train.save_every, short.train.eval_every) == (2, 1, 1)
    assert short.data.eval is None  # a part is held out
    assert short.data.max_examples == 2 * config.train.eval_batch_size
    assert config.data.max_examples is None
    config.train.trackers, config.train.epochs = ("wandb",), 0.5
    short = smoke.shortened(config)
    assert (short.train.trackers, short.train.epochs) == ((), 2.0)
    config.data.eval_split = 0.0
    assert smoke.shortened(config).data.eval == config.data.train
    config.data.train = "stanfordnlp/imdb#v1"  # it has no split named validation
    assert smoke.shortened(config).data.eval == "stanfordnlp/imdb@train#v1"
    config.data.train = "stanfordnlp/imdb@train[:10%]"
    assert smoke.shortened(config).data.eval == config.data.train


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.5004}, True),
        ({"label": "a", "score": 0.5}, {"label": "b", "score": 0.5}, False),
        ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.6}, False),
        ({"tags": ["O", "B-X"]}, {"tags": ["O"]}, False),
        ({"tags": ["O", "B-X"]}, {"tags": ["O", "B-X"]}, True),
    ],
)
def test_predictions_are_alike_up_to_rounding(one, other, alike):
    assert smoke._alike(one, other) is alike

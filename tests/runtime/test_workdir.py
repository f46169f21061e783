"""A workdir is one run's, and what is lost around it (data, model, room) does not harm it."""

import copy
import errno
import hashlib
import itertools
import json
import math
import os
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, write_checkpoint
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from toy import make_config

import flaxbert
from flaxbert import Config
from flaxbert.commands import verify_resume
from flaxbert.errors import ConfigError, DataError, DivergedError, Preempted, WorkdirError
from flaxbert.pretrained import mapping
from flaxbert.runtime import checkpoint, files
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.trackers import open_trackers
from flaxbert.runtime.workdir import BUCKET, changed_commits, lock, read_commits, write_config
from flaxbert.training import loop
from flaxbert.training.optim import linear_schedule
from flaxbert.training.plan import doubtful_schedule
from flaxbert.training.trainer import run


class Told(Preemption):
    """Told to stop after some steps."""

    def __init__(self, when: int):
        super().__init__()
        self._count, self._when = itertools.count(1), when

    def requested(self) -> bool:
        return next(self._count) >= self._when


@pytest.fixture(scope="module")
def whole(one_layer, tmp_path_factory):
    """A configuration, and the workdir of an undisturbed run of 4 steps."""
    directory = tmp_path_factory.mktemp("workdir")
    config = make_config("classification", one_layer, directory, count=32)
    config.train.max_steps, config.train.eval_every = 4, 0
    flaxbert.train(config, directory / "whole")
    return config, directory / "whole"


def test_two_runs_on_one_workdir_are_refused(whole, tmp_path):
    config, _ = whole
    with (
        lock(tmp_path),
        pytest.raises(WorkdirError, match="another run is working in it"),
    ):
        flaxbert.train(config, tmp_path)
    with lock(tmp_path):  # the lock has gone with its holder
        pass


def test_changed_data_under_the_same_name_is_refused_unless_forced(whole, tmp_path, caplog):
    config = copy.deepcopy(whole[0])
    lines = Path(config.data.train).read_text().splitlines(keepends=True)
    file = tmp_path / "train.jsonl"
    file.write_text("".join(lines))
    config.data.train = str(file)
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", preemption=Told(2))
    file.write_text("".join(reversed(lines)))
    with pytest.raises(ConfigError, match=r"another data:\n  train: .* there, .* now\n.*--force"):
        flaxbert.train(config, tmp_path / "run")
    run(config, tmp_path / "run", force=True)
    assert "Continuing with the change (--force)" in caplog.text


def test_a_run_continues_though_its_pretrained_model_is_gone(whole, tmp_path, caplog):
    config = copy.deepcopy(whole[0])
    model = tmp_path / "model"
    shutil.copytree(config.model.init, model)
    config.model.init = str(model)
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", preemption=Told(2))
    shutil.rmtree(model)  # as a hub that does not answer
    flaxbert.train(config, tmp_path / "run")
    assert "Going on with the copy of config and tokenizer" in caplog.text
    assert list(verify_resume.differences(whole[1], tmp_path / "run")) == []


def test_data_that_has_vanished_is_told_and_nothing_is_lost(whole, tmp_path):
    config = copy.deepcopy(whole[0])
    file = tmp_path / "train.jsonl"
    shutil.copy(config.data.train, file)
    config.data.train = str(file)
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", preemption=Told(2))
    file.unlink()
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        flaxbert.train(config, tmp_path / "run")
    shutil.copy(whole[0].data.train, file)
    flaxbert.train(config, tmp_path / "run")
    assert list(verify_resume.differences(whole[1], tmp_path / "run")) == []


@pytest.mark.parametrize("place", ["/proc/flaxbert", "{}/file/run"])
def test_a_workdir_that_cannot_be_written_is_told_before_anything_is_read(whole, tmp_path, place):
    (tmp_path / "file").write_text("")
    config = copy.deepcopy(whole[0])
    config.data.train = "absent.tsv"
    with pytest.raises(WorkdirError, match=r"cannot be written \(.*choose another --workdir"):
        flaxbert.train(config, place.format(tmp_path))


def without_directory_renames(monkeypatch) -> None:
    """As a bucket without hierarchical namespace that gcsfuse has mounted."""

    def refusing(rename):
        def renamed(old, new, **options):
            if Path(old).is_dir() and any(Path(old).iterdir()):
                raise OSError(errno.EMFILE, "Too many open files", str(old))
            return rename(old, new, **options)

        return renamed

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def test_a_workdir_that_cannot_rename_directories_is_refused_first(whole, tmp_path, monkeypatch):
    config = copy.deepcopy(whole[0])
    config.data.train = "absent.tsv"
    without_directory_renames(monkeypatch)
    with pytest.raises(WorkdirError, match="could not be renamed") as raised:
        flaxbert.train(config, tmp_path)
    assert BUCKET in str(raised.value)
    assert "--enable-hierarchical-namespace" in BUCKET
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_probe_does_not_stop_the_next_run(tmp_path):
    for name in (".probe", ".probe.partial"):
        (tmp_path / name / "inner").mkdir(parents=True)
    with lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_weights_under_the_same_name_are_refused(whole, tmp_path, caplog):
    config = copy.deepcopy(whole[0])
    model = tmp_path / "model"
    shutil.copytree(config.model.init, model)
    config.model.init = str(model)
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", preemption=Told(2))
    shutil.rmtree(model)
    write_checkpoint(model, num_hidden_layers=1, seed=1)
    with pytest.raises(ConfigError, match="another pre-trained model") as raised:
        flaxbert.train(config, tmp_path / "run")
    assert str(model) in str(raised.value)
    (model / "model.safetensors").unlink()  # config and tokenizer are enough to go on
    run(config, tmp_path / "run")


def test_a_run_that_is_refused_keeps_its_damaged_checkpoint(whole, tmp_path):
    config = copy.deepcopy(whole[0])
    config.train.save_every = 1
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", preemption=Told(3))
    newest = tmp_path / "run" / "checkpoints" / "3"
    for file in newest.rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    before = sorted(newest.rglob("*"))
    config.train.batch_size = 4
    with pytest.raises(ConfigError, match="another configuration"):
        flaxbert.train(config, tmp_path / "run")
    assert sorted(newest.rglob("*")) == before


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(whole, tmp_path):
    config = whole[0]
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", preemption=Told(2))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for file in (tmp_path / "run" / "checkpoints").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    with pytest.raises(WorkdirError, match="no checkpoint is intact"):
        flaxbert.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow  # processes of their own
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(whole, tmp_path):
    config = whole[0]
    file = tmp_path / "config.py"
    file.write_text(
        "from flaxbert import Config\nfrom flaxbert.tasks.classification import Options\n\n"
        "def get_config():\n    return Config(task='classification', options=Options())\n"
    )
    flags = [
        *(sys.executable, "-m", "flaxbert.run", f"--config={file}"),
        f"--config.model.init={config.model.init}",
        f"--config.data.train={config.data.train}",
        f"--config.data.max_length={config.data.max_length}",
        *("--config.train.save_every=1", "--config.train.max_steps=3"),
        f"--workdir={tmp_path / 'run'}",
    ]

    # No file may grow beyond 20 KB: what a full disk gives, without one.
    command = ["bash", "-c", f"ulimit -f 20; exec {shlex.join(flags)}"]
    full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert full.returncode == 2, full.stderr
    errors = [line for line in full.stderr.splitlines() if "rror" in line]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert "could not be written" in full.stderr
    assert "Traceback" not in full.stderr
    again = subprocess.run(flags, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert checkpoint.Checkpoints(tmp_path / "run" / "checkpoints").latest_step() == 3


@pytest.fixture
def stopped(whole, tmp_path):
    """The workdir of the run, stopped after 2 steps."""
    workdir = tmp_path / "stopped"
    with pytest.raises(Preempted):
        run(whole[0], workdir, preemption=Told(2))
    return workdir


def edit_notes(workdir: Path, edit) -> None:
    """Change what the newest checkpoint of a run stores next to its arrays."""
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    notes, checksums = newest / checkpoint.METADATA, newest / checkpoint.CHECKSUMS
    content = json.loads(notes.read_text())
    edit(content)
    notes.write_text(json.dumps(content))
    digest = hashlib.sha256(notes.read_bytes()).hexdigest()
    checksums.write_text(json.dumps(json.loads(checksums.read_text()) | {notes.name: digest}))


def test_a_run_of_a_version_without_some_keys_is_resumed_with_their_defaults(whole, stopped):
    def remove_new_keys(notes):
        for key in ("data.format", "data.columns", "data.quoting", "options.labels"):
            del notes["config"][key]

    edit_notes(stopped, remove_new_keys)
    config = copy.deepcopy(whole[0])
    config.data.quoting = "no"
    with pytest.raises(
        ConfigError, match=r"configuration:\n  data\.quoting: 'auto' there, 'no' now"
    ):
        flaxbert.train(config, stopped)
    flaxbert.train(whole[0], stopped)
    assert list(verify_resume.differences(whole[1], stopped)) == []


def test_what_is_refused_leaves_the_run_as_it_was(whole, stopped, tmp_path):
    config = copy.deepcopy(whole[0])
    (stopped / "config.json").unlink()  # the checkpoint knows its configuration
    before = {p: p.read_bytes() for p in (stopped / ".model").iterdir()}
    config.train.batch_size = 4
    with pytest.raises(ConfigError, match=r"train\.batch_size: 8 there, 4 now"):
        flaxbert.train(config, stopped)
    other = write_checkpoint(tmp_path / "other", num_hidden_layers=2)
    config = copy.deepcopy(whole[0])
    config.model.init = str(other)
    with pytest.raises(WorkdirError, match="do not fit this run's model") as raised:
        run(config, stopped, force=True)
    assert f"flaxbert convert {stopped} DIR, then" in str(raised.value)
    assert {p: p.read_bytes() for p in (stopped / ".model").iterdir()} == before
    flaxbert.train(whole[0], stopped)
    assert list(verify_resume.differences(whole[1], stopped)) == []


def test_a_run_cut_short_has_the_lines_of_one_that_was_short_from_the_start(whole, stopped):
    config = copy.deepcopy(whole[0])
    config.train.max_steps, config.train.eval_every, config.train.keep_best = 2, 4, "accuracy"
    with pytest.raises(ConfigError, match=r"train\.keep_best: None there, 'accuracy' now"):
        flaxbert.train(config, stopped)
    results = run(config, stopped, force=True).results
    assert results["best_step"] == results["step"] == 2
    found = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "loss" in line) for line in found] == [(1, True), (2, True), (2, False)]


def test_more_epochs_on_a_finished_run_are_refused_with_the_choices(whole):
    config, workdir = copy.deepcopy(whole[0]), whole[1]
    config.train.epochs = 2.0
    with pytest.raises(ConfigError) as caught:
        flaxbert.train(config, workdir)
    assert "train.epochs: 1.0 there, 2.0 now" in str(caught.value)
    assert f"--config.model.init={workdir} --workdir=NEW" in str(caught.value)
    assert "With --force" in str(caught.value)


@pytest.mark.slow  # a run more, for one line
def test_more_epochs_by_force_have_the_learning_rate_of_the_longer_schedule(
    whole, tmp_path, caplog
):
    config, workdir = copy.deepcopy(whole[0]), tmp_path / "run"
    shutil.copytree(whole[1], workdir)
    config.train.epochs, config.train.max_steps = 2.0, 5
    caplog.set_level("INFO", "flaxbert")
    run(config, workdir, force=True)
    rate = float(linear_schedule(config.optim, 8)(4))
    assert rate > 0.5 * config.optim.learning_rate
    assert f"after step 4 of 5: learning rate {rate:.2g}" in caplog.text
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [x["learning_rate"] for x in logged if x["step"] == 5 and "loss" in x] == [rate]


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"optim.warmup": 1000.0}, "optim.warmup=1000 steps, but the run has 100"),
        ({"optim.warmup": 100.0}, "ends before the last step, after 99"),
        ({"train.max_steps": 10}, "train.max_steps=10 stops in the warm-up of 10 steps"),
        ({"train.max_steps": 101}, "but train.epochs=3 gives 100 steps"),
        ({"train.max_steps": 11}, None),
        ({"optim.warmup": 99.0}, None),
        ({}, None),
    ],
)
def test_a_schedule_that_is_probably_not_meant_is_reported(changes, warning):
    config = Config()
    for name, value in changes.items():
        section, key = name.split(".")
        setattr(getattr(config, section), key, value)
    warnings = list(doubtful_schedule(config, 100))
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_a_finished_run_whose_checkpoints_are_gone_is_not_started_over(whole, tmp_path):
    config, undisturbed = whole
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(WorkdirError, match="belongs to a finished run whose checkpoints are gone"):
        flaxbert.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("damage", [b"null", b"[]", b'{"loss": 1}', b'{"step": 1, "l', b"\xff\xfe"])
def test_a_damaged_line_of_metrics_is_told_with_its_number(tmp_path, caplog, damage):
    lines = [b'{"step": 1, "loss": 2.0}', damage, b'{"step": 2, "loss": 1.5}', b'{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    metrics = open_trackers(tmp_path, step=2)
    metrics.close()
    assert (metrics.first_loss, metrics.last_logged_step) == (2.0, 2)
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines() == [lines[0], lines[2]]
    assert len(caplog.records) == 1
    assert "metrics.jsonl:2: corrupt line removed" in caplog.text


def events(directory: Path) -> list[Event]:
    """Of TensorBoard's files: records of a length, its checksum, the event and its checksum."""
    found = []
    for file in sorted(directory.iterdir()):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_tensorboard_has_every_metric_and_hides_what_comes_again(tmp_path):
    metrics = open_trackers(tmp_path, step=4)
    metrics.log(5, {"loss": 0.5, "epoch": 2.0})
    metrics.sync()
    version, start, line = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    assert line.step == 5
    assert {v.tag: v.simple_value for v in line.summary.value} == {"loss": 0.5, "epoch": 2.0}
    metrics.close()


STRICT = {"parse_constant": pytest.fail}
"""For json.loads, which takes NaN and Infinity for JSON otherwise."""


def test_metrics_that_are_not_finite_are_null_and_no_point_of_a_curve(tmp_path):
    metrics = open_trackers(tmp_path, step=0)
    metrics.log(1, {"loss": 0.5, "eval/f1": math.nan, "eval/perplexity": math.inf})
    metrics.close()
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text, **STRICT) == {
        "step": 1,
        "loss": 0.5,
        "eval/f1": None,
        "eval/perplexity": None,
    }
    (line,) = [event for event in events(tmp_path / "tensorboard") if event.summary.value]
    assert [value.tag for value in line.summary.value] == ["loss"]


def test_a_first_loss_that_is_null_is_none_to_go_by(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n{"step": 2, "loss": 1}\n')
    metrics = open_trackers(tmp_path, step=2)
    metrics.close()
    assert (metrics.first_loss, metrics.last_logged_step) == (None, 2)


def test_a_configuration_is_written_with_the_commits_that_it_stands_for(tmp_path):
    path, commits = tmp_path / "config.json", {"data.train": "0123abc"}
    assert read_commits(path) == {}
    write_config(path, Config(task="classification").to_dict(), {})
    assert json.loads(path.read_text()) == Config(task="classification").to_dict()
    assert read_commits(path) == {}
    write_config(path, Config(task="classification").to_dict(), commits)
    assert read_commits(path) == commits


def test_what_has_moved_on_the_hub_since_the_run_began_is_reported_with_its_old_commit():
    then = {"model.init": "aa", "data.train": "bb", "data.eval": "cc"}
    lines = list(changed_commits(then, {"model.init": "a1", "data.train": "b1", "data.eval": "cc"}))
    assert [line.split(". ")[0] for line in lines] == [
        "model.init: the hub has commit a1 now, but the run started with aa",
        "data.train: the hub has commit b1 now, but the run started with bb",
    ]
    assert "--config.model.revision=aa" in lines[0]
    assert "data.train with #bb" in lines[1]
    assert not list(changed_commits({}, then))


def test_results_are_json_whatever_they_are(tmp_path):
    results = {"f1": math.nan, "inner": {"list": [1.5, -math.inf]}, "step": 3.0}
    files.write_json(tmp_path / "results.json", results)
    found = json.loads((tmp_path / "results.json").read_text(), **STRICT)
    assert found == {"f1": None, "inner": {"list": [1.5, None]}, "step": 3.0}


def test_a_prediction_that_is_not_finite_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "predictions.jsonl"
    files.write_jsonl(path, [{"label": "a"}])
    with pytest.raises(DivergedError, match=r"predictions\.jsonl: prediction 2 .*not finite"):
        files.write_jsonl(path, [{"p": 0.5}, {"id": "x", "p": {"a": math.nan}}])
    assert path.read_text() == '{"label": "a"}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_are_written_one_by_one(tmp_path):
    path, written = tmp_path / "predictions.jsonl", []

    def records():
        for number in range(3):
            yield {"number": number, "text": "x" * 100_000}
            written.append((tmp_path / ".predictions.jsonl.partial").stat().st_size)

    files.write_jsonl(path, records())
    assert written[-1] > 100_000  # the file grows while they come
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_tensorboard_on_a_full_disk_is_an_error_and_no_wait(tmp_path, monkeypatch):
    metrics = open_trackers(tmp_path, step=0)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        metrics.log(1, {"loss": 1.0})
    metrics.close()


def test_an_export_that_cannot_be_written_is_one_error_and_the_old_one_stays(
    whole, tmp_path, monkeypatch
):
    config, undisturbed = whole
    shutil.copytree(undisturbed, tmp_path / "run")

    def full(*_):
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    monkeypatch.setattr(mapping, "save", full)
    with pytest.raises(WorkdirError, match=r"export: could not be written \(No space left"):
        flaxbert.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()


def test_checkpoints_come_by_the_clock_too(whole, tmp_path, monkeypatch):
    config = copy.deepcopy(whole[0])
    config.train.save_minutes = 1e-9
    monkeypatch.setattr(loop, "CLOCK_STEPS", 2)
    saved = []
    save = checkpoint.Checkpoints.save

    def spied(self, state, step, notes):
        saved.append(step)
        save(self, state, step, notes)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", spied)
    flaxbert.train(config, tmp_path)
    assert saved == [2, 4]

"""A workdir belongs to one run, which survives missing data, a missing model and a full disk."""

import copy
import errno
import hashlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_checkpoint
from safetensors.numpy import load_file, save_file
from toy import make_config

import flaxbert
from flaxbert import Config
from flaxbert.commands import verify_resume
from flaxbert.errors import ConfigError, DataError, Preempted, WorkdirError
from flaxbert.pipeline import stored
from flaxbert.pretrained import mapping
from flaxbert.runtime import checkpoint, devices
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.workdir import BUCKET, changed_commits, lock, read_commits, write_config
from flaxbert.training import run
from flaxbert.training.data import Sources
from flaxbert.training.optim import make_schedule
from flaxbert.training.plan import Plan, schedule_warnings

pytestmark = pytest.mark.usefixtures("one_device")


class StopAt(Preemption):
    """A preemption requested at the given step."""

    def __init__(self, when: int):
        super().__init__()
        self._count, self._when = itertools.count(1), when

    def requested(self) -> bool:
        return next(self._count) >= self._when


@pytest.fixture(scope="module")
def finished(one_layer, tmp_path_factory):
    """A configuration, and the workdir of an uninterrupted run of 4 steps."""
    directory = tmp_path_factory.mktemp("workdir")
    config = make_config("classification", one_layer, directory, count=32)
    config.train.max_steps, config.train.eval_every = 4, 0
    flaxbert.train(config, directory / "finished")
    return config, directory / "finished"


def test_second_run_in_a_locked_workdir_is_refused(finished, tmp_path):
    config, _ = finished
    with (
        lock(tmp_path),
        pytest.raises(WorkdirError, match="another run is working in it"),
    ):
        flaxbert.train(config, tmp_path)
    with lock(tmp_path):  # the lock was released
        pass


def test_changed_data_is_refused_unless_forced(finished, tmp_path, caplog):
    config = copy.deepcopy(finished[0])
    lines = Path(config.data.train).read_text().splitlines(keepends=True)
    file = tmp_path / "train.jsonl"
    file.write_text("".join(lines))
    config.data.train = str(file)
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(2))
    file.write_text("".join(reversed(lines)))
    with pytest.raises(ConfigError, match=r"another data:\n  train: .* there, .* now\n.*--force"):
        flaxbert.train(config, tmp_path / "run")
    flaxbert.train(config, tmp_path / "run", force=True)
    assert "Continuing with the change (--force)" in caplog.text


def test_run_keeps_the_type_of_arithmetic_that_it_began_with(
    finished, tmp_path, monkeypatch, caplog
):
    config, uninterrupted = finished
    assert config.model.dtype == "auto"
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    monkeypatch.setattr(devices, "has_bfloat16", lambda _: True)  # other devices
    caplog.set_level("INFO", logger="flaxbert")
    trained = flaxbert.train(config, tmp_path / "run")
    assert caplog.messages[0].endswith("cpu, float32")
    assert trained.pipeline.model.config.dtype == "float32"
    assert list(verify_resume.differences(uninterrupted, tmp_path / "run")) == []
    for workdir in (uninterrupted, tmp_path / "run"):
        written = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        assert written["model"]["dtype"] == "float32"
    assert stored.as_trained(config, tmp_path / "run", ()).model.dtype == "float32"
    with pytest.raises(ConfigError, match=r"model\.dtype: 'float32' there, 'bfloat16' now"):
        flaxbert.train(config.with_dtype("bfloat16"), tmp_path / "run")


def test_run_resumes_after_its_pretrained_model_is_gone(finished, tmp_path, caplog):
    config = copy.deepcopy(finished[0])
    model = tmp_path / "model"
    shutil.copytree(config.model.init, model)
    config.model.init = str(model)
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(2))
    shutil.rmtree(model)  # as if the hub did not answer
    flaxbert.train(config, tmp_path / "run")
    assert "Continuing with the copy of config and tokenizer" in caplog.text
    assert list(verify_resume.differences(finished[1], tmp_path / "run")) == []


def test_missing_data_is_reported_and_the_run_resumes_when_it_is_back(finished, tmp_path):
    config = copy.deepcopy(finished[0])
    file = tmp_path / "train.jsonl"
    shutil.copy(config.data.train, file)
    config.data.train = str(file)
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(2))
    file.unlink()
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        flaxbert.train(config, tmp_path / "run")
    shutil.copy(finished[0].data.train, file)
    flaxbert.train(config, tmp_path / "run")
    assert list(verify_resume.differences(finished[1], tmp_path / "run")) == []


@pytest.mark.parametrize("place", ["/proc/flaxbert", "{}/file/run"])
def test_unwritable_workdir_is_refused_before_anything_is_read(finished, tmp_path, place):
    (tmp_path / "file").write_text("")
    config = copy.deepcopy(finished[0])
    config.data.train = "absent.tsv"
    with pytest.raises(WorkdirError, match=r"cannot be written \(.*choose another --workdir"):
        flaxbert.train(config, place.format(tmp_path))


def without_directory_renames(monkeypatch) -> None:
    """Refuse renames as a bucket without hierarchical namespace does when mounted by gcsfuse."""

    def refusing(rename):
        def renamed(old, new, **options):
            if Path(old).is_dir() and any(Path(old).iterdir()):
                raise OSError(errno.EMFILE, "Too many open files", str(old))
            return rename(old, new, **options)

        return renamed

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def test_workdir_that_cannot_rename_directories_is_refused_first(finished, tmp_path, monkeypatch):
    config = copy.deepcopy(finished[0])
    config.data.train = "absent.tsv"
    without_directory_renames(monkeypatch)
    with pytest.raises(WorkdirError, match="could not be renamed") as raised:
        flaxbert.train(config, tmp_path)
    assert BUCKET in str(raised.value)
    assert "--enable-hierarchical-namespace" in BUCKET
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_leftover_probe_does_not_stop_the_next_run(tmp_path):
    for name in (".probe", ".probe.partial"):
        (tmp_path / name / "inner").mkdir(parents=True)
    with lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_changed_pretrained_weights_are_refused(finished, tmp_path, caplog):
    config = copy.deepcopy(finished[0])
    model = tmp_path / "model"
    shutil.copytree(config.model.init, model)
    config.model.init = str(model)
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(2))
    shutil.rmtree(model)
    write_checkpoint(model, num_hidden_layers=1, seed=1)
    with pytest.raises(ConfigError, match="another pre-trained model") as raised:
        flaxbert.train(config, tmp_path / "run")
    assert str(model) in str(raised.value)
    (model / "model.safetensors").unlink()  # config and tokenizer are enough to resume
    flaxbert.train(config, tmp_path / "run")


def test_changed_pretrained_weights_are_refused_if_their_head_is_replaced(finished, tmp_path):
    config = copy.deepcopy(finished[0])
    model = tmp_path / "model"  # with a classifier of three labels, while the data has two
    shutil.copytree(finished[1] / "export", model)
    path = model / "config.json"
    labels = {"id2label": {"0": "a", "1": "b", "2": "c"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | labels))
    weights = load_file(model / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = np.repeat(weights[name][:1], 3, 0)
    save_file(weights, model / "model.safetensors")
    config.model.init, config.model.reinit_head = str(model), True
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(2))
    name = "bert.embeddings.word_embeddings.weight"
    save_file(weights | {name: 2 * weights[name]}, model / "model.safetensors")
    with pytest.raises(ConfigError, match="another pre-trained model"):
        flaxbert.train(config, tmp_path / "run")


def test_changed_hub_commit_is_reported_before_changed_data_is_refused(
    finished, stopped, tmp_path, monkeypatch, caplog
):
    path = stopped / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commits": {"data.train": "a1"}}))
    edit_metadata(stopped, lambda metadata: metadata["data"].update(train="another"))
    monkeypatch.setattr(Sources, "commits", {"data.train": "b2"})
    with pytest.raises(ConfigError, match="another data"):
        flaxbert.train(finished[0], stopped)
    assert "data.train: the hub has commit b2 now, but the run started with a1" in caplog.text


def test_run_with_corrupt_best_weights_is_refused_before_its_config_is_written(finished, tmp_path):
    config = copy.deepcopy(finished[0])
    config.train.eval_every, config.train.keep_best = 2, "accuracy"
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(5))
    for file in (tmp_path / "run" / "best").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    path = tmp_path / "run" / "config.json"
    before = path.read_bytes()
    config.train.max_steps = 3  # may change on resume
    with pytest.raises(WorkdirError, match="the best weights are corrupt"):
        flaxbert.train(config, tmp_path / "run")
    assert path.read_bytes() == before


def test_refused_run_keeps_its_corrupt_checkpoint(finished, tmp_path):
    config = copy.deepcopy(finished[0])
    config.train.save_every = 1
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(3))
    newest = tmp_path / "run" / "checkpoints" / "3"
    for file in newest.rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    before = sorted(newest.rglob("*"))
    config.train.batch_size = 4
    with pytest.raises(ConfigError, match="another configuration"):
        flaxbert.train(config, tmp_path / "run")
    assert sorted(newest.rglob("*")) == before


def test_run_with_only_corrupt_checkpoints_does_not_start_over(finished, tmp_path):
    config = finished[0]
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path / "run", preemption=StopAt(2))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for file in (tmp_path / "run" / "checkpoints").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    with pytest.raises(WorkdirError, match="no checkpoint is intact"):
        flaxbert.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow  # processes of their own
def test_full_disk_is_one_error_and_the_run_resumes_when_there_is_room(finished, tmp_path):
    config = finished[0]
    file = tmp_path / "config.py"
    file.write_text(
        "from flaxbert import Config\n"
        "from flaxbert.tasks.classification import ClassificationOptions\n\n"
        "def get_config():\n"
        "    return Config(task='classification', options=ClassificationOptions())\n"
    )
    flags = [
        *(sys.executable, "-m", "flaxbert.run", f"--config={file}"),
        f"--config.model.init={config.model.init}",
        f"--config.data.train={config.data.train}",
        f"--config.data.max_length={config.data.max_length}",
        *("--config.train.save_every=1", "--config.train.max_steps=3"),
        f"--workdir={tmp_path / 'run'}",
    ]

    # No file may grow beyond 20 KB, which has the effect of a full disk.
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
def stopped(finished, tmp_path):
    """The workdir of the run, stopped after 2 steps."""
    workdir = tmp_path / "stopped"
    with pytest.raises(Preempted):
        flaxbert.train(finished[0], workdir, preemption=StopAt(2))
    return workdir


def edit_metadata(workdir: Path, edit) -> None:
    """Change the metadata of the latest checkpoint, with a valid checksum."""
    latest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    metadata, checksums = latest / checkpoint.METADATA, latest / checkpoint.CHECKSUMS
    content = json.loads(metadata.read_text())
    edit(content)
    metadata.write_text(json.dumps(content))
    digest = hashlib.sha256(metadata.read_bytes()).hexdigest()
    checksums.write_text(json.dumps(json.loads(checksums.read_text()) | {metadata.name: digest}))


def test_keys_missing_from_an_older_checkpoint_have_their_defaults(finished, stopped):
    def remove_new_keys(metadata):
        for key in ("data.format", "data.columns", "data.quoting", "options.labels"):
            del metadata["config"][key]

    edit_metadata(stopped, remove_new_keys)
    config = copy.deepcopy(finished[0])
    config.data.quoting = "no"
    with pytest.raises(
        ConfigError, match=r"configuration:\n  data\.quoting: 'auto' there, 'no' now"
    ):
        flaxbert.train(config, stopped)
    flaxbert.train(finished[0], stopped)
    assert list(verify_resume.differences(finished[1], stopped)) == []


def test_refused_run_leaves_the_workdir_unchanged(finished, stopped, tmp_path):
    config = copy.deepcopy(finished[0])
    (stopped / "config.json").unlink()  # the checkpoint has the configuration too
    before = {p: p.read_bytes() for p in (stopped / ".model").iterdir()}
    config.train.batch_size = 4
    with pytest.raises(ConfigError, match=r"train\.batch_size: 8 there, 4 now"):
        flaxbert.train(config, stopped)
    other = write_checkpoint(tmp_path / "other", num_hidden_layers=2)
    config = copy.deepcopy(finished[0])
    config.model.init = str(other)
    with pytest.raises(WorkdirError, match="do not fit this run's model") as raised:
        flaxbert.train(config, stopped, force=True)
    assert f"flaxbert convert {stopped} DIR, then" in str(raised.value)
    assert {p: p.read_bytes() for p in (stopped / ".model").iterdir()} == before
    flaxbert.train(finished[0], stopped)
    assert list(verify_resume.differences(finished[1], stopped)) == []


def test_shortened_run_has_the_lines_of_a_short_run(finished, stopped):
    config = copy.deepcopy(finished[0])
    config.train.max_steps, config.train.eval_every, config.train.keep_best = 2, 4, "accuracy"
    with pytest.raises(ConfigError, match=r"train\.keep_best: None there, 'accuracy' now"):
        flaxbert.train(config, stopped)
    results = flaxbert.train(config, stopped, force=True).results
    assert results["best_step"] == results["step"] == 2
    lines = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "loss" in line) for line in lines] == [(1, True), (2, True), (2, False)]


def test_more_epochs_for_a_finished_run_are_refused_with_the_alternatives(finished):
    config, workdir = copy.deepcopy(finished[0]), finished[1]
    config.train.epochs = 2.0
    with pytest.raises(ConfigError) as caught:
        flaxbert.train(config, workdir)
    assert "train.epochs: 1.0 there, 2.0 now" in str(caught.value)
    assert f"--config.model.init={workdir} --workdir=NEW" in str(caught.value)
    assert "With --force" in str(caught.value)


@pytest.mark.slow  # one more run, for one line
def test_forced_epochs_have_the_learning_rate_of_the_longer_schedule(finished, tmp_path, caplog):
    config, workdir = copy.deepcopy(finished[0]), tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    config.train.epochs, config.train.max_steps = 2.0, 5
    caplog.set_level("INFO", "flaxbert")
    flaxbert.train(config, workdir, force=True)
    rate = float(make_schedule(config.optim, 8)(4))
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
def test_mistaken_schedule_gives_a_warning(changes, warning, caplog):
    config = Config()
    for name, value in changes.items():
        section, key = name.split(".")
        setattr(getattr(config, section), key, value)
    batches = types.SimpleNamespace(steps=100, steps_per_epoch=34)
    plan = Plan.make(config.train, config.optim, batches)
    warnings = list(schedule_warnings(plan, config.train, config.optim))
    assert [record.getMessage() for record in caplog.records] == warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_finished_run_without_checkpoints_does_not_start_over(finished, tmp_path):
    config, uninterrupted = finished
    shutil.copytree(uninterrupted, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(WorkdirError, match="belongs to a finished run whose checkpoints are gone"):
        flaxbert.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "results.json").exists()


def test_config_is_written_with_its_commits(tmp_path):
    path, commits = tmp_path / "config.json", {"data.train": "0123abc"}
    assert read_commits(path) == {}
    write_config(path, Config(task="classification").to_dict(), {})
    assert json.loads(path.read_text()) == Config(task="classification").to_dict()
    assert read_commits(path) == {}
    write_config(path, Config(task="classification").to_dict(), commits)
    assert read_commits(path) == commits


def test_changed_commit_is_reported_with_the_old_one():
    then = {"model.init": "aa", "data.train": "bb", "data.eval": "cc"}
    lines = list(changed_commits(then, {"model.init": "a1", "data.train": "b1", "data.eval": "cc"}))
    assert [line.split(". ")[0] for line in lines] == [
        "model.init: the hub has commit a1 now, but the run started with aa",
        "data.train: the hub has commit b1 now, but the run started with bb",
    ]
    assert "--config.model.revision=aa" in lines[0]
    assert "data.train with #bb" in lines[1]
    assert not list(changed_commits({}, then))


def test_failed_export_is_one_error_and_the_old_one_stays(finished, tmp_path, monkeypatch):
    config, uninterrupted = finished
    shutil.copytree(uninterrupted, tmp_path / "run")

    def full(*_):
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    monkeypatch.setattr(mapping, "save", full)
    with pytest.raises(WorkdirError, match=r"export: could not be written \(No space left"):
        flaxbert.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()


def test_checkpoints_are_saved_every_save_minutes(finished, tmp_path, monkeypatch):
    config = copy.deepcopy(finished[0])
    config.train.save_minutes = 1e-9
    monkeypatch.setattr(run, "CLOCK_STEPS", 2)
    saved = []
    save = checkpoint.Checkpoints.save

    def spied(self, state, step, metadata):
        saved.append(step)
        save(self, state, step, metadata)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", spied)
    flaxbert.train(config, tmp_path)
    assert saved == [2, 4]

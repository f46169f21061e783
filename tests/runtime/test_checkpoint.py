"""Checkpoints: the latest intact one, its metadata, and the best parameters."""

import dataclasses
import errno
import json
import math
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import multihost_utils

from flaxbert.errors import ConfigError, WorkdirError
from flaxbert.runtime import checkpoint, sharding
from flaxbert.runtime.checkpoint import CHECKSUMS, METADATA, BestParams, Checkpoints, Metadata
from flaxbert.training import state


def params(value: float) -> dict:
    return {"head": {"kernel": jnp.full((2, 3), value)}}


def state_at(step: int) -> state.TrainState:
    mesh = sharding.make_mesh(jax.devices()[:1])
    now = state.init_state(jax.tree.map(np.asarray, params(step)), optax.sgd(0.1), mesh)
    return dataclasses.replace(now, step=jnp.asarray(step, jnp.int32))


def metadata(**changes) -> Metadata:
    defaults = {"thresholds": {}, "evaluated": True, "data": {}, "config": {}, "best": None}
    return Metadata(**(defaults | changes))


@pytest.fixture
def saved(tmp_path):
    """A directory with checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state_at(step), step, metadata(thresholds={"joy": step / 4}))
    checkpoints.close()
    return tmp_path


def test_latest_checkpoint_is_restored_with_its_metadata(saved):
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step() == 2
    now, stored = checkpoints.restore(2, state_at(0)), checkpoints.metadata(2)
    assert int(now.step) == 2
    assert float(now.params["head"]["kernel"][0, 0]) == 2.0
    assert stored == metadata(thresholds={"joy": 0.5})


def test_empty_directory_has_no_latest_step(tmp_path):
    assert Checkpoints(tmp_path).latest_step() is None


def data_file(directory):
    """Return the largest file of a checkpoint, which holds array data."""
    return max((f for f in directory.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def flip_a_bit(directory):
    file = data_file(directory)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(directory):
    file = data_file(directory)
    file.write_bytes(file.read_bytes()[:-7])


def delete_a_file(directory):
    data_file(directory).unlink()


def delete_the_arrays(directory):
    shutil.rmtree(directory / "default")


def delete_the_checksums(directory):
    (directory / CHECKSUMS).unlink()


def delete_all_files(directory):
    shutil.rmtree(directory)
    directory.mkdir()


def corrupt_the_checksums(directory):
    (directory / CHECKSUMS).write_text('{"a": ')


def change_the_metadata(directory):
    file = directory / METADATA
    file.write_text(file.read_text().replace(": ", ":"))


DAMAGES = [flip_a_bit, truncate, delete_a_file, delete_the_arrays, delete_the_checksums,
           delete_all_files, corrupt_the_checksums, change_the_metadata]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_corrupt_checkpoint_falls_back_to_the_previous_one(saved, caplog, damage):
    damage(saved / "2")
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step() == 1
    assert f"{saved / '2'} is corrupt" in caplog.text
    assert int(checkpoints.restore(1, state_at(0)).step) == 1
    # The run reaches step 2 again, and must be able to save it.
    checkpoints.delete_after(1)
    checkpoints.save(state_at(2), 2, metadata())
    checkpoints.close()
    assert Checkpoints(saved).latest_step() == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_corrupt_checkpoints_raise_and_are_kept(saved, damage):
    for step in ("1", "2"):
        damage(saved / step)
    with pytest.raises(WorkdirError, match=r"no checkpoint is intact \(steps \[1, 2\]"):
        Checkpoints(saved).latest_step()
    assert (saved / "1").exists()  # what is left of them is kept
    assert (saved / "2").exists()


def test_checkpoint_of_another_model_is_not_reported_as_corrupt(saved):
    other = state_at(0)
    other = dataclasses.replace(other, params={"head": {"bias": jnp.zeros(4)}})
    with pytest.raises(WorkdirError, match="not fit this run's model"):
        Checkpoints(saved).restore(2, other)
    assert Checkpoints(saved).latest_step() == 2


def test_unwritable_directory_raises_workdir_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="could not be written"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_full_disk_leaves_earlier_checkpoints_intact(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1), 1, metadata())
    checkpoints.wait()

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "_digest", full)
    checkpoints.save(state_at(2), 2, metadata())
    with pytest.raises(WorkdirError, match=r"No space left on device.*make room"):
        checkpoints.wait()
    monkeypatch.undo()
    assert Checkpoints(tmp_path).latest_step() == 1


def test_save_is_due_after_save_minutes(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.save_due(0)
    assert not checkpoints.save_due(1)
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert checkpoints.save_due(1)
    assert not checkpoints.save_due(0)  # 0: never
    checkpoints.save(state_at(1), 1, metadata())
    assert not checkpoints.save_due(1)
    checkpoints.close()


def restored(directory, best) -> tuple[int, float]:
    """Return the step of the best parameters, and a value of them."""
    best_params = BestParams(directory, "f1", best, better_is="higher")
    step, kept = best_params.restore(params(0.0))
    best_params.close()
    return step, float(kept["head"]["kernel"][0, 0])


def best_after(
    directory, best, *values: tuple[float, float], metric: str = "f1", better_is="higher"
):
    """Return `BestParams.best` after evaluations of (step, value); the parameters are the step."""
    best_params = BestParams(directory, metric, best, better_is=better_is)
    for step, value in values:
        best_params.maybe_save(params(step), int(step), {metric: value})
    best_params.close()
    return best_params.best


def test_best_value_is_kept_and_a_tie_keeps_the_first(tmp_path):
    best_entry = best_after(tmp_path, None, (1, 0.1), (2, 0.7), (3, 0.7), (4, 0.2))
    assert best_entry == {"metric": "f1", "step": 2, "value": 0.7}
    assert restored(tmp_path, best_entry) == (2, 2.0)


def test_metric_missing_from_the_evaluation_is_refused_with_the_available_ones(tmp_path):
    best = BestParams(tmp_path, "f1/es", None, better_is="higher")
    with pytest.raises(ConfigError, match=r"keep_best='f1/es'.*gave: f1, f1/en$"):
        best.maybe_save(params(1), 1, {"f1": 0.5, "f1/en": 0.5, "perf/eval_seconds": 1.0})
    best.close()


def test_best_params_newer_than_the_resumed_checkpoint_are_deleted(tmp_path):
    # The run was killed after step 10 became the best and before its checkpoint was written. It
    # resumes at step 5 and computes other weights, which must not be mixed with those of step 10.
    best_entry = best_after(tmp_path, None, (5, 0.6))
    best_after(tmp_path, best_entry, (10, 0.8))
    best_entry = best_after(tmp_path, best_entry, (8, 0.7), (10.5, 0.9))
    assert restored(tmp_path, best_entry) == (10, 10.5)


def test_best_params_of_the_previous_checkpoint_are_still_there(tmp_path):
    best_entry = best_after(tmp_path, None, (1, 0.1))
    best_after(tmp_path, best_entry, (2, 0.2), (3, 0.3))
    assert restored(tmp_path, best_entry) == (1, 1.0)


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
def test_new_run_or_another_metric_resets_the_best(tmp_path, metric):
    best_entry = best_after(tmp_path, None, (3, 0.9), metric=metric)
    best_entry = best_after(tmp_path, best_entry if metric != "f1" else None, (1, 0.1))
    assert restored(tmp_path, best_entry) == (1, 1.0)


@pytest.mark.parametrize("damage", DAMAGES[:6])
def test_corrupt_best_params_are_refused(tmp_path, damage):
    best_entry = best_after(tmp_path, None, (1, 0.6))
    best = BestParams(tmp_path, "f1", best_entry, better_is="higher")
    damage(tmp_path / "1")
    with pytest.raises(WorkdirError, match="best weights are corrupt"):
        best.restore(params(0.0))
    best.close()
    with pytest.raises(WorkdirError, match="best weights are corrupt"):
        BestParams(tmp_path, "f1", best_entry, better_is="higher")


def test_missing_best_params_are_refused(tmp_path):
    best_entry = best_after(tmp_path, None, (1, 0.6))
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(WorkdirError, match="best weights are corrupt"):
        BestParams(tmp_path, "f1", best_entry, better_is="higher")


def test_nan_is_replaced_as_the_best(tmp_path):
    assert best_after(tmp_path, None, (1, math.nan), (2, 0.3))["step"] == 2


def test_nonfinite_best_is_stored_as_null_and_replaced(tmp_path):
    best_entry = best_after(tmp_path, None, (1, math.nan))
    written = (tmp_path / "1" / checkpoint.METADATA).read_text()
    best_entry["value"] = json.loads(written, parse_constant=pytest.fail)["value"]
    assert best_entry["value"] is None
    assert best_after(tmp_path, best_entry, (2, 0.3))["step"] == 2


def test_lowest_value_is_kept_where_lower_is_better(tmp_path):
    best_entry = best_after(
        tmp_path, None, (1, 0.5), (2, 0.2), (3, 0.4), metric="mlm_loss", better_is="lower"
    )
    assert best_entry["step"] == 2


def test_read_error_is_not_reported_as_corruption(saved, monkeypatch):
    def failing(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(checkpoint, "_digest", failing)
    with pytest.raises(WorkdirError, match=r"2: cannot be read \(.*nothing was changed"):
        Checkpoints(saved).latest_step()
    monkeypatch.undo()
    assert Checkpoints(saved).latest_step() == 2


def test_saving_does_not_count_as_a_preemption_check(tmp_path, monkeypatch):
    checks = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", checks.append)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1), 1, metadata())
    checkpoints.close()
    assert checkpoints.latest_step() == 1
    assert checks == []  # only the loop counts: JAX would take any number for its count

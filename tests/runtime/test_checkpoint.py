"""Checkpoints: the newest that can be read, thresholds beside them, and the best weights."""

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
    now = state.create(jax.tree.map(np.asarray, params(step)), optax.sgd(0.1), mesh)
    return dataclasses.replace(now, step=jnp.asarray(step, jnp.int32))


def metadata(**changes) -> Metadata:
    usual = {"thresholds": {}, "evaluated": True, "data": {}, "config": {}, "best": None}
    return Metadata(**(usual | changes))


@pytest.fixture
def saved(tmp_path):
    """A directory with checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state_at(step), step, metadata(thresholds={"joy": step / 4}))
    checkpoints.close()
    return tmp_path


def test_the_newest_checkpoint_is_restored_with_its_notes(saved):
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step() == 2
    now, stored = checkpoints.restore(2, state_at(0)), checkpoints.metadata(2)
    assert int(now.step) == 2
    assert float(now.params["head"]["kernel"][0, 0]) == 2.0
    assert stored == metadata(thresholds={"joy": 0.5})


def test_an_empty_directory_has_no_newest(tmp_path):
    assert Checkpoints(tmp_path).latest_step() is None


def data_file(directory):
    """The largest file of a checkpoint: numbers, not descriptions."""
    return max((f for f in directory.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def flip_a_bit(directory):
    file = data_file(directory)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(directory):
    file = data_file(directory)
    file.write_bytes(file.read_bytes()[:-7])


def lose_a_file(directory):
    data_file(directory).unlink()


def lose_the_numbers(directory):
    shutil.rmtree(directory / "default")


def lose_the_checksums(directory):
    (directory / CHECKSUMS).unlink()


def lose_all(directory):
    shutil.rmtree(directory)
    directory.mkdir()


def spoil_the_checksums(directory):
    (directory / CHECKSUMS).write_text('{"a": ')


def spoil_the_notes(directory):
    file = directory / METADATA
    file.write_text(file.read_text().replace(": ", ":"))


DAMAGES = [flip_a_bit, truncate, lose_a_file, lose_the_numbers, lose_the_checksums, lose_all,
           spoil_the_checksums, spoil_the_notes]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, caplog, damage):
    damage(saved / "2")
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step() == 1
    assert f"{saved / '2'} is corrupt" in caplog.text
    assert int(checkpoints.restore(1, state_at(0)).step) == 1
    # The run comes to step 2 again, and its checkpoint has to be written.
    checkpoints.delete_after(1)
    checkpoints.save(state_at(2), 2, metadata())
    checkpoints.close()
    assert Checkpoints(saved).latest_step() == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_without_a_sound_checkpoint_does_not_start_over(saved, damage):
    for step in ("1", "2"):
        damage(saved / step)
    with pytest.raises(WorkdirError, match=r"no checkpoint is intact \(steps \[1, 2\]"):
        Checkpoints(saved).latest_step()
    assert (saved / "1").exists()  # whatever is left of them stays
    assert (saved / "2").exists()


def test_a_checkpoint_of_another_model_is_told_from_a_damaged_one(saved):
    other = state_at(0)
    other = dataclasses.replace(other, params={"head": {"bias": jnp.zeros(4)}})
    with pytest.raises(WorkdirError, match="not fit this run's model"):
        Checkpoints(saved).restore(2, other)
    assert Checkpoints(saved).latest_step() == 2


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="could not be written"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_a_full_disk_leaves_the_checkpoints_before_it_whole(tmp_path, monkeypatch):
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


def test_a_save_is_late_by_the_clock(tmp_path, monkeypatch):
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


def best_of(directory, noted) -> tuple[int, float]:
    best = BestParams(directory, "f1", noted, better_is="higher")
    at, kept = best.restore(params(0.0))
    best.close()
    return at, float(kept["head"]["kernel"][0, 0])


def offered(directory, noted, *values: tuple[float, float], metric: str = "f1", better_is="higher"):
    """What is noted after evaluations of (step, value); the parameters are the step."""
    best = BestParams(directory, metric, noted, better_is=better_is)
    for step, value in values:
        best.maybe_save(params(step), int(step), {metric: value})
    best.close()
    return best.best


def test_the_best_value_is_kept_and_of_equals_the_first(tmp_path):
    noted = offered(tmp_path, None, (1, 0.1), (2, 0.7), (3, 0.7), (4, 0.2))
    assert noted == {"metric": "f1", "step": 2, "value": 0.7}
    assert best_of(tmp_path, noted) == (2, 2.0)


def test_a_metric_that_the_evaluation_did_not_give_is_refused_with_those_it_gave(tmp_path):
    best = BestParams(tmp_path, "f1/es", None, better_is="higher")
    with pytest.raises(ConfigError, match=r"keep_best='f1/es'.*gave: f1, f1/en$"):
        best.maybe_save(params(1), 1, {"f1": 0.5, "f1/en": 0.5, "perf/eval_seconds": 1.0})
    best.close()


def test_what_was_kept_after_the_checkpoint_that_a_run_continues_from_is_dropped(tmp_path):
    # Killed after step 10 was kept as best and before its checkpoint was there: from step 5 on
    # other weights come, and none of them may be taken for those of step 10.
    noted = offered(tmp_path, None, (5, 0.6))
    offered(tmp_path, noted, (10, 0.8))
    noted = offered(tmp_path, noted, (8, 0.7), (10.5, 0.9))
    assert best_of(tmp_path, noted) == (10, 10.5)


def test_the_best_before_the_newest_checkpoint_is_still_there_if_that_is_damaged(tmp_path):
    noted = offered(tmp_path, None, (1, 0.1))
    offered(tmp_path, noted, (2, 0.2), (3, 0.3))
    assert best_of(tmp_path, noted) == (1, 1.0)


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
def test_a_new_run_and_another_metric_forget_the_best_of_before(tmp_path, metric):
    noted = offered(tmp_path, None, (3, 0.9), metric=metric)
    noted = offered(tmp_path, noted if metric != "f1" else None, (1, 0.1))
    assert best_of(tmp_path, noted) == (1, 1.0)


@pytest.mark.parametrize("damage", DAMAGES[:6])
def test_damaged_best_weights_are_not_taken_for_sound(tmp_path, damage):
    noted = offered(tmp_path, None, (1, 0.6))
    best = BestParams(tmp_path, "f1", noted, better_is="higher")
    damage(tmp_path / "1")
    with pytest.raises(WorkdirError, match="best weights are corrupt"):
        best.restore(params(0.0))
    best.close()
    with pytest.raises(WorkdirError, match="best weights are corrupt"):
        BestParams(tmp_path, "f1", noted, better_is="higher")


def test_best_weights_that_are_gone_are_told(tmp_path):
    noted = offered(tmp_path, None, (1, 0.6))
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(WorkdirError, match="best weights are corrupt"):
        BestParams(tmp_path, "f1", noted, better_is="higher")


def test_a_value_that_is_no_number_is_not_the_best(tmp_path):
    assert offered(tmp_path, None, (1, math.nan), (2, 0.3))["step"] == 2


def test_a_value_that_is_not_finite_is_noted_as_null_and_is_not_the_best(tmp_path):
    noted = offered(tmp_path, None, (1, math.nan))
    written = (tmp_path / "1" / checkpoint.METADATA).read_text()
    noted["value"] = json.loads(written, parse_constant=pytest.fail)["value"]
    assert noted["value"] is None
    assert offered(tmp_path, noted, (2, 0.3))["step"] == 2


def test_where_lower_is_better_the_lowest_is_kept(tmp_path):
    noted = offered(
        tmp_path, None, (1, 0.5), (2, 0.2), (3, 0.4), metric="mlm_loss", better_is="lower"
    )
    assert noted["step"] == 2


def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(saved, monkeypatch):
    def failing(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(checkpoint, "_digest", failing)
    with pytest.raises(WorkdirError, match=r"2: cannot be read \(.*nothing was changed"):
        Checkpoints(saved).latest_step()
    monkeypatch.undo()
    assert Checkpoints(saved).latest_step() == 2


def test_saving_does_not_count_as_a_question_about_preemption(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1), 1, metadata())
    checkpoints.close()
    assert checkpoints.latest_step() == 1
    assert asked == []  # the loop counts, and JAX takes any number for its count

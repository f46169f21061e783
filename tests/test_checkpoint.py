"""Checkpoints: the newest that can be read, thresholds beside them, and the best weights."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxbert import sharding, state
from flaxbert.checkpoint import BestParams, Checkpoints
from flaxbert.errors import ConfigError


def params(value: float) -> dict:
    return {"head": {"kernel": jnp.full((2, 3), value)}}


def state_at(step: int) -> state.TrainState:
    mesh = sharding.make_mesh(jax.devices()[:1])
    now = state.create(jax.tree.map(np.asarray, params(step)), optax.sgd(0.1), mesh)
    return state.TrainState(jnp.asarray(step, jnp.int32), now.params, now.opt_state, now.sums)


@pytest.fixture
def saved(tmp_path):
    """A directory with checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path, save_every=1)
    for step in (1, 2):
        checkpoints.save(state_at(step), step, calibration={"thresholds": {"joy": step / 4}})
    checkpoints.close()
    return tmp_path


def test_the_newest_checkpoint_is_restored(saved):
    now = Checkpoints(saved, save_every=1).restore(state_at(0))
    assert int(now.step) == 2
    assert float(now.params["head"]["kernel"][0, 0]) == 2.0


def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, caplog):
    for file in (saved / "2" / "default").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    checkpoints = Checkpoints(saved, save_every=1)
    assert int(checkpoints.restore(state_at(0)).step) == 1
    assert "step 2 cannot be read" in caplog.text
    # The run comes to step 2 again, and its checkpoint has to be written.
    checkpoints.save(state_at(2), 2, calibration={})
    checkpoints.close()
    assert int(Checkpoints(saved, save_every=1).restore(state_at(0)).step) == 2


def test_without_any_readable_checkpoint_the_fault_is_told(saved):
    for step in ("1", "2"):
        shutil.rmtree(saved / step / "default")
        (saved / step / "default").mkdir()
    with pytest.raises(Exception, match=r".+"):
        Checkpoints(saved, save_every=1).restore(state_at(0))


def best_of(directory, *, step: int) -> tuple[int, float]:
    best = BestParams(directory, "f1", step=step)
    at, kept = best.restore(params(0.0))
    best.close()
    return at, float(kept["head"]["kernel"][0, 0])


def test_the_best_value_is_kept_and_of_equals_the_first(tmp_path):
    best = BestParams(tmp_path, "f1", step=0)
    for step, value in enumerate([0.1, 0.7, 0.7, 0.2], start=1):
        best.offer(params(step), step, {"f1": value})
    best.close()
    assert best_of(tmp_path, step=4) == (2, 2.0)


def test_a_metric_that_the_evaluation_did_not_give_is_refused_with_those_it_gave(tmp_path):
    best = BestParams(tmp_path, "f1/es", step=0)
    with pytest.raises(ConfigError, match=r"keep_best='f1/es'.*gave f1, f1/en$"):
        best.offer(params(1), 1, {"f1": 0.5, "f1/en": 0.5, "perf/eval_seconds": 1.0})
    best.close()


def test_what_was_kept_after_the_checkpoint_that_a_run_continues_from_is_dropped(tmp_path):
    # Killed after step 10 was kept as best and before its checkpoint was there: from step 5 on
    # other weights come, and none of them may be taken for those of step 10.
    best = BestParams(tmp_path, "f1", step=0)
    best.offer(params(5), 5, {"f1": 0.6})
    best.offer(params(10), 10, {"f1": 0.8})
    best.close()
    best = BestParams(tmp_path, "f1", step=5)
    best.offer(params(8), 8, {"f1": 0.7})
    best.offer(params(10.5), 10, {"f1": 0.9})
    best.close()
    assert best_of(tmp_path, step=10) == (10, 10.5)


def test_a_new_run_forgets_the_best_of_one_before(tmp_path):
    best = BestParams(tmp_path, "f1", step=0)
    best.offer(params(3), 3, {"f1": 0.9})
    best.close()
    best = BestParams(tmp_path, "f1", step=0)
    best.offer(params(1), 1, {"f1": 0.1})
    best.close()
    assert best_of(tmp_path, step=1) == (1, 1.0)


def test_a_value_that_is_no_number_is_not_the_best(tmp_path):
    best = BestParams(tmp_path, "f1", step=0)
    best.offer(params(1), 1, {"f1": math.nan})
    best.offer(params(2), 2, {"f1": 0.3})
    best.close()
    assert best_of(tmp_path, step=2) == (2, 2.0)


def test_a_loss_is_best_low(tmp_path):
    best = BestParams(tmp_path, "mlm_loss", step=0)
    for step, value in enumerate([0.5, 0.2, 0.4], start=1):
        best.offer(params(step), step, {"mlm_loss": value})
    at, _ = best.restore(params(0.0))
    best.close()
    assert at == 2

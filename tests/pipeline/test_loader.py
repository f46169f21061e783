"""The loader: batches are those built directly, built ahead within bounds, and no thread stays."""

import gc
import threading
import time
import weakref

import jax
import numpy as np
import pytest
from toy import make_config

import flaxbert
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.errors import DataError, Preempted
from flaxbert.pipeline.loader import Loader
from flaxbert.runtime import sharding
from flaxbert.runtime.preemption import Preemption

STEPS = 8


def make_batches(steps: int = STEPS) -> Batches:
    """40 features of 1 to 9 tokens: five steps per epoch, so that later steps are reshuffled."""
    lengths = [1 + n % 9 for n in range(40)]
    ids = [list(range(10 * n, 10 * n + length)) for n, length in enumerate(lengths)]
    features = Features.build({"input_ids": ids}, per_sequence={"label": list(range(40))})
    return Batches(
        features,
        batch_size=8,
        row_length=16,
        segments=4,
        data_parallelism=2,
        steps=steps,
        seed=0,
    )


@pytest.fixture(scope="module")
def mesh() -> sharding.Mesh:
    return sharding.make_mesh(jax.devices()[:2])


@pytest.fixture
def threads():
    """Return a function that gives the threads started since; the test must leave none."""
    before = set(threading.enumerate())

    def started() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before]

    yield started
    assert started() == []


@pytest.fixture
def built(monkeypatch) -> list[int]:
    """The steps that were built, in their order."""
    steps: list[int] = []
    build = Batches.build

    def recorded(self, rows, step=0):
        steps.append(step)
        return build(self, rows, step)

    monkeypatch.setattr(Batches, "build", recorded)
    return steps


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_same(batch, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    assert jax.tree.structure(batch) == jax.tree.structure(expected)


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "order",
    [
        list(range(STEPS)),
        [5, 6, 7],  # a run that resumes
        [3, 3, 0, 1, 7, 6, 2],
        [6, 7, STEPS, STEPS + 1, 0],  # beyond the schedule
    ],
)
def test_batches_equal_those_built_directly_in_any_order(mesh, threads, ahead, order):
    batches = make_batches()
    with Loader(batches, mesh, ahead=ahead) as loader:
        for step in order:
            expected = batches.build(batches.padded_rows(step), step)
            assert_same(loader.batch(step), expected)


def test_a_step_beyond_the_schedule_may_need_more_rows_than_any_in_it():
    lengths = [4] * 8 + [9] * 8  # tokens
    features = Features.build({"input_ids": [[1] * length for length in lengths]})
    batches = Batches(
        features, batch_size=8, row_length=12, segments=3, data_parallelism=2, steps=1
    )
    assert batches.bucket_sizes == [4]
    assert len(batches.padded_rows(1)) == 8


def test_batches_are_freed_with_their_data_set():
    batches = make_batches()
    batches.build(batches.padded_rows(0))
    freed = weakref.ref(batches.features)
    del batches
    gc.collect()
    assert freed() is None


def test_batches_are_divided_over_the_devices(mesh, threads):
    with Loader(make_batches(), mesh) as loader:
        batch = loader.batch(0)
    for array in jax.tree.leaves(batch):
        assert array.sharding == sharding.batch_sharding(mesh)
        assert len(array.addressable_shards) == 2


def test_empty_batch_has_the_shape_of_a_step_and_no_sequence(mesh, threads):
    loader = Loader(make_batches(), mesh)
    full = loader.batch(0)
    loader.close()
    rows = full.input_ids.shape[0]
    empty = loader.empty(rows)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), b) for b in (empty, full)]
    assert shapes[0] == shapes[1]
    assert not np.any(empty.segment_ids)
    assert not np.any(empty.weight)


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_look_ahead_is_bounded(mesh, threads, built, ahead):
    with Loader(make_batches(), mesh, ahead=ahead) as loader:
        assert built == []  # nothing before the first batch is asked for
        for step in range(3):
            loader.batch(step)
            most = step + 1 + ahead
            wait_for(lambda most=most: len(built) >= most)
            time.sleep(0.1)  # would be enough for more
            assert built == list(range(most))


def test_without_look_ahead_there_is_no_thread(mesh, threads, built):
    loader = Loader(make_batches(), mesh, ahead=0)
    loader.batch(0)
    assert threads() == []
    assert built == [0]


def test_thread_ends_after_the_last_step(mesh, threads):
    loader = Loader(make_batches(), mesh)
    for step in range(STEPS):
        loader.batch(step)
    wait_for(lambda: threads() == [])
    loader.close()


def test_exception_in_the_thread_is_raised_at_its_batch_and_the_thread_ends(
    mesh, threads, monkeypatch
):
    build = Batches.build

    def failing(self, rows, step=0):
        if step == 2:
            raise DataError("a mistake in step 2")
        return build(self, rows, step)

    monkeypatch.setattr(Batches, "build", failing)
    loader = Loader(make_batches(), mesh, ahead=4)
    loader.batch(0)
    loader.batch(1)  # built before the mistake, and so given
    with pytest.raises(DataError, match="a mistake in step 2"):
        loader.batch(2)
    assert threads() == []
    with pytest.raises(DataError, match="a mistake in step 2"):  # a second try starts anew
        loader.batch(2)
    loader.batch(3)
    loader.close()


def test_close_ends_the_thread_with_a_full_queue(mesh, threads):
    loader = Loader(make_batches(), mesh)
    loader.batch(0)
    assert len(threads()) == 1
    loader.close()
    assert threads() == []
    loader.close()  # may be closed twice
    loader.batch(1)  # and used again
    assert len(threads()) == 1
    loader.close()


def test_leaving_the_context_by_an_error_ends_the_thread(mesh, threads):
    def interrupted() -> None:
        with Loader(make_batches(), mesh) as loader:
            loader.batch(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threads() == []


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(one_layer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("loading")
    config = make_config("classification", one_layer, directory, count=64)
    config.data.eval = None
    return config


def prefetching() -> list[threading.Thread]:
    """Return the threads that run the loader's function."""
    return [t for t in threading.enumerate() if getattr(t, "_target", None) is not None
            and t._target.__qualname__.startswith("_Prefetch")]  # fmt: skip


class Signal(Preemption):
    """A preemption requested after some checks."""

    def __init__(self, checks: int):
        super().__init__()
        self._left = checks
        self.seen: list[int] = []

    def requested(self) -> bool:
        self.seen.append(len(prefetching()))
        self._left -= 1
        return self._left < 0


def test_signal_in_training_leaves_no_thread(config, tmp_path):
    signal = Signal(2)
    with pytest.raises(Preempted):
        flaxbert.train(config, tmp_path, preemption=signal)
    assert max(signal.seen) == 1  # there was one while it trained
    assert prefetching() == []


def test_error_in_training_leaves_no_thread(config, tmp_path, monkeypatch):
    build = Batches.build

    def failing(self, rows, step=0):
        if step == 3:
            raise DataError("a mistake in step 3")
        return build(self, rows, step)

    monkeypatch.setattr(Batches, "build", failing)
    with pytest.raises(DataError, match="a mistake in step 3"):
        flaxbert.train(config, tmp_path)
    assert prefetching() == []

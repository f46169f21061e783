"""The queue: inputs of several requests share batches, and fail alone."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flaxbert.errors import DataError
from flaxbert.server.batcher import Batcher, ClosedError, InputError, QueueFullError

SECONDS = 30
"""No test waits so long, unless it fails."""


class Gate:
    """Doubles numbers, once it is opened; records the batches."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, key: Any, values: list[Any]) -> list[Any]:
        self.entered.set()
        assert self.open.wait(SECONDS)
        self.batches.append(values)
        if "bad" in values:
            raise DataError("inputs:1: bad")
        return [2 * value for value in values]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def make_batcher(gate: Gate, **changes: Any) -> Batcher:
    return Batcher(gate, **{"size": 4, "wait": 0, "capacity": 8} | changes)


def occupy(batcher: Batcher, gate: Gate) -> None:
    """Make the thread wait at the gate, so that what follows stays in the queue."""
    batcher.submit("first", [0])
    assert gate.entered.wait(SECONDS)


def test_inputs_of_several_requests_share_batches_in_their_order(gate: Gate) -> None:
    batcher = make_batcher(gate)
    occupy(batcher, gate)
    futures = [batcher.submit("a", values) for values in ([1], [2, 3], [4, 5, 6])]
    gate.open.set()
    assert [future.result(SECONDS) for future in futures] == [[2], [4, 6], [8, 10, 12]]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_inputs_with_another_key_are_computed_apart(gate: Gate) -> None:
    batcher = make_batcher(gate)
    occupy(batcher, gate)
    futures = [batcher.submit(key, [n]) for n, key in enumerate("abab")]
    gate.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2], [4], [6]]
    assert gate.batches == [[0], [0, 2], [1, 3]]


def test_a_bad_input_fails_its_own_request_only(gate: Gate) -> None:
    batcher = make_batcher(gate)
    occupy(batcher, gate)
    good, bad, other = (batcher.submit("a", values) for values in ([1], [2, "bad"], [3]))
    gate.open.set()
    assert good.result(SECONDS) == [2]
    assert other.result(SECONDS) == [6]
    with pytest.raises(InputError) as caught:
        bad.result(SECONDS)
    assert caught.value.index == 1
    assert isinstance(caught.value.reason, DataError)
    assert batcher.submit("a", [5]).result(SECONDS) == [10]  # the thread goes on


def test_an_input_waits_for_others_until_the_batch_is_full(gate: Gate) -> None:
    gate.open.set()
    batcher = make_batcher(gate, wait=SECONDS)
    futures = [batcher.submit("a", [n]) for n in range(4)]
    assert [future.result(SECONDS / 2) for future in futures] == [[0], [2], [4], [6]]
    assert gate.batches == [[0, 1, 2, 3]]


def test_a_full_queue_refuses_and_given_up_requests_make_room(gate: Gate) -> None:
    batcher = make_batcher(gate, capacity=3)
    occupy(batcher, gate)
    given_up = batcher.submit("a", [1, 2])
    assert batcher.waiting == 2
    with pytest.raises(QueueFullError):
        batcher.submit("a", [3, 4])
    given_up.cancel()
    kept = batcher.submit("a", [3, 4])
    gate.open.set()
    assert kept.result(SECONDS) == [6, 8]
    assert gate.batches == [[0], [3, 4]]


def test_close_answers_what_waits_and_refuses_the_rest(gate: Gate) -> None:
    batcher = make_batcher(gate, wait=SECONDS)
    future = batcher.submit("a", [1])
    gate.open.set()
    batcher.close(SECONDS / 2)
    assert future.result(0) == [2]
    assert not batcher.alive
    with pytest.raises(ClosedError):
        batcher.submit("a", [1])


def test_sizes_of_batches_are_observed(gate: Gate) -> None:
    sizes: list[int] = []
    batcher = make_batcher(gate, observe=lambda size, seconds: sizes.append(size))
    occupy(batcher, gate)
    batcher.submit("a", [1, 2, 3])
    gate.open.set()
    batcher.close(SECONDS)
    assert sizes == [1, 3]

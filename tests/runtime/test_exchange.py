"""Large messages between hosts, and errors that reach all of them; threads stand for the hosts."""

from collections.abc import Callable
from typing import Any

import fake_hosts
import numpy as np
import pytest

from flaxbert.errors import DataError, HostsError
from flaxbert.runtime import exchange, multihost
from flaxbert.runtime.exchange import Exchange

PLACE = "train.tsv:17: the question has 99 tokens"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BYTES", 3 * 40)
    monkeypatch.setattr(multihost, "this_host", lambda: "host 1 (b)")


def exchanged(work: Callable[[Exchange, int], Any]) -> tuple[list[Any], fake_hosts.Meeting]:
    """Return the results of three hosts; their devices are in another order."""
    meeting = fake_hosts.Meeting(3)

    def host(index: int) -> Any:
        def gather_array(values: np.ndarray) -> np.ndarray:
            assert values.dtype == np.int32
            return np.stack(meeting.gather(index, values)[::-1])

        messages = Exchange(index, 3, gather_array)
        with messages.fail_together():
            return work(messages, index)

    return fake_hosts.run(3, host), meeting


def test_messages_of_any_length_arrive_in_the_order_of_the_hosts():
    sent = [b"", bytes(range(200)), b"a message"]
    results, meeting = exchanged(lambda messages, host: messages.gather(sent[host]))
    assert results == [sent] * 3
    assert meeting.calls == 7  # 224 bytes in pieces of 40, and the end


def fails_at(point: int) -> Callable[[Exchange, int], Any]:
    """Return work of three exchanges; host 1 fails before the one with the number `point`."""

    def work(messages: Exchange, host: int) -> str:
        for number in range(4):
            if (host, number) == (1, point):
                raise DataError(PLACE)
            if number < 3:
                messages.gather(b"text" * 30 * host)
        return "done"

    return work


@pytest.mark.parametrize("point", [0, 1, 3])  # 3: while the others wait at the end
def test_an_error_on_one_host_reaches_all_wherever_they_wait(point):
    results, _ = exchanged(fails_at(point))
    assert isinstance(results[1], DataError)
    assert str(results[1]) == PLACE
    for error in (results[0], results[2]):
        assert isinstance(error, HostsError)
        assert str(error) == f"host 1 (b) stopped: {PLACE}"
        assert error.exit_code == 2


def test_hosts_that_fail_together_raise_their_own_errors():
    def work(messages: Exchange, host: int) -> None:
        messages.gather(b"")
        raise DataError(f"of host {host}")

    assert [str(error) for error in exchanged(work)[0]] == [f"of host {n}" for n in range(3)]


def test_hosts_with_different_numbers_of_messages_do_not_wait():
    def work(messages: Exchange, host: int) -> None:
        for _ in range(2 if host else 1):
            messages.gather(b"")

    for error in exchanged(work)[0]:
        assert isinstance(error, HostsError)
        assert "different numbers of texts" in str(error)


def test_a_lost_host_is_not_asked_again():
    calls = []

    def broken(values: np.ndarray) -> np.ndarray:
        calls.append(values)
        raise OSError("connection closed")

    messages = Exchange(0, 3, broken)
    with pytest.raises(OSError, match="connection closed"), messages.fail_together():
        messages.gather(b"")
    assert len(calls) == 1

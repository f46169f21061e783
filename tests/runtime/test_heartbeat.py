"""Heartbeats: a host that is lost ends the others, and a slow one does not."""

import signal
import threading
from pathlib import Path

import pytest
from test_hosts import PLAIN, Two

from flaxbert.commands import verify_resume
from flaxbert.errors import ConfigError
from flaxbert.runtime import heartbeat, multihost, preemption
from flaxbert.runtime.heartbeat import LOST_SECONDS, Heartbeats
from flaxbert.runtime.preemption import Preemption


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait(heartbeats: Heartbeats, clock: Clock, seconds: float) -> int | None:
    """Let time pass, and return the host that is lost meanwhile, if any."""
    for _ in range(round(seconds)):
        clock.seconds += 1
        if (host := heartbeats.lost()) is not None:
            return host
    return None


def test_host_is_lost_when_its_value_does_not_change_for_30_seconds(clock):
    heartbeats = Heartbeats(0, 3, clock)
    for number in range(20):
        heartbeats.receive({0: f"{number} a", 1: f"{number} b", 2: f"{number} c"})
        assert wait(heartbeats, clock, 2) is None
    for number in range(20, 33):
        heartbeats.receive({0: f"{number} a", 1: "19 b", 2: f"{number} c"})
        assert wait(heartbeats, clock, 2) is None
    assert wait(heartbeats, clock, 3) == 1
    assert heartbeats.values[1] == "19 b"


def test_host_that_never_answers_is_lost(clock):
    heartbeats = Heartbeats(0, 2, clock)
    assert wait(heartbeats, clock, LOST_SECONDS - 1) is None
    assert wait(heartbeats, clock, 2) == 1


def test_first_host_is_lost_when_the_store_does_not_answer(clock):
    heartbeats = Heartbeats(2, 3, clock)
    heartbeats.receive({0: "0 a", 1: "0 b", 2: "0 c"})
    assert wait(heartbeats, clock, LOST_SECONDS + 1) == 0


def test_pause_of_this_process_is_no_silence_of_the_others(clock):
    heartbeats = Heartbeats(0, 2, clock)
    heartbeats.receive({0: "0 a", 1: "0 b"})
    clock.seconds += 3600  # a virtual machine that was suspended
    assert heartbeats.lost() is None
    assert wait(heartbeats, clock, 20) is None
    heartbeats.receive({0: "1 a", 1: "1 b"})
    assert wait(heartbeats, clock, LOST_SECONDS - 1) is None
    assert wait(heartbeats, clock, 2) == 1


def test_loop_continues_when_an_exchange_fails(monkeypatch):
    monkeypatch.setattr(heartbeat, "PERIOD_SECONDS", 0.001)
    heartbeats, ended = Heartbeats(0, 2), threading.Event()

    def exchange(number: int) -> dict[int, str]:
        if number == 1:
            raise ConnectionError
        if number == 3:
            ended.set()
        return {1: f"{number} b"}

    heartbeats.run(exchange, ConnectionError, ended)
    assert heartbeats.values == {1: "3 b"}


def test_unexpected_error_waits_until_the_others_have_answered_twice(monkeypatch):
    monkeypatch.setattr(heartbeat, "PERIOD_SECONDS", 0.01)
    listener = Preemption()
    listener.await_hosts(RuntimeError())  # one process: there is nobody to wait for
    listener._heartbeats = heartbeats = Heartbeats(0, 2)
    listener.await_hosts(ConfigError("of the user"))
    waiting = threading.Thread(target=listener.await_hosts, args=(RuntimeError(),), daemon=True)
    waiting.start()
    for number in range(2):
        waiting.join(0.05)
        assert waiting.is_alive()
        heartbeats.receive({1: f"{number} b"})
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.parametrize("lost", [0, 1])
def test_lost_host_is_named_and_the_code_is_75(monkeypatch, capfd, lost):
    monkeypatch.setattr(multihost, "connected", lambda: False)
    codes: list[int] = []
    monkeypatch.setattr(preemption.os, "_exit", codes.append)
    listener = Preemption()
    listener._heartbeats = Heartbeats(2, 3)
    listener._heartbeats.receive({1: "7 host 1 (b)"})
    listener._end_without(lost, "has not answered for 30 s")
    assert codes[0] == 75
    message = capfd.readouterr().err
    assert message.startswith(("error: host 0 has not", "error: host 1 (b) has not")[lost])
    assert message.endswith("Start the same command on all hosts again to resume. [HostsError]\n")


# --- two processes -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "lost"), [("reading", 0), ("reading", 1), ("training", 0), ("training", 1)]
)
def test_killed_host_ends_the_other_and_the_run_resumes(tmp_path: Path, place: str, lost: int):
    two = Two(tmp_path / "two")
    disturbed = [PLAIN, PLAIN]
    disturbed[lost] = (place, "600")
    codes, seconds, texts = two.start(
        disturbed=tuple(disturbed), signal_to=lost, number=signal.SIGKILL
    )
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == 75, texts[1 - lost]
    assert seconds < 60
    last = texts[1 - lost].splitlines()[-1]
    assert last.startswith(f"error: host {lost} ")
    assert last.endswith("Start the same command on all hosts again to resume. [HostsError]")
    assert "Traceback" not in texts[1 - lost]
    if place == "training":  # the others start and end in the same way
        codes, _, texts = two.start()
        assert codes == [0, 0], texts
        codes, _, texts = two.start(workdirs=("undisturbed", "undisturbed"))
        assert codes == [0, 0], texts
        differences = verify_resume.differences(
            two.directory / "undisturbed", two.directory / "run"
        )
        assert list(differences) == []

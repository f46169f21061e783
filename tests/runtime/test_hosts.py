"""Hosts of one run agree before step 1, and end together with one exit code."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from conftest import ROOT, write_checkpoint
from test_multihost import free_port
from toy import make_config

import flaxbert
from flaxbert.errors import ConfigError, HostsError, WorkdirError
from flaxbert.runtime import multihost, preemption, workdir
from flaxbert.runtime.checkpoint import Checkpoints, Metadata
from flaxbert.runtime.mirror import Workdir
from flaxbert.runtime.multihost import Ending
from flaxbert.runtime.workdir import lock

# --- in one process: two threads stand for two hosts ---------------------------------------------


class Store:
    """The part of JAX's key-value store that flaxbert uses."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        with self._changed:
            if key in self.values and not allow_overwrite:
                raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
            self.values[key] = value
            self._changed.notify_all()

    def key_value_try_get(self, key: str) -> str:
        with self._changed:
            if key not in self.values:
                raise jax.errors.JaxRuntimeError("NOT_FOUND")
            return self.values[key]

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        with self._changed:
            if not self._changed.wait_for(
                lambda: key in self.values, min(milliseconds, 5000) / 1e3
            ):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
            return self.values[key]


class Host(threading.local):
    """JAX's distributed state, one in each thread."""

    process_id, num_processes = 0, 2

    def __init__(self, client: Store) -> None:
        self.client = client


class Numbers:
    """The message counters of two hosts."""

    def __init__(self) -> None:
        self._counts = [itertools.count(), itertools.count()]

    def __next__(self) -> int:
        return next(self._counts[multihost._state().process_id])


@pytest.fixture
def hosts(monkeypatch) -> Callable[..., list]:
    """Call a function of the host's number on two hosts; return their results or exceptions."""
    state = Host(Store())
    monkeypatch.setattr(multihost, "_state", lambda: state)
    monkeypatch.setattr(multihost, "_numbers", Numbers())
    monkeypatch.setattr(multihost, "is_multihost", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: state.process_id)
    monkeypatch.setattr(multihost.socket, "gethostname", lambda: "ab"[state.process_id])

    def call(function: Callable[[int], object]) -> list:
        results: list = [None, None]

        def work(number: int) -> None:
            state.process_id = number
            try:
                results[number] = function(number)
            except Exception as error:
                results[number] = error

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return results

    return call


def test_hosts_with_equal_values_continue(hosts):
    assert hosts(lambda host: multihost.agree({"steps": 3})) == [None, None]
    assert hosts(lambda host: multihost.all_gather(f"of {host}")) == [["of 0", "of 1"]] * 2


def test_hosts_with_different_values_raise_the_same_error_naming_values_and_hosts(hosts):
    errors = hosts(
        lambda host: multihost.agree(
            {"steps": 3, "rows": [8, 16 * host], "seed": "f" * 63 + "ab"[host]}
        )
    )
    assert [type(error) for error in errors] == [HostsError, HostsError]
    first, second = map(str, errors)
    assert first == second
    assert "rows: [8, 0] on host 0 (a), [8, 16] on host 1 (b)" in first
    assert "seed: " in first
    assert "steps" not in first


def test_differences_between_many_hosts_are_shortened():
    same = {f"key {n}": "1" for n in range(20)}
    hosts = {f"host {n}": same for n in range(100)} | {"host 100": dict.fromkeys(same, "2")}
    lines = multihost.differences(hosts)
    assert len(lines) == 9
    assert lines[0] == "key 0: 1 on host 0, host 1, host 2 and 97 more, 2 on host 100"
    assert lines[-1] == "and 12 more"
    assert multihost.differences(dict.fromkeys(hosts, same)) == []
    assert multihost.differences({"a": {"x": "1"}, "b": {}}) == ["x: 1 on a, absent on b"]


def test_error_on_one_host_is_raised_on_all_with_its_message_and_code(hosts):
    def work(host: int) -> None:
        with multihost.fail_together():
            if host == 1:
                raise OSError("the disk is gone")

    other, failed = hosts(work)
    assert isinstance(failed, OSError)
    assert isinstance(other, HostsError)
    assert str(other) == "host 1 (b) stopped: OSError: the disk is gone"
    assert other.exit_code == 1  # the exit code of the other host: not a user error


def test_error_before_an_exchange_reaches_the_host_that_waits_in_it(hosts, monkeypatch):
    monkeypatch.setattr(multihost, "WAIT_MILLISECONDS", 50)

    def work(host: int) -> None:
        with multihost.fail_together():
            if host == 1:
                raise OSError("the disk is gone")
            with multihost.fail_together():
                pass
            multihost.all_gather("")

    other, failed = hosts(work)
    assert isinstance(failed, OSError)
    assert isinstance(other, HostsError)
    assert str(other) == "host 1 (b) stopped: OSError: the disk is gone"


def test_value_of_the_first_host_is_sent_and_read_later(hosts):
    def send(host):
        return multihost.send_from_host0(f"of {host}"), multihost.send_from_host0(f"then {host}")

    sent = hosts(send)
    assert hosts(lambda host: [read() for read in sent[host]]) == [["of 0", "then 0"]] * 2


def test_save_is_due_one_call_later_by_the_clock_of_the_first_host(hosts, tmp_path, monkeypatch):
    class Clocked(Checkpoints):
        def __init__(self, age: float):
            self._last_save, self._was_due = time.monotonic() - age, None

    clocks = [Clocked(0), Clocked(7200)]
    assert hosts(lambda host: clocks[host].save_due(60)) == [False, False]
    clocks[0]._last_save -= 7200
    assert hosts(lambda host: clocks[host].save_due(60)) == [False, False]
    clocks[1]._last_save += 7200
    assert hosts(lambda host: clocks[host].save_due(60)) == [True, True]


def test_workdir_that_is_not_shared_is_refused(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "VISIBLE_SECONDS", 0.3)

    def take_lock(host: int, names: tuple[str, str]) -> None:
        with lock(tmp_path / names[host]):
            pass

    errors = hosts(lambda host: take_lock(host, ("one", "two")))
    assert [type(error) for error in errors] == [WorkdirError, WorkdirError]
    assert str(errors[0]) == str(errors[1])
    assert (
        f"a file written to {tmp_path}/one on host 0 (a) is not visible in {tmp_path}/two"
        in str(errors[0])
    )
    assert hosts(lambda host: take_lock(host, ("one", "one"))) == [None, None]
    assert [path.name for path in (tmp_path / "one").iterdir()] == [".lock"]


def test_check_waits_for_a_file_that_becomes_visible_late(hosts, tmp_path, monkeypatch):
    exists, first = Path.exists, time.monotonic()

    def late(path: Path) -> bool:
        hidden = path.name.startswith(".shared") and multihost._state().process_id == 1
        return exists(path) and not (hidden and time.monotonic() < first + 0.5)

    monkeypatch.setattr(Path, "exists", late)

    def take_lock(host: int) -> None:
        with lock(tmp_path):
            pass

    assert hosts(take_lock) == [None, None]


def test_mount_error_on_one_host_is_raised_on_all(hosts, tmp_path, monkeypatch):
    exists = Path.exists

    def failing(path: Path) -> bool:
        if path.name.startswith(".shared") and multihost._state().process_id == 1:
            raise OSError("the mount is stale")
        return exists(path)

    monkeypatch.setattr(Path, "exists", failing)

    def take_lock(host: int) -> None:
        with lock(tmp_path):
            pass

    other, failed = hosts(take_lock)
    assert isinstance(failed, OSError)
    assert isinstance(other, HostsError)
    assert str(other) == "host 1 (b) stopped: OSError: the mount is stale"


def test_hosts_with_different_checkpoints_are_refused(hosts, tmp_path, monkeypatch):
    from flaxbert.runtime import checkpoint

    monkeypatch.setattr(checkpoint, "_Manager", lambda *args, **options: None)
    monkeypatch.setattr(
        checkpoint.Store, "steps", lambda self: [2, 4][: 1 + multihost._state().process_id]
    )
    errors = hosts(lambda host: checkpoint.Store(tmp_path, max_to_keep=None) and None)
    assert f"{tmp_path}: [2] on host 0 (a), [2, 4] on host 1 (b)" in str(errors[0])
    assert str(errors[0]) == str(errors[1])


def test_checkpoint_that_one_host_cannot_read_is_an_error_on_all(hosts, tmp_path, monkeypatch):
    from flaxbert.training import resume

    class Checkpoints:
        def __init__(self, directory: Path) -> None:
            pass

        def latest_step(self) -> int:
            return 2

        def metadata(self, step: int) -> Metadata:
            if multihost._state().process_id == 1:
                raise OSError("the mount is stale")
            return Metadata({}, False, {}, {}, best=None)

    monkeypatch.setattr(resume, "Checkpoints", Checkpoints)
    place = Workdir(tmp_path, tmp_path)
    other, failed = hosts(lambda host: resume.SavedRun.open(place, {}, {}, force=False))
    assert isinstance(failed, OSError)
    assert str(other) == "host 1 (b) stopped: OSError: the mount is stale"


def test_first_host_to_end_sets_the_exit_code(hosts):
    def work(host: int) -> Ending | None:
        if host == 1:
            while multihost.announced() is None:
                time.sleep(0.01)
        ending = multihost.announce(Ending(3 - host, multihost.this_host(), "a reason"))
        multihost.wait_to_exit(5)
        return ending

    first = time.monotonic()
    assert hosts(work) == [Ending(3, "host 0 (a)", "a reason")] * 2
    assert time.monotonic() - first < 4


def test_unconnected_hosts_are_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    config = flaxbert.Config(task="none such")  # it is not validated
    with pytest.raises(ConfigError, match=r"JAX sees 4 hosts.*--distributed=auto.*initialize\(\)"):
        flaxbert.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_watching_host_ends_with_the_code_of_the_other_host(monkeypatch, capfd):
    ending = Ending(3, "host 4 (e)", "the loss is not finite")
    monkeypatch.setattr(multihost, "announced", lambda: ending)
    monkeypatch.setattr(preemption, "GRACE_SECONDS", 0.1)
    codes: list[int] = []
    monkeypatch.setattr(preemption.os, "_exit", codes.append)
    listener = preemption.Preemption()
    with listener.holding():  # there is state to save, but the grace period ends
        listener._watch_hosts()
    assert codes == [3]
    assert "error: host 4 (e) stopped: the loss is not finite" in capfd.readouterr().err
    listener.stop_watching()
    listener._watch_hosts()
    assert codes == [3]


# --- two processes -------------------------------------------------------------------------------

# Disturb one place of a run: an error, a bug, or a pause during which a signal arrives.
SCRIPT = """
import sys, time
import flaxbert.run as run
from flaxbert.pipeline import evaluator
from flaxbert.training import data, run as training_run, trainer
from flaxbert.errors import ConfigError
place, action = sys.argv.pop(1), sys.argv.pop(1)
owner, name, calls = {
    "reading": (data, "read_table", 1), "compiling": (trainer, "_compile", 1),
    "training": (training_run.Run, "add", 3), "evaluating": (evaluator.Evaluator, "_forward", 1),
}[place]
original = getattr(owner, name)
def disturbed(*args, **kwargs):
    global calls
    calls -= 1
    if calls == 0 and action != "nothing":
        print("reached", flush=True)
        if action == "error":
            raise ConfigError("an error made for the test")
        if action == "bug":
            raise RuntimeError("a bug made for the test")
        time.sleep(float(action))
    return original(*args, **kwargs)
setattr(owner, name, disturbed)
sys.exit(run.main())
"""
PLAIN = ("reading", "nothing")


class Two:
    """Two processes as two hosts; each has its own directory with model and data."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.folders = [directory / "first", directory / "second"]
        for folder in self.folders:
            folder.mkdir(parents=True)
            write_checkpoint(folder / "model", num_hidden_layers=1)
            make_config("classification", folder / "model", folder, count=32)
        (directory / "config.py").write_text(
            "from flaxbert import Config\n"
            "from flaxbert.tasks.classification import ClassificationOptions\n\n"
            "def get_config():\n"
            "    return Config(task='classification', options=ClassificationOptions())\n"
        )

    def start(
        self,
        *flags_of: tuple[str, ...],
        disturbed: tuple[tuple[str, str], tuple[str, str]] = (PLAIN, PLAIN),
        signal_to: int | None = None,
        number: signal.Signals = signal.SIGTERM,
        workdirs: tuple[str, str] = ("run", "run"),
        languages: tuple[str, str] = ("en", "en"),
    ) -> tuple[list[int], float, list[str]]:
        """Return exit codes, seconds since the start (or the signal), and the output of both."""
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONPATH": str(ROOT),
        }
        spec = f"127.0.0.1:{free_port()},2"
        logs = [self.directory / f"{number}.log" for number in range(2)]
        flags = [
            *(f"--config={self.directory / 'config.py'}", "--config.model.init=./model"),
            *("--config.data.train=train.jsonl", "--config.data.eval=eval.jsonl"),
            *("--config.data.max_length=32", "--config.train.batch_size=8"),
            *("--config.train.max_steps=6", "--config.train.save_every=2"),
        ]
        processes = []
        first = time.monotonic()
        for host in range(2):
            command = [
                *(sys.executable, "-c", SCRIPT, *disturbed[host], *flags),
                f"--workdir={self.directory / workdirs[host]}",
                f"--distributed={spec},{host}",
                *(flags_of[host] if flags_of else ()),
            ]
            with logs[host].open("w") as log:
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=self.folders[host],
                        env=environment | {"FLAXBERT_LANG": languages[host]},
                        stdout=log,
                        stderr=log,
                    )
                )
        try:
            while signal_to is not None and not any("reached" in log.read_text() for log in logs):
                assert time.monotonic() - first < 120
                time.sleep(0.05)
            if signal_to is not None:
                time.sleep(0.5)
                first = time.monotonic()
                processes[signal_to].send_signal(number)
            codes = [process.wait(120) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        seconds = time.monotonic() - first
        print(f"exit codes {codes}, {seconds:.1f} s")
        return codes, seconds, [log.read_text() for log in logs]


@pytest.fixture
def two(tmp_path) -> Two:
    return Two(tmp_path / "two")


def swap_labels(two: Two) -> None:
    file = two.folders[1] / "train.jsonl"
    text = file.read_text().replace('"positive"', '"?"').replace('"negative"', '"positive"')
    file.write_text(text.replace('"?"', '"negative"'))


def remove_examples(two: Two) -> None:
    file = two.folders[1] / "train.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-8]))


def change_weights(two: Two) -> None:
    shutil.rmtree(two.folders[1] / "model")
    write_checkpoint(two.folders[1] / "model", seed=1, num_hidden_layers=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "second", "message"),
    [
        (swap_labels, [], "examples, train: "),
        (remove_examples, [], "steps: (12, 6) on host 0"),
        (change_weights, [], "weights, encoder: "),
        (None, ["--config.data.max_length=24"], "data.max_length: 32 on host 0"),
        (None, ["--mode=eval"], "mode: 'train' on host 0"),
        (None, ["--config.data.nope=1"], "unknown config key 'data.nope'"),
        (None, ["--workdir={}/other"], "--workdir is not shared by all hosts"),
    ],
)
def test_hosts_with_different_inputs_are_refused_before_step_1(two, change, second, message):
    if change is not None:
        change(two)
    codes, seconds, texts = two.start((), [flag.format(two.directory) for flag in second])
    assert codes == [2, 2]
    assert seconds < 30  # mostly the start of two processes on a busy machine
    for text in texts:
        assert message in text
        assert text.count("error: ") == 1
        assert "compiled for" not in text


def change_eval(two: Two) -> None:
    file = two.folders[1] / "eval.jsonl"
    file.write_text(file.read_text().replace("film", "food"))


@pytest.mark.slow
def test_all_differences_are_named_at_once(two):
    for change in (swap_labels, change_eval, change_weights):
        change(two)
    codes, _, texts = two.start()
    assert codes == [2, 2]
    for text in texts:
        for part in ("examples, train: ", "examples, eval: ", "weights, encoder: "):
            assert f"\n  {part}" in text
    assert not (two.directory / "run" / "config.json").exists()
    second = ["--config.train.seed=3", "--config.data.weight=w", "--config.data.train=eval.jsonl"]
    codes, _, texts = two.start([], second)
    assert codes == [2, 2]
    for text in texts:
        for part in ("train.seed: 0 on", "data.weight: None on", "data.train: 'train.jsonl' on"):
            assert f"\n  {part}" in text


@pytest.mark.slow
def test_language_explanation_and_cache_of_features_may_differ(two):
    explained = ["--explain", f"--config.data.feature_cache={two.directory / 'cache'}"]
    codes, _, texts = two.start([], explained, languages=("en", "es"))
    assert codes == [0, 0], texts
    others = ["--mode=predict", "--config.data.predict=eval.jsonl"]
    codes, _, texts = two.start(others, [*others, *explained[1:]], languages=("es", "en"))
    assert codes == [0, 0], texts


def test_hosts_with_other_software_are_refused(hosts, monkeypatch):
    versions = {"numpy": ("2.1.0", "2.2.0")}
    monkeypatch.setattr(
        workdir.importlib.metadata,
        "version",
        lambda name: versions.get(name, ("1", "1"))[multihost._state().process_id],
    )
    errors = hosts(lambda host: multihost.agree(workdir.command({"data.train": "a"}, "train")))
    assert "package numpy: '2.1.0' on host 0 (a), '2.2.0' on host 1 (b)" in str(errors[0])
    assert str(errors[0]) == str(errors[1])
    assert str(errors[0]).count(" on host 0") == 1
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + b"#" * multihost._state().process_id
    )
    versions.clear()
    errors = hosts(lambda host: multihost.agree(workdir.command({}, "train")))
    assert "flaxbert's code: " in str(errors[0])
    assert str(errors[0]).count(" on host 0") == 1


def test_caches_of_features_may_differ(hosts):
    def agree(host: int) -> None:
        multihost.agree(workdir.command({"data.feature_cache": f"/disk/{host}"}, "train"))

    assert hosts(agree) == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "predict"])
def test_hosts_with_different_models_are_refused_in_eval_and_predict(two, mode):
    change_weights(two)
    flags = [f"--mode={mode}", "--config.data.predict=eval.jsonl", "--config.model.init=./trained"]
    for seed, folder in enumerate(two.folders):
        config = make_config("classification", folder / "model", folder, count=32)
        config.train.max_steps, config.train.seed, config.data.eval = 1, seed, None
        flaxbert.train(config, folder / "run")
        shutil.copytree(folder / "run" / "export", folder / "trained")
    codes, _, texts = two.start(flags, flags)
    assert codes == [2, 2]
    assert all("weights, head: " in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("receiver", [0, 1])
@pytest.mark.parametrize("place", ["reading", "compiling"])
def test_signal_to_one_host_ends_both_with_75(two, place, receiver):
    codes, seconds, _ = two.start(disturbed=((place, "60"), PLAIN), signal_to=receiver)
    assert codes == [75, 75]
    assert seconds < 10


@pytest.mark.slow
def test_signal_during_evaluation_ends_both_with_75_and_the_run_resumes(two):
    codes, _, _ = two.start(disturbed=(PLAIN, ("evaluating", "2")), signal_to=0)
    assert codes == [75, 75]  # in the loop, which saves first
    codes, _, texts = two.start()
    assert codes == [0, 0], texts
    # After the last checkpoint there is nothing to save.
    codes, seconds, _ = two.start(disturbed=(PLAIN, ("evaluating", "60")), signal_to=1)
    assert codes == [75, 75]
    assert seconds < 10


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    ("place", "action", "code"),
    [("reading", "error", 2), ("training", "error", 2), ("training", "bug", 1)],
)
def test_error_on_one_host_ends_both_within_seconds(two, place, action, code, failing):
    disturbed = [PLAIN, PLAIN]
    disturbed[failing] = (place, action)
    first = time.monotonic()
    codes, _, texts = two.start(disturbed=tuple(disturbed))
    reached = (two.directory / f"{failing}.log").stat().st_mtime
    assert codes == [code, code]
    assert time.monotonic() - first < 90
    assert time.time() - reached < 20
    assert f"host {failing}" in texts[1 - failing]
    assert "made for the test" in texts[1 - failing]

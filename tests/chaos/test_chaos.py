"""Runs that are killed or stopped at random moments end bit-identical to uninterrupted ones.

    pytest -m slow -n 2 --dist load -rP tests/chaos     prints a line for each run; 20 minutes

One process trains MiniLM-L6 on the spam examples, two processes with two devices each train a tiny
model; so does one process in a bucket. Other tests: workdirs that two hosts do not share, file
systems that cannot rename directories, closed terminals.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, write_checkpoint
from fake_gcs import FakeGCS
from toy import make_config

from flaxbert.commands import verify_resume
from flaxbert.commands.verify_resume import differences, log_of, start
from flaxbert.runtime import storage

pytestmark = pytest.mark.slow

PHASES = ("starting", "reading data", "compiling", "training", "evaluating", "saving", "exporting",
          "printing")  # fmt: skip
ORDER = {name: number for number, name in enumerate(PHASES)}
# How long after a phase has begun the signal comes, at most, in seconds.
LONGEST = {"starting": 3.0, "reading data": 0.5, "compiling": 6.0, "training": 4.0,
           "evaluating": 0.6, "saving": 0.6, "exporting": 0.4, "printing": 0.05}  # fmt: skip
# Most of a run's life is training, and saving is where it hurts most.
CYCLE = ("compiling", "training", "saving", "exporting", "evaluating", "saving", "reading data",
         "training", "starting", "printing")  # fmt: skip


def phase(workdir: Path, begun: int = 0) -> str:
    """Return the phase of a run, from its files and what it has logged from byte `begun` on."""
    log = workdir / ".log"
    text = log.read_bytes()[begun:] if log.exists() else b""
    if b"results.json" in text:
        return "printing"
    if any(workdir.glob(".export.partial*")):
        return "exporting"
    if any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
        return "saving"
    if b"compiled for" in text:
        return "training"
    if b" features" in text:
        return "compiling"
    return "reading data" if text else "starting"


class Moment:
    """A moment of a phase, given as `when` to `verify_resume.start`; made before the run starts."""

    def __init__(self, number: int, workdir: Path, *, pace: float = 1.0):
        """`pace`: how long phases last, relative to LONGEST."""
        self.phase = CYCLE[number % len(CYCLE)]
        # Steps and saves come again and again: wait for as many checkpoints to be there.
        again = self.phase in ("training", "evaluating", "saving")
        self._workdir, self._kept = workdir, number % 3 if again else 0
        log = workdir / ".log"
        self._log_begin = log.stat().st_size if log.exists() else 0
        # By the process's clock: the compiler and the disk add chance of their own.
        self.delay = random.Random(number).random() * LONGEST[self.phase] * pace
        self._begun: float | None = None
        self.struck = "after its end"

    def __call__(self) -> bool:
        now = phase(self._workdir, self._log_begin)
        if now == "training" and self._evaluating():
            now = "evaluating"
        late = ORDER[now] > ORDER["saving"]
        # A save runs in parallel with the next steps, so it may hide where a phase begins.
        hidden = ORDER[now] > ORDER[self.phase] and self.phase != "evaluating"
        met = (now == self.phase or hidden) and not self._missing()
        if self._begun is None and not met and not late:
            return False
        self._begun = time.monotonic() if self._begun is None else self._begun
        if time.monotonic() - self._begun < self.delay and not late:
            return False
        self.struck = now
        return True

    def _missing(self) -> bool:
        kept = (self._workdir / "checkpoints").glob("*")
        return len([path for path in kept if path.name.isdecimal()]) < self._kept

    def _evaluating(self) -> bool:
        """Whether the last step with a line is one to evaluate, and that is not done yet."""
        file = self._workdir / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        last = json.loads(lines[-1]) if lines else {}
        return "loss" in last and last["step"] in EVALUATED


FLAGS = [
    "--config=configs/examples.py:spam",
    "--config.data.max_length=32",
    "--config.data.packing=false",  # one height of batches: little to compile
    "--config.train.batch_size=8",
    "--config.train.eval_batch_size=40",
    "--config.train.max_steps=10",
    "--config.train.eval_every=4",
    "--config.train.save_every=3",
    "--config.train.log_every=2",
    "--config.train.keep_best=accuracy",
]
EVALUATED = (4, 8, 10)  # of two processes: 8


@pytest.fixture(autouse=True, scope="module")
def quick_compiler():
    """For all processes that tests start: compiling is most of so short a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield


@pytest.fixture(scope="module")
def uninterrupted(quick_compiler, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    ended = start(FLAGS, workdir)
    assert ended.code == 0
    print(f"\nuninterrupted: {ended.seconds:.1f} s")
    return workdir


@pytest.mark.parametrize(
    ("number", "name"),
    [*((n, "SIGKILL") for n in range(30)), *((n, "SIGTERM") for n in range(30, 40))],
)
def test_killed_or_stopped_run_ends_like_an_uninterrupted_one(
    uninterrupted, tmp_path, number, name
):
    moment = Moment(number, tmp_path)
    struck = start(FLAGS, tmp_path, when=moment, number=signal.Signals[name])
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("*") if p.name.isdecimal())
    ended = start(FLAGS, tmp_path)
    found = list(differences(uninterrupted, tmp_path)) if ended.code == 0 else ["it failed"]
    verdict = "identical" if not found else found[0]
    print(
        f"{number:2} {name} {moment.struck:13} at {struck.seconds:5.1f} s, exit "
        f"{struck.code:3}, checkpoints {kept}: {verdict}"
    )
    assert struck.struck  # the signal came before the end
    if name == "SIGTERM" and moment.struck not in ("starting", "printing"):
        assert struck.code == 75
    assert ended.code == 0
    assert not kept or b"resuming" in (tmp_path / ".log").read_bytes()
    assert found == []


# --- two processes -------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(
    flags: list[str],
    workdir: Path,
    *,
    when: Moment | None = None,
    number: int = signal.SIGKILL,
    other: Path | None = None,
    home: Path | None = None,
) -> list[int]:
    """Exit codes of two processes, of which the second one is struck.

    The one that is left is killed soon after, as a cluster's scheduler does. `other` is the second
    one's workdir, if that is another. `home` is that of both, if `workdir` is only for their logs.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    spec = f"127.0.0.1:{free_port()},2"
    struck = False
    with (workdir / ".log").open("ab") as log, (workdir / ".log2").open("ab") as second:
        both = [
            subprocess.Popen(
                [sys.executable, "-m", "flaxbert.run", *flags,
                 f"--workdir={other if index and other else home or workdir}",
                 f"--distributed={spec},{index}"],
                cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
            )
            for index, out in enumerate((log, second))
        ]  # fmt: skip
        limit = time.monotonic() + 300
        while any(process.poll() is None for process in both) and time.monotonic() < limit:
            if when is not None and not struck and when():
                both[1].send_signal(number)
                struck = True
                limit = time.monotonic() + (5 if number == signal.SIGKILL else 60)
            time.sleep(0.02)
        for process in both:
            process.kill()
    return [process.wait() for process in both]


@pytest.fixture(scope="module")
def by_two(quick_compiler, tmp_path_factory) -> tuple[list[str], Path]:
    directory = tmp_path_factory.mktemp("two")
    model = write_checkpoint(directory / "model", num_hidden_layers=1)
    data = make_config("classification", model, directory, count=64).data
    file = directory / "config.py"
    file.write_text(
        "from flaxbert import Config\n"
        "from flaxbert.tasks.classification import ClassificationOptions\n\n"
        "def get_config():\n"
        "    return Config(task='classification', options=ClassificationOptions())\n"
    )
    flags = [
        f"--config={file}",
        f"--config.model.init={model}",
        f"--config.data.train={data.train}",
        f"--config.data.eval={data.eval}",
        "--config.data.max_length=32",
        "--config.train.batch_size=8",
        "--config.train.save_every=3",
        "--config.train.eval_every=8",
        "--config.train.log_every=4",
        "--config.optim.learning_rate=1e-3",
    ]
    workdir = directory / "uninterrupted"
    assert start_two(flags, workdir) == [0, 0], (workdir / ".log").read_text()
    return flags, workdir


# SIGTERM while there is a second left, which JAX takes to tell both.
@pytest.mark.parametrize(
    ("number", "name"),
    [*((n, "SIGKILL") for n in range(10)), *((n, "SIGTERM") for n in (31, 34, 30, 33, 36))],
)
def test_two_processes_end_like_uninterrupted_ones_after_one_is_killed_or_stopped(
    by_two, tmp_path, number, name
):
    flags, uninterrupted = by_two
    moment = Moment(number, tmp_path, pace=0.1)  # a tiny model
    codes = start_two(flags, tmp_path, when=moment, number=signal.Signals[name])
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("*") if p.name.isdecimal())
    again = start_two(flags, tmp_path)
    found = list(differences(uninterrupted, tmp_path)) if again == [0, 0] else ["it failed"]
    verdict = "identical" if not found else found[0]
    print(f"{number:2} {name} one of two, {moment.struck:13} exits {codes}, "
          f"checkpoints {kept}: {verdict}")  # fmt: skip
    if name == "SIGTERM" and moment.struck not in ("starting", "printing"):
        assert codes == [75, 75]
    assert moment.struck != "after its end"
    assert again == [0, 0], (tmp_path / ".log").read_text()[-3000:]
    assert not kept or b"resuming" in (tmp_path / ".log").read_bytes()
    assert found == []


def test_separate_workdirs_of_two_processes_are_refused_and_stay_unchanged(by_two, tmp_path):
    flags, uninterrupted = by_two
    moment = Moment(31, tmp_path, pace=0.1)
    assert start_two(flags, tmp_path, when=moment, number=signal.SIGTERM) == [75, 75]
    before = sorted((tmp_path / "checkpoints").iterdir())
    first = time.monotonic()
    codes = start_two(flags, tmp_path, other=tmp_path / "elsewhere")
    print(f"separate directories: exits {codes} after {time.monotonic() - first:.1f} s")
    assert codes == [2, 2]
    for log in (".log", ".log2"):
        assert "--workdir is not shared by all hosts" in (tmp_path / log).read_text()
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    assert start_two(flags, tmp_path) == [0, 0]
    assert list(differences(uninterrupted, tmp_path)) == []


# --- file systems --------------------------------------------------------------------------------

# A bucket without hierarchical namespace, as gcsfuse mounts it, for as long as a file exists.
NO_RENAMES = """
import errno, os
def refusing(rename):
    def renamed(old, new, **options):
        if os.path.exists(os.environ["NO_RENAMES"]) and os.path.isdir(old) and os.listdir(old):
            raise OSError(errno.EMFILE, "Too many open files", str(old))
        return rename(old, new, **options)
    return renamed
for name in ("rename", "replace"):
    setattr(os, name, refusing(getattr(os, name)))
"""


@pytest.fixture
def no_renames(tmp_path_factory, monkeypatch) -> Path:
    """A file; while it exists, no process that a test starts can rename directories."""
    directory = tmp_path_factory.mktemp("patched")
    (directory / "sitecustomize.py").write_text(NO_RENAMES)
    paths = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("NO_RENAMES", str(directory / "on"))
    return directory / "on"


def test_file_system_without_directory_renames_is_refused_before_data_is_read(
    uninterrupted, tmp_path, no_renames
):
    no_renames.touch()
    ended = start(FLAGS, tmp_path)
    text = (tmp_path / ".log").read_text()
    print(f"no renames: exit {ended.code} after {ended.seconds:.1f} s")
    assert ended.code == 2
    assert "gcloud storage buckets create" in text
    assert "features" not in text  # before any data was read
    no_renames.unlink()
    assert start(FLAGS, tmp_path).code == 0
    assert list(differences(uninterrupted, tmp_path)) == []


def test_finished_checkpoints_survive_a_file_system_that_stops_renaming(
    uninterrupted, tmp_path, no_renames
):
    def after_a_save() -> bool:
        if any(path.name.isdecimal() for path in (tmp_path / "checkpoints").glob("*")):
            no_renames.touch()
        return False

    ended = start(FLAGS, tmp_path, when=after_a_save)
    text = (tmp_path / ".log").read_text()
    assert ended.code == 2
    assert text.count("error: ") == 1
    assert "Traceback" not in text
    no_renames.unlink()
    assert start(FLAGS, tmp_path).code == 0
    assert b"resuming" in (tmp_path / ".log").read_bytes()
    assert list(differences(uninterrupted, tmp_path)) == []


# --- buckets -------------------------------------------------------------------------------------

SHORT_LEASE = """
from flaxbert.runtime import lease
lease.SECONDS = 3.0
"""


@pytest.fixture(scope="module")
def gcs(by_two, tmp_path_factory):
    """A Google Cloud Storage in memory for all processes, in which locks expire soon."""
    pytest.importorskip("gcsfs")
    directory = tmp_path_factory.mktemp("lease")
    (directory / "sitecustomize.py").write_text(SHORT_LEASE)
    paths = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
    with FakeGCS() as server, pytest.MonkeyPatch.context() as patch:
        server.connect(patch)
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield server


@pytest.fixture(scope="module")
def in_bucket(by_two, gcs) -> tuple[list[str], Path, float, int]:
    """Flags; the workdir of an uninterrupted run in a bucket; its seconds and its writes."""
    flags, _ = by_two
    home, before = storage.as_path("gs://bucket/uninterrupted"), len(writes(gcs))
    ended = start(flags, home)
    assert ended.code == 0, log_of(home).read_text()
    return flags, home, ended.seconds, len(writes(gcs)) - before


def test_verify_resume_works_in_a_bucket(by_two, gcs, capsys):
    flags, _ = by_two
    home = "gs://bucket/verify"
    command = [*flags, "--config.train.max_steps=8", "--kills=1", f"--workdir={home}"]
    code = verify_resume.main(command)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "kill 1 of 1" in printed
    assert printed.endswith("PASS: the two runs are bit-identical\n")
    assert gcs.names("bucket/verify/killed/results.json")


def writes(gcs: FakeGCS) -> list[str]:
    """The requests that have changed something."""
    return [line for line in list(gcs.requests) if not line.startswith("GET")]


@pytest.mark.parametrize("number", range(20))
def test_run_in_a_bucket_that_is_killed_ends_like_an_uninterrupted_one(gcs, in_bucket, number):
    flags, uninterrupted, seconds, count = in_bucket
    home, random_ = storage.as_path(f"gs://bucket/killed{number}"), random.Random(number)
    log_of(home).unlink(missing_ok=True)
    if number % 4 == 3:  # at any time
        struck = start(flags, home, after=seconds * random_.uniform(0.2, 0.95))
        moment = f"after {struck.seconds:.1f} s"
    else:  # at any request that writes; meanwhile the store is busy now and then
        last = len(writes(gcs)) + random_.randint(1, count - 1)
        gcs.fail(random_.choice([0, 429, 503]), match=f"killed{number}", after=number % 2 == 0)
        struck = start(flags, home, when=lambda: len(writes(gcs)) >= last)
        moment = f"at write {last} of {count}"
    gcs.heal()
    kept = sorted({name.split("/")[3] for name in gcs.names(f"bucket/killed{number}/checkpoints/")
                   if name.endswith("commit_success.txt")})  # fmt: skip
    ended = start(flags, home)
    found = list(differences(uninterrupted, home)) if ended.code == 0 else ["it failed"]
    print(f"{number:2} SIGKILL {moment}, exit {struck.code:3}, checkpoints {kept}: "
          f"{found[0] if found else 'identical'}")  # fmt: skip
    assert struck.struck
    assert ended.code == 0, log_of(home).read_text()[-3000:]
    assert not kept or b"resuming" in log_of(home).read_bytes()
    assert found == []


def test_two_processes_in_a_bucket_end_like_local_ones_after_one_is_killed(by_two, gcs, tmp_path):
    flags, uninterrupted = by_two
    home = storage.as_path("gs://bucket/two")

    def saved() -> bool:
        return any(name.endswith("commit_success.txt") for name in gcs.names("bucket/two/"))

    start_two(flags, tmp_path, home=home, when=saved)
    assert start_two(flags, tmp_path, home=home) == [0, 0], (tmp_path / ".log").read_text()[-3000:]
    assert b"resuming" in (tmp_path / ".log").read_bytes()
    assert list(differences(uninterrupted, home)) == []


# --- closed terminals ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGHUP])
def test_run_continues_after_its_terminal_closes(uninterrupted, tmp_path, number):
    command = [sys.executable, "-m", "flaxbert.run", *FLAGS, f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while "compiled for" not in process.stderr.readline():
        assert process.poll() is None
    process.stdout.close()
    process.stderr.close()
    if number is None:
        assert process.wait(120) == 0
    else:
        limit = time.monotonic() + 120
        while not list((tmp_path / "checkpoints").glob("[0-9]*")) and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(120) == 75
        assert list((tmp_path / "checkpoints").glob("[0-9]*"))
        assert start(FLAGS, tmp_path).code == 0
    assert list(differences(uninterrupted, tmp_path)) == []

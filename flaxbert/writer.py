"""The files of a run, each written whole or not at all."""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import shutil
import textwrap
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from flaxbert import sharding
from flaxbert.config import Config
from flaxbert.errors import ConfigError, DivergedError, WorkdirError, some

log = logging.getLogger("flaxbert")

# A run may be continued with other values of these: they change no number that it computes.
FREE = (
    "train.max_steps",
    "train.save_every",
    "train.save_minutes",
    "train.max_skips",
    "data.predict",
)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Open a file that takes its name once all is written: a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a machine that is cut off may keep the name alone
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    with _whole(path) as file:
        file.write(text)


def finite(value: Any) -> Any:
    """Return a value of JSON's types with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented; numbers that are not finite become null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_config(path: Path, config: Config, commits: Mapping[str, str]) -> None:
    """Write a configuration, and the commits of what it names on the hub, {key: commit}."""
    write_json(path, config.to_dict() | ({"commits": dict(commits)} if commits else {}))


def read_commits(path: Path) -> dict[str, str]:
    """Return the commits in a run's config.json; none if there are none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["commits"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def moved(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield what is at another commit of the hub than when the run began, and how to get it."""
    for key, commit in now.items():
        if then.get(key, commit) != commit:
            sign = "--config.model.revision=" if key == "model.init" else f"{key} with #"
            yield (
                f"{key}: commit {then[key]} when the run began, {commit} now; for the former, "
                f"{sign}{then[key]} and --force"
            )


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, as the records come: all of them never are in memory as text.

    Raises:
      DivergedError: for a prediction that is not finite; the file stays as it was.
    """
    with _whole(path) as file:
        for number, record in enumerate(records, start=1):
            try:
                line = json.dumps(record, ensure_ascii=False, allow_nan=False)
            except ValueError:
                raise DivergedError(
                    f"{path}: prediction {number} holds a number that is not finite: "
                    f"{textwrap.shorten(str(record), 200)}. The weights are damaged, or their "
                    "activations overflow: try --config.model.dtype=float32."
                ) from None
            file.write(line + "\n")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        result |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return result


def settled(config: Config) -> dict[str, Any]:
    """What a run may not be continued without, as {key: value}."""
    return {key: value for key, value in flat(config.to_dict()).items() if key not in FREE}


def completed(stored: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return the configuration in a checkpoint, with the default of each key that it lacks.

    A run of an earlier version lacks the keys that were added since. Their defaults are what it did
    before; if one is not, the fingerprints of its data differ.
    """
    options = None if config.options is None else type(config.options)()
    return settled(Config(options=options)) | dict(stored)


def command(config: Config, mode: str) -> dict[str, Any]:
    """Return what a command asks for, to be the same on all hosts."""
    return {"mode": mode, "jax": jax.__version__} | flat(config.to_dict())


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Take a directory for a run, alone; it is made if it does not exist.

    Raises:
      WorkdirError: if another process has it, it cannot be written, it is of no use for a run, or
        not all hosts share it.
    """
    with contextlib.ExitStack() as stack:
        with sharding.together():
            if jax.process_index() == 0:
                stack.enter_context(_locked(workdir))
                _check_renames(workdir)
        if sharding.several_hosts():
            _check_shared(workdir)
        yield


BUCKET = (
    "gcloud storage buckets create gs://NAME --location=LOCATION --uniform-bucket-level-access "
    "--enable-hierarchical-namespace"
)
"""Makes a bucket in which a mount can rename directories."""


def _check_renames(workdir: Path) -> None:
    """Check that a directory with content can be renamed: so checkpoints and exports come whole."""
    probe, renamed = workdir / ".probe.partial", workdir / ".probe"
    for path in (probe, renamed):  # of a process that was killed here
        shutil.rmtree(path, ignore_errors=True)
    try:
        (probe / "inner").mkdir(parents=True)
        (probe / "inner" / "file").write_text("probe", encoding="utf-8")
        os.replace(probe, renamed)
        if not (renamed / "inner" / "file").is_file():
            raise OSError(errno.EIO, "the file in it is gone")
    except OSError as error:
        raise WorkdirError(
            f"{workdir}: a directory in it could not be renamed ({error.strerror or error}), and a "
            "run renames its checkpoints and its export when they are complete. A mounted Google "
            f"Cloud Storage bucket can do so if it was made like this:\n  {BUCKET}\nUse such a "
            "bucket, or another --workdir."
        ) from None
    finally:
        for path in (probe, renamed):
            shutil.rmtree(path, ignore_errors=True)


VISIBLE_SECONDS = 5.0
"""Time that a file of one host may take to be seen by another one, through a mount."""


def _check_shared(workdir: Path) -> None:
    """Check that all hosts see a file that the first one writes."""
    chief = jax.process_index() == 0
    token = workdir / f".shared-{uuid.uuid4().hex}"
    with sharding.together():
        if chief:
            write_text(token, "")
    name = sharding.exchange(token.name)[0]
    with sharding.together():  # a mount may fail on one host alone
        limit = time.monotonic() + VISIBLE_SECONDS
        while not (seen := (workdir / name).exists()) and time.monotonic() < limit:
            time.sleep(0.2)
    answers = [
        json.loads(answer)
        for answer in sharding.exchange(
            json.dumps([seen, f"{workdir.absolute()} on {sharding.this_host()}"])
        )
    ]
    if chief:
        token.unlink(missing_ok=True)
    if lacking := [place for seen, place in answers if not seen]:
        raise WorkdirError(
            "--workdir is not shared by all hosts: a file written to "
            f"{answers[0][1]} is not seen in {some(lacking, 3)}. Give a directory that all hosts "
            "share: a mounted bucket or Filestore."
        )


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Hold a lock that goes with the process, however it ends."""
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise WorkdirError(
            f"{workdir}: cannot be written ({error.strerror}); choose another --workdir."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(
                f"{workdir}: another run is working in it; wait for its end, or choose another "
                "--workdir. If they are hosts of one run: --distributed=auto."
            ) from None
        except OSError as error:  # not every mounted bucket knows locks
            log.warning(f"{path}: no lock ({error.strerror}); do not run twice in {workdir}")
        yield


def check_unfinished(workdir: Path, *, force: bool) -> None:
    """Check that a directory without a checkpoint is not that of a finished run.

    Raises:
      WorkdirError: if it is, unless `force`.
    """
    path = workdir / "results.json"
    if path.exists() and not force:
        raise WorkdirError(
            f"{path}: of a finished run whose checkpoints are gone. Bring them back; or choose "
            "another --workdir, or remove this one, to start again."
        )


def check_same(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], workdir: Path, *, force: bool
) -> None:
    """Check that a run continues as it began.

    Raises:
      ConfigError: with every difference, unless `force`: then it is a warning.
    """
    found = [
        f"{key}: {old.get(key)!r} there, {value!r} now"
        for key, value in new.items()
        if old.get(key) != value
    ]
    if not found:
        return
    message = f"{workdir} holds a run with another {what}:\n  " + "\n  ".join(found)
    if old.get("train.epochs", None) != new.get("train.epochs", None):
        message += (
            "\nTo train its weights further, start a run from them, with warm-up and decay of its "
            f"own: --config.model.init={workdir} --workdir=NEW. With --force this run's learning "
            "rate jumps to what the schedule of the new length has at the next step."
        )
    if not force:
        raise ConfigError(
            f"{message}\nChoose another --workdir, remove this one to start again, or go on with "
            "the change: --force."
        )
    log.warning(f"{message}\nGoing on with the change (--force).")


class Board:
    """TensorBoard's scalars, written by the caller.

    tensorboardX's own SummaryWriter writes in a thread. A full disk ends that thread, and whoever
    gives it the next scalar waits for good.
    """

    FLUSH_SECONDS = 30.0

    def __init__(self, directory: Path, *, first: int):
        """Open a new file; what files before it say of step `first` and later is hidden."""
        directory.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(directory / "events"))
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        self.flush()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve of each metric."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._events.write_event(event)
        if time.monotonic() - self._flushed > self.FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Let readers see what there is."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        self._events.close()


class MetricsWriter:
    """metrics.jsonl and TensorBoard scalars. Only the first host writes."""

    def __init__(self, workdir: Path, *, step: int, active: bool, evaluated: bool = True):
        """Open both, cut back to `step`, the one that the run continues from.

        `evaluated`: whether the evaluation of that step is done; if not, its line goes too.
        """
        self._active = active
        self.first_loss: float | None = None
        """Of the first line; None for a new run."""
        self.logged = 0
        """Step of the last line about training."""
        if not active:
            return
        path = workdir / "metrics.jsonl"
        kept = [
            (values, line)
            for values, line in _read_lines(path)
            if values["step"] < step or (values["step"] == step and (evaluated or "loss" in values))
        ]
        write_text(path, "".join(f"{line}\n" for _, line in kept))
        trained = [values for values, _ in kept if "loss" in values]
        if trained:
            self.first_loss, self.logged = trained[0]["loss"], int(trained[-1]["step"])
        self._file = path.open("a", encoding="utf-8")
        self._board = Board(workdir / "tensorboard", first=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line, and a scalar for each metric; null, and none, for what is not finite."""
        if self._active:
            line = {"step": step, **finite(metrics)}
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            self._board.write(step, {name: v for name, v in metrics.items() if math.isfinite(v)})

    def sync(self) -> None:
        """Return once the lines are on the disk."""
        if self._active:
            os.fsync(self._file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        if self._active:
            self._file.close()
            self._board.close()


def _read_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines that can be read; a last one may be unfinished, where a run was killed."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            yield values, line
        elif number < len(lines):
            log.warning(f"{path}:{number}: damaged, and left out: {line[:80]!r}")

"""The directory of a run: its lock, and whether a run in it may continue."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from flaxbert.config import Config
from flaxbert.errors import ConfigError, WorkdirError, some
from flaxbert.runtime import multihost
from flaxbert.runtime.files import write_json, write_text

log = logging.getLogger("flaxbert")


# A run may be continued with other values of these: they change no number that it computes.
FREE = (
    "train.max_steps",
    "train.save_every",
    "train.save_minutes",
    "train.max_nonfinite_steps",
    "data.predict",
)


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


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        result |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return result


def resume_fields(config: Config) -> dict[str, Any]:
    """What a run may not be continued without, as {key: value}."""
    return {key: value for key, value in flat(config.to_dict()).items() if key not in FREE}


def completed(stored: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return the configuration in a checkpoint, with the default of each key that it lacks.

    A run of an earlier version lacks the keys that were added since. Their defaults are what it did
    before; if one is not, the fingerprints of its data differ.
    """
    options = None if config.options is None else type(config.options)()
    return resume_fields(Config(options=options)) | dict(stored)


def command(config: Config, mode: str) -> dict[str, Any]:
    """Return what a command asks for, to be the same on all hosts."""
    return {"mode": mode, "jax": jax.__version__} | flat(config.to_dict())


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Take a directory for a run, alone; it is made if it does not exist.

    Raises:
      WorkdirError: if another process has it, it cannot be written, it is of no use for a run, or
        not all hosts share it.
    """
    with contextlib.ExitStack() as stack:
        with multihost.fail_together():
            if jax.process_index() == 0:
                stack.enter_context(_locked(workdir))
                _check_renames(workdir)
        if multihost.is_multihost():
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
    with multihost.fail_together():
        if chief:
            write_text(token, "")
    name = multihost.exchange(token.name)[0]
    with multihost.fail_together():  # a mount may fail on one host alone
        limit = time.monotonic() + VISIBLE_SECONDS
        while not (seen := (workdir / name).exists()) and time.monotonic() < limit:
            time.sleep(0.2)
    answers = [
        json.loads(answer)
        for answer in multihost.exchange(
            json.dumps([seen, f"{workdir.absolute()} on {multihost.this_host()}"])
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


def require_not_finished(workdir: Path, *, force: bool) -> None:
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


def require_unchanged(
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

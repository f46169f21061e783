"""The directory of a run: its lock, and whether the run in it may continue."""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from flaxbert.errors import ConfigError, WorkdirError, some
from flaxbert.runtime import lease, mirror, multihost, storage
from flaxbert.runtime.files import write_json, write_text
from flaxbert.runtime.mirror import Workdir

log = logging.getLogger("flaxbert")


MAY_CHANGE_ON_RESUME = (
    "train.fsdp",
    "train.max_steps",
    "train.save_every",
    "train.save_minutes",
    "train.max_nonfinite_steps",
    "train.trackers",
    "train.project",
    "data.predict",
    "data.feature_cache",
)
"""Configuration keys that affect no number that a run computes."""


def write_config(path: Path, config: Mapping[str, Any], commits: Mapping[str, str]) -> None:
    """Write a configuration and the hub commits that it stands for.

    Args:
      path: the file.
      config: nested, as from `Config.to_dict`.
      commits: {config key: commit} of each model and data set from the hub.
    """
    write_json(path, dict(config) | ({"commits": dict(commits)} if commits else {}))


def read_commits(path: Path) -> dict[str, str]:
    """Return the hub commits in a run's config.json; empty if it has none or is missing."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["commits"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def changed_commits(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each key whose hub commit has changed since the run started.

    Args:
      then: {config key: commit} when the run started.
      now: the same, of what was loaded now.
    """
    for key, commit in now.items():
        if then.get(key, commit) != commit:
            flag = "--config.model.revision=" if key == "model.init" else f"{key} with #"
            yield (
                f"{key}: the hub has commit {commit} now, but the run started with {then[key]}. To "
                f"use that one, add {flag}{then[key]} and --force"
            )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping with dotted keys: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def resume_fields(flat_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration, {dotted key: value}, that must not change on resume."""
    return {key: value for key, value in flat_config.items() if key not in MAY_CHANGE_ON_RESUME}


def with_defaults(stored: Mapping[str, Any], flat_defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's resume fields, with the default of each key that it lacks.

    A run of an earlier version lacks the keys added since. It behaved as their defaults do; where
    one does not, the fingerprints of the run's data differ.

    Args:
      stored: `Metadata.config` of a checkpoint.
      flat_defaults: the task's default configuration, {dotted key: value}.
    """
    return resume_fields(flat_defaults) | dict(stored)


MAY_DIFFER = ("data.feature_cache",)
"""Configuration keys that may differ between hosts: each has its own disk."""

PACKAGES = ("flax", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "tokenizers",
            "transformers")  # fmt: skip
"""Packages that compute tokens, numbers or checkpoints."""


def command(flat_config: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """Return everything about a command that must be equal on all hosts, and their software."""
    values = {key: value for key, value in flat_config.items() if key not in MAY_DIFFER}
    software = _software() if multihost.connected() else {}
    return {"mode": mode} | software | values


def _software() -> dict[str, str]:
    """Return the versions of packages, and a hash of flaxbert's code, which a clone may change."""
    versions = {f"package {name}": importlib.metadata.version(name) for name in PACKAGES}
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\n".encode() + file.read_bytes())
    python = ".".join(map(str, sys.version_info[:2]))
    return {"Python": python} | versions | {"flaxbert's code": digest.hexdigest()}


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[Workdir]:
    """Lock a workdir for one run, and yield it; create it if it does not exist.

    Raises:
      WorkdirError: if another process has locked it, it cannot be written, it cannot rename
        directories, or not all hosts share it.
    """
    held = None
    with contextlib.ExitStack() as stack:
        with multihost.fail_together():
            if storage.is_remote(workdir):
                _check_hosts(workdir)
                if multihost.is_lead_host():
                    held = stack.enter_context(lease.hold(workdir))
            elif multihost.is_lead_host():
                stack.enter_context(_locked(workdir))
                _check_renames(workdir)
        if multihost.is_multihost():
            _check_shared(workdir)
        yield stack.enter_context(mirror.opened(workdir, held, all_files=False))


def _check_hosts(workdir: Path) -> None:
    """Check that checkpoints of a run on several hosts can be written to a bucket."""
    if str(workdir).startswith("s3:") and multihost.is_multihost():
        raise ConfigError(
            f"--workdir={workdir}: a run on several hosts cannot write to s3://, because Orbax "
            "cannot. Use gs://, or a directory that all hosts share."
        )


BUCKET = (
    "gcloud storage buckets create gs://NAME --location=LOCATION --uniform-bucket-level-access "
    "--enable-hierarchical-namespace"
)
"""Creates a bucket whose mount can rename directories."""


def _check_renames(workdir: Path) -> None:
    """Check that a directory with content can be renamed, as checkpoints and exports are."""
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
            f"Cloud Storage bucket can rename directories if it was created like this:\n  {BUCKET}"
            "\nUse such a bucket, or another --workdir."
        ) from None
    finally:
        for path in (probe, renamed):
            shutil.rmtree(path, ignore_errors=True)


VISIBLE_SECONDS = 5.0
"""Time after which a file that one host writes must be visible to the others, through a mount."""


def _check_shared(workdir: Path) -> None:
    """Check that all hosts see a file that the lead host writes."""
    token = workdir / f".shared-{uuid.uuid4().hex}"
    with multihost.fail_together():
        if multihost.is_lead_host() and storage.is_remote(workdir):
            storage.write(token, b"")
        elif multihost.is_lead_host():
            write_text(token, "")
    name = multihost.all_gather(token.name)[0]
    with multihost.fail_together():  # a mount may fail on one host only
        limit = time.monotonic() + VISIBLE_SECONDS
        while not (visible := (workdir / name).exists()) and time.monotonic() < limit:
            time.sleep(0.2)
    answers = [
        json.loads(answer)
        for answer in multihost.all_gather(
            json.dumps([visible, f"{_absolute(workdir)} on {multihost.this_host()}"])
        )
    ]
    if multihost.is_lead_host():
        token.unlink(missing_ok=True)
    if lacking := [place for visible, place in answers if not visible]:
        raise WorkdirError(
            f"--workdir is not shared by all hosts: a file written to {answers[0][1]} is not "
            f"visible in {some(lacking, 3)}. Give a directory that all hosts share: a mounted "
            "bucket or Filestore."
        )


def _absolute(path: Path) -> Path:
    return path if storage.is_remote(path) else path.absolute()


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Hold a lock that the operating system releases when the process ends, however it ends."""
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise WorkdirError(
            f"{workdir}: cannot be written ({error.strerror}); choose another --workdir."
        ) from None
    with file:
        # Not FileLock: where the system cannot lock a file, as on some mounted buckets, it falls
        # back to a lock file that a killed run would leave behind.
        try:
            locked = filelock.lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            log.warning(
                f"{path}: cannot be locked ({error.strerror}); do not start two runs in {workdir}"
            )
            locked = True
        if not locked:
            raise WorkdirError(
                f"{workdir}: another run is working in it. Wait until it ends, or choose another "
                "--workdir. If both are hosts of one run, add --distributed=auto."
            )
        yield


def require_not_finished(workdir: Workdir, *, force: bool) -> None:
    """Check that a directory without checkpoints does not hold the results of a finished run.

    Raises:
      WorkdirError: if it does, unless `force`.
    """
    if (workdir.local / "results.json").exists() and not force:
        raise WorkdirError(
            f"{workdir.home / 'results.json'}: belongs to a finished run whose checkpoints are "
            "gone. Restore them to continue it. To start again, choose another --workdir or "
            "remove this one."
        )


def require_unchanged(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], workdir: Path, *, force: bool
) -> None:
    """Check that a run continues with the values that it started with.

    Args:
      what: what the values describe, such as "configuration".
      old: {name: value} of the run.
      new: {name: value} now; other names in `old` are ignored.
      workdir: the workdir of the run, for the message.
      force: log the differences as a warning and continue.

    Raises:
      ConfigError: if any value differs, with all differences, unless `force`.
    """
    differences = [
        f"{key}: {old.get(key)!r} there, {value!r} now"
        for key, value in new.items()
        if old.get(key) != value
    ]
    if not differences:
        return
    message = f"{workdir} holds a run with another {what}:\n  " + "\n  ".join(differences)
    if old.get("train.epochs", None) != new.get("train.epochs", None):
        message += (
            "\nTo train its weights further, start a new run from them, with its own warm-up and "
            f"decay: --config.model.init={workdir} --workdir=NEW. With --force, the learning rate "
            "of this run jumps to its value in the longer or shorter schedule at the next step."
        )
    if not force:
        raise ConfigError(
            f"{message}\nChoose another --workdir, or remove this one to start again. To continue "
            "with the change, add --force."
        )
    log.warning(f"{message}\nContinuing with the change (--force).")

"""Features on disk: a data set that was tokenized before is not tokenized again.

An entry is a directory of .npy files. They are memory-mapped, so all processes of a machine share
one copy, and features may be larger than memory. An entry is named after a hash of everything that
its features depend on, so it is never out of date. It is written under another name and renamed
when it is complete, and its content is verified whenever it is read.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flaxbert import packaged
from flaxbert.data.features import Features, Note
from flaxbert.data.growing import TEMPORARY

log = logging.getLogger("flaxbert")

FORMAT = 2
"""The version of the files of an entry."""

LEAST_TOKENS = 200_000
"""Features with fewer tokens are made in about a second, and not stored."""

UNUSED_DAYS = 30
"""Days after which an entry that no run reads is deleted."""

PARTIAL = ".partial-"
"""The beginning of the name of an entry that is being written."""

GROUPS = ("per_token", "token_indices", "per_sequence")
INDICES = ("lengths", "example_index", "feature_index")
DESCRIPTION = "features.json"


def directory(setting: str | None) -> Path | None:
    """Return the directory of the cache for a value of `data.feature_cache`; None if it is off."""
    if setting is None:
        return None
    if setting != "auto":
        return Path(setting).expanduser()
    home = packaged.cache_home()
    return home / "features" if home else None


def scratch(setting: str | None) -> Path | str:
    """Return the directory for what features of larger data are made from; see `GrowingArrays`."""
    return directory(setting) or TEMPORARY


def load(entry: Path) -> Features | None:
    """Return the features of an entry; None if there is no such entry, or if it is corrupt.

    A corrupt entry is deleted, and a line of the log says so.
    """
    if not entry.is_dir():
        return None
    try:
        features, fingerprint = _read(entry)
        if features.fingerprint() != fingerprint:
            raise ValueError("its content has changed")
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning(f"{entry}: stored features are corrupt ({error}); tokenizing again")
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):  # a cache of another user
        os.utime(entry)  # `delete_unused` goes by this time
    return features


def save(entry: Path, features: Features) -> Features:
    """Store features, unless they are few, and return them memory-mapped.

    If they cannot be stored, a line of the log says so, and the result is `features`.
    """
    if int(features.lengths.sum()) < LEAST_TOKENS:
        return features
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=entry.parent))
        try:
            _write(partial, features)
            partial.chmod(0o755)
            os.rename(partial, entry)
            stored = _read(entry)[0]
        except OSError:
            if not entry.is_dir():
                raise
            stored = load(entry) or features  # another process has stored the same
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        delete_unused(entry.parent)
    except (OSError, EOFError, ValueError) as error:
        log.warning(f"{entry.parent}: features are not stored ({error}); see data.feature_cache")
        return features
    return stored


def _write(partial: Path, features: Features) -> None:
    arrays = {(name, ""): getattr(features, name) for name in INDICES}
    for group in GROUPS:
        arrays |= {(group, name): values for name, values in getattr(features, group).items()}
    numbers = dict[int, int]()  # of files; an array of several names has one
    for values in arrays.values():
        if id(values) not in numbers:
            numbers[id(values)] = len(numbers)
            np.save(partial / f"{numbers[id(values)]}.npy", values, allow_pickle=False)
    text = json.dumps(
        {
            "arrays": [[*names, numbers[id(values)]] for names, values in arrays.items()],
            "truncated": [int(index) for index in features.truncated],
            "unreachable": [[kind, list(r.items())] for kind, r in features.unreachable.items()],
            "dropped": list(features.dropped.items()),
            "notes": list(features.notes),
            "fingerprint": features.fingerprint(),
        }
    )
    checksum = hashlib.sha256(text.encode()).hexdigest()
    (partial / DESCRIPTION).write_text(f"{checksum}\n{text}\n", encoding="utf-8")


def _read(entry: Path) -> tuple[Features, str]:
    """Return the features of an entry, and the fingerprint that they should have.

    Raises:
      OSError, ValueError: for files that are missing or incomplete.
    """
    checksum, _, text = (entry / DESCRIPTION).read_text(encoding="utf-8").partition("\n")
    if hashlib.sha256(text.rstrip("\n").encode()).hexdigest() != checksum:
        raise ValueError(f"{DESCRIPTION} has changed")
    stored: dict[str, Any] = json.loads(text)
    fields: dict[str, Any] = {group: {} for group in GROUPS}
    files = dict[int, np.ndarray]()
    for group, name, number in stored["arrays"]:
        if number not in files:
            # As a plain array: slicing a numpy.memmap is slow.
            mapped = np.lib.format.open_memmap(entry / f"{number}.npy", mode="r")
            files[number] = mapped.view(np.ndarray)
        values = files[number]
        if name:
            fields[group][name] = values
        else:
            fields[group] = values
    features = Features(
        **fields,
        truncated=stored["truncated"],
        unreachable={kind: dict(reasons) for kind, reasons in stored["unreachable"]},
        dropped=dict(stored["dropped"]),
        notes=[Note(*note) for note in stored["notes"]],
    )
    return features, stored["fingerprint"]


def delete_unused(cache: Path) -> None:
    """Delete entries that no run has read for a while, and what a killed process left."""
    for path in cache.iterdir():
        days = 1 if path.name.startswith(PARTIAL) else UNUSED_DAYS
        with contextlib.suppress(OSError):  # another process may have renamed or deleted it
            if path.is_dir() and time.time() - path.stat().st_mtime > days * 24 * 3600:
                shutil.rmtree(path, ignore_errors=True)

"""Local copies of models and runs at URLs: which of their files are fetched."""

import fnmatch
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from flaxbert.data import remote
from flaxbert.errors import WeightsError, some
from flaxbert.pretrained import formats
from flaxbert.runtime.mirror import pointer_name

HUB_FILES = ("*.json", "vocab.txt", "merges.txt", "*.model")
"""Files of a hub repository, or of a directory at a URL, that are fetched with the weights."""
WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
    ("flax_model*.msgpack", "flax_model.msgpack.index.json"),
    ("*.ckpt*",),
)
"""Formats of weights; many repositories have several, and the first one present is fetched."""

RUN_FILES = ("config.json", "results.json")
"""Files of a run that are fetched with its export."""

Names = Mapping[str, remote.File | None]
"""The files in a directory, and its directories, which are None."""


def fetch(url: str, *, everything: bool = False, skeleton: str | None = None) -> Path:
    """Return a local directory with what is read of a model or a run at a URL.

    A run has its configuration, its results, its export, and empty directories with the names of
    its checkpoints.

    Args:
      url: a directory with a model, the workdir of a run, or its export.
      everything: fetch all files of the model, not only those that are read.
      skeleton: a directory of a run that is fetched, with all checkpoints, in place of the export.

    Raises:
      RemoteError: if the directory cannot be fetched.
      WeightsError: if there is neither a model nor a run in it.
    """
    run = url.removesuffix("/export")
    names, export, inside = _with_export(run, deep=everything)
    if run == url and "checkpoints" not in names and formats.CONFIGS.isdisjoint(inside):
        names = remote.tree(url) if everything else names
        return remote.directory_copy(url, _of_model(url, names, everything))
    files = {name: file for name in RUN_FILES if (file := names.get(name))}
    if run != url or (inside and not skeleton):
        exported = _of_model(f"{run}/{export}", inside, everything)
        files |= {f"export/{name}": file for name, file in exported.items()}
    steps = remote.listing(f"{run}/checkpoints") if "checkpoints" in names else {}
    folders = [f"checkpoints/{name}" for name in steps if name.isdecimal()]
    if skeleton and folders:
        for folder in (skeleton, *folders):  # the newest one may not be intact
            found = remote.tree(f"{run}/{_directory(run, names, folder)}")
            files |= {f"{folder}/{name}": file for name, file in found.items()}
    copy = remote.directory_copy(run, files, folders)
    return copy if run == url else copy / "export"


def _with_export(run: str, *, deep: bool) -> tuple[Names, str, Names]:
    """Return the files of a run, the directory of its export, and the files of this, if any."""
    while True:
        names = remote.listing(run)
        export = _directory(run, names, "export")
        inside: Names = {}
        if export in names:
            inside = (remote.tree if deep else remote.listing)(f"{run}/{export}")
        # Before a run writes a new export, it makes the pointer name another directory.
        pointer = pointer_name("export")
        if pointer not in names or names[pointer] == remote.listing(run).get(pointer):
            return names, export, inside


def _directory(run: str, names: Names, name: str) -> str:
    """Return the directory that holds a complete export or skeleton; "" if none does."""
    if (pointer := pointer_name(name)) not in names:
        return name
    content = remote.local_copy(f"{run}/{pointer}").read_text(encoding="utf-8")
    return json.loads(content)["directory"] or ""


def _of_model(url: str, names: Names, everything: bool) -> dict[str, remote.File]:
    """Return the files of a model that are fetched, with the weights of one format.

    Raises:
      WeightsError: if there is no model.
    """
    present = {name: file for name, file in names.items() if file is not None}
    if formats.CONFIGS.isdisjoint(present):
        raise WeightsError(f"{url}: no config.json; it has {some(sorted(names)) or 'no files'}.")

    def matching(patterns: Collection[str]) -> list[str]:
        return [name for name in present if any(fnmatch.fnmatch(name, p) for p in patterns)]

    chosen = next(filter(None, map(matching, WEIGHTS)), [])
    kept = list(present) if everything else [*matching(HUB_FILES), *chosen]
    return {name: present[name] for name in kept}

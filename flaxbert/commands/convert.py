"""Convert a checkpoint to a Hugging Face directory, or inspect its tensors.

usage: flaxbert convert SOURCE DEST [--certify] [--architecture=CLASS] [--revision=REVISION]
       flaxbert convert SOURCE --inspect

for example:
  flaxbert convert runs/squad model --certify

SOURCE is what --config.model.init accepts: a hub id, package://NAME, the workdir of a run, or a
directory with safetensors, pytorch_model.bin, flax_model.msgpack or a TensorFlow checkpoint of
google-research/bert; the last two may be URLs, such as gs://BUCKET/DIR. For an unfinished run, its
newest checkpoint is read. config.json, model.safetensors and the tokenizer are written to DEST.

exit codes:
  0   done
  1   --certify found a difference, or an internal error
  2   bad usage, or a checkpoint that cannot be read or does not fit
"""

import contextlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxbert.commands import failures, help_text
from flaxbert.data.tokenization import has_tokenizer, load_tokenizer, save
from flaxbert.errors import WeightsError, check_local
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, mapping, parity
from flaxbert.pretrained.load import head_of, load_strictly
from flaxbert.pretrained.source import SKELETON, local, resolve, step_beyond_export
from flaxbert.runtime.checkpoint import read_newest
from flaxbert.runtime.files import atomic_directory, nonfinite_to_none
from flaxbert.tasks import regression

log = logging.getLogger("flaxbert")


@contextlib.contextmanager
def open_checkpoint(
    source: str, *, revision: str | None = None, architecture: str | None = None
) -> Iterator[tuple[Path, dict[str, Any], Model]]:
    """Find a checkpoint and build the model that its config.json names.

    Args:
      source: what `config.model.init` accepts.
      revision: branch, tag or commit of a hub id.
      architecture: class of transformers that replaces the one in config.json.

    Raises:
      WeightsError, HubError: see `source.resolve`, `families.read_config`, `head_of`.
    """
    workdir = local(source)
    with tempfile.TemporaryDirectory(prefix="flaxbert-") as temporary:
        exported = (workdir / "export").is_dir() and not step_beyond_export(workdir)
        if (workdir / "checkpoints").is_dir() and not exported:
            workdir = local(source, checkpoint=True)
        if (workdir / SKELETON).is_dir() and not exported:
            directory = Path(temporary)
            export_newest(workdir, directory)
        else:
            directory = resolve(source, revision)
        hf_config = formats.read_config(directory)
        if architecture:
            hf_config["architectures"] = [architecture]
        yield directory, hf_config, Model.create(read_config(hf_config), head_of(hf_config))


def export_newest(workdir: Path, directory: Path) -> None:
    """Write the newest intact checkpoint of an unfinished run as a Hugging Face directory.

    Raises:
      WorkdirError: if there is none.
    """
    step, metadata, arrays = read_newest(workdir / "checkpoints")
    log.info(f"{workdir}: the run has not finished; reading its checkpoint of step {step}")
    shutil.copytree(workdir / SKELETON, directory, dirs_exist_ok=True)
    hf_config = formats.read_config(directory)
    fitted = hf_config.get("flaxbert", {}) | metadata.thresholds
    hf_config |= {"flaxbert": fitted} if fitted else {}
    (directory / "config.json").write_text(json.dumps(hf_config), encoding="utf-8")
    model = Model.create(read_config(hf_config), head_of(hf_config))

    averages = {name.partition("/average/")[2]: array for name, array in arrays.items()}

    def array(path: tuple[Any, ...], _: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        average = averages.get(name)  # see training/optim.py: `train.ema`
        return arrays[f"params/{name}"] if average is None else average

    params = jax.tree_util.tree_map_with_path(array, model.shapes)
    if "scale" in fitted:  # the output layer in a checkpoint predicts standardized numbers
        params = regression.rescaled(params, fitted["scale"], fitted["mean"])
    mapping.save(model, params, directory)


def convert(
    source: str,
    destination: Path,
    *,
    revision: str | None = None,
    architecture: str | None = None,
) -> mapping.LoadReport:
    """Write `source` as a Hugging Face directory.

    Raises:
      ConfigError: if the destination is a URL.
      WeightsError: if the destination is not empty, or a tensor is missing or does not fit.
      OSError: if the destination cannot be written.
    """
    check_local("DEST", destination)
    opened = open_checkpoint(source, revision=revision, architecture=architecture)
    with opened as (directory, hf_config, model):
        destination = destination.resolve()
        _check_new(destination)
        model, params, report = load_strictly(model, directory)
        kept = {key: value for key, value in hf_config.items() if not key.startswith("_")}
        own = {"model_type": model.config.model_type, "architectures": [model.architecture]}
        text = json.dumps(kept | own | {"dtype": "float32"}, indent=2, ensure_ascii=False) + "\n"
        with atomic_directory(destination) as partial:
            mapping.save(model, params, partial)
            (partial / "config.json").write_text(text, encoding="utf-8")
            if has_tokenizer(directory):
                save(load_tokenizer(directory), partial)
            else:
                log.warning(f"{directory}: has no tokenizer, so {destination} has none either")
            if destination.exists():  # fails if another process has written to it meanwhile
                destination.rmdir()
        return report


def _check_new(destination: Path) -> None:
    if destination.exists() and not destination.is_dir():
        raise WeightsError(f"{destination}: is a file; name a new directory.")
    if destination == Path.cwd():
        raise WeightsError(f"{destination}: is the current directory; name a new one.")
    if destination.exists() and any(destination.iterdir()):
        raise WeightsError(f"{destination}: is not empty; name a new directory.")


def inspect(source: str, *, revision: str | None = None, architecture: str | None = None) -> bool:
    """Print every tensor of the checkpoint and the model, and its status.

    Returns:
      Whether the checkpoint can be loaded.
    """
    opened = open_checkpoint(source, revision=revision, architecture=architecture)
    with opened as (directory, _, model):
        _, entries = mapping.match_tensors(model, directory)
    title = Text(str(directory))
    table = Table("in the checkpoint", "here", "shape", "dtype", "status", title=title)
    for entry in entries:
        shape = " x ".join(map(str, entry.shape)) or "scalar"
        name = entry.source or f"({entry.name})"
        row = (name, entry.path or "", shape, entry.dtype, entry.problem or entry.status)
        table.add_row(*map(Text, row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    console.print(table)
    counts = dict.fromkeys(("loaded", "tied", "unused", "ignored", "new", "problem"), 0)
    for entry in entries:
        counts[entry.status] += 1
    sizes = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.shapes))
    console.print(
        f"{model.architecture}, {sizes:,} parameters; "
        + ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    )
    return not counts["problem"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = help_text.parser("convert", __doc__)
    parser.add_argument("source", help="hub id, directory, run, URL, or package://NAME")
    parser.add_argument("destination", nargs="?", type=Path, help="directory to write")
    parser.add_argument("--inspect", action="store_true", help="print every tensor, write nothing")
    parser.add_argument(
        "--certify",
        action="store_true",
        help="compare DEST with transformers' PyTorch model (needs torch); writes parity.json",
    )
    parser.add_argument("--architecture", help="class of transformers, such as BertForMaskedLM")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    given = parser.parse_args(argv)
    if given.destination is None and not given.inspect:
        parser.error("name a DEST, or --inspect")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    chosen = {"revision": given.revision, "architecture": given.architecture}
    try:
        if given.inspect and not inspect(given.source, **chosen):
            return 2
        if given.destination is not None:
            print(convert(given.source, given.destination, **chosen).describe())
            print(f"written: {given.destination}")
            if given.certify:
                certificate = parity.certify(given.destination)
                print(json.dumps(nonfinite_to_none(certificate), indent=2))
                return 0 if certificate["passed"] else 1
    except Exception as error:
        return failures.report(error, str(given.destination))
    return 0

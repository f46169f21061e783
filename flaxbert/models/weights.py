"""Weights between a Hugging Face directory and our parameter tree: one table, both directions.

Reading is strict. Every tensor of the model must be in the file with the right shape, except those
of an output layer that the checkpoint never had; every tensor in the file must be known. All that
is wrong is told in one report, and nothing is re-initialised in silence.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flaxbert.errors import WeightsError
from flaxbert.models.model import Model, Params

# Hugging Face name -> our path, both inside a layer.
LAYER_TABLE = (
    ("attention.self.query.weight", "attention/query/kernel"),
    ("attention.self.query.bias", "attention/query/bias"),
    ("attention.self.key.weight", "attention/key/kernel"),
    ("attention.self.key.bias", "attention/key/bias"),
    ("attention.self.value.weight", "attention/value/kernel"),
    ("attention.self.value.bias", "attention/value/bias"),
    ("attention.output.dense.weight", "attention/output/kernel"),
    ("attention.output.dense.bias", "attention/output/bias"),
    ("attention.output.LayerNorm.weight", "attention_norm/scale"),
    ("attention.output.LayerNorm.bias", "attention_norm/bias"),
    ("intermediate.dense.weight", "intermediate/kernel"),
    ("intermediate.dense.bias", "intermediate/bias"),
    ("output.dense.weight", "output/kernel"),
    ("output.dense.bias", "output/bias"),
    ("output.LayerNorm.weight", "output_norm/scale"),
    ("output.LayerNorm.bias", "output_norm/bias"),
)

# Hugging Face name -> our path. {i} is a layer. A dense `weight` is stored [out, in] there and
# [in, out] here, hence the transposition of every path that ends with `kernel`.
TABLE = (
    ("bert.embeddings.word_embeddings.weight", "bert/embeddings/word/embedding"),
    ("bert.embeddings.position_embeddings.weight", "bert/embeddings/position/embedding"),
    ("bert.embeddings.token_type_embeddings.weight", "bert/embeddings/token_type/embedding"),
    ("bert.embeddings.LayerNorm.weight", "bert/embeddings/norm/scale"),
    ("bert.embeddings.LayerNorm.bias", "bert/embeddings/norm/bias"),
    *((f"bert.encoder.layer.{{i}}.{hf}", f"bert/layers/{{i}}/{ours}") for hf, ours in LAYER_TABLE),
    ("bert.pooler.dense.weight", "head/pooler/kernel"),
    ("bert.pooler.dense.bias", "head/pooler/bias"),
    ("classifier.weight", "head/classifier/kernel"),
    ("classifier.bias", "head/classifier/bias"),
    ("qa_outputs.weight", "head/span/kernel"),
    ("qa_outputs.bias", "head/span/bias"),
    ("cls.predictions.transform.dense.weight", "head/transform/kernel"),
    ("cls.predictions.transform.dense.bias", "head/transform/bias"),
    ("cls.predictions.transform.LayerNorm.weight", "head/transform_norm/scale"),
    ("cls.predictions.transform.LayerNorm.bias", "head/transform_norm/bias"),
    ("cls.predictions.bias", "head/word_bias"),
    ("cls.seq_relationship.weight", "head/next_sentence/kernel"),
    ("cls.seq_relationship.bias", "head/next_sentence/bias"),
)

TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
"""Second names under which some checkpoints store a tensor again; a difference is an error."""

HEAD_PARTS = (
    "bert.pooler.",
    "classifier.",
    "qa_outputs.",
    "cls.predictions.",
    "cls.seq_relationship.",
)
"""Tensors of output layers: unused, not unexpected, when the model at hand has another head.

Each part is in a checkpoint whole or not at all.
"""

IGNORED = ("bert.embeddings.position_ids",)
"""Buffers that older transformers versions stored; they hold 0, 1, 2, ... and are no parameters."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What `load` did with each tensor. Names are Hugging Face's."""

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    """Output-layer tensors that the checkpoint does not hold, initialised from the seed."""
    unused: tuple[str, ...]
    """Tensors of the checkpoint's own output layers, which this model does not have."""

    def describe(self) -> str:
        """One paragraph for the log."""
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        if self.fresh:
            text += f"; new output layer, initialised from the seed: {', '.join(self.fresh)}"
        if self.unused:
            text += f"; unused, of other output layers: {', '.join(self.unused)}"
        return text


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """A nested dict as {"a/b/0/c": leaf}: how this project writes a parameter's path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def hf_names(model: Model) -> dict[str, str]:
    """{our path: Hugging Face name} of every parameter, in our tree's order.

    Raises:
      KeyError: for a parameter that the table does not hold (a fault of the table's).
    """
    by_path = {path: name for name, path in TABLE}
    names = {}
    for path in flatten(model.shapes):
        layer = re.search(r"/layers/(\d+)/", path)
        index = layer.group(1) if layer else ""
        names[path] = by_path[re.sub(r"/layers/\d+/", "/layers/{i}/", path)].format(i=index)
    return names


def canonical(name: str) -> str:
    """One spelling for all that checkpoints use: with the `bert.` prefix, `weight` and `bias`."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    return name


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
      WeightsError: if the file is absent or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path.parent}: no {path.name}; not a model directory?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: expected a JSON object.")
    return value


def safetensors_files(directory: Path) -> list[Path]:
    """The file, or the shards named by `model.safetensors.index.json`."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        files = [directory / Path(shard).name for shard in shards]
        absent = [file.name for file in files if not file.exists()]
        if absent or not files:
            raise WeightsError(f"{index}: shards named there but absent: {absent or 'all'}.")
        return files
    single = directory / "model.safetensors"
    if single.exists():
        return [single]
    found = sorted(file.name for file in directory.iterdir())
    raise WeightsError(
        f"{directory}: no model.safetensors (files there: {', '.join(found) or 'none'}). Convert "
        "other formats once with transformers: AutoModel.from_pretrained(...).save_pretrained(...)."
    )


def read_tensors(directory: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a checkpoint as (name in the file, array)."""
    for file in safetensors_files(directory):
        try:
            with safe_open(file, "numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a dict)
                    yield name, tensors.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(
                f"{file}: not a readable safetensors file ({error}); fetch it again."
            ) from None


def load(
    model: Model, directory: Path, *, seed: int, fresh_head: bool = False
) -> tuple[Params, LoadReport]:
    """Read a Hugging Face directory into the parameters of `model`.

    Args:
      model: what the parameters are for.
      directory: holds `model.safetensors`, or shards and their index.
      seed: initialises an output layer that the checkpoint does not hold.
      fresh_head: initialise the output layer even where the checkpoint holds one (needed when its
        shape differs, as with another number of labels); a pooler is kept, it is pre-trained.

    Returns:
      The parameters as numpy arrays in `param_dtype`, and the report.

    Raises:
      WeightsError: one message naming all missing, unexpected and mis-shaped tensors.
    """
    names = hf_names(model)
    shapes = flatten(model.shapes)
    paths = {name: path for path, name in names.items()}
    found: dict[str, np.ndarray] = {}
    again: dict[str, np.ndarray] = {}
    unused, problems = [], []
    for raw_name, array in read_tensors(directory):
        name = canonical(raw_name)
        path = paths.get(name)
        if name in IGNORED:
            continue
        if name in TIED and "cls.predictions.bias" in paths and not fresh_head:
            again[name] = array
            continue
        renewed = fresh_head and path is not None and path.startswith("head/")
        if path is None or (renewed and not path.startswith("head/pooler/")):
            if name.startswith(HEAD_PARTS):
                unused.append(raw_name)
            else:
                problems.append(f"unexpected: {raw_name} {list(array.shape)}")
            continue
        if path in found:
            problems.append(f"twice, under two spellings: {raw_name}")
            continue
        array = array.T if path.endswith("kernel") else array
        if array.shape != shapes[path].shape:
            want = shapes[path].shape[::-1] if path.endswith("kernel") else shapes[path].shape
            have = array.T.shape if path.endswith("kernel") else array.shape
            problems.append(f"mis-shaped: {raw_name} is {list(have)}, the model has {list(want)}")
        elif array.dtype.kind not in "fV":  # V: bfloat16 of ml_dtypes
            problems.append(f"not floating point: {raw_name} is {array.dtype}")
        found[path] = array.astype(shapes[path].dtype)

    for name, array in again.items():
        path = paths[TIED[name]]
        if array.shape != shapes[path].shape:
            want = list(shapes[path].shape)
            problems.append(f"mis-shaped: {name} is {list(array.shape)}, the model has {want}")
            continue
        array = array.astype(shapes[path].dtype)
        if not np.array_equal(found.setdefault(path, array), array):
            problems.append(f"not tied: {name} differs from {TIED[name]}")
    missing = [path for path in names if path not in found]
    fresh = [path for path in missing if path.startswith("head/")]
    for path in missing:
        parts = [part for part in HEAD_PARTS if names[path].startswith(part)]
        half_there = any(names[other].startswith(part) for other in found for part in parts)
        if half_there or not path.startswith("head/"):
            problems.append(f"missing: {names[path]} {list(shapes[path].shape)}")
    if problems:
        if any("mis-shaped: classifier" in problem for problem in problems):
            problems.append(
                "(a classifier for other labels? --config.model.fresh_head=true starts a new one)"
            )
        raise WeightsError(
            f"{directory}: {len(problems)} problems with the checkpoint's tensors:\n  "
            + "\n  ".join(problems)
        )
    if fresh:
        head = flatten({"head": model.init_head(seed)})
        found |= {path: np.asarray(head[path]) for path in fresh}
    params = jax.tree.unflatten(jax.tree.structure(model.shapes), [found[path] for path in names])
    report = LoadReport(
        source=str(directory),
        loaded=tuple(names[path] for path in names if path not in fresh),
        fresh=tuple(names[path] for path in fresh),
        unused=tuple(unused),
    )
    return params, report


def save(model: Model, params: Params, directory: Path) -> None:
    """Write `params` as `model.safetensors`, in transformers' names and layout."""
    names = hf_names(model)
    bare = model.architecture == "BertModel"  # the bare encoder is stored without its prefix
    tensors = {}
    for path, array in flatten(params).items():
        array = np.asarray(array)
        array = array.T if path.endswith("kernel") else array
        name = names[path].removeprefix("bert.") if bare else names[path]
        tensors[name] = np.ascontiguousarray(array)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

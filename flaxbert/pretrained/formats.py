"""The file formats of checkpoints. All are read into (name, array) pairs with PyTorch's names.

| format | files | read with |
|---|---|---|
| safetensors of PyTorch or Flax | model.safetensors, or shards and an index | safetensors |
| PyTorch | pytorch_model.bin, or shards and an index | torch (extra `torch`), weights only |
| Flax of transformers 4 | flax_model.msgpack, or shards and an index | flax |
| TensorFlow of google-research | bert_model.ckpt.index and .data-* | tensorflow (extra) |

Kernels are returned as PyTorch stores them, [O, I], whatever the layout of the file.
"""

import dataclasses
import importlib
import json
import logging
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np
from safetensors import SafetensorError, safe_open

from flaxbert.errors import WeightsError, some
from flaxbert.pretrained import unsupported

log = logging.getLogger("flaxbert")

Tensors = Iterator[tuple[str, np.ndarray]]
Keys = tuple[str, ...]

ORIGINAL_CONFIG = "bert_config.json"
"""The config.json of google-research/bert: the same keys, without model_type and architectures."""

CONFIGS = {"config.json", ORIGINAL_CONFIG}
"""Names of the file that makes a directory a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format of tensors."""

    name: str
    file: str
    """Name of a single file; shards are listed in `FILE.index.json`."""
    read: Callable[[Path], Tensors]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Raises:
      WeightsError: if the file is missing or does not hold a JSON object.
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


def is_checkpoint(directory: Path) -> bool:
    """Return whether a directory has the configuration of a model."""
    return any((directory / name).is_file() for name in CONFIGS)


def read_config(directory: Path) -> dict[str, Any]:
    """Return the config.json of a checkpoint, or its bert_config.json of google-research/bert.

    Raises:
      WeightsError: if there is neither, if it is not a JSON object, or if its labels are not
        numbered from 0 without gaps.
    """
    file = directory / "config.json"
    if file.is_file() or not (directory / ORIGINAL_CONFIG).is_file():
        if not file.is_file() and (reason := unsupported.explain(directory)):
            raise WeightsError(f"{directory}: no config.json: {reason}.")
        config = read_json(file)
        if reason := unsupported.quantized(config):
            raise WeightsError(f"{directory}: {reason}.")
        return config | _label_names(config, file)
    # The published checkpoints have the heads of both pre-training tasks.
    architecture = {"model_type": "bert", "architectures": ["BertForPreTraining"]}
    return architecture | read_json(directory / ORIGINAL_CONFIG)


def _label_names(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return `id2label` with sorted keys, made from `label2id` if that is the only one."""
    names, label2id = config.get("id2label"), config.get("label2id")
    try:
        numbers = {str(name): int(number) for name, number in (label2id or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise WeightsError(
            f"{file}: label2id is not of the form {{NAME: 0, NAME: 1, ...}}."
        ) from None
    if names:
        if not isinstance(names, dict) or not all(map(str.isdecimal, names)):
            raise WeightsError(
                f'{file}: id2label is not of the form {{"0": NAME, "1": NAME, ...}}.'
            )
        names = {int(number): name for number, name in names.items()}
        _without_gaps(names, "id2label", file)
        for number, name in names.items():
            if (other := numbers.get(str(name), number)) != number:
                log.warning(
                    f"{file}: {name!r} is {number} in id2label, but {other} in label2id; using "
                    "id2label. If predictions have the wrong names, correct id2label."
                )
                break
    elif numbers:
        names = {number: name for name, number in numbers.items()}
        _without_gaps(names, "label2id", file)
    else:
        return {}
    return {"id2label": {str(number): names[number] for number in sorted(names)}}


def _without_gaps(names: Mapping[int, str], key: str, file: Path) -> None:
    gap = next((number for number in range(len(names)) if number not in names), None)
    if gap is not None:
        raise WeightsError(
            f"{file}: {key} has no label {gap}, though it has {max(names)}; the outputs of the "
            f"output layer are numbered from 0 without gaps. Correct the numbers in {key}."
        )


def detect(directory: Path) -> tuple[Format, list[Path]]:
    """Return the format of a checkpoint and its files; of several formats, the first in `FORMATS`.

    Raises:
      WeightsError: if there are no weights, or if shards are missing or were not downloaded.
    """
    detected, files = _detect(directory)
    for file in files:
        if file.is_file() and unsupported.lfs_pointer(file):
            raise WeightsError(
                f"{file}: a Git LFS pointer, not the weights; download them: git lfs pull"
            )
    if (directory / "adapter_config.json").is_file():
        log.warning(
            f"{directory}: ignoring the adapter (adapter_config.json) next to the weights. If it "
            "is not merged into them yet, merge it with peft's merge_and_unload()."
        )
    return detected, files


def _detect(directory: Path) -> tuple[Format, list[Path]]:
    for file_format in FORMATS:
        # A single file has precedence over shards, as in transformers.
        if (directory / file_format.file).exists():
            return file_format, [directory / file_format.file]
        index = directory / f"{file_format.file}.index.json"
        if index.exists():
            return file_format, _shards(index)
    checkpoints = sorted(directory.glob("*.ckpt*.index"))
    if len(checkpoints) == 1:
        return TENSORFLOW, [checkpoints[0].with_suffix("")]
    if checkpoints:
        stems = some([checkpoint.stem for checkpoint in checkpoints])
        raise WeightsError(f"{directory}: several TensorFlow checkpoints ({stems}); keep one.")
    names = sorted(file.name for file in directory.iterdir())
    present = some(names) or "none"
    known = ", ".join(file_format.file for file_format in (*FORMATS, TENSORFLOW))
    if reason := unsupported.explain(directory):
        raise WeightsError(f"{directory}: no weights ({known}): {reason}. Files there: {present}.")
    raise WeightsError(f"{directory}: no weights ({known}); files there: {present}.")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map", {})
    values = weight_map.values() if isinstance(weight_map, dict) else [None]
    if not all(isinstance(file, str) for file in values):
        raise WeightsError(f"{index}: weight_map does not name a file for each tensor.")
    files = [index.parent / Path(shard).name for shard in sorted(set(values))]
    missing = [file.name for file in files if not file.exists()]
    if missing or not files:
        raise WeightsError(
            f"{index}: missing shards: {some(missing) or 'all'}. Download them to this directory."
        )
    return files


def read_tensors(directory: Path) -> Tensors:
    """Yield every tensor of a checkpoint as (name, array).

    Raises:
      WeightsError: if there are no weights, if they are corrupt, or if reading them could run code.
    """
    detected, files = detect(directory)
    for file in files:
        yield from detected.read(file)


def _corrupt(file: Path, what: str, error: Exception) -> WeightsError:
    reason = str(error).strip().split("\n")[0]
    return WeightsError(f"{file}: not a readable {what} file ({reason}); download it again.")


def _quantized(file: Path, name: str, dtype: str) -> WeightsError:
    return WeightsError(
        f"{file}: {name} is {dtype}, as in quantized models; flaxbert reads float32, float16 and "
        "bfloat16. Use the model that it was quantized from."
    )


def _read_safetensors(file: Path) -> Tensors:
    try:
        with safe_open(file, "numpy") as tensors:
            flax_names = (tensors.metadata() or {}).get("format") == "flax"
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                try:
                    value = tensors.get_tensor(name)
                except AttributeError:  # a dtype that numpy does not have
                    raise _quantized(file, name, tensors.get_slice(name).get_dtype()) from None
                yield _as_pytorch(tuple(name.split(".")), value) if flax_names else (name, value)
    except SafetensorError as error:
        raise _corrupt(file, "safetensors", error) from None


def _optional(module: str, extra: str, file: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise WeightsError(
            f"{file}: reading this format needs {module}. Install it "
            f"(python -m pip install 'flaxbert[{extra}]') or use a safetensors checkpoint."
        ) from None


def _read_pytorch(file: Path) -> Tensors:
    """Yield the tensors of a pickle, which could run code without `weights_only`."""
    torch = _optional("torch", "torch", file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported" not in str(error).lower():  # torch's message for anything but tensors
            raise _corrupt(file, "PyTorch", error) from None
        raise WeightsError(
            f"{file}: not read, because it holds more than tensors and could run code. Ask its "
            "author for model.safetensors."
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise _corrupt(file, "PyTorch", error) from None
    if not isinstance(state, Mapping):
        raise WeightsError(f"{file}: holds a {type(state).__name__}, not tensors by name.")
    if key := next((key for key in STATE_DICT_KEYS if isinstance(state.get(key), Mapping)), None):
        log.info(f"{file}: reading the weights under {key!r} and ignoring the rest")
        state = state[key]
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsError(
                f"{file}: {name!r} is a {type(tensor).__name__}, not a tensor; save only "
                "model.state_dict()."
            )
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 2:
            raise _quantized(file, name, str(tensor.dtype).removeprefix("torch."))
        # numpy has no bfloat16; float32 represents its values exactly.
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        yield str(name), tensor.detach().numpy()  # parameters are detached, tensors already are


STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training loops, such as Lightning's, store the tensors of a model."""

FLAX_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight"}


def _read_flax(file: Path) -> Tensors:
    try:
        tree = flax.serialization.msgpack_restore(file.read_bytes())
    except Exception as error:  # msgpack and numpy raise many types for corrupt bytes
        raise _corrupt(file, "flax_model.msgpack", error) from None
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{file}: holds a {type(tree).__name__}, not parameters by name.")
    for path, value in _leaves(tree):
        yield _as_pytorch(path, np.asarray(value))


def _as_pytorch(path: Keys, value: np.ndarray) -> tuple[str, np.ndarray]:
    *module, leaf = path
    return ".".join([*module, FLAX_LEAVES.get(leaf, leaf)]), _as_pytorch_layout(leaf, value)


def _leaves(tree: Mapping[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _as_pytorch_layout(leaf: str, value: np.ndarray) -> np.ndarray:
    """Return a kernel [I, O] of Flax or TensorFlow as [O, I], others as they are."""
    return value.T if leaf == "kernel" and value.ndim == 2 else value


# Parts of google-research/bert's names that differ from PyTorch's.
TENSORFLOW_NAMES = (
    (r"/layer_(\d+)/", r"/layer/\1/"),
    (r"_embeddings$", "_embeddings/weight"),
    (r"^cls/predictions/output_bias$", "cls/predictions/bias"),
    (r"^cls/squad/output_(weights|bias)$", r"qa_outputs/\1"),  # run_squad.py
    (r"^output_(weights|bias)$", r"classifier/\1"),  # run_classifier.py
    (r"/output_(weights|bias)$", r"/\1"),
    (r"/(weights|kernel|gamma)$", "/weight"),
    (r"/beta$", "/bias"),
)
TRAINING_STATE = re.compile(r"(^|/)(adam_[mv]|global_step|good_steps|bad_steps|loss_scale)(/|$)")


def _read_tensorflow(prefix: Path) -> Tensors:
    tensorflow = _optional("tensorflow", "tensorflow", prefix)
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())
        for variable in names:
            if TRAINING_STATE.search(variable):
                continue
            name = variable
            for pattern, replacement in TENSORFLOW_NAMES:
                name = re.sub(pattern, replacement, name)
            value = np.asarray(reader.get_tensor(variable))
            yield name.replace("/", "."), _as_pytorch_layout(variable.rsplit("/", 1)[-1], value)
    except (tensorflow.errors.OpError, ValueError, RuntimeError) as error:
        raise _corrupt(prefix, "TensorFlow checkpoint", error) from None


FORMATS = (
    Format("safetensors", "model.safetensors", _read_safetensors),
    Format("PyTorch", "pytorch_model.bin", _read_pytorch),
    Format("Flax", "flax_model.msgpack", _read_flax),
)
TENSORFLOW = Format("TensorFlow", "bert_model.ckpt", _read_tensorflow)

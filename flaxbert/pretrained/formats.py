"""The file formats of checkpoints, all read into (name, array) pairs under PyTorch's names.

| format | files | read with |
|---|---|---|
| safetensors, of PyTorch or Flax | model.safetensors, or shards and their index | safetensors |
| PyTorch | pytorch_model.bin, or shards and their index | torch (extra `torch`), weights only |
| Flax of transformers 4 | flax_model.msgpack, or shards and their index | flax |
| TensorFlow of google-research | bert_model.ckpt.index and .data-* | tensorflow (extra) |

Dense layers come as PyTorch stores them, [out, in], whatever the file's own layout.
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
"""Of google-research/bert; its keys are those of transformers, without the architecture's."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A way to store tensors."""

    name: str
    file: str
    """Of a checkpoint in one file; `FILE.index.json` names the shards of one in several."""
    read: Callable[[Path], Tensors]


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


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory holds the configuration of a model."""
    return any((directory / name).is_file() for name in ("config.json", ORIGINAL_CONFIG))


def read_config(directory: Path) -> dict[str, Any]:
    """A checkpoint's config.json; of google-research/bert, bert_config.json in its place.

    Raises:
      WeightsError: if there is neither, it is not a JSON object, or label names have no order.
    """
    file = directory / "config.json"
    if file.is_file() or not (directory / ORIGINAL_CONFIG).is_file():
        if not file.is_file() and (reason := unsupported.explain(directory)):
            raise WeightsError(f"{directory}: no config.json: {reason}.")
        config = read_json(file)
        if reason := unsupported.quantized(config):
            raise WeightsError(f"{directory}: {reason}.")
        return config | _label_names(config, file)
    # The published checkpoints are of both pre-training tasks.
    own = {"model_type": "bert", "architectures": ["BertForPreTraining"]}
    return own | read_json(directory / ORIGINAL_CONFIG)


def _label_names(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """`id2label`, made from `label2id` where that stands alone."""
    names, numbers = config.get("id2label"), config.get("label2id")
    try:
        numbers = {str(name): int(number) for name, number in (numbers or {}).items()}
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
                    f"{file}: id2label says that {number} is {name!r}, label2id that {name!r} is "
                    f"{other}; id2label counts. If predictions come out under the wrong names, "
                    "correct it."
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
            f"{file}: {key} has no label {gap}, though it has {max(names)}; an output layer's rows "
            f"are numbered from 0 without gaps. Correct the numbers in {key}."
        )


def detect(directory: Path) -> tuple[Format, list[Path]]:
    """The format of a checkpoint and its files; of several formats the first of `FORMATS`.

    Raises:
      WeightsError: if there is none, or shards are absent or not fetched.
    """
    found, files = _detect(directory)
    for file in files:
        if file.is_file() and unsupported.lfs_pointer(file):
            raise WeightsError(
                f"{file}: a pointer of Git LFS, not the weights; fetch them: git lfs pull"
            )
    if (directory / "adapter_config.json").is_file():
        log.warning(
            f"{directory}: holds an adapter too (adapter_config.json), which is left out. If it is "
            "not merged into the weights: peft's merge_and_unload() does it."
        )
    return found, files


def _detect(directory: Path) -> tuple[Format, list[Path]]:
    for each in FORMATS:
        # A file of all tensors counts before shards, as in transformers.
        if (directory / each.file).exists():
            return each, [directory / each.file]
        index = directory / f"{each.file}.index.json"
        if index.exists():
            return each, _shards(index)
    checkpoints = sorted(directory.glob("*.ckpt*.index"))
    if len(checkpoints) == 1:
        return TENSORFLOW, [checkpoints[0].with_suffix("")]
    if checkpoints:
        stems = some([each.stem for each in checkpoints])
        raise WeightsError(f"{directory}: several TensorFlow checkpoints ({stems}); keep one.")
    names = sorted(file.name for file in directory.iterdir())
    present = some(names) or "none"
    known = ", ".join(each.file for each in (*FORMATS, TENSORFLOW))
    if reason := unsupported.explain(directory):
        raise WeightsError(f"{directory}: no weights ({known}): {reason}. Files there: {present}.")
    raise WeightsError(f"{directory}: no weights ({known}); files there: {present}.")


def _shards(index: Path) -> list[Path]:
    named = read_json(index).get("weight_map", {})
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise WeightsError(f"{index}: weight_map does not name a file for each tensor.")
    files = [index.parent / Path(shard).name for shard in sorted(set(named.values()))]
    absent = [file.name for file in files if not file.exists()]
    if absent or not files:
        raise WeightsError(
            f"{index}: shards named there but absent: {some(absent) or 'all'}. Fetch them too."
        )
    return files


def read_tensors(directory: Path) -> Tensors:
    """Every tensor of a checkpoint as (name, array).

    Raises:
      WeightsError: if there is none, it is damaged, or it could run code.
    """
    found, files = detect(directory)
    for file in files:
        yield from found.read(file)


def _damaged(file: Path, what: str, error: Exception) -> WeightsError:
    reason = str(error).strip().split("\n")[0]
    return WeightsError(f"{file}: not a readable {what} file ({reason}); fetch it again.")


def _narrow(file: Path, name: str, dtype: str) -> WeightsError:
    return WeightsError(
        f"{file}: {name} is {dtype}, a quantised model's; flaxbert reads float32, float16 and "
        "bfloat16. Fetch the model before it was quantised."
    )


def _read_safetensors(file: Path) -> Tensors:
    try:
        with safe_open(file, "numpy") as tensors:
            flax_names = (tensors.metadata() or {}).get("format") == "flax"
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                try:
                    value = tensors.get_tensor(name)
                except AttributeError:  # a dtype that numpy lacks
                    raise _narrow(file, name, tensors.get_slice(name).get_dtype()) from None
                yield _as_pytorch(tuple(name.split(".")), value) if flax_names else (name, value)
    except SafetensorError as error:
        raise _damaged(file, "safetensors", error) from None


def _optional(module: str, extra: str, file: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise WeightsError(
            f"{file}: reading this format needs {module}: "
            f"python -m pip install 'flaxbert[{extra}]', or give the checkpoint as safetensors."
        ) from None


def _read_pytorch(file: Path) -> Tensors:
    """A pickle may run code when it is read; `weights_only` lets torch build tensors alone."""
    torch = _optional("torch", "torch", file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported" not in str(error).lower():  # torch's word for all but tensors
            raise _damaged(file, "PyTorch", error) from None
        raise WeightsError(
            f"{file}: holds more than tensors, and reading it could run code; refused. Ask its "
            "author for model.safetensors."
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise _damaged(file, "PyTorch", error) from None
    if not isinstance(state, Mapping):
        raise WeightsError(f"{file}: holds a {type(state).__name__}, not tensors by name.")
    if key := next((key for key in NESTED if isinstance(state.get(key), Mapping)), None):
        log.info(f"{file}: the weights are those under {key!r}; the rest is left out")
        state = state[key]
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsError(
                f"{file}: {name!r} is a {type(tensor).__name__}, not a tensor; store "
                "model.state_dict() alone."
            )
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 2:
            raise _narrow(file, name, str(tensor.dtype).removeprefix("torch."))
        # numpy knows no bfloat16; its values are float32's.
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        yield str(name), tensor.detach().numpy()  # parameters are detached, tensors already are


NESTED = ("state_dict", "model_state_dict", "model")
"""Keys that training loops, such as Lightning's, put a model's tensors under."""

FLAX_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight"}


def _read_flax(file: Path) -> Tensors:
    try:
        tree = flax.serialization.msgpack_restore(file.read_bytes())
    except Exception as error:  # msgpack and numpy raise many types for damaged bytes
        raise _damaged(file, "flax_model.msgpack", error) from None
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{file}: holds a {type(tree).__name__}, not parameters by name.")
    for path, value in _leaves(tree):
        yield _as_pytorch(path, np.asarray(value))


def _as_pytorch(path: Keys, value: np.ndarray) -> tuple[str, np.ndarray]:
    *module, leaf = path
    return ".".join([*module, FLAX_LEAVES.get(leaf, leaf)]), _as_stored(leaf, value)


def _leaves(tree: Mapping[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _as_stored(leaf: str, value: np.ndarray) -> np.ndarray:
    """Kernels are [in, out] in Flax and TensorFlow, [out, in] in PyTorch."""
    return value.T if leaf == "kernel" and value.ndim == 2 else value


# Parts of google-research/bert's names that are not spelled as PyTorch's.
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
        for theirs in names:
            if TRAINING_STATE.search(theirs):
                continue
            name = theirs
            for pattern, ours in TENSORFLOW_NAMES:
                name = re.sub(pattern, ours, name)
            value = np.asarray(reader.get_tensor(theirs))
            yield name.replace("/", "."), _as_stored(theirs.rsplit("/", 1)[-1], value)
    except (tensorflow.errors.OpError, ValueError, RuntimeError) as error:
        raise _damaged(prefix, "TensorFlow checkpoint", error) from None


FORMATS = (
    Format("safetensors", "model.safetensors", _read_safetensors),
    Format("PyTorch", "pytorch_model.bin", _read_pytorch),
    Format("Flax", "flax_model.msgpack", _read_flax),
)
TENSORFLOW = Format("TensorFlow", "bert_model.ckpt", _read_tensorflow)

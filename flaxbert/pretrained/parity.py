"""The parity certificate: one batch run through transformers' PyTorch model and through flaxbert's.

A tolerance t means max|a - b| <= t * max|b| for each tensor. For a gradient, the scale is at least
1e-4 of the norm of all gradients together. A difference below float32's epsilon of that norm counts
as rounding, because some gradients are exactly zero (the bias of attention keys has no effect).
Needs torch (extra `torch`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.errors import WeightsError
from flaxbert.models.heads import Head, NoHead
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.load import from_pretrained
from flaxbert.runtime.files import write_json
from flaxbert.types import Params

log = logging.getLogger("flaxbert")

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE, GRADIENT_FLOOR = 1e-5, 1e-4, 1e-4
EPSILON = float(np.finfo(np.float32).eps)
FILE = "parity.json"

Arrays = dict[str, np.ndarray]


def certify(
    directory: Path, *, rows: int = 4, length: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compare a Hugging Face directory in both libraries, and write `parity.json` into it.

    Args:
      directory: a checkpoint that transformers can load.
      rows: number of rows of random tokens; each row is shorter than the previous one.
      length: tokens of the first row; by default 64, or twice the window of local attention, so
        that there are tokens outside it.
      seed: for the tokens, and for the weights of the sum that is differentiated.

    Returns:
      The content of `parity.json`: versions; the largest absolute and relative difference of hidden
      states, of each output, and of all gradients; and `passed`.

    Raises:
      WeightsError: if torch is missing, or if a library cannot load the directory.
    """
    try:
        import torch
    except ImportError:
        raise WeightsError(
            "the parity certificate needs torch: python -m pip install 'flaxbert[torch]'"
        ) from None
    import transformers

    model, params = from_pretrained(str(directory))
    hf_config = formats.read_config(directory)
    length = length or max(64, 2 * getattr(model.config, "local_attention", 0))
    # Without this option, transformers would add a random pooler to an encoder that has none.
    family_has_pooler = model.head is NoHead and model.family.heads["Model"]
    options = {"add_pooling_layer": False} if family_has_pooler else {}
    torch_model = getattr(transformers, model.architecture).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", **options
    )
    batch = random_batch(model, hf_config, rows, min(length, model.config.max_positions), seed)
    mask = batch["attention_mask"]
    # A TPU multiplies float32 in bfloat16 passes by default.
    with jax.default_matmul_precision("highest"):
        ours, gradients = our_outputs(model, params, batch, seed)
    expected, expected_gradients = torch_outputs(torch_model.eval(), model.head, batch, seed)
    certificate: dict[str, Any] = {
        "architecture": model.architecture,
        "versions": {
            "jax": jax.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "platform": jax.devices()[0].platform,
        "batch": {"rows": rows, "length": int(mask.shape[1]), "seed": seed},
        "tolerance": {"outputs": OUTPUT_TOLERANCE, "gradients": GRADIENT_TOLERANCE},
        "outputs": {},
    }
    for name, values in expected.items():
        a, b = ours[name], values
        if b.shape[:2] == mask.shape:  # outputs of padding are meaningless
            a, b = a[mask > 0], b[mask > 0]
        certificate["outputs"][name] = difference(a, b, float(np.abs(b).max()))
    certificate["gradients"] = _worst_gradient(model, gradients, expected_gradients)
    certificate["passed"] = bool(
        all(d["relative"] <= OUTPUT_TOLERANCE for d in certificate["outputs"].values())
        and certificate["gradients"]["relative"] <= GRADIENT_TOLERANCE
    )
    write_json(directory / FILE, certificate)
    return certificate


def difference(a: np.ndarray, b: np.ndarray, scale: float) -> dict[str, float]:
    """Return the largest difference, absolute and as a share of `scale`."""
    largest = float(np.max(np.abs(a.astype(np.float64) - b)))
    return {"absolute": largest, "relative": largest / max(scale, 1e-30)}


def random_batch(
    model: Model, hf_config: Mapping[str, Any], rows: int, length: int, seed: int
) -> Arrays:
    """Return `input_ids`, `attention_mask` and `token_type_ids`, each [rows, length]."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(2, length - np.arange(rows)[:, None] * max(1, length // (rows + 1)))
    mask = (np.arange(length) < lengths).astype(np.int64)
    offset = model.config.position_offset  # RoBERTa's, which follows the id of padding
    padding = offset - 1 if offset else hf_config.get("pad_token_id") or 0
    ids = rng.integers(0, model.config.vocab_size, (rows, length))
    ids = np.where(ids == padding, (padding + 1) % model.config.vocab_size, ids)
    has_types = getattr(model.config, "type_vocab_size", 0) > 1
    token_types = (np.arange(length) > length // 3) * mask * has_types
    return {
        "input_ids": np.where(mask > 0, ids, padding),
        "attention_mask": mask,
        "token_type_ids": token_types,
    }


def weighted_sum(
    outputs: Mapping[str, Any], mask: np.ndarray, seed: int, to: Callable[..., Any]
) -> Any:
    """Return a scalar to differentiate: the sum of outputs times random numbers, without padding.

    `to` converts a numpy array to one of the outputs' library.
    """
    total = 0.0
    for index, name in enumerate(sorted(outputs)):
        values = outputs[name]
        factors = np.random.default_rng((seed, index)).standard_normal(tuple(values.shape))
        if factors.shape[:2] == mask.shape:
            factors *= mask.reshape(*mask.shape, *[1] * (factors.ndim - 2))
        total = total + (values * to(factors.astype(np.float32))).sum()
    return total


def our_outputs(
    model: Model, params: Params, batch: Arrays, seed: int
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """Return our outputs, and the gradients of their weighted sum by names of transformers."""

    def total(params: Params) -> tuple[Array, dict[str, Array]]:
        outputs = dict(model(params, {name: jnp.asarray(array) for name, array in batch.items()}))
        if "mlm_logits" in outputs:  # sorted by position
            order = jnp.argsort(outputs.pop("masked_positions"), axis=1)[..., None]
            outputs["mlm_logits"] = jnp.take_along_axis(outputs["mlm_logits"], order, axis=1)
        return weighted_sum(outputs, batch["attention_mask"], seed, jnp.asarray), outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    names = mapping.hf_names(model)
    by_name = {}
    for path, value in mapping.flatten(gradients).items():
        array = np.asarray(value)
        by_name[names[path]] = array.T if path.endswith("kernel") else array
    return {name: np.asarray(value) for name, value in outputs.items()}, by_name


def torch_outputs(module: Any, head: type[Head], batch: Arrays, seed: int) -> tuple[Arrays, Arrays]:
    """Return a transformers module's outputs by our names, and its gradients by its own."""
    import torch

    outputs = torch_forward(module, head, batch)
    module.zero_grad()
    weighted_sum(outputs, batch["attention_mask"], seed, torch.tensor).backward()
    gradients = {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy()
        for name, p in module.named_parameters()
    }
    return {name: value.detach().numpy() for name, value in outputs.items()}, gradients


def torch_forward(module: Any, head: type[Head], batch: Arrays) -> dict[str, Any]:
    """Return a transformers module's outputs by our names and in our shapes."""
    import torch

    inputs = {name: torch.tensor(value) for name, value in batch.items()}
    if not getattr(module.config, "type_vocab_size", 0):
        del inputs["token_type_ids"]
    if head.hf_rows_are_choices:
        inputs = {name: value[None] for name, value in inputs.items()}
    made = module(**inputs, output_hidden_states=True)
    rows, length = batch["input_ids"].shape
    hidden = made.last_hidden_state if head.is_bare else made.hidden_states[-1]
    outputs = {"hidden_states": hidden.reshape(rows, length, -1)}
    for name, hf_names in head.hf_token_outputs.items():
        outputs[name] = _first_present(made, hf_names)
    for name, hf_names in head.hf_sequence_outputs.items():
        outputs[name] = _first_present(made, hf_names).reshape(rows, 1, -1)
    return outputs


def _first_present(outputs: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next(outputs[name] for name in names if outputs.get(name) is not None)


def _worst_gradient(model: Model, ours: Arrays, expected: Arrays) -> dict[str, Any]:
    norm = float(np.sqrt(sum(float(np.vdot(value, value)) for value in expected.values())))
    worst: dict[str, Any] = {"tensor": "", "absolute": 0.0, "relative": 0.0}
    for name, value in expected.items():
        full_name = mapping.canonical(name, model.family)
        if model.config.tie_word_embeddings:
            full_name = model.family.tied.get(full_name, full_name)
        # The outputs do not depend on a tensor that is not in `ours`.
        gradient = ours.get(full_name, np.zeros_like(value))
        scale = max(float(np.abs(value).max()), GRADIENT_FLOOR * norm)
        error = difference(gradient, value, scale)
        is_rounding = error["absolute"] <= EPSILON * norm
        if error["relative"] >= worst["relative"] and not is_rounding:
            worst = {"tensor": full_name, **error}
    return worst

"""The parity certificate: the same batch through transformers' PyTorch model and through ours.

Tolerance t means max|a - b| <= t * max|b| for each tensor; for a gradient the scale is at least
1e-4 of the norm of all gradients together, and a difference below float32's epsilon of that norm is
rounding, since some gradients are zero in truth (the attention key's bias has no effect).
Needs torch (extra `torch`).
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.errors import WeightsError
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.load import from_pretrained
from flaxbert.runtime.files import write_json
from flaxbert.types import Params

log = logging.getLogger("flaxbert")

OUTPUTS, GRADIENTS, FLOOR = 1e-5, 1e-4, 1e-4
EPSILON = float(np.finfo(np.float32).eps)
FILE = "parity.json"

Arrays = dict[str, np.ndarray]


def certify(
    directory: Path, *, rows: int = 4, length: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compare a Hugging Face directory in both libraries, and write `parity.json` into it.

    Args:
      directory: a checkpoint that transformers can load.
      rows: of a batch of random tokens, each but the first shorter than the one before.
      length: tokens of the first row; by default 64, or twice the window of local attention, so
        that there are tokens outside it.
      seed: of the tokens, and of the weights of the sum that is differentiated.

    Returns:
      What was written: versions, and for hidden states, each output and all gradients the largest
      absolute and relative difference; `passed`.

    Raises:
      WeightsError: without torch, or if one of the libraries cannot load the directory.
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
    kind = model.kind
    length = length or max(64, 2 * getattr(model.config, "local_attention", 0))
    # A pooler that is in neither file nor model is one that transformers would make up.
    without = kind == "Model" and model.family.heads[kind] and "head" not in params
    options = {"add_pooling_layer": False} if without else {}
    theirs = getattr(transformers, model.architecture).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", **options
    )
    batch = random_batch(model, hf_config, rows, min(length, model.config.positions), seed)
    mask = batch["attention_mask"]
    # A TPU multiplies float32 in bfloat16 passes unless it is told not to.
    with jax.default_matmul_precision("highest"):
        ours, gradients = our_outputs(model, params, batch, seed)
    expected, their_gradients = torch_outputs(theirs.eval(), kind, batch, seed)
    found: dict[str, Any] = {
        "architecture": model.architecture,
        "versions": {
            "jax": jax.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "platform": jax.devices()[0].platform,
        "batch": {"rows": rows, "length": int(mask.shape[1]), "seed": seed},
        "tolerance": {"outputs": OUTPUTS, "gradients": GRADIENTS},
        "outputs": {},
    }
    for name, values in expected.items():
        a, b = ours[name], values
        if b.shape[:2] == mask.shape:  # a padding's outputs mean nothing
            a, b = a[mask > 0], b[mask > 0]
        found["outputs"][name] = difference(a, b, float(np.abs(b).max()))
    found["gradients"] = _worst_gradient(model, gradients, their_gradients)
    found["passed"] = bool(
        all(each["relative"] <= OUTPUTS for each in found["outputs"].values())
        and found["gradients"]["relative"] <= GRADIENTS
    )
    write_json(directory / FILE, found)
    return found


def difference(a: np.ndarray, b: np.ndarray, scale: float) -> dict[str, float]:
    """Largest difference, absolute and as a share of `scale`."""
    largest = float(np.max(np.abs(a.astype(np.float64) - b)))
    return {"absolute": largest, "relative": largest / max(scale, 1e-30)}


def random_batch(
    model: Model, hf_config: Mapping[str, Any], rows: int, length: int, seed: int
) -> Arrays:
    """`input_ids` `attention_mask` `token_type_ids`, [rows, length]."""
    chance = np.random.default_rng(seed)
    lengths = np.maximum(2, length - np.arange(rows)[:, None] * max(1, length // (rows + 1)))
    mask = (np.arange(length) < lengths).astype(np.int64)
    first = model.config.first_position  # RoBERTa's, behind the padding's number
    padding = first - 1 if first else hf_config.get("pad_token_id") or 0
    ids = chance.integers(0, model.config.vocab_size, (rows, length))
    ids = np.where(ids == padding, (padding + 1) % model.config.vocab_size, ids)
    types = getattr(model.config, "type_vocab_size", 0)
    kinds = (np.arange(length) > length // 3) * mask * (types > 1)
    return {
        "input_ids": np.where(mask > 0, ids, padding),
        "attention_mask": mask,
        "token_type_ids": kinds,
    }


def weighted_sum(
    outputs: Mapping[str, Any], mask: np.ndarray, seed: int, to: Callable[..., Any]
) -> Any:
    """A scalar to differentiate: outputs times random numbers, padding left out."""
    total = 0.0
    for number, name in enumerate(sorted(outputs)):
        values = outputs[name]
        chance = np.random.default_rng((seed, number))
        factors = chance.standard_normal(tuple(values.shape))
        if factors.shape[:2] == mask.shape:
            factors *= mask.reshape(*mask.shape, *[1] * (factors.ndim - 2))
        total = total + (values * to(factors.astype(np.float32))).sum()
    return total


def our_outputs(
    model: Model, params: Params, batch: Arrays, seed: int
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """Our outputs, and the gradients of their weighted sum by transformers' names."""

    def total(params: Params) -> tuple[Array, dict[str, Array]]:
        found = dict(model(params, {name: jnp.asarray(each) for name, each in batch.items()}))
        if "mlm_logits" in found:  # in the order of places
            order = jnp.argsort(found.pop("places"), axis=1)[..., None]
            found["mlm_logits"] = jnp.take_along_axis(found["mlm_logits"], order, axis=1)
        return weighted_sum(found, batch["attention_mask"], seed, jnp.asarray), found

    (_, found), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    named = mapping.hf_names(model)
    by_name = {}
    for path, value in mapping.flatten(gradients).items():
        array = np.asarray(value)
        by_name[named[path]] = array.T if path.endswith("kernel") else array
    return {name: np.asarray(value) for name, value in found.items()}, by_name


def torch_outputs(module: Any, kind: str, batch: Arrays, seed: int) -> tuple[Arrays, Arrays]:
    """The outputs of a module of transformers under our names, and gradients by its own."""
    import torch

    found = torch_forward(module, kind, batch)
    module.zero_grad()
    weighted_sum(found, batch["attention_mask"], seed, torch.tensor).backward()
    gradients = {
        name: np.zeros(tuple(each.shape), np.float32) if each.grad is None else each.grad.numpy()
        for name, each in module.named_parameters()
    }
    return {name: value.detach().numpy() for name, value in found.items()}, gradients


def torch_forward(module: Any, kind: str, batch: Arrays) -> dict[str, Any]:
    """The outputs of a module of transformers, in our names and shapes."""
    import torch

    given = {name: torch.tensor(value) for name, value in batch.items()}
    if not getattr(module.config, "type_vocab_size", 0):
        del given["token_type_ids"]
    if kind == "ForMultipleChoice":  # the rows are the choices of one question
        given = {name: value[None] for name, value in given.items()}
    made = module(**given, output_hidden_states=True)
    shape = batch["input_ids"].shape
    if kind == "Model":
        found = {"hidden_states": made.last_hidden_state}
        pooled = made.get("pooler_output")
        return found if pooled is None else found | {"pooled": pooled[:, None]}
    found = {"hidden_states": made.hidden_states[-1].reshape(*shape, -1)}
    if kind == "ForQuestionAnswering":
        return found | {"start_logits": made.start_logits, "end_logits": made.end_logits}
    if kind == "ForMaskedLM":
        return found | {"mlm_logits": made.logits}
    if kind == "ForPreTraining":
        second = made.get("seq_relationship_logits", made.get("sop_logits"))
        return found | {"mlm_logits": made.prediction_logits, "nsp_logits": second[:, None]}
    if kind == "ForMultipleChoice":
        return found | {"logits": made.logits.reshape(-1, 1, 1)}
    if kind in ("ForSequenceClassification", "ForNextSentencePrediction"):
        return found | {"logits": made.logits[:, None]}
    return found | {"logits": made.logits}  # a score a token


def _worst_gradient(model: Model, ours: Arrays, theirs: Arrays) -> dict[str, Any]:
    norm = float(np.sqrt(sum(float(np.vdot(each, each)) for each in theirs.values())))
    worst: dict[str, Any] = {"tensor": "", "absolute": 0.0, "relative": 0.0}
    for name, value in theirs.items():
        full = mapping.canonical(name, model.family)
        if model.config.tie_word_embeddings:
            full = model.family.tied.get(full, full)
        a = ours.get(full, np.zeros_like(value))  # a tensor that the outputs do not depend on
        found = difference(a, value, max(float(np.abs(value).max()), FLOOR * norm))
        rounding = found["absolute"] <= EPSILON * norm
        if found["relative"] >= worst["relative"] and not rounding:
            worst = {"tensor": full, **found}
    return worst

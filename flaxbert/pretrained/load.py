"""Loading a model without a task, for use from Python."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxbert.errors import WeightsError
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import HEADS, Head, MakeHead, NoHead, PoolerHead
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.source import resolve
from flaxbert.types import Params

log = logging.getLogger("flaxbert")


def head_class(model_type: str, class_name: str | None) -> type[Head] | None:
    """Return the output layer of a transformers class; None for an unsupported class."""
    family = FAMILIES[model_type]
    head_type = family.head_type(model_type, class_name)
    if head_type == "Model":
        return PoolerHead if family.heads["Model"] else NoHead
    return HEADS[head_type] if head_type else None


def other_head(hf_config: Mapping[str, Any], head_type: str) -> str | None:
    """Return the class in config.json if its output layer was trained for another task.

    The names of tensors cannot show this: a `classifier` scores texts, tokens or choices.
    """
    model_type, class_name = _architecture(hf_config)
    head = head_class(model_type, class_name)
    is_other = head is not None and head.serves_one_task and head.head_type != head_type
    return class_name if is_other else None


def head_of(hf_config: Mapping[str, Any]) -> MakeHead:
    """Return the output layer of the class that config.json names in `architectures`.

    Raises:
      WeightsError: for an unsupported output layer, or if `num_labels` is not a number.
    """
    model_type, class_name = _architecture(hf_config)
    family = FAMILIES[model_type]
    head = head_class(model_type, class_name or family.class_name(model_type, "Model"))
    if head is None:
        known = ", ".join(family.class_name(model_type, head_type) for head_type in family.heads)
        raise WeightsError(f"config.json: architectures names {class_name}; flaxbert has {known}.")
    labels = len(hf_config.get("id2label") or ()) or hf_config.get("num_labels") or 2
    if not isinstance(labels, int):
        raise WeightsError(f"config.json: num_labels is {labels!r}; expected int.")
    return head.maker(labels)


def _architecture(hf_config: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return `model_type` and the first of `architectures`, if there is any."""
    class_names = hf_config.get("architectures") or [None]
    return hf_config.get("model_type", "bert"), class_names[0]


def load_strictly(model: Model, directory: Path) -> tuple[Model, Params, mapping.LoadReport]:
    """Read a checkpoint whose output layer must be complete.

    A bare encoder may lack its pooler, as encoders that were trained without one do; the returned
    model then has none.

    Raises:
      WeightsError: see `mapping.load`; also if the output layer is missing.
    """
    params, report = mapping.load(model, directory, seed=0)
    if report.fresh and model.head is PoolerHead:
        log.info(f"{directory}: the checkpoint has no pooler; the model is built without one")
        model = Model.create(model.config, NoHead)
        params, report = mapping.load(model, directory, seed=0)
    if report.fresh:
        raise WeightsError(
            f"{directory}: config.json names {model.architecture}, but there is no "
            f"{', '.join(report.fresh)} in the checkpoint. To use the encoder alone: "
            f"flaxbert convert {directory} DIR --architecture="
            + model.family.class_name(model.config.model_type, "Model")
        )
    return model, params, report


def from_pretrained(
    init: str, *, revision: str | None = None, dtype: str = "float32"
) -> tuple[Model, Params]:
    """Load a model with the output layer that its checkpoint was saved with.

    Args:
      init: hub id, directory, a finished run's workdir, or package://NAME.
      revision: branch, tag or commit of a hub id.
      dtype: type of the arithmetic, float32 or bfloat16.

    Returns:
      `(model, params)`: `model(params, batch)` gives `hidden_states` [R, T, D] and the head's
      outputs: `pooled` if the checkpoint has a pooler, `logits`, or `start_logits` and
      `end_logits`.

    Raises:
      WeightsError, HubError: see `source.resolve` and `load_strictly`.
    """
    directory = resolve(init, revision)
    hf_config = formats.read_config(directory)
    model = Model.create(read_config(hf_config, dtype=dtype), head_of(hf_config))
    model, params, _ = load_strictly(model, directory)
    return model, jax.tree.map(jnp.asarray, params)

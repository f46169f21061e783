"""The model alone, for use from Python."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxbert.errors import WeightsError
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import (
    HiddenStates,
    MakeHead,
    MultipleChoiceHead,
    NextSentenceHead,
    PoolerHead,
    PreTrainingHead,
    ReplacedTokenHead,
    SequenceClassificationHead,
    SpanHead,
    TokenClassificationHead,
)
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.source import resolve
from flaxbert.types import Params

log = logging.getLogger("flaxbert")

TASKS_OWN = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
"""Output layers of one task. Others' are of pre-training: parts of them serve any."""


def other_head(hf_config: Mapping[str, Any], kind: str) -> str | None:
    """The class that config.json names, if its output layer is another task's than `kind`.

    Tensors' names do not tell: a `classifier` scores texts, words or choices.
    """
    model_type = hf_config.get("model_type", "bert")
    named = (hf_config.get("architectures") or [None])[0]
    stored = FAMILIES[model_type].kind(model_type, named)
    return named if stored in TASKS_OWN and stored != kind else None


def head_of(hf_config: Mapping[str, Any]) -> MakeHead:
    """The output layer that a checkpoint's config.json names in `architectures`.

    Raises:
      WeightsError: for an output layer that flaxbert does not have, or labels without number.
    """
    model_type = hf_config.get("model_type", "bert")
    family = FAMILIES[model_type]
    bare = PoolerHead if family.heads["Model"] else HiddenStates
    named = (hf_config.get("architectures") or [None])[0]
    if named is None:
        return bare
    kind = family.kind(model_type, named)
    labels = len(hf_config.get("id2label") or ()) or hf_config.get("num_labels") or 2
    if not isinstance(labels, int):
        raise WeightsError(f"config.json: num_labels is {labels!r}; expected int.")
    every = 1.0  # masked places scored: a caller may mask as many as it likes
    heads: dict[str, MakeHead] = {
        "Model": bare,
        "ForQuestionAnswering": SpanHead,
        "ForMultipleChoice": MultipleChoiceHead,
        "ForNextSentencePrediction": NextSentenceHead,
        "ForReplacedTokenDetection": ReplacedTokenHead,
        "ForMaskedLM": lambda config, rngs: PreTrainingHead(config, every, False, rngs),
        "ForPreTraining": lambda config, rngs: PreTrainingHead(config, every, True, rngs),
        "ForSequenceClassification": lambda config, rngs: SequenceClassificationHead(
            config, labels, rngs
        ),
        "ForTokenClassification": lambda config, rngs: TokenClassificationHead(
            config, labels, rngs
        ),
    }
    if kind is None:
        known = ", ".join(
            family.class_name(hf_config.get("model_type", "bert"), each) for each in family.heads
        )
        raise WeightsError(f"config.json: architectures names {named}; flaxbert has {known}.")
    return heads[kind]


def load_strictly(model: Model, directory: Path) -> tuple[Model, Params, mapping.LoadReport]:
    """Read a checkpoint with the output layer that its config.json names.

    A pooler alone may be absent, as in encoders that were trained without: the model has none then.

    Raises:
      WeightsError: see `weights.load`; also for an output layer that is not there.
    """
    params, report = mapping.load(model, directory, seed=0)
    if report.fresh and model.kind == HiddenStates.kind:
        log.info(f"{directory}: has no pooler, so neither has the model")
        model = Model.create(model.config, HiddenStates)
        params, report = mapping.load(model, directory, seed=0)
    if report.fresh:
        raise WeightsError(
            f"{directory}: config.json says {model.architecture}, but there is no "
            f"{', '.join(report.fresh)}. For the encoder alone: flaxbert convert "
            f"{directory} DIR --architecture="
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
      dtype: what the arithmetic runs in, float32 or bfloat16.

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

"""The model alone, for use from Python."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flaxbert.errors import WeightsError
from flaxbert.models import weights
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import (
    MakeHead,
    MultipleChoiceHead,
    PoolerHead,
    PreTrainingHead,
    SequenceClassificationHead,
    SpanHead,
    TokenClassificationHead,
)
from flaxbert.models.model import Model, Params
from flaxbert.models.source import resolve


def head_of(hf_config: Mapping[str, Any]) -> MakeHead:
    """The output layer that a checkpoint's config.json names in `architectures`."""
    name = (hf_config.get("architectures") or ["BertModel"])[0]
    if name == SpanHead.architecture:
        return SpanHead
    if name == MultipleChoiceHead.architecture:
        return MultipleChoiceHead
    if name in ("BertForPreTraining", "BertForMaskedLM"):
        next_sentence = name == "BertForPreTraining"
        every = 1.0  # places scored: a caller may mask as many as it likes
        return lambda config, rngs: PreTrainingHead(config, every, next_sentence, rngs)
    labels = len(hf_config.get("id2label") or range(hf_config.get("num_labels", 2)))
    if name == SequenceClassificationHead.architecture:
        return lambda config, rngs: SequenceClassificationHead(config, labels, rngs)
    if name == TokenClassificationHead.architecture:
        return lambda config, rngs: TokenClassificationHead(config, labels, rngs)
    return PoolerHead


def from_pretrained(
    init: str, *, revision: str | None = None, dtype: str = "float32", seed: int = 0
) -> tuple[Model, Params]:
    """Load a model with the output layer that its checkpoint was saved with.

    Args:
      init: hub id, directory, a finished run's workdir, or package://NAME.
      revision: branch, tag or commit of a hub id.
      dtype: what the arithmetic runs in, float32 or bfloat16.
      seed: initialises a pooler that the checkpoint does not hold.

    Returns:
      `(model, params)`: `model(params, batch)` gives `hidden_states` [R, T, D] and the head's
      outputs: `pooled`, `logits`, or `start_logits` and `end_logits`.

    Raises:
      WeightsError, HubError: see `source.resolve` and `weights.load`.
    """
    directory = resolve(init, revision)
    hf_config = weights.read_json(directory / "config.json")
    model = Model.create(BertConfig.from_hf(hf_config, dtype=dtype), head_of(hf_config))
    params, report = weights.load(model, directory, seed=seed)
    if report.fresh and model.architecture != PoolerHead.architecture:
        raise WeightsError(
            f"{directory}: config.json says {model.architecture}, but the file has "
            f"no {', '.join(report.fresh)}."
        )
    return model, jax.tree.map(jnp.asarray, params)

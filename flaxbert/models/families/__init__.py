"""The supported families of encoders, by the `model_type` of their config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flaxbert.errors import WeightsError
from flaxbert.models.families import (
    albert,
    bert,
    data2vec_text,
    distilbert,
    electra,
    megatron_bert,
    modernbert,
    roberta,
    xlm_roberta_xl,
)
from flaxbert.models.families.base import Family
from flaxbert.models.layers import EncoderConfig

FAMILIES: dict[str, Family] = {
    model_type: module.FAMILY
    for module in (
        bert,
        roberta,
        data2vec_text,
        xlm_roberta_xl,
        megatron_bert,
        distilbert,
        electra,
        albert,
        modernbert,
    )
    for model_type in module.FAMILY.classes
}


def read_config(hf: Mapping[str, Any], **runtime: Any) -> EncoderConfig:
    """Return the configuration in a parsed `config.json`; `runtime` sets the fields it lacks.

    Raises:
      WeightsError: for another architecture, a missing size, or an unknown activation.
    """
    model_type = hf.get("model_type", "bert")
    if model_type not in FAMILIES:
        raise WeightsError(
            f"config.json: model_type is {model_type!r}; flaxbert reads {', '.join(FAMILIES)}."
        )
    config = FAMILIES[model_type].read(hf)
    return dataclasses.replace(config, model_type=model_type, **runtime)

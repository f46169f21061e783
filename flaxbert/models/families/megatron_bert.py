"""Megatron-BERT: BERT as a pre-LN encoder, with BERT's output layers. GatorTron is a published one.

Shoeybi et al. 2019, arXiv:1909.08053, section 5.3; Yang et al. 2022, arXiv:2203.03540. LayerNorm
precedes attention and the feed-forward layer and follows the last layer; the embeddings have none.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flaxbert.models.bert import BertConfig
from flaxbert.models.families import bert


def read(hf: Mapping[str, Any]) -> BertConfig:
    """Return the configuration in a parsed config.json."""
    return dataclasses.replace(bert.read(hf), pre_norm=True)


FAMILY = dataclasses.replace(
    bert.FAMILY,
    classes={"megatron-bert": "MegatronBert"},
    read=read,
    encoder_names=bert.pre_norm_names("attention.ln", "ln", "encoder.ln"),
)

"""XLM-R XL and XXL: pre-LN encoders with 3.5 and 10.7 billion parameters.

Goyal et al. 2021, arXiv:2105.00572. The encoder is pre-LN: LayerNorm precedes attention and the feed-forward layer and follows the last
layer, and the embeddings have none. Positions, token types and output layers are those of RoBERTa.
The residual dropout is that of fairseq, in which the models were trained: after both sub-layers.
The class in transformers leaves it out after the feed-forward layer.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flaxbert.models.bert import BertConfig
from flaxbert.models.families import bert, roberta

LAYER = bert.LAYER | {
    "attention_norm": "attention.self_attn_layer_norm",
    "output_norm": "LayerNorm",
}

ENCODER = {
    **{ours: theirs for ours, theirs in bert.EMBEDDINGS.items() if ours != "embeddings/norm"},
    **{f"layers/{{i}}/{ours}": f"encoder.layer.{{i}}.{theirs}" for ours, theirs in LAYER.items()},
    "norm": "encoder.LayerNorm",
}


def read(hf: Mapping[str, Any]) -> BertConfig:
    """Return the configuration in a parsed config.json; see `roberta.read`.

    Raises:
      WeightsError: if the id of the padding token is missing.
    """
    # transformers' defaults
    defaults = {"layer_norm_eps": 1e-5, "max_position_embeddings": 514, "type_vocab_size": 1}
    return roberta.read(defaults | dict(hf), pre_norm=True)


FAMILY = dataclasses.replace(
    roberta.FAMILY,
    classes={"xlm-roberta-xl": "XLMRobertaXL"},
    read=read,
    encoder_names=ENCODER,
)

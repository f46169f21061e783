"""XLM-R XL and XXL: XLM-R as pre-LN encoders with 3.5 and 10.7 billion parameters.

Goyal et al. 2021, arXiv:2105.00572. LayerNorm precedes attention and the feed-forward layer and
follows the last layer; the embeddings have none. Positions, token types and output layers are those
of RoBERTa. Dropout follows both sub-layers, as in fairseq, with which the models were trained. The
class in transformers leaves it out after the feed-forward layer.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flaxbert.models.bert import BertConfig
from flaxbert.models.families import bert, roberta


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
    encoder_names=bert.pre_norm_names(
        "attention.self_attn_layer_norm", "LayerNorm", "encoder.LayerNorm"
    ),
)

"""ModernBERT: names and constants. The architecture is in models/modernbert.py."""

from collections.abc import Mapping
from typing import Any

from flaxbert.errors import WeightsError
from flaxbert.models.families.base import Family, config_from_hf
from flaxbert.models.families.bert import CLASSIFIER
from flaxbert.models.modernbert import ModernBert, ModernBertConfig

LAYER = {
    "attention_norm": "attn_norm",
    "qkv": "attn.Wqkv",
    "attention_output": "attn.Wo",
    "norm": "mlp_norm",
    "intermediate": "mlp.Wi",
    "output": "mlp.Wo",
}

POOLED = CLASSIFIER | {"pooler/dense": "head.dense", "pooler/norm": "head.norm"}
TOKENS = CLASSIFIER | {"transform/dense": "head.dense", "transform/norm": "head.norm"}


def read(hf: Mapping[str, Any]) -> ModernBertConfig:
    """Return the configuration in a parsed config.json of transformers 4 or 5.

    Raises:
      WeightsError: for scaled rotary positions.
    """
    period = hf.get("global_attn_every_n_layers", 3)
    layer_types = hf.get("layer_types") or [
        "sliding_attention" if index % period else "full_attention"
        for index in range(hf.get("num_hidden_layers", 0))
    ]
    thetas = {}
    for reach, layer_type in (("global", "full_attention"), ("local", "sliding_attention")):
        rope = (hf.get("rope_parameters") or {}).get(layer_type) or {}
        if rope.get("rope_type", "default") != "default" or hf.get("rope_scaling"):
            raise WeightsError("config.json: scaled rotary positions are not supported.")
        theta = rope.get("rope_theta", hf.get(f"{reach}_rope_theta"))
        if theta is not None:
            thetas[f"{reach}_rope_theta"] = float(theta)
    # transformers' defaults
    defaults = {
        "norm_eps": 1e-5,
        "norm_bias": False,
        "max_position_embeddings": 8192,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "classifier_bias": False,
    }
    names = {
        "norm_eps": "layer_norm_eps",
        "hidden_activation": "hidden_act",
        "classifier_activation": "pooler_act",
        "classifier_bias": "pooler_bias",
        "classifier_pooling": "pooling",
        "decoder_bias": "word_bias",
    }
    full = defaults | dict(hf)
    config = config_from_hf(
        full,
        ModernBertConfig,
        names,
        **thetas,
        layer_types=tuple(layer_types),
        pooler_norm=True,
        transform_tokens=True,
        word_act=full["classifier_activation"],
        span_dropout=full.get("classifier_dropout", 0.0),
    )
    if len(config.layer_types) != config.num_hidden_layers:
        raise WeightsError(
            f"config.json: {len(config.layer_types)} layer_types for "
            f"{config.num_hidden_layers} layers."
        )
    return config


FAMILY = Family(
    classes={"modernbert": "ModernBert"},
    read=read,
    build=ModernBert,
    prefix="model",
    encoder_names={
        "embeddings/word": "embeddings.tok_embeddings",
        "embeddings/norm": "embeddings.norm",
        **{f"layers/{{i}}/{ours}": f"layers.{{i}}.{theirs}" for ours, theirs in LAYER.items()},
        "norm": "final_norm",
    },
    heads={
        "Model": {},
        "ForSequenceClassification": POOLED,
        "ForMultipleChoice": POOLED,
        "ForTokenClassification": TOKENS,
        "ForQuestionAnswering": TOKENS,
        "ForMaskedLM": {
            "transform/dense": "head.dense",
            "transform/norm": "head.norm",
            "word_bias": "decoder.bias",
        },
    },
    head_prefixes=("head.", "classifier.", "decoder."),
    tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
    untied={"decoder/embedding": "decoder.weight"},
)

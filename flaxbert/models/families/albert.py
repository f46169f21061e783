"""ALBERT: BERT's encoder with shared layer parameters and narrow, projected embeddings.

Lan et al. 2020, arXiv:1909.11942.
"""

from collections.abc import Mapping
from typing import Any

from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, config_from_hf, reject_unsupported
from flaxbert.models.families.bert import CLASSIFIER, EMBEDDINGS

LAYER = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "intermediate": "ffn",
    "output": "ffn_output",
    "output_norm": "full_layer_layer_norm",
}
GROUP = "encoder.albert_layer_groups.{g}.albert_layers.{j}"

POOLER = {"pooler/dense": "albert.pooler"}
MLM = {
    "transform/dense": "predictions.dense",
    "transform/norm": "predictions.LayerNorm",
    "word_bias": "predictions.bias",
}


def read(hf: Mapping[str, Any]) -> BertConfig:
    """Return the configuration in a parsed config.json."""
    reject_unsupported(hf)
    # transformers' defaults
    defaults = {
        "embedding_size": 128,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.1,
    }
    return config_from_hf(
        defaults | dict(hf), BertConfig, {"classifier_dropout_prob": "classifier_dropout"}
    )


FAMILY = Family(
    classes={"albert": "Albert"},
    read=read,
    build=Bert,
    prefix="albert",
    encoder_names=EMBEDDINGS
    | {"embeddings/project": "encoder.embedding_hidden_mapping_in"}
    | {f"layers/{{i}}/{ours}": f"{GROUP}.{theirs}" for ours, theirs in LAYER.items()},
    heads={
        "Model": POOLER,
        "ForSequenceClassification": POOLER | CLASSIFIER,
        "ForMultipleChoice": POOLER | CLASSIFIER,
        "ForTokenClassification": CLASSIFIER,
        "ForQuestionAnswering": {"classifier": "qa_outputs"},
        "ForMaskedLM": MLM,
        "ForPreTraining": POOLER | MLM | {"next_sentence": "sop_classifier.classifier"},
    },
    head_prefixes=(
        "albert.pooler.",
        "classifier.",
        "qa_outputs.",
        "predictions.",
        "sop_classifier.",
    ),
    tied={
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
    untied={
        "decoder/embedding": "predictions.decoder.weight",
        "word_bias": "predictions.decoder.bias",
    },
)

"""DistilBERT: BERT's encoder with half the layers, no token types and no pooler.

Sanh et al. 2019, arXiv:1910.01108.
"""

from collections.abc import Mapping
from typing import Any

from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, config_from_hf
from flaxbert.models.families.bert import CLASSIFIER, EMBEDDINGS

LAYER = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "intermediate": "ffn.lin1",
    "output": "ffn.lin2",
    "output_norm": "output_layer_norm",
}

NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "seq_classif_dropout": "classifier_dropout",
    "qa_dropout": "span_dropout",
}

POOLED = CLASSIFIER | {"pooler/dense": "pre_classifier"}


def read(hf: Mapping[str, Any]) -> BertConfig:
    """Return the configuration in a parsed config.json."""
    defaults = {"seq_classif_dropout": 0.2, "qa_dropout": 0.1}  # transformers'
    return config_from_hf(
        defaults | dict(hf),
        BertConfig,
        NAMES,
        type_vocab_size=0,
        layer_norm_eps=1e-12,
        pooler_act="relu",
        token_dropout=hf.get("dropout", 0.1),
    )


FAMILY = Family(
    classes={"distilbert": "DistilBert"},
    read=read,
    build=Bert,
    prefix="distilbert",
    encoder_names=EMBEDDINGS
    | {
        f"layers/{{i}}/{ours}": f"transformer.layer.{{i}}.{theirs}"
        for ours, theirs in LAYER.items()
    },
    heads={
        "Model": {},
        "ForSequenceClassification": POOLED,
        "ForMultipleChoice": POOLED,
        "ForTokenClassification": CLASSIFIER,
        "ForQuestionAnswering": {"classifier": "qa_outputs"},
        "ForMaskedLM": {
            "transform/dense": "vocab_transform",
            "transform/norm": "vocab_layer_norm",
            "word_bias": "vocab_projector.bias",
        },
    },
    head_prefixes=("pre_classifier.", "classifier.", "qa_outputs.", "vocab_"),
    tied={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    untied={"decoder/embedding": "vocab_projector.weight"},
)

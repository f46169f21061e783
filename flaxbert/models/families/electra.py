"""ELECTRA: BERT's encoder, trained to detect replaced tokens. Clark et al. 2020, arXiv:2003.10555.

The embeddings of small models, and of generators (masked language models), are narrower than the
encoder and projected to its width. Classifiers have a GELU where BERT's have tanh.
"""

from collections.abc import Mapping
from typing import Any

from flaxbert.errors import WeightsError
from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, config_from_hf, reject_unsupported
from flaxbert.models.families.bert import CLASSIFIER, ENCODER

SUMMARY = {"summary_type": "first", "summary_activation": "gelu", "summary_use_proj": True}
"""Keys of config.json that describe the pooler, with the values of all published checkpoints."""


def read(hf: Mapping[str, Any]) -> BertConfig:
    """Return the configuration in a parsed config.json.

    Raises:
      WeightsError: for another pooler, which the multiple-choice head would need.
    """
    reject_unsupported(hf)
    for key, value in SUMMARY.items():
        if hf.get(key, value) != value:
            raise WeightsError(
                f"config.json: {key} is {hf[key]!r}; flaxbert only supports {value!r}."
            )
    width = hf.get("embedding_size", 128)  # transformers' default
    return config_from_hf(
        hf,
        BertConfig,
        {},
        embedding_size=None if width == hf.get("hidden_size") else width,
        pooler_act="gelu",
        pooler_dropout=True,
        word_act="gelu",
    )


FAMILY = Family(
    classes={"electra": "Electra"},
    read=read,
    build=Bert,
    prefix="electra",
    encoder_names=ENCODER | {"embeddings/project": "embeddings_project"},
    heads={
        "Model": {},
        "ForSequenceClassification": {
            "pooler/dense": "classifier.dense",
            "classifier": "classifier.out_proj",
        },
        "ForMultipleChoice": CLASSIFIER | {"pooler/dense": "sequence_summary.summary"},
        "ForTokenClassification": CLASSIFIER,
        "ForQuestionAnswering": {"classifier": "qa_outputs"},
        "ForMaskedLM": {
            "transform/dense": "generator_predictions.dense",
            "transform/norm": "generator_predictions.LayerNorm",
            "word_bias": "generator_lm_head.bias",
        },
        "ForReplacedTokenDetection": {
            "transform/dense": "discriminator_predictions.dense",
            "classifier": "discriminator_predictions.dense_prediction",
        },
    },
    head_prefixes=(
        "classifier.",
        "sequence_summary.",
        "qa_outputs.",
        "generator_",
        "discriminator_predictions.",
    ),
    tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    untied={"decoder/embedding": "generator_lm_head.weight"},
    suffixes={"ForReplacedTokenDetection": "ForPreTraining"},
)

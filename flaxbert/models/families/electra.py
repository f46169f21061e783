"""ELECTRA: BERT's encoder, trained to tell replaced tokens. Clark et al. 2020, arXiv:2003.10555.

The small models' embeddings are narrower than the encoder and projected to its width; so are a
generator's, which is a masked language model. Classifiers have a GELU where BERT's have tanh.
"""

from collections.abc import Mapping
from typing import Any

from flaxbert.errors import WeightsError
from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, plain_encoder, take
from flaxbert.models.families.bert import CLASSIFIER, ENCODER

SUMMARY = {"summary_type": "first", "summary_activation": "gelu", "summary_use_proj": True}
"""Keys of config.json: how published checkpoints sum up a sequence."""


def read(hf: Mapping[str, Any]) -> BertConfig:
    """A parsed config.json -> configuration.

    Raises:
      WeightsError: for another summary of a sequence, by which choices are scored.
    """
    plain_encoder(hf)
    for key, value in SUMMARY.items():
        if hf.get(key, value) != value:
            raise WeightsError(f"config.json: {key} is {hf[key]!r}; flaxbert has {value!r} alone.")
    width = hf.get("embedding_size", 128)  # transformers' default
    return take(
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
    make=Bert,
    prefix="electra",
    encoder=ENCODER | {"embeddings/project": "embeddings_project"},
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
    parts=(
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

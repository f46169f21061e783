"""BERT: cased, uncased, multilingual. Devlin et al. 2019, arXiv:1810.04805."""

from collections.abc import Mapping
from typing import Any

from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, config_from_hf, reject_unsupported

LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}

EMBEDDINGS = {
    "embeddings/word": "embeddings.word_embeddings",
    "embeddings/position": "embeddings.position_embeddings",
    "embeddings/token_type": "embeddings.token_type_embeddings",
    "embeddings/norm": "embeddings.LayerNorm",
}

ENCODER = EMBEDDINGS | {
    f"layers/{{i}}/{ours}": f"encoder.layer.{{i}}.{theirs}" for ours, theirs in LAYER.items()
}


def pre_norm_names(attention_norm: str, output_norm: str, last_norm: str) -> dict[str, str]:
    """Return the encoder names of a pre-LN relative, as in `Family.encoder_names`.

    Args:
      attention_norm: name of the LayerNorm before attention, inside a layer.
      output_norm: name of the LayerNorm before the feed-forward layer, inside a layer.
      last_norm: name of the LayerNorm after the last layer, inside the encoder.
    """
    names = {ours: theirs for ours, theirs in ENCODER.items() if ours != "embeddings/norm"}
    return names | {
        "layers/{i}/attention_norm": f"encoder.layer.{{i}}.{attention_norm}",
        "layers/{i}/output_norm": f"encoder.layer.{{i}}.{output_norm}",
        "norm": last_norm,
    }


POOLER = {"pooler/dense": "bert.pooler.dense"}
MLM = {
    "transform/dense": "cls.predictions.transform.dense",
    "transform/norm": "cls.predictions.transform.LayerNorm",
    "word_bias": "cls.predictions.bias",
}
NEXT_SENTENCE = "cls.seq_relationship"
CLASSIFIER = {"classifier": "classifier"}


def read(hf: Mapping[str, Any]) -> BertConfig:
    """Return the configuration in a parsed config.json."""
    reject_unsupported(hf)
    return config_from_hf(hf, BertConfig, {})


FAMILY = Family(
    classes={"bert": "Bert"},
    read=read,
    build=Bert,
    prefix="bert",
    encoder_names=ENCODER,
    heads={
        "Model": POOLER,
        "ForSequenceClassification": POOLER | CLASSIFIER,
        "ForMultipleChoice": POOLER | CLASSIFIER,
        "ForNextSentencePrediction": POOLER | {"classifier": NEXT_SENTENCE},
        "ForTokenClassification": CLASSIFIER,
        "ForQuestionAnswering": {"classifier": "qa_outputs"},
        "ForMaskedLM": MLM,
        "ForPreTraining": POOLER | MLM | {"next_sentence": NEXT_SENTENCE},
    },
    head_prefixes=(
        "bert.pooler.",
        "classifier.",
        "qa_outputs.",
        "cls.predictions.",
        "cls.seq_relation",
    ),
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    untied={
        "decoder/embedding": "cls.predictions.decoder.weight",
        "word_bias": "cls.predictions.decoder.bias",
    },
)

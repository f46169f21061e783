"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-R (Conneau et al. 2020, arXiv:1911.02116).

BERT's encoder, trained longer without next sentence prediction. Two rows of the position table
before a text's first are the padding's, and there is one token type. Its classifier has a layer of
its own instead of BERT's pooler, with dropout before it.
"""

from collections.abc import Mapping
from typing import Any

from flaxbert.errors import WeightsError
from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, plain_encoder, take
from flaxbert.models.families.bert import CLASSIFIER, ENCODER

POOLER = {"pooler/dense": "roberta.pooler.dense"}


def read(hf: Mapping[str, Any]) -> BertConfig:
    """A parsed config.json -> configuration; positions begin behind the padding's.

    Raises:
      WeightsError: without a number of the padding token.
    """
    plain_encoder(hf)
    padding = hf.get("pad_token_id", 1)
    if not isinstance(padding, int):
        raise WeightsError(
            f"config.json: pad_token_id is {padding!r}; positions are counted from it, so it has "
            "to be the padding token's number, which is 1 in all published checkpoints."
        )
    return take(
        hf, BertConfig, {}, first_position=padding + 1, pooler_dropout=True, word_act="gelu"
    )


FAMILY = Family(
    classes={"roberta": "Roberta", "xlm-roberta": "XLMRoberta"},
    read=read,
    make=Bert,
    prefix="roberta",
    encoder=ENCODER,
    heads={
        "Model": POOLER,
        "ForSequenceClassification": {
            "pooler/dense": "classifier.dense",
            "classifier": "classifier.out_proj",
        },
        "ForMultipleChoice": POOLER | CLASSIFIER,
        "ForTokenClassification": CLASSIFIER,
        "ForQuestionAnswering": {"classifier": "qa_outputs"},
        "ForMaskedLM": {
            "transform/dense": "lm_head.dense",
            "transform/norm": "lm_head.layer_norm",
            "word_bias": "lm_head.bias",
        },
    },
    parts=("roberta.pooler.", "classifier.", "qa_outputs.", "lm_head."),
    tied={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    untied={"decoder/embedding": "lm_head.decoder.weight", "word_bias": "lm_head.decoder.bias"},
)

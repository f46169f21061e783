"""RoBERTa, XLM-R and CamemBERT, which differ only in their words and in what they were trained on.

Liu et al. 2019, arXiv:1907.11692; Conneau et al. 2020, arXiv:1911.02116; Martin et al. 2020,
arXiv:1911.03894. BERT's encoder, trained longer and without next-sentence prediction. Position 0 is
row 2 of the position table, because rows 0 and 1 are reserved for padding. There is one token type.
The classifier has its own hidden layer instead of BERT's pooler, with dropout before it.
"""

from collections.abc import Mapping
from typing import Any

from flaxbert.errors import WeightsError
from flaxbert.models.bert import Bert, BertConfig
from flaxbert.models.families.base import Family, config_from_hf, reject_unsupported
from flaxbert.models.families.bert import CLASSIFIER, ENCODER


def read(hf: Mapping[str, Any], **fixed: Any) -> BertConfig:
    """Return the configuration in a parsed config.json; positions start after the padding's row.

    Args:
      hf: the parsed config.json.
      **fixed: further values that the family fixes.

    Raises:
      WeightsError: if the id of the padding token is missing.
    """
    reject_unsupported(hf)
    padding = hf.get("pad_token_id", 1)
    if not isinstance(padding, int):
        raise WeightsError(
            f"config.json: pad_token_id is {padding!r}; positions are counted from it, so it must "
            "be the id of the padding token, which is 1 in all published checkpoints."
        )
    return config_from_hf(
        hf,
        BertConfig,
        {},
        position_offset=padding + 1,
        pooler_dropout=True,
        word_act="gelu",
        **fixed,
    )


def family(classes: Mapping[str, str], prefix: str) -> Family:
    """Return a family that differs from RoBERTa only in `classes` and `prefix`, see `Family`."""
    pooler = {"pooler/dense": f"{prefix}.pooler.dense"}
    return Family(
        classes=classes,
        read=read,
        build=Bert,
        prefix=prefix,
        encoder_names=ENCODER,
        heads={
            "Model": pooler,
            "ForSequenceClassification": {
                "pooler/dense": "classifier.dense",
                "classifier": "classifier.out_proj",
            },
            "ForMultipleChoice": pooler | CLASSIFIER,
            "ForTokenClassification": CLASSIFIER,
            "ForQuestionAnswering": {"classifier": "qa_outputs"},
            "ForMaskedLM": {
                "transform/dense": "lm_head.dense",
                "transform/norm": "lm_head.layer_norm",
                "word_bias": "lm_head.bias",
            },
        },
        head_prefixes=(f"{prefix}.pooler.", "classifier.", "qa_outputs.", "lm_head."),
        tied={
            "lm_head.decoder.weight": f"{prefix}.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        untied={"decoder/embedding": "lm_head.decoder.weight", "word_bias": "lm_head.decoder.bias"},
    )


FAMILY = family(
    {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}, "roberta"
)

"""Small random models of every family and output layer, for goldens and live comparisons.

Weights are a function of a tensor's name and shape, so golden files do not store them.
"""

import zlib
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

# Odd sizes: no two dimensions are equal, so a transposition cannot hide.
WORDS, LENGTH, ROWS, LABELS = 101, 23, 2, 5
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 37,
    "type_vocab_size": 2,
}
DISTILBERT = {
    "vocab_size": WORDS,
    "dim": 24,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": 37,
}
ROBERTA = SIZES | {"type_vocab_size": 1, "pad_token_id": 1}
ALBERT = SIZES | {
    "embedding_size": 14,
    "num_hidden_layers": 4,
    "num_hidden_groups": 2,
    "inner_group_num": 3,
}
MODERN = {
    "vocab_size": WORDS,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 37,
    "local_attention": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
BIASED = {"classifier_pooling": "mean", "attention_bias": True, "mlp_bias": True, "norm_bias": True}

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForQuestionAnswering",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMultipleChoice",
)

# {name: (prefix of the transformers class names, arguments of the configuration, output layers)}.
MODELS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "bert": ("Bert", SIZES, (*HEADS, "ForPreTraining", "ForNextSentencePrediction")),
    "bert_untied": ("Bert", SIZES | {"tie_word_embeddings": False}, ("ForMaskedLM",)),
    "roberta": ("Roberta", ROBERTA, HEADS),
    "xlm_roberta": ("XLMRoberta", ROBERTA, HEADS),
    "camembert": ("Camembert", ROBERTA, HEADS),
    "data2vec_text": ("Data2VecText", ROBERTA, HEADS),
    "xlm_roberta_xl": ("XLMRobertaXL", ROBERTA, HEADS),
    "megatron_bert": ("MegatronBert", SIZES, (*HEADS, "ForPreTraining")),
    "distilbert": ("DistilBert", DISTILBERT, HEADS),
    "electra": ("Electra", SIZES | {"embedding_size": 14}, (*HEADS, "ForPreTraining")),
    "electra_wide": ("Electra", SIZES | {"embedding_size": 24}, ("Model", "ForMaskedLM")),
    "albert": ("Albert", ALBERT, (*HEADS, "ForPreTraining")),
    "modernbert": ("ModernBert", MODERN, HEADS),
    "modernbert_mean": ("ModernBert", MODERN | BIASED, ("Model", "ForSequenceClassification")),
}
CASES = [(name, head) for name, (_, _, heads) in MODELS.items() for head in heads]
TWO_OUTPUTS = ("ForQuestionAnswering", "ForNextSentencePrediction", "ForPreTraining")


def drawn(name: str, shape: tuple[int, ...], spread: float = 1.0) -> np.ndarray:
    """Return a random array that is a function of `name`."""
    rng = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    return (spread * rng.standard_normal(shape)).astype(np.float32)


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the tensor of a model; scales of LayerNorm are about 1."""
    if len(shape) > 1:
        return drawn(name, shape, 0.3)
    module, leaf = name.lower().split(".")[-2:]
    is_scale = leaf == "weight" and ("norm" in module or module == "ln")
    return drawn(name, shape, 0.2) + float(is_scale)


def batch(types: int, padding: int) -> Arrays:
    """Return `input_ids`, `attention_mask` and `token_type_ids` [R, T]; one row is shorter."""
    mask = (np.arange(LENGTH) < np.array([[LENGTH], [LENGTH - 6]])).astype(np.int64)
    ids = np.abs(drawn("ids", (ROWS, LENGTH)) * 1000).astype(np.int64) % (WORDS - 5) + 5
    token_types = (np.arange(LENGTH) > 8) * mask * (types > 1)
    return {
        "input_ids": np.where(mask > 0, ids, padding),
        "attention_mask": mask,
        "token_type_ids": token_types,
    }


def weighted(name: str, values: Any, mask: np.ndarray, library: Any) -> Any:
    """Return a scalar to differentiate: the sum of outputs times fixed random numbers."""
    weights = drawn(f"weight of {name}", tuple(values.shape))
    if weights.shape[:2] == mask.shape:
        weights = weights * mask.reshape(*mask.shape, *[1] * (weights.ndim - 2)).astype(np.float32)
    if name == "hidden_states":  # otherwise the gradients of a last LayerNorm would hide all others
        weights = weights / 10
    return (values * library(weights)).sum()


def fingerprint(gradients: Arrays) -> Arrays:
    """Return the Euclidean norm of each tensor, and its dot product with a random array."""
    return {
        name: np.array([np.linalg.norm(g), np.vdot(g, drawn(f"dot {name}", g.shape))], np.float32)
        for name, g in gradients.items()
    }

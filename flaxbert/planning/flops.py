"""The floating-point operations of a training step, counted from the model's sizes.

A product of [m, k] and [k, n] has 2 m k n operations. So a matrix of the encoder costs two for each
of its numbers and each token, and attention 4 T D more for each token and layer: T products of D
for the scores, and as many for the context (Kaplan et al. 2020, arXiv:2001.08361, table 1;
Chowdhery et al. 2022, arXiv:2204.02311, appendix B). The backward pass has twice as many as the
forward pass. Everything that is not a matrix product is left out: it is a few percent.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx

from flaxbert.models.model import Model
from flaxbert.types import Params


def training_flops(model: Model, arrays: Mapping[str, Any]) -> float:
    """Return the operations of a step over all devices, forward and backward.

    Recomputation (`model.remat`, and kernels that store no scores) is left out, as in model FLOPs
    utilization (MFU). Padding counts, since it is computed.

    Args:
      model: encoder and output layer.
      arrays: the arrays of a batch, or their shapes.
    """
    rows, length = arrays["input_ids"].shape
    return 3.0 * rows * (encoder_flops(model, length) + head_flops(model, arrays))


def encoder_flops(model: Model, length: int) -> float:
    """Return the operations of a forward pass of the encoder over a row of `length` tokens (T)."""
    encoder = model.shapes["encoder"]
    layers = _computed_layers(model) / model.layers * _matrices(encoder["layers"])
    others = {name: part for name, part in encoder.items() if name != "layers"}
    return 2.0 * length * (layers + _matrices(others)) + attention_flops(model, length)


def attention_flops(model: Model, length: int) -> float:
    """Return the operations of scores and context in a forward pass over a row of T tokens."""
    return 4.0 * length**2 * model.config.hidden_size * _computed_layers(model)


def _computed_layers(model: Model) -> int:
    """Return how many layers a token passes; several may share their weights."""
    return len(getattr(model.config, "schedule", ())) or model.config.num_hidden_layers


def head_flops(model: Model, arrays: Mapping[str, Any]) -> float:
    """Return the operations of a forward pass of the output layer over a row.

    Matrices of a pooler and of what follows it are multiplied once for each sequence of the row,
    those of other layers for each token. A loss over words counts the positions that it scores; if
    it computes scores twice (see words.py), that is left out.
    """
    length, head = arrays["input_ids"].shape[1], model.shapes["head"]
    segments = arrays["cls_position"].shape[1]
    places = length
    if model.head.uses_word_embeddings and "masked" in arrays:  # see MaskedLMHead
        places = min(length, math.ceil(_mask_rate(model) * length) + segments)
    operations = 0.0
    pooled = "pooler" in head and not model.head.uses_word_embeddings
    for name, part in head.items():
        by_segment = pooled or name in ("pooler", "next_sentence")
        operations += 2.0 * (segments if by_segment else places) * _matrices(part)
    if model.head.uses_word_embeddings:
        operations += 2.0 * places * model.config.vocab_size * model.config.word_width
    return operations


def _mask_rate(model: Model) -> float:
    """Return the share of tokens that a masked-LM head scores."""
    head: Any = nnx.eval_shape(lambda: model.make_head(model.config, nnx.Rngs(0)))
    rate: float = head.mask_rate
    return rate


def _matrices(tree: Params) -> int:
    """Return the numbers in the kernels of a tree; tables of embeddings are looked up instead."""
    return sum(math.prod(kernel.shape) for kernel in _kernels(tree))


def _kernels(tree: Params) -> Iterator[Any]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if path and path[-1].key == "kernel":
            yield leaf

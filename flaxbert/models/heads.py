"""Output layers: what differs between BERT's downstream tasks. Shape letters: see bert.py.

A head maps hidden states to named outputs. Heads that speak of a whole sequence read the hidden
state at its *anchor*, the position of its [CLS] in the row; token-level heads read every position.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.bert import BertConfig, dense, dropout

Outputs = dict[str, Array]


def gather(values: Array, positions: Array) -> Array:
    """Pick `values` [R, T, D] at `positions` [R, K] of their own row -> [R, K, D]."""
    return jnp.take_along_axis(values, positions[..., None], axis=1)


class Head(nnx.Module):
    """What all output layers have: the class name that transformers gives encoder + head."""

    architecture: ClassVar[str]


class PoolerHead(Head):
    """BERT's pooler alone: tanh of a dense layer over [CLS] (`BertModel`'s `pooler_output`)."""

    architecture = "BertModel"

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.pooler = dense(config, config.hidden_size, config.hidden_size, rngs)

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D], batch["anchor"] [R, K] -> pooled [R, K, D]."""
        return {"pooled": jnp.tanh(self.pooler(gather(hidden, batch["anchor"])))}


class SequenceClassificationHead(Head):
    """Pooler, dropout, dense layer (`BertForSequenceClassification`; BERT paper, section 4.1)."""

    architecture = "BertForSequenceClassification"

    def __init__(self, config: BertConfig, num_labels: int, rngs: nnx.Rngs):
        self.pooler = dense(config, config.hidden_size, config.hidden_size, rngs)
        self.classifier = dense(config, config.hidden_size, num_labels, rngs)
        rate = config.classifier_dropout
        self.rate = config.hidden_dropout_prob if rate is None else rate

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D], batch["anchor"] [R, K] -> logits [R, K, C], float32."""
        pooled = jnp.tanh(self.pooler(gather(hidden, batch["anchor"])))  # [R, K, D]
        logits = self.classifier(dropout(pooled, self.rate, key))
        return {"logits": logits.astype(jnp.float32)}


class SpanHead(Head):
    """Start and end scores of every token (`BertForQuestionAnswering`; paper, section 4.2)."""

    architecture = "BertForQuestionAnswering"

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.span = dense(config, config.hidden_size, 2, rngs)

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D] -> start_logits [R, T] and end_logits [R, T], float32."""
        logits = self.span(hidden).astype(jnp.float32)
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


MakeHead = Callable[[BertConfig, nnx.Rngs], Head]
"""Builds a task's output layer for an encoder of the given sizes."""

"""Output layers: what differs between BERT's downstream tasks. Shape letters: see bert.py.

A head maps hidden states to named outputs. Heads that speak of a whole sequence read the hidden
state at its *anchor*, the position of its [CLS] in the row; token-level heads read every position.
"""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.bert import ACTIVATIONS, BertConfig, dense, dropout, layer_norm

Outputs = dict[str, Array]


def gather(values: Array, positions: Array) -> Array:
    """Pick `values` [R, T, D] at `positions` [R, K] of their own row -> [R, K, D]."""
    return jnp.take_along_axis(values, positions[..., None], axis=1)


class Head(nnx.Module):
    """What all output layers have."""

    architecture: str
    """The class name that transformers gives encoder + head."""
    tied: ClassVar[bool] = False
    """Whether the word-embedding table is handed in as a last argument."""


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


class MultipleChoiceHead(SequenceClassificationHead):
    """One score a sequence, to be compared with the other choices' (`BertForMultipleChoice`)."""

    architecture = "BertForMultipleChoice"

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        super().__init__(config, 1, rngs)


class TokenClassificationHead(Head):
    """Dropout and dense layer on every token (`BertForTokenClassification`; paper, section 5.3)."""

    architecture = "BertForTokenClassification"

    def __init__(self, config: BertConfig, num_labels: int, rngs: nnx.Rngs):
        self.classifier = dense(config, config.hidden_size, num_labels, rngs)
        rate = config.classifier_dropout
        self.rate = config.hidden_dropout_prob if rate is None else rate

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D] -> logits [R, T, C], float32."""
        return {"logits": self.classifier(dropout(hidden, self.rate, key)).astype(jnp.float32)}


class PreTrainingHead(Head):
    """BERT's two pre-training tasks (`BertForPreTraining`; paper, section 3.1).

    Masked words: dense, activation, LayerNorm, then the word-embedding table, transposed, and a
    bias of its own. Next sentence: pooler and dense layer; without it, `BertForMaskedLM`. Scores
    over the vocabulary are computed at masked places alone, at most `rate` of a row's tokens and
    one more for each segment, which are gathered first.
    """

    tied = True

    def __init__(self, config: BertConfig, rate: float, next_sentence: bool, rngs: nnx.Rngs):
        width = config.hidden_size
        self.transform = dense(config, width, width, rngs)
        self.transform_norm = layer_norm(config, rngs)
        self.word_bias = nnx.Param(jnp.zeros(config.vocab_size, jnp.dtype(config.param_dtype)))
        self.activation = config.hidden_act
        self.mask_rate = rate
        self.next_sentence = dense(config, width, 2, rngs) if next_sentence else None
        self.pooler = dense(config, width, width, rngs) if next_sentence else None
        self.architecture = "BertForPreTraining" if next_sentence else "BertForMaskedLM"

    def __call__(
        self, hidden: Array, batch: Mapping[str, Array], key: Array | None, words: nnx.Embed
    ) -> Outputs:
        """Score masked words and, with it, the next sentence.

        Args:
          hidden: [R, T, D].
          batch: `masked` [R, T], 1 where a word is to be guessed; without it every place is.
            `anchor` [R, K].
          key: unused; this head has no dropout.
          words: the encoder's table.

        Returns:
          `places` [R, P], the masked places, then others; `word_logits` [R, P, V] there; and
          `next_logits` [R, K, 2] (0: the second text follows the first), all float32.
        """
        length, segments = hidden.shape[1], batch["anchor"].shape[1]
        most = length
        if "masked" in batch:
            most = min(length, math.ceil(self.mask_rate * length) + segments)
        masked = batch.get("masked", jnp.ones(hidden.shape[:2], jnp.int32))
        _, places = jax.lax.top_k(masked, most)  # ties: the first place first
        x = ACTIVATIONS[self.activation](self.transform(gather(hidden, places)))
        logits = words.attend(self.transform_norm(x)).astype(jnp.float32) + self.word_bias
        outputs = {"places": places, "word_logits": logits}
        if self.next_sentence is not None and self.pooler is not None:
            pooled = jnp.tanh(self.pooler(gather(hidden, batch["anchor"])))
            outputs["next_logits"] = self.next_sentence(pooled).astype(jnp.float32)
        return outputs


MakeHead = Callable[[BertConfig, nnx.Rngs], Head]
"""Builds a task's output layer for an encoder of the given sizes."""

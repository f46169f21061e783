"""Output layers: what differs between BERT's downstream tasks. Shape letters: see layers.py.

A head maps hidden states to named outputs. Heads that speak of a whole sequence read the hidden
state at its *anchor*, the position of its [CLS] in the row; token-level heads read every position.
Where families of encoders differ (RoBERTa has dropout before its pooler, ELECTRA a GELU in it), the
configuration says how.
"""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.layers import (
    ACTIVATIONS,
    Embedding,
    EncoderConfig,
    dense,
    dropout,
    embed,
    layer_norm,
    split_key,
)

Outputs = dict[str, Array]


def gather(values: Array, positions: Array) -> Array:
    """Pick `values` [R, T, D] at `positions` [R, K] of their own row -> [R, K, D], in float32.

    Float32 for the gradient: several slots of a row may add to one place.
    """
    return jnp.take_along_axis(values.astype(jnp.float32), positions[..., None], axis=1)


def segment_means(values: Array, segment_ids: Array, count: int) -> Array:
    """Mean of `values` [R, T, D] over each of `count` segments -> [R, K, D], float32.

    Empty segments give 0.
    """
    own = segment_ids[:, None, :] == jnp.arange(1, count + 1)[:, None]  # [R, K, T]
    sizes = jnp.sum(own, axis=-1, keepdims=True)
    own = own.astype(values.dtype)
    sums = jnp.einsum("rkt,rtd->rkd", own, values, preferred_element_type=jnp.float32)
    return sums / jnp.maximum(sizes, 1)


class Transform(nnx.Module):
    """A dense layer, an activation and, in some places, LayerNorm: BERT's pooler, for one."""

    def __init__(
        self, config: EncoderConfig, act: str, rngs: nnx.Rngs, *, norm: bool, width: int = 0
    ):
        width = width or config.hidden_size
        self.dense = dense(config, config.hidden_size, width, rngs, bias=config.pooler_bias)
        self.norm = layer_norm(config, rngs, width) if norm else None
        self.act = act

    def __call__(self, x: Array) -> Array:
        """[..., D] -> [..., width]."""
        x = ACTIVATIONS[self.act](self.dense(x))
        return x if self.norm is None else self.norm(x)


def pooler(config: EncoderConfig, rngs: nnx.Rngs) -> Transform:
    """The layer between a sequence's hidden state and its scores."""
    return Transform(config, config.pooler_act, rngs, norm=config.pooler_norm)


class Head(nnx.Module):
    """What all output layers have."""

    kind: str
    """How the name of transformers' class of encoder + head ends."""
    tied: ClassVar[bool] = False
    """Whether the word-embedding table is handed in as a last argument."""


class HiddenStates(Head):
    """No output layer: the encoder alone, for families without a pooler of their own."""

    kind = "Model"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        del config, rngs

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Nothing beside the hidden states."""
        return {}


class PoolerHead(Head):
    """BERT's pooler alone: tanh of a dense layer over [CLS] (`BertModel`'s `pooler_output`)."""

    kind = "Model"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.pooler = Transform(config, "tanh", rngs, norm=False)

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D], batch["anchor"] [R, K] -> pooled [R, K, D]."""
        return {"pooled": self.pooler(gather(hidden, batch["cls_position"]))}


class SequenceClassificationHead(Head):
    """Pooler, dropout, dense layer (`BertForSequenceClassification`; BERT paper, section 4.1)."""

    kind = "ForSequenceClassification"

    def __init__(
        self, config: EncoderConfig, num_labels: int, rngs: nnx.Rngs, *, start: float = 0.0
    ):
        """A new layer's logits begin about `start`."""
        self.pooler = pooler(config, rngs)
        self.classifier = dense(
            config, config.hidden_size, num_labels, rngs, start=start, last=True
        )
        self.rate = config.sequence_rate
        self.first_rate = self.rate if config.pooler_dropout else 0.0
        self.pooling = config.pooling

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D], batch["anchor"] [R, K] -> logits [R, K, C], float32."""
        first_key, last_key = split_key(key, 2) if self.first_rate else (None, key)
        cls_positions = batch["cls_position"]
        if self.pooling == "mean":
            pooled = segment_means(hidden, batch["segment_ids"], cls_positions.shape[1])
        else:
            pooled = gather(hidden, cls_positions)  # [R, K, D]
        pooled = self.pooler(dropout(pooled, self.first_rate, first_key))
        logits = self.classifier(dropout(pooled, self.rate, last_key))
        return {"logits": logits}


class NextSentenceHead(SequenceClassificationHead):
    """Whether the second text follows the first, alone (`BertForNextSentencePrediction`)."""

    kind = "ForNextSentencePrediction"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, 2, rngs)
        self.rate = 0.0


class MultipleChoiceHead(SequenceClassificationHead):
    """One score a sequence, to be compared with the other choices' (`BertForMultipleChoice`)."""

    kind = "ForMultipleChoice"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, 1, rngs)
        self.first_rate = 0.0


class TokenHead(Head):
    """Scores of every token, after dropout and, in ModernBERT, the layer that poolers are."""

    def __init__(self, config: EncoderConfig, outputs: int, rate: float, rngs: nnx.Rngs):
        self.transform = pooler(config, rngs) if config.transform_tokens else None
        self.classifier = dense(config, config.hidden_size, outputs, rngs, last=True)
        self.rate = rate

    def scores(self, hidden: Array, key: Array | None) -> Array:
        """Hidden [R, T, D] -> [R, T, outputs], float32."""
        x = hidden if self.transform is None else self.transform(hidden)
        return self.classifier(dropout(x, self.rate, key))


class SpanHead(TokenHead):
    """Start and end scores of every token (`BertForQuestionAnswering`; paper, section 4.2)."""

    kind = "ForQuestionAnswering"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, 2, config.span_dropout, rngs)

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D] -> start_logits [R, T] and end_logits [R, T], float32."""
        logits = self.scores(hidden, key)
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


class TokenClassificationHead(TokenHead):
    """Dropout and dense layer on every token (`BertForTokenClassification`; paper, section 5.3)."""

    kind = "ForTokenClassification"

    def __init__(self, config: EncoderConfig, num_labels: int, rngs: nnx.Rngs):
        super().__init__(config, num_labels, config.token_rate, rngs)

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D] -> logits [R, T, C], float32."""
        return {"logits": self.scores(hidden, key)}


class ReplacedTokenHead(Head):
    """Whether each token was replaced: ELECTRA's discriminator (`ElectraForPreTraining`).

    Clark et al., "ELECTRA" (2020), arXiv:2003.10555, section 2.
    """

    kind = "ForReplacedTokenDetection"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.transform = Transform(config, config.hidden_act, rngs, norm=False)
        self.classifier = dense(config, config.hidden_size, 1, rngs, last=True)

    def __call__(self, hidden: Array, batch: Mapping[str, Array], key: Array | None) -> Outputs:
        """Hidden [R, T, D] -> logits [R, T] of "was replaced", float32."""
        return {"logits": self.classifier(self.transform(hidden))[..., 0]}


class PreTrainingHead(Head):
    """BERT's two pre-training tasks (`BertForPreTraining`; paper, section 3.1).

    Masked words: dense, activation, LayerNorm, then the word-embedding table, transposed, and a
    bias of its own. Next sentence: pooler and dense layer; without it, `BertForMaskedLM`. Scores
    over the vocabulary are computed at masked places alone, at most `rate` of a row's tokens and
    one more for each segment, which are gathered first. ALBERT's second task is whether the texts
    are in order (Lan et al. 2020, arXiv:1909.11942, section 3.1); its layers are the same.
    """

    tied = True

    def __init__(self, config: EncoderConfig, rate: float, next_sentence: bool, rngs: nnx.Rngs):
        width = config.hidden_size
        act, words = config.word_act or config.hidden_act, config.word_width
        self.transform = Transform(config, act, rngs, norm=True, width=words)
        bias = jnp.zeros(config.vocab_size, jnp.dtype(config.param_dtype))
        self.word_bias = nnx.Param(bias) if config.word_bias else None
        own = not config.tie_word_embeddings
        self.decoder = embed(config, config.vocab_size, words, rngs) if own else None
        self.mask_rate = rate
        self.next_sentence = dense(config, width, 2, rngs, last=True) if next_sentence else None
        self.pooler = pooler(config, rngs) if next_sentence else None
        self.kind = "ForPreTraining" if next_sentence else "ForMaskedLM"

    def __call__(
        self, hidden: Array, batch: Mapping[str, Array], key: Array | None, words: Embedding
    ) -> Outputs:
        """Score masked words and, with it, the next sentence.

        Args:
          hidden: [R, T, D].
          batch: `masked` [R, T], 1 where a word is to be guessed; without it every place is.
            `cls_position` [R, K].
          key: unused; this head has no dropout.
          words: the encoder's table.

        Returns:
          `places` [R, P], the masked places, then others; `mlm_logits` [R, P, V] there; and
          `nsp_logits` [R, K, 2] (0: the second text follows the first), all float32.
        """
        length, segments = hidden.shape[1], batch["cls_position"].shape[1]
        most = length
        if "masked" in batch:
            most = min(length, math.ceil(self.mask_rate * length) + segments)
        masked = batch.get("masked", jnp.ones(hidden.shape[:2], jnp.int32))
        _, places = jax.lax.top_k(masked, most)  # ties: the first place first
        table = words if self.decoder is None else self.decoder
        logits = table.attend(self.transform(gather(hidden, places)))
        if self.word_bias is not None:
            logits += self.word_bias
        outputs = {"places": places, "mlm_logits": logits}
        if self.next_sentence is not None and self.pooler is not None:
            pooled = self.pooler(gather(hidden, batch["cls_position"]))
            outputs["nsp_logits"] = self.next_sentence(pooled)
        return outputs


MakeHead = Callable[[EncoderConfig, nnx.Rngs], Head]
"""Builds a task's output layer for an encoder of the given sizes."""

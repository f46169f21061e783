"""Output layers: the part in which BERT's downstream tasks differ. Shape letters: layers.py.

A head maps hidden states to named outputs. Sequence-level heads read the hidden state at
`cls_position`, the position of each segment's [CLS]; token-level heads read every position. Where
families of encoders differ (RoBERTa has dropout before its pooler, ELECTRA a GELU in it), the
encoder's configuration says how.

The differences between heads that other modules depend on are class attributes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.dropout import DropoutKeys, at_places, dropout, fold_in
from flaxbert.models.layers import (
    ACTIVATIONS,
    Embedding,
    EncoderConfig,
    dense,
    embed,
    layer_norm,
)
from flaxbert.models.words import chunk_size, cross_entropy
from flaxbert.types import Batch

Outputs = dict[str, Array]


def gather(values: Array, positions: Array) -> Array:
    """Pick `values` [R, T, D] at `positions` [R, K] of their row: float32 [R, K, D].

    Float32 because the gradients of several segments may add up at one position.
    """
    return jnp.take_along_axis(values.astype(jnp.float32), positions[..., None], axis=1)


def segment_means(values: Array, segment_ids: Array, count: int) -> Array:
    """Average `values` [R, T, D] over each of `count` segments: float32 [R, K, D].

    The mean of an empty segment is 0.
    """
    members = segment_ids[:, None, :] == jnp.arange(1, count + 1)[:, None]  # [R, K, T]
    sizes = jnp.sum(members, axis=-1, keepdims=True)
    members = members.astype(values.dtype)
    sums = jnp.einsum("rkt,rtd->rkd", members, values, preferred_element_type=jnp.float32)
    return sums / jnp.maximum(sizes, 1)


class DenseNorm(nnx.Module):
    """A dense layer, an activation and optionally LayerNorm, such as BERT's pooler."""

    def __init__(
        self, config: EncoderConfig, act: str, rngs: nnx.Rngs, *, norm: bool, width: int = 0
    ):
        width = width or config.hidden_size
        self.dense = dense(config, config.hidden_size, width, rngs, bias=config.pooler_bias)
        self.norm = layer_norm(config, rngs, width) if norm else None
        self.act = act

    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., width]."""
        x = ACTIVATIONS[self.act](self.dense(x))
        return x if self.norm is None else self.norm(x)


def pooler(config: EncoderConfig, rngs: nnx.Rngs) -> DenseNorm:
    """Build the layer between the hidden state of a sequence and its scores."""
    return DenseNorm(config, config.pooler_act, rngs, norm=config.pooler_norm)


class Head(nnx.Module):
    """An output layer, with the attributes that checkpoints, model cards and parity checks use."""

    head_type: ClassVar[str]
    """Suffix of the transformers class name, such as ForQuestionAnswering."""
    is_bare: ClassVar[bool] = False
    """Whether the transformers class is the encoder itself, whose tensor names have no prefix."""
    serves_one_task: ClassVar[bool] = False
    """Whether trained weights serve only their own task, unlike those of pre-training heads."""
    uses_word_embeddings: ClassVar[bool] = False
    """Whether the word-embedding table is passed as a last argument."""
    pipeline_tag: ClassVar[str | None] = None
    """Task name under which the Hugging Face Hub lists such models."""
    hf_token_outputs: ClassVar[Mapping[str, Sequence[str]]] = {}
    """{output [R, T, ...]: its names in transformers}; the first name that is present counts."""
    hf_sequence_outputs: ClassVar[Mapping[str, Sequence[str]]] = {}
    """{output [R, K, ...]: its names in transformers}, which has one sequence in a row."""
    hf_rows_are_choices: ClassVar[bool] = False
    """Whether transformers takes the rows as the choices of one example, [1, R, T]."""

    @classmethod
    def maker(cls, num_labels: int) -> "MakeHead":
        """Return the function that builds this head for a checkpoint with `num_labels` labels."""
        del num_labels
        return cls


MakeHead = Callable[[EncoderConfig, nnx.Rngs], Head]
"""Builds a task's output layer for an encoder of the given sizes."""


class NoHead(Head):
    """The head of an encoder alone, for families without a pooler: it has no outputs."""

    head_type = "Model"
    is_bare = True

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        del config, rngs

    def __call__(self, hidden: Array, batch: Batch, keys: DropoutKeys | None) -> Outputs:
        """Return no outputs: the model's only output is `hidden_states`."""
        return {}


class PoolerHead(Head):
    """BERT's pooler alone: tanh of a dense layer over [CLS] (`BertModel`'s `pooler_output`)."""

    head_type = "Model"
    is_bare = True
    hf_sequence_outputs: ClassVar = {"pooled": ("pooler_output",)}

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.pooler = DenseNorm(config, "tanh", rngs, norm=False)

    def __call__(self, hidden: Array, batch: Batch, keys: DropoutKeys | None) -> Outputs:
        """Map hidden [R, T, D] and `cls_position` [R, K] to `pooled` [R, K, D]."""
        return {"pooled": self.pooler(gather(hidden, batch.cls_position))}


class SequenceHead(Head):
    """A head that scores each sequence with a pooler, dropout and a dense layer."""

    hf_sequence_outputs: ClassVar = {"logits": ("logits",)}

    def __init__(
        self, config: EncoderConfig, outputs: int, rngs: nnx.Rngs, *, bias_init: float = 0.0
    ):
        self.pooler = pooler(config, rngs)
        self.classifier = dense(
            config, config.hidden_size, outputs, rngs, bias_init=bias_init, logits=True
        )
        self.rate = config.classifier_rate
        self.pooler_rate = self.rate if config.pooler_dropout else 0.0
        self.pooling = config.pooling

    def __call__(self, hidden: Array, batch: Batch, keys: DropoutKeys | None) -> Outputs:
        """Map hidden [R, T, D] and `cls_position` [R, K] to float32 `logits` [R, K, C]."""
        cls_positions = batch.cls_position
        keys = at_places(keys, cls_positions)
        if self.pooling == "mean":
            pooled = segment_means(hidden, batch.segment_ids, cls_positions.shape[1])
        else:
            pooled = gather(hidden, cls_positions)  # [R, K, D]
        pooled = self.pooler(dropout(pooled, self.pooler_rate, fold_in(keys, 0)))
        return {"logits": self.classifier(dropout(pooled, self.rate, fold_in(keys, 1)))}


class SequenceClassificationHead(SequenceHead):
    """A head that scores C classes (`BertForSequenceClassification`; BERT paper, section 4.1)."""

    head_type = "ForSequenceClassification"
    serves_one_task = True
    pipeline_tag = "text-classification"

    def __init__(
        self, config: EncoderConfig, num_labels: int, rngs: nnx.Rngs, *, bias_init: float = 0.0
    ):
        """Build the layer; the logits of a new one are close to `bias_init`."""
        super().__init__(config, num_labels, rngs, bias_init=bias_init)

    @classmethod
    def maker(cls, num_labels: int) -> MakeHead:
        """Return the function that builds this head for `num_labels` classes."""
        return lambda config, rngs: cls(config, num_labels, rngs)


class NextSentenceHead(SequenceHead):
    """A head that scores whether text 2 follows text 1 (`BertForNextSentencePrediction`)."""

    head_type = "ForNextSentencePrediction"

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, 2, rngs)
        self.rate = 0.0


class MultipleChoiceHead(SequenceHead):
    """A head with one score for each sequence, a choice (`BertForMultipleChoice`)."""

    head_type = "ForMultipleChoice"
    serves_one_task = True
    pipeline_tag = "multiple-choice"
    hf_rows_are_choices = True

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, 1, rngs)
        self.pooler_rate = 0.0


class TokenHead(Head):
    """A head that scores every token with dropout and a dense layer.

    In ModernBERT, a layer like its pooler precedes them.
    """

    def __init__(self, config: EncoderConfig, outputs: int, rate: float, rngs: nnx.Rngs):
        self.transform = pooler(config, rngs) if config.transform_tokens else None
        self.classifier = dense(config, config.hidden_size, outputs, rngs, logits=True)
        self.rate = rate

    def scores(self, hidden: Array, keys: DropoutKeys | None) -> Array:
        """Map hidden [R, T, D] to float32 [R, T, outputs]."""
        x = hidden if self.transform is None else self.transform(hidden)
        return self.classifier(dropout(x, self.rate, keys))


class SpanHead(TokenHead):
    """A head with start and end scores (`BertForQuestionAnswering`; paper, section 4.2)."""

    head_type = "ForQuestionAnswering"
    serves_one_task = True
    pipeline_tag = "question-answering"
    hf_token_outputs: ClassVar = {
        "start_logits": ("start_logits",),
        "end_logits": ("end_logits",),
    }

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, 2, config.span_dropout, rngs)

    def __call__(self, hidden: Array, batch: Batch, keys: DropoutKeys | None) -> Outputs:
        """Map hidden [R, T, D] to float32 `start_logits` and `end_logits` [R, T]."""
        logits = self.scores(hidden, keys)
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


class TokenClassificationHead(TokenHead):
    """A head with C scores per token (`BertForTokenClassification`; paper, section 5.3)."""

    head_type = "ForTokenClassification"
    serves_one_task = True
    pipeline_tag = "token-classification"
    hf_token_outputs: ClassVar = {"logits": ("logits",)}

    def __init__(self, config: EncoderConfig, num_labels: int, rngs: nnx.Rngs):
        super().__init__(config, num_labels, config.token_classifier_rate, rngs)

    @classmethod
    def maker(cls, num_labels: int) -> MakeHead:
        """Return the function that builds this head for `num_labels` classes."""
        return lambda config, rngs: cls(config, num_labels, rngs)

    def __call__(self, hidden: Array, batch: Batch, keys: DropoutKeys | None) -> Outputs:
        """Map hidden [R, T, D] to float32 `logits` [R, T, C]."""
        return {"logits": self.scores(hidden, keys)}


class ReplacedTokenHead(Head):
    """ELECTRA's discriminator, which scores whether a token was replaced (`ElectraForPreTraining`).

    Clark et al., "ELECTRA" (2020), arXiv:2003.10555, section 2.
    """

    head_type = "ForReplacedTokenDetection"
    hf_token_outputs: ClassVar = {"logits": ("logits",)}

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.transform = DenseNorm(config, config.hidden_act, rngs, norm=False)
        self.classifier = dense(config, config.hidden_size, 1, rngs, logits=True)

    def __call__(self, hidden: Array, batch: Batch, keys: DropoutKeys | None) -> Outputs:
        """Map hidden [R, T, D] to float32 `logits` [R, T] of "was replaced"."""
        return {"logits": self.classifier(self.transform(hidden))[..., 0]}


class MaskedLMHead(Head):
    """A head that scores words at masked positions (`BertForMaskedLM`; paper, section 3.1).

    It is a dense layer, activation, LayerNorm, the transposed word-embedding table and a bias.
    Masked positions are gathered first: at most a share `rate` of a row's tokens and one more for
    each segment. Only these are scored.
    """

    head_type = "ForMaskedLM"
    uses_word_embeddings = True
    pipeline_tag: ClassVar[str | None] = "fill-mask"
    hf_token_outputs: ClassVar = {"mlm_logits": ("logits",)}

    def __init__(self, config: EncoderConfig, rate: float, rngs: nnx.Rngs):
        act, width = config.word_act or config.hidden_act, config.word_width
        self.transform = DenseNorm(config, act, rngs, norm=True, width=width)
        bias = jnp.zeros(config.vocab_size, jnp.dtype(config.param_dtype))
        self.word_bias = nnx.Param(bias) if config.word_bias else None
        untied = not config.tie_word_embeddings
        self.decoder = embed(config, config.vocab_size, width, rngs) if untied else None
        self.mask_rate = rate

    @classmethod
    def maker(cls, num_labels: int) -> MakeHead:
        """Return the function that builds this head for any share of masked tokens."""
        del num_labels
        return lambda config, rngs: cls(config, 1.0, rngs)

    def __call__(
        self, hidden: Array, batch: Batch, keys: DropoutKeys | None, words: Embedding
    ) -> Outputs:
        """Score the words at masked positions.

        Args:
          hidden: [R, T, D].
          batch: `extra["masked"]` [R, T], 1 where a word is to be predicted; without it all are.
            `cls_position` [R, K]. `label` [R, T], the true words, or None.
          keys: unused; this head has no dropout.
          words: the encoder's word-embedding table.

        Returns:
          `masked_positions` [R, P], the masked ones first, and float32 `mlm_logits` [R, P, V]. If
          these were large and there are labels, instead the cross-entropy `mlm_losses` [R, P] and
          `mlm_right` [R, P], whether the best word is the label; see words.py.
        """
        length, segments = hidden.shape[1], batch.cls_position.shape[1]
        count, masked = length, batch.extra.get("masked")
        if masked is not None:
            count = min(length, math.ceil(self.mask_rate * length) + segments)
        else:
            masked = jnp.ones(hidden.shape[:2], jnp.int32)
        # `top_k` would gather the rows of all devices; a sort keeps them where they are.
        positions = jnp.argsort(-masked, axis=1, stable=True)[:, :count]
        table = words if self.decoder is None else self.decoder
        x = self.transform(gather(hidden, positions))
        size = chunk_size(positions, table.num_embeddings)
        if batch.label is not None and size < table.num_embeddings:
            bias = None if self.word_bias is None else self.word_bias[...]
            label = jnp.take_along_axis(batch.label, positions, axis=1)
            x = x.astype(table.dtype)
            losses, right = cross_entropy(x, table.embedding[...], bias, label, size)
            return {"masked_positions": positions, "mlm_losses": losses, "mlm_right": right}
        logits = table.attend(x)
        if self.word_bias is not None:
            logits += self.word_bias
        return {"masked_positions": positions, "mlm_logits": logits}


class PreTrainingHead(MaskedLMHead):
    """A head for BERT's two pre-training tasks (`BertForPreTraining`; paper, section 3.1).

    It scores masked words, and with a pooler and a dense layer whether the second text follows the
    first. ALBERT's second task is whether two texts are in order (Lan et al. 2020,
    arXiv:1909.11942, section 3.1); its layers are the same.
    """

    head_type = "ForPreTraining"
    pipeline_tag = None
    hf_token_outputs: ClassVar = {"mlm_logits": ("prediction_logits",)}
    hf_sequence_outputs: ClassVar = {"nsp_logits": ("seq_relationship_logits", "sop_logits")}

    def __init__(self, config: EncoderConfig, rate: float, rngs: nnx.Rngs):
        super().__init__(config, rate, rngs)
        self.next_sentence = dense(config, config.hidden_size, 2, rngs, logits=True)
        self.pooler = pooler(config, rngs)

    def __call__(
        self, hidden: Array, batch: Batch, keys: DropoutKeys | None, words: Embedding
    ) -> Outputs:
        """Score masked words as `MaskedLMHead` does, and the order of each segment's two texts.

        Returns:
          The outputs of `MaskedLMHead`, and float32 `nsp_logits` [R, K, 2]; class 0 means that the
          second text follows the first.
        """
        outputs = super().__call__(hidden, batch, keys, words)
        pooled = self.pooler(gather(hidden, batch.cls_position))
        return outputs | {"nsp_logits": self.next_sentence(pooled)}


HEADS: dict[str, type[Head]] = {
    head.head_type: head
    for head in (
        SequenceClassificationHead,
        NextSentenceHead,
        MultipleChoiceHead,
        SpanHead,
        TokenClassificationHead,
        ReplacedTokenHead,
        MaskedLMHead,
        PreTrainingHead,
    )
}
"""Output layers by their `head_type`. "Model" is absent: a family has `PoolerHead` or `NoHead`."""

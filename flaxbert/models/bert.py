"""BERT, the bidirectional Transformer encoder, in `flax.nnx`, and its closest relatives.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
Language Understanding" (2019), arXiv:1810.04805. Numerically equal to `BertModel` of Hugging Face
transformers, which is equal to the original google-research/bert. RoBERTa, DistilBERT, ELECTRA and
ALBERT are this encoder with other sizes: see `BertConfig` and families/. Shape letters: layers.py.

A row may hold several packed sequences, its *segments*. Attention stays inside a segment and
positions restart with each, so packing changes how fast a model trains, never what it computes.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.layers import (
    ACTIVATIONS,
    EncoderConfig,
    attend,
    dense,
    dropout,
    embed,
    layer_norm,
    same_segment,
    split_key,
    with_remat,
)


@dataclasses.dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """Sizes and constants of a BERT encoder, under the names of its Hugging Face `config.json`."""

    type_vocab_size: int = 2
    """Kinds of segments in a pair; 0 (DistilBERT): no such embedding."""
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    num_hidden_groups: int | None = None
    """ALBERT: groups of layers with parameters of their own; None: every layer is one."""
    inner_group_num: int = 1
    """ALBERT: layers of a group; each of `num_hidden_layers` runs through all of them."""

    @property
    def sequence_rate(self) -> float:
        """Dropout rate before the scores of a sequence."""
        own = self.classifier_dropout
        return self.hidden_dropout_prob if own is None else own

    @property
    def schedule(self) -> list[int]:
        """Which of the stored layers runs at each depth; ALBERT's run several times."""
        groups = self.num_hidden_groups or self.num_hidden_layers
        return [
            depth * groups // self.num_hidden_layers * self.inner_group_num + inner
            for depth in range(self.num_hidden_layers)
            for inner in range(self.inner_group_num)
        ]


class Embeddings(nnx.Module):
    """Word + token-type + position embeddings, LayerNorm, dropout, and a projection from E to D."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        width = config.word_width
        self.word = embed(config, config.vocab_size, width, rngs)
        self.position = embed(config, config.max_position_embeddings, width, rngs)
        types = config.type_vocab_size
        self.token_type = embed(config, types, width, rngs) if types else None
        self.norm = layer_norm(config, rngs, width)
        projected = config.embedding_size is not None
        self.project = dense(config, width, config.hidden_size, rngs) if projected else None
        self.first_position = config.first_position
        self.rate = config.hidden_dropout_prob

    def __call__(
        self, input_ids: Array, token_type_ids: Array, position_ids: Array, key: Array | None
    ) -> Array:
        """[R, T] ids -> [R, T, D]."""
        x = self.word(input_ids)  # float32 up to the norm
        if self.token_type is not None:
            # RoBERTa has a table of one row: both texts of a pair are of the same kind.
            x += self.token_type.select(token_type_ids)
        x += self.position(position_ids + self.first_position)
        x = dropout(self.norm(x), self.rate, key)
        return x if self.project is None else self.project(x)


class SelfAttention(nnx.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        width = config.hidden_size
        self.query = dense(config, width, width, rngs)
        self.key = dense(config, width, width, rngs)
        self.value = dense(config, width, width, rngs)
        self.output = dense(config, width, width, rngs)
        self.heads = config.num_attention_heads
        self.rate = config.attention_probs_dropout_prob

    def __call__(self, x: Array, mask: Array, key: Array | None) -> Array:
        """[R, T, D] and a boolean mask [R, 1, T, S] (True: may attend) -> [R, T, D]."""
        rows, length, width = x.shape
        split = (rows, length, self.heads, width // self.heads)
        q = self.query(x).reshape(split)  # [R, T, N, H]
        k = self.key(x).reshape(split)  # [R, S, N, H]
        v = self.value(x).reshape(split)  # [R, S, N, H]
        return self.output(attend(q, k, v, mask, self.rate, key))


class Layer(nnx.Module):
    """One encoder block. Post-LN: each sub-layer's sum with its input is normalised after it."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, rngs)
        self.attention_norm = layer_norm(config, rngs)
        self.intermediate = dense(config, config.hidden_size, config.intermediate_size, rngs)
        self.output = dense(config, config.intermediate_size, config.hidden_size, rngs)
        self.output_norm = layer_norm(config, rngs)
        self.activation = config.hidden_act
        self.rate = config.hidden_dropout_prob

    def __call__(self, x: Array, mask: Array, key: Array | None) -> Array:
        """[R, T, D], mask [R, 1, T, S] -> [R, T, D]."""
        probs_key, attention_key, output_key = split_key(key, 3)
        y = dropout(self.attention(x, mask, probs_key), self.rate, attention_key)
        x = self.attention_norm(x + y)
        y = self.output(ACTIVATIONS[self.activation](self.intermediate(x)))  # [R, T, F] inside
        return self.output_norm(x + dropout(y, self.rate, output_key))


class Bert(nnx.Module):
    """The encoder: embeddings and a stack of layers, without pooler or any other output layer."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, rngs)
        self.schedule = tuple(config.schedule)
        self.layers = nnx.List([Layer(config, rngs) for _ in range(max(self.schedule) + 1)])
        self.remat = config.remat
        self.positions = config.positions

    def __call__(
        self,
        input_ids: Array,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        segment_ids: Array | None = None,
        *,
        key: Array | None = None,
    ) -> Array:
        """Encode packed rows.

        Args:
          input_ids: [R, T] token ids.
          token_type_ids: [R, T], 0 or 1 (second text of a pair); default all 0.
          position_ids: [R, T], restarting at 0 with each segment; default 0 to T - 1.
          segment_ids: [R, T], 0 for padding and k for the k-th segment of the row; default all 1.
            A tokenizer's `attention_mask` is the one-segment case.
          key: dropout key; None means no dropout.

        Returns:
          Hidden states of the last layer, [R, T, D]. Those of padding are meaningless but finite.

        Raises:
          ValueError: without `position_ids`, for rows longer than the position table.
        """
        length = input_ids.shape[1]
        if position_ids is None:
            if length > self.positions:  # an indexed look-up would not complain
                raise ValueError(
                    f"rows of {length} tokens, but the model knows {self.positions} positions"
                )
            position_ids = jnp.broadcast_to(jnp.arange(length), input_ids.shape)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        mask = same_segment(jnp.ones_like(input_ids) if segment_ids is None else segment_ids)
        embedding_key, *layer_keys = split_key(key, 1 + len(self.schedule))
        x = self.embeddings(input_ids, token_type_ids, position_ids, embedding_key)
        for index, layer_key in zip(self.schedule, layer_keys, strict=True):
            x = with_remat(self.layers[index].__call__, self.remat)(x, mask, layer_key)
        return x

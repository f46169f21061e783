"""BERT, the bidirectional Transformer encoder, in `flax.nnx`, and its closest relatives.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
Language Understanding" (2019), arXiv:1810.04805. Numerically equal to `BertModel` of Hugging Face
transformers and to the original google-research/bert. RoBERTa, CamemBERT, DistilBERT, ELECTRA and
ALBERT are this encoder with other constants, and Megatron-BERT and XLM-R XL with LayerNorm in other
places: see `BertConfig` and families/. Shape letters: layers.py.

A row may hold several packed sequences, its *segments*. A token attends only to its own segment,
and positions restart at 0 in each, so packing changes the speed of training and not its results.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.attention import attend
from flaxbert.models.dropout import DropoutKeys, dropout, fold_in
from flaxbert.models.layers import (
    ACTIVATIONS,
    EncoderConfig,
    apply_layer,
    dense,
    embed,
    layer_norm,
)


@dataclasses.dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """Sizes and constants of a BERT encoder, named as in its Hugging Face `config.json`."""

    type_vocab_size: int = 2
    """Number of token types; 0 (DistilBERT): no such embedding."""
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    num_hidden_groups: int | None = None
    """ALBERT: number of layer groups that do not share parameters; None: one for each layer."""
    inner_group_num: int = 1
    """ALBERT: layers in a group; each of the `num_hidden_layers` runs all layers of its group."""
    pre_norm: bool = False
    """Megatron-BERT and XLM-R XL: whether the input of a sub-layer is normalized instead of the sum
    after it (Xiong et al. 2020, arXiv:2002.04745). The embeddings then have no LayerNorm; the last
    layer has one after it."""

    @property
    def attention_rate(self) -> float:
        """Dropout rate of the attention probabilities."""
        return self.attention_probs_dropout_prob

    @property
    def classifier_rate(self) -> float:
        """Dropout rate before the last layer of a sequence classifier."""
        rate = self.classifier_dropout
        return self.hidden_dropout_prob if rate is None else rate

    @property
    def schedule(self) -> list[int]:
        """Index of the layer that runs at each depth; ALBERT's layers run several times."""
        groups = self.num_hidden_groups or self.num_hidden_layers
        return [
            depth * groups // self.num_hidden_layers * self.inner_group_num + inner
            for depth in range(self.num_hidden_layers)
            for inner in range(self.inner_group_num)
        ]


class Embeddings(nnx.Module):
    """Word, token-type and position embeddings, LayerNorm, dropout, a projection from E to D.

    Pre-LN encoders have no LayerNorm here.
    """

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        width = config.word_width
        self.word = embed(config, config.vocab_size, width, rngs)
        self.position = embed(config, config.max_position_embeddings, width, rngs)
        types = config.type_vocab_size
        self.token_type = embed(config, types, width, rngs) if types else None
        self.norm = None if config.pre_norm else layer_norm(config, rngs, width)
        projected = config.embedding_size is not None
        self.project = dense(config, width, config.hidden_size, rngs) if projected else None
        self.position_offset = config.position_offset
        self.rate = config.hidden_dropout_prob
        self.dtype = jnp.dtype(config.dtype)

    @jax.named_scope("embeddings")
    def __call__(
        self, input_ids: Array, token_type_ids: Array, position_ids: Array, keys: DropoutKeys | None
    ) -> Array:
        """Map ids [R, T] to embeddings [R, T, D]."""
        x = self.word(input_ids)  # the sum is float32
        if self.token_type is not None:
            # RoBERTa's table has one row: all its tokens have the same type.
            x += self.token_type.select(token_type_ids)
        x += self.position(position_ids + self.position_offset)
        x = x.astype(self.dtype)  # LayerNorm saves its input for the backward pass
        x = x if self.norm is None else self.norm(x)
        x = dropout(x, self.rate, keys)
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
        self.rate = config.attention_rate
        self.way = config.attention

    @jax.named_scope("attention")
    def __call__(self, x: Array, segment_ids: Array, keys: DropoutKeys | None) -> Array:
        """Map hidden states [R, T, D] and segment ids [R, T] to [R, T, D]."""
        rows, length, width = x.shape
        split = (rows, length, self.heads, width // self.heads)
        layers = (self.query, self.key, self.value)
        q, k, v = (layer.multiply(x).reshape(split) for layer in layers)  # [R, T, N, H]
        biases = jnp.stack([layer.bias[...] for layer in layers if layer.bias is not None])
        biases = biases.reshape(3, *split[2:])  # [3, N, H]
        context = attend(
            q, k, v, segment_ids, biases=biases, rate=self.rate, keys=keys, way=self.way
        )
        return self.output(context)


class Layer(nnx.Module):
    """One encoder block. Post-LN: the sum of each sub-layer and its input is normalized.

    Pre-LN: the input of each sub-layer is normalized, and the sum is not.
    """

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, rngs)
        self.attention_norm = layer_norm(config, rngs)
        self.intermediate = dense(config, config.hidden_size, config.intermediate_size, rngs)
        self.output = dense(config, config.intermediate_size, config.hidden_size, rngs)
        self.output_norm = layer_norm(config, rngs)
        self.activation = config.hidden_act
        self.rate = config.hidden_dropout_prob
        self.pre_norm = config.pre_norm

    def __call__(self, x: Array, segment_ids: Array, keys: DropoutKeys | None) -> Array:
        """Map hidden states [R, T, D] and segment ids [R, T] to [R, T, D]."""
        if self.pre_norm:
            x += self.attend(self.attention_norm(x), segment_ids, keys)
            return x + self.feed_forward(self.output_norm(x), keys)
        x = self.attention_norm(x + self.attend(x, segment_ids, keys))
        return self.output_norm(x + self.feed_forward(x, keys))

    def attend(self, x: Array, segment_ids: Array, keys: DropoutKeys | None) -> Array:
        """Apply attention and dropout: map [R, T, D] to [R, T, D]."""
        y = self.attention(x, segment_ids, fold_in(keys, 0))
        return dropout(y, self.rate, fold_in(keys, 1))

    def feed_forward(self, x: Array, keys: DropoutKeys | None) -> Array:
        """Apply both dense layers and dropout: map [R, T, D] to [R, T, D]."""
        with jax.named_scope("mlp"):
            hidden = self.intermediate(x)  # [R, T, F]
            y = self.output(hidden, activation=ACTIVATIONS[self.activation])
        return dropout(y, self.rate, fold_in(keys, 2))


class Bert(nnx.Module):
    """The encoder: embeddings and a stack of layers, without a pooler or other output layer."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, rngs)
        self.schedule = tuple(config.schedule)
        self.layers = nnx.List([Layer(config, rngs) for _ in range(max(self.schedule) + 1)])
        self.norm = layer_norm(config, rngs) if config.pre_norm else None
        self.remat = config.remat
        self.max_positions = config.max_positions

    def __call__(
        self,
        input_ids: Array,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        segment_ids: Array | None = None,
        *,
        keys: DropoutKeys | None = None,
    ) -> Array:
        """Encode packed rows.

        Args:
          input_ids: [R, T] token ids.
          token_type_ids: [R, T], 1 for the second text of a pair, else 0; default all 0.
          position_ids: [R, T], restarting at 0 in each segment; default 0 to T - 1.
          segment_ids: [R, T], 0 for padding and k for the k-th segment of the row, whose tokens are
            contiguous; default all 1. A tokenizer's `attention_mask` is the one-segment case.
          keys: dropout keys of the tokens; None means no dropout.

        Returns:
          Hidden states of the last layer, [R, T, D]. Those of padding are finite but meaningless.

        Raises:
          ValueError: if the rows are longer than the position table and `position_ids` is None.
        """
        length = input_ids.shape[1]
        if position_ids is None:
            if length > self.max_positions:  # an indexed look-up would not raise
                raise ValueError(
                    f"rows have {length} tokens, but the model has {self.max_positions} positions"
                )
            position_ids = jnp.broadcast_to(jnp.arange(length), input_ids.shape)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        if segment_ids is None:
            segment_ids = jnp.ones_like(input_ids)
        x = self.embeddings(input_ids, token_type_ids, position_ids, fold_in(keys, 0))
        for depth, index in enumerate(self.schedule, start=1):
            args = x, segment_ids, fold_in(keys, depth)
            x = apply_layer(self.layers[index], self.remat, *args)
        return x if self.norm is None else self.norm(x)

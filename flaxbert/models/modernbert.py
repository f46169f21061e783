"""ModernBERT: pre-LN, rotary positions, gated feed-forward, alternating local and global attention.

Warner et al., "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast, Memory
Efficient, and Long Context Finetuning and Inference" (2024), arXiv:2412.13663. Numerically equal to
`ModernBertModel` of Hugging Face transformers. Shape letters: layers.py.
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
class ModernBertConfig(EncoderConfig):
    """Sizes and constants of a ModernBERT encoder."""

    layer_types: tuple[str, ...] = ()
    """Attention of each layer: full_attention or sliding_attention."""
    local_attention: int = 128
    """Window of a local layer: a token attends to half as many tokens on each side."""
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0

    @property
    def attention_rate(self) -> float:
        """Dropout rate of the attention probabilities."""
        return self.attention_dropout

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer, how far a token attends to each side; None: to its whole segment."""
        local = self.local_attention // 2
        return tuple(local if kind == "sliding_attention" else None for kind in self.layer_types)


def frequencies(width: int, theta: float) -> Array:
    """Return the angles [H/2] that rotary positions grow by from token to token."""
    half = width // 2
    return theta ** (-jnp.arange(half, dtype=jnp.float32) / half)


def rotate(x: Array, position_ids: Array, theta: float) -> Array:
    """Apply rotary position embedding (Su et al. 2021, arXiv:2104.09864, section 3.4.2).

    Args:
      x: [R, T, N, H]; dimension i is rotated with dimension i + H/2, as in GPT-NeoX.
      position_ids: [R, T].
      theta: base of the frequencies theta^(-2i/H).
    """
    angles = position_ids[..., None, None].astype(jnp.float32) * frequencies(x.shape[-1], theta)
    cos, sin = jnp.cos(angles), jnp.sin(angles)  # [R, T, 1, H/2]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Layer(nnx.Module):
    """One block. Pre-LN: each sub-layer normalizes its input; the sum is not normalized."""

    def __init__(self, config: ModernBertConfig, index: int, rngs: nnx.Rngs):
        width = config.hidden_size
        # The embeddings end with a LayerNorm, so the first layer has none.
        self.attention_norm = layer_norm(config, rngs) if index else None
        self.qkv = dense(config, width, 3 * width, rngs, bias=config.attention_bias)
        self.attention_output = dense(config, width, width, rngs, bias=config.attention_bias)
        self.norm = layer_norm(config, rngs)
        gated = 2 * config.intermediate_size
        self.intermediate = dense(config, width, gated, rngs, bias=config.mlp_bias)
        self.output = dense(config, config.intermediate_size, width, rngs, bias=config.mlp_bias)
        self.heads = config.num_attention_heads
        self.activation = config.hidden_act
        self.window = config.windows[index]
        is_global = self.window is None
        self.theta = config.global_rope_theta if is_global else config.local_rope_theta
        self.attention_rate = config.attention_rate
        self.way = config.attention
        self.rate = config.mlp_dropout

    def __call__(
        self, x: Array, segment_ids: Array, position_ids: Array, keys: DropoutKeys | None
    ) -> Array:
        """Map hidden states [R, T, D], segment and position ids [R, T] to [R, T, D]."""
        y = self.attend(x, segment_ids, position_ids, fold_in(keys, 0))
        x += dropout(y, self.attention_rate, fold_in(keys, 1))
        return x + self.feed_forward(x, fold_in(keys, 2))

    @jax.named_scope("attention")
    def attend(
        self, x: Array, segment_ids: Array, position_ids: Array, keys: DropoutKeys | None
    ) -> Array:
        """Normalize and attend: map [R, T, D] to [R, T, D]."""
        x = x if self.attention_norm is None else self.attention_norm(x)
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        q, k, v = (part.reshape(split) for part in jnp.split(self.qkv(x), 3, axis=-1))
        q, k = rotate(q, position_ids, self.theta), rotate(k, position_ids, self.theta)
        rate = self.attention_rate
        context = attend(
            q, k, v, segment_ids, window=self.window, rate=rate, keys=keys, way=self.way
        )
        return self.attention_output(context)

    @jax.named_scope("mlp")
    def feed_forward(self, x: Array, keys: DropoutKeys | None) -> Array:
        """Normalize and apply a gated linear unit (Shazeer 2020, arXiv:2002.05202)."""
        y, gate = jnp.split(self.intermediate(self.norm(x)), 2, axis=-1)  # [R, T, F] each
        return self.output(dropout(ACTIVATIONS[self.activation](y) * gate, self.rate, keys))


class Embeddings(nnx.Module):
    """Word embeddings, LayerNorm and dropout."""

    def __init__(self, config: ModernBertConfig, rngs: nnx.Rngs):
        self.word = embed(config, config.vocab_size, config.hidden_size, rngs)
        self.norm = layer_norm(config, rngs)
        self.rate = config.embedding_dropout
        self.dtype = jnp.dtype(config.dtype)

    @jax.named_scope("embeddings")
    def __call__(self, input_ids: Array, keys: DropoutKeys | None) -> Array:
        """Map ids [R, T] to embeddings [R, T, D]."""
        x = self.word(input_ids).astype(self.dtype)  # LayerNorm saves its input
        return dropout(self.norm(x), self.rate, keys)


class ModernBert(nnx.Module):
    """The encoder, without an output layer."""

    def __init__(self, config: ModernBertConfig, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, rngs)
        layers = range(config.num_hidden_layers)
        self.layers = nnx.List([Layer(config, index, rngs) for index in layers])
        self.norm = layer_norm(config, rngs)
        self.remat = config.remat

    def __call__(
        self,
        input_ids: Array,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        segment_ids: Array | None = None,
        *,
        keys: DropoutKeys | None = None,
    ) -> Array:
        """Encode packed rows; see `bert.Bert`. `token_type_ids` have no effect."""
        del token_type_ids
        if position_ids is None:
            position_ids = jnp.broadcast_to(jnp.arange(input_ids.shape[1]), input_ids.shape)
        if segment_ids is None:
            segment_ids = jnp.ones_like(input_ids)
        x = self.embeddings(input_ids, fold_in(keys, 0))
        for depth, layer in enumerate(self.layers, start=1):
            args = x, segment_ids, position_ids, fold_in(keys, depth)
            x = apply_layer(layer, self.remat, *args)
        return self.norm(x)

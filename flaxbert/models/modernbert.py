"""ModernBERT: pre-LN, rotary positions, gated feed-forward, alternating local and global attention.

Warner et al., "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast, Memory
Efficient, and Long Context Finetuning and Inference" (2024), arXiv:2412.13663. Numerically equal to
`ModernBertModel` of Hugging Face transformers. Shape letters: layers.py.
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
class ModernBertConfig(EncoderConfig):
    """Sizes and constants of a ModernBERT encoder."""

    layer_types: tuple[str, ...] = ()
    """Of each layer: full_attention or sliding_attention."""
    local_attention: int = 128
    """Tokens that a local layer's token sees: half of them on each side."""
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0

    @property
    def local(self) -> tuple[bool, ...]:
        """Of each layer: whether its attention is local."""
        return tuple(kind == "sliding_attention" for kind in self.layer_types)


def rotate(x: Array, position_ids: Array, theta: float) -> Array:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864, section 3.4.2).

    Args:
      x: [R, T, N, H]; dimension i is rotated with dimension i + H/2, as in GPT-NeoX.
      position_ids: [R, T].
      theta: base of the frequencies theta^(-2i/H).
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = position_ids[..., None, None].astype(jnp.float32) * frequencies  # [R, T, 1, H/2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Layer(nnx.Module):
    """One block. Pre-LN: each sub-layer normalises its input; the sum is left as it is."""

    def __init__(self, config: ModernBertConfig, index: int, rngs: nnx.Rngs):
        width = config.hidden_size
        # The embeddings end with a LayerNorm, so the first layer needs none.
        self.attention_norm = layer_norm(config, rngs) if index else None
        self.qkv = dense(config, width, 3 * width, rngs, bias=config.attention_bias)
        self.attention_output = dense(config, width, width, rngs, bias=config.attention_bias)
        self.norm = layer_norm(config, rngs)
        gated = 2 * config.intermediate_size
        self.intermediate = dense(config, width, gated, rngs, bias=config.mlp_bias)
        self.output = dense(config, config.intermediate_size, width, rngs, bias=config.mlp_bias)
        self.heads = config.num_attention_heads
        self.activation = config.hidden_act
        local = config.local[index]
        self.theta = config.local_rope_theta if local else config.global_rope_theta
        self.attention_rate = config.attention_dropout
        self.rate = config.mlp_dropout

    def __call__(self, x: Array, mask: Array, position_ids: Array, key: Array | None) -> Array:
        """[R, T, D], mask [R, 1, T, S], position_ids [R, T] -> [R, T, D]."""
        probs_key, attention_key, output_key = split_key(key, 3)
        y = x if self.attention_norm is None else self.attention_norm(x)
        q, k, v = jnp.split(self.qkv(y), 3, axis=-1)
        q, k, v = (each.reshape(*each.shape[:2], self.heads, -1) for each in (q, k, v))
        q, k = (rotate(each, position_ids, self.theta) for each in (q, k))
        y = self.attention_output(attend(q, k, v, mask, self.attention_rate, probs_key))
        x += dropout(y, self.attention_rate, attention_key)
        y, gate = jnp.split(self.intermediate(self.norm(x)), 2, axis=-1)  # [R, T, F] each
        # Gated linear unit: Shazeer 2020, arXiv:2002.05202.
        return x + self.output(
            dropout(ACTIVATIONS[self.activation](y) * gate, self.rate, output_key)
        )


class Embeddings(nnx.Module):
    """Word embeddings, LayerNorm, dropout."""

    def __init__(self, config: ModernBertConfig, rngs: nnx.Rngs):
        self.word = embed(config, config.vocab_size, config.hidden_size, rngs)
        self.norm = layer_norm(config, rngs)
        self.rate = config.embedding_dropout

    def __call__(self, input_ids: Array, key: Array | None) -> Array:
        """[R, T] -> [R, T, D]."""
        return dropout(self.norm(self.word(input_ids)), self.rate, key)


class ModernBert(nnx.Module):
    """The encoder, without any output layer."""

    def __init__(self, config: ModernBertConfig, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, rngs)
        layers = range(config.num_hidden_layers)
        self.layers = nnx.List([Layer(config, index, rngs) for index in layers])
        self.norm = layer_norm(config, rngs)
        self.local = config.local
        self.reach = config.local_attention // 2
        self.remat = config.remat

    def __call__(
        self,
        input_ids: Array,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        segment_ids: Array | None = None,
        *,
        key: Array | None = None,
    ) -> Array:
        """Encode packed rows; see `bert.Bert`. There are no token types: they change nothing."""
        if position_ids is None:
            position_ids = jnp.broadcast_to(jnp.arange(input_ids.shape[1]), input_ids.shape)
        everywhere = same_segment(jnp.ones_like(input_ids) if segment_ids is None else segment_ids)
        distance = jnp.abs(position_ids[:, :, None] - position_ids[:, None, :])
        near = everywhere & (distance <= self.reach)[:, None]
        embedding_key, *layer_keys = split_key(key, 1 + len(self.layers))
        x = self.embeddings(input_ids, embedding_key)
        for layer, local, layer_key in zip(self.layers, self.local, layer_keys, strict=True):
            run = with_remat(layer.__call__, self.remat)
            x = run(x, near if local else everywhere, position_ids, layer_key)
        return self.norm(x)

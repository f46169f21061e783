"""BERT, the bidirectional Transformer encoder, in `flax.nnx`.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
Language Understanding" (2019), arXiv:1810.04805. Numerically equal to `BertModel` of Hugging Face
transformers, which is equal to the original google-research/bert.

The letters of every shape comment and einsum in this project:

    R rows of a batch        N attention heads       K segments (packed sequences) a row
    T tokens of a row        H width of one head     C classes
    S tokens attended to     F feed-forward width    V vocabulary
    D model width

A row may hold several packed sequences, its *segments*. Attention stays inside a segment and
positions restart with each, so packing changes how fast a model trains, never what it computes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.errors import WeightsError

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),  # BERT's own: the exact, erf form
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}

# What a layer keeps for the backward pass; the rest is computed again (less memory, more time).
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,  # keep everything
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the dense outputs
    "full": jax.checkpoint_policies.nothing_saveable,  # keep each layer's input alone
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of a BERT encoder, under the names of its Hugging Face `config.json`.

    The last three fields are not part of a checkpoint: `dtype` is what the arithmetic runs in
    (scores, softmax, LayerNorm statistics and logits stay float32), `param_dtype` what the
    parameters are stored and updated in, `remat` a key of `REMAT`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any], **runtime: Any) -> "BertConfig":
        """Read a `config.json` (already parsed); `runtime` sets fields that it does not hold.

        Raises:
          WeightsError: for another architecture, an absent size, or an unknown activation.
        """
        if hf.get("model_type", "bert") != "bert":
            raise WeightsError(
                f"config.json: model_type is {hf['model_type']!r}; flaxbert reads 'bert'."
            )
        if hf.get("position_embedding_type", "absolute") != "absolute":
            raise WeightsError(
                f"config.json: position_embedding_type {hf['position_embedding_type']!r} is not "
                "supported; BERT's is 'absolute'."
            )
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        absent = [key for key in (*sizes, "intermediate_size") if key not in hf]
        if absent:
            raise WeightsError(f"config.json: no {', '.join(absent)}; is this a BERT checkpoint?")
        names = {field.name for field in dataclasses.fields(cls)}
        config = cls(**{key: value for key, value in hf.items() if key in names} | runtime)
        if config.hidden_act not in ACTIVATIONS:
            raise WeightsError(
                f"config.json: hidden_act is {config.hidden_act!r}; known: {sorted(ACTIVATIONS)}."
            )
        if config.hidden_size % config.num_attention_heads:
            raise WeightsError(
                f"config.json: hidden_size {config.hidden_size} is not a multiple of "
                f"num_attention_heads {config.num_attention_heads}."
            )
        return config

    def with_dropout(self, rate: float) -> "BertConfig":
        """The same encoder with every dropout rate set to `rate`."""
        return dataclasses.replace(
            self,
            hidden_dropout_prob=rate,
            attention_probs_dropout_prob=rate,
            classifier_dropout=rate,
        )


def split_key(key: Array | None, count: int) -> list[Array | None]:
    """Split a dropout key in `count`; without one (deterministic) there is nothing to split."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero each element with probability `rate` and scale the others; identity if `key` is None.

    Random bits are a large part of dropout's cost, so each 32-bit word serves two elements; the
    rate is thereby rounded to 1/65536.
    """
    if key is None or rate == 0.0:
        return x
    width = x.shape[-1]
    words = jax.random.bits(key, (*x.shape[:-1], (width + 1) // 2), jnp.uint32)
    bits = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :width]
    return jnp.where(bits >= round(rate * 65536), x * (1.0 / (1.0 - rate)), jnp.zeros_like(x))


def dense(config: BertConfig, features_in: int, features_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer initialised as BERT's: truncated normal, bias zero."""
    return nnx.Linear(
        features_in,
        features_out,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        kernel_init=nnx.initializers.truncated_normal(config.initializer_range),
        rngs=rngs,
    )


def layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with the checkpoint's epsilon and two-pass variance; statistics in float32."""
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels: too coarse for the 1e-5 parity
        rngs=rngs,
    )


class Embeddings(nnx.Module):
    """Word + position + token-type embeddings, LayerNorm, dropout."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        def table(size: int) -> nnx.Embed:
            return nnx.Embed(
                size,
                config.hidden_size,
                dtype=jnp.dtype(config.dtype),
                param_dtype=jnp.dtype(config.param_dtype),
                embedding_init=nnx.initializers.truncated_normal(config.initializer_range),
                rngs=rngs,
            )

        self.word = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.norm = layer_norm(config, rngs)
        self.rate = config.hidden_dropout_prob

    def __call__(
        self, input_ids: Array, token_type_ids: Array, position_ids: Array, key: Array | None
    ) -> Array:
        """[R, T] ids -> [R, T, D]."""
        x = self.word(input_ids) + self.token_type(token_type_ids) + self.position(position_ids)
        return dropout(self.norm(x), self.rate, key)


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
        # Scores and softmax in float32 whatever the compute dtype: bfloat16 keeps 8 bits.
        scores = jnp.einsum("rtnh,rsnh->rnts", q, k, preferred_element_type=jnp.float32)
        scores = jnp.where(mask, scores * split[-1] ** -0.5, jnp.finfo(jnp.float32).min)
        probs = dropout(jax.nn.softmax(scores, axis=-1).astype(x.dtype), self.rate, key)
        context = jnp.einsum("rnts,rsnh->rtnh", probs, v)
        return self.output(context.reshape(x.shape))


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
        self.layers = nnx.List([Layer(config, rngs) for _ in range(config.num_hidden_layers)])
        self.remat = config.remat
        self.max_positions = config.max_position_embeddings

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
            if length > self.max_positions:  # an indexed look-up would not complain
                raise ValueError(
                    f"rows of {length} tokens, but the model knows {self.max_positions} positions"
                )
            position_ids = jnp.broadcast_to(jnp.arange(length), input_ids.shape)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        if segment_ids is None:
            segment_ids = jnp.ones_like(input_ids)
        # Same segment, both ways. Padding (0) attends to padding: no empty softmax, no NaN.
        mask = (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]  # [R, 1, T, S]
        embedding_key, *layer_keys = split_key(key, 1 + len(self.layers))
        x = self.embeddings(input_ids, token_type_ids, position_ids, embedding_key)
        for layer, layer_key in zip(self.layers, layer_keys, strict=True):
            run = layer.__call__
            if self.remat != "none":
                run = jax.checkpoint(run, policy=REMAT[self.remat])
            x = run(x, mask, layer_key)
        return x

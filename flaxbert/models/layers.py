"""What encoders and output layers are built from: their configuration, dense layers, attention.

The letters of every shape comment and einsum in this project:

    R rows of a batch        N attention heads       K segments (packed sequences) a row
    T tokens of a row        H width of one head     C classes
    S tokens attended to     F feed-forward width    V vocabulary
    D model width            E width of the word embeddings, where it is another
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),  # BERT's own: the exact, erf form
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}

# What a layer keeps for the backward pass; the rest is computed again (less memory, more time).
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,  # keep everything
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the dense outputs
    "full": jax.checkpoint_policies.nothing_saveable,  # keep each layer's input alone
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """What every encoder has and output layers ask for; BERT's values are the defaults.

    Names are those of a Hugging Face `config.json`, where it has them. `dtype` is what matrices are
    multiplied and activations kept in; attention scores, softmax, LayerNorm, biases, output layers
    and the gradients of all parameters are float32 whatever it is. `param_dtype` is what the
    parameters are stored in, `remat` a key of `REMAT`.
    """

    model_type: str = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    norm_bias: bool = True
    embedding_size: int | None = None
    """E, for encoders that project their embeddings to D: ELECTRA, ALBERT."""
    first_position: int = 0
    """Row of the position table that is a text's first: RoBERTa's is 2."""
    tie_word_embeddings: bool = True
    """Whether masked words are scored by the table of word embeddings, or by one of their own."""

    classifier_dropout: float | None = None
    """Before the last layer of a classifier; None: the encoder's own rate."""
    token_dropout: float | None = None
    """The same where every token is classified; None: as `classifier_dropout`."""
    span_dropout: float = 0.0
    pooler_act: str = "tanh"
    pooler_norm: bool = False
    pooler_bias: bool = True
    pooler_dropout: bool = False
    """Whether there is dropout before a classifier's first layer too, as in RoBERTa, ELECTRA."""
    pooling: str = "cls"
    """What a sequence is classified by: its first token, or the `mean` of all."""
    transform_tokens: bool = False
    """Whether that layer stands before the scores of single tokens too, as in ModernBERT."""
    word_act: str | None = None
    """Activation of the layer before masked words' scores; None: `hidden_act`."""
    word_bias: bool = True

    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"

    @property
    def positions(self) -> int:
        """Tokens of the longest sequence."""
        return self.max_position_embeddings - self.first_position

    @property
    def word_width(self) -> int:
        """Width of the table of word embeddings, E or D."""
        return self.embedding_size or self.hidden_size

    @property
    def sequence_rate(self) -> float:
        """Dropout rate before the scores of a sequence."""
        return self.classifier_dropout or 0.0

    @property
    def token_rate(self) -> float:
        """Dropout rate before the scores of single tokens."""
        return self.sequence_rate if self.token_dropout is None else self.token_dropout

    def with_dropout(self, rate: float) -> Self:
        """The same encoder with every dropout rate set to `rate`."""
        names = {each.name for each in dataclasses.fields(self) if "dropout" in each.name}
        names -= {"pooler_dropout"} if self.span_dropout else {"pooler_dropout", "span_dropout"}
        rates: dict[str, Any] = dict.fromkeys(names, rate)
        return dataclasses.replace(self, **rates)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def matmul(x: Array, kernel: Array, out_dtype: Any, transposed: bool = False) -> Array:
    """Multiply by a parameter, with operands in `x.dtype` and sums in float32.

    Differentiating `x @ kernel.astype(x.dtype)` rounds the kernel's gradient to `x.dtype` on each
    device, before devices and micro-batches add theirs up. Here it leaves the product in float32.

    Args:
      x: [..., A].
      kernel: [A, B].
      out_dtype: of the result; its gradient is narrowed to `x.dtype` too.
      transposed: whether the kernel is stored as [B, A].

    Returns:
      [..., B].
    """
    dims = ((x.ndim - 1,), (int(transposed),)), ((), ())
    return jax.lax.dot_general(x, kernel.astype(x.dtype), dims, preferred_element_type=out_dtype)


def _matmul_forward(
    x: Array, kernel: Array, out_dtype: Any, transposed: bool
) -> tuple[Array, tuple[Array, Array]]:
    return matmul(x, kernel, out_dtype, transposed), (x, kernel)


def _matmul_backward(
    out_dtype: Any, transposed: bool, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    grad = grad.astype(x.dtype)
    leading = tuple(range(x.ndim - 1))
    # Not a product that is transposed afterwards: XLA cannot run that in bfloat16 on CPUs.
    first, second = (grad, x) if transposed else (x, grad)
    kernel_grad = jax.lax.dot_general(
        first, second, ((leading, leading), ((), ())), preferred_element_type=jnp.float32
    )
    return matmul(grad, kernel, x.dtype, not transposed), kernel_grad.astype(kernel.dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)


class Dense(nnx.Linear):
    """A dense layer that multiplies in `dtype`; its bias is added, and so its gradient, in float32.

    A bias that was narrowed before the addition would have a gradient summed in bfloat16, which
    stops growing at 256 times its increment.
    """

    # Flax's own methods take arguments that nothing here uses: hence the ignored overrides.
    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """[..., A] -> [..., B]."""
        x = x.astype(self.dtype)
        y = matmul(x, self.kernel[...], x.dtype)
        if self.bias is not None:
            y = (y.astype(jnp.float32) + self.bias[...]).astype(x.dtype)
        return y


def dense(
    config: EncoderConfig,
    features_in: int,
    features_out: int,
    rngs: nnx.Rngs,
    *,
    bias: bool = True,
    start: float = 0.0,
    last: bool = False,
) -> Dense:
    """Build a dense layer initialized as transformers does: normal, bias zero (or `start`).

    The original truncates at two standard deviations, which makes the spread 12 % smaller, and the
    start of fine-tuning slower: the gradient that reaches the encoder is that much smaller.

    Args:
      config: dtypes and the spread of the kernel.
      features_in: A, width of the input.
      features_out: B, width of the output.
      rngs: for the kernel.
      bias: whether there is one.
      start: initial value of the bias.
      last: whether its outputs are logits: computed in float32, so that close scores do not tie.
    """
    return Dense(
        features_in,
        features_out,
        use_bias=bias,
        dtype=jnp.float32 if last else jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        kernel_init=nnx.initializers.normal(config.initializer_range),
        bias_init=nnx.initializers.constant(start),
        rngs=rngs,
    )


class Embedding(nnx.Embed):
    """A table of embeddings; rows are looked up in float32, and the sum of several is narrowed.

    A table that was narrowed first would have a gradient scattered in bfloat16, in which a row that
    occurs often stops growing.
    """

    def __call__(self, ids: Array) -> Array:  # type: ignore[override]
        """[...] ids -> [..., width], float32; an id out of range gives NaN."""
        return jnp.take(self.embedding[...], ids, axis=0).astype(jnp.float32)

    def select(self, ids: Array) -> Array:
        """Look up in a table of few rows by selection, whose gradient is a sum, not a scatter.

        All tokens of a batch add to the same two or three rows, which a scatter does one by one. An
        id out of range gives row 0.
        """
        table = self.embedding[...]
        rows = jnp.broadcast_to(table[0], (*ids.shape, table.shape[1]))
        for number in range(1, len(table)):
            rows = jnp.where(ids[..., None] == number, table[number], rows)
        return rows.astype(jnp.float32)

    def attend(self, query: Array) -> Array:  # type: ignore[override]
        """Score every row: [..., width] -> [..., rows], summed up and left in float32."""
        query = query.astype(self.dtype)
        return matmul(query, self.embedding[...], jnp.float32, True)


def embed(config: EncoderConfig, rows: int, width: int, rngs: nnx.Rngs) -> Embedding:
    """Build a table of embeddings, [rows, width]."""
    return Embedding(
        rows,
        width,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        embedding_init=nnx.initializers.normal(config.initializer_range),
        rngs=rngs,
    )


class LayerNorm(nnx.LayerNorm):
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) in float32, whatever it is given and returns.

    Two passes for the variance: E[x^2] - E[x]^2 cancels, and is too coarse for the 1e-5 parity.
    Flax's own narrows scale and bias first, and sums their gradients in bfloat16.
    """

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """[..., width] -> [..., width], in `dtype`."""
        assert self.scale is not None
        x = x.astype(jnp.float32)
        x -= jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        y = x * (jax.lax.rsqrt(variance + self.epsilon) * self.scale[...])
        if self.bias is not None:
            y += self.bias[...]
        return y.astype(self.dtype)


def layer_norm(config: EncoderConfig, rngs: nnx.Rngs, width: int | None = None) -> LayerNorm:
    """Build LayerNorm with the checkpoint's epsilon."""
    return LayerNorm(
        width or config.hidden_size,
        epsilon=config.layer_norm_eps,
        use_bias=config.norm_bias,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )


def attend(q: Array, k: Array, v: Array, mask: Array, rate: float, key: Array | None) -> Array:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

    Args:
      q: [R, T, N, H]; `k` and `v` are [R, S, N, H].
      k: see `q`.
      v: see `q`.
      mask: booleans [R, 1, T, S], True where a token may attend.
      rate: dropout rate of the probabilities.
      key: dropout key; None means no dropout.

    Returns:
      [R, T, N * H].
    """
    # Scores and softmax in float32 whatever the compute dtype: bfloat16 keeps 8 bits.
    scores = jnp.einsum("rtnh,rsnh->rnts", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    probs = dropout(jax.nn.softmax(scores, axis=-1).astype(q.dtype), rate, key)
    context = jnp.einsum("rnts,rsnh->rtnh", probs, v)
    return context.reshape(*context.shape[:2], -1)


def with_remat(run: Callable[..., Array], remat: str) -> Callable[..., Array]:
    """A layer's call, keeping for the backward pass what `remat`, a key of `REMAT`, says."""
    return run if remat == "none" else jax.checkpoint(run, policy=REMAT[remat])


def same_segment(segment_ids: Array) -> Array:
    """[R, T] segment numbers -> boolean mask [R, 1, T, S]: a token attends to its own segment.

    Padding (0) attends to padding: no empty softmax, no NaN.
    """
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]

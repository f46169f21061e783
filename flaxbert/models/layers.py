"""Building blocks of encoders and output layers: configuration, dense layers, norms.

Shape comments and einsums of the whole project use these letters:

    R  rows of a batch               D  hidden size                  C  classes
    T  tokens of a row               E  word-embedding width         V  words of the vocabulary
    S  tokens attended to            N  attention heads              P  positions scored over V
    K  segments of a row             H  width of an attention head   n  best spans of a segment
    A  micro-batches of a step       F  feed-forward width
    M  sequences of a data set       I  width of a layer's input
    X  features or examples of one   O  width of a layer's output
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

Activation = Callable[[Array], Array]
"""An element-wise function."""


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """Return x Phi(x), the exact GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415), as in BERT.

    JAX's own saves the error function of every element for the backward pass, a second array as
    large as the widest of a layer. This one saves only its input, and computes the function again.
    """
    return (x * _normal_cdf(x)).astype(x.dtype)


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _gelu_backward(x: Array, grad: Array) -> tuple[Array]:
    x = jax.lax.optimization_barrier(x)  # otherwise XLA saves what the forward pass computed
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    return ((grad * (_normal_cdf(x) + wide * density)).astype(x.dtype),)


def _normal_cdf(x: Array) -> Array:
    """Return Phi(x) in float32: in bfloat16, 1 + erf(x) would lose all digits below -3.

    The complementary error function would keep the digits of values below 1e-6 too, but takes twice
    as long: by the compiler's estimate a tenth of the step on a TPU v5e.
    """
    return 0.5 * (1.0 + jax.lax.erf(x.astype(jnp.float32) * 2**-0.5))


gelu.defvjp(_gelu_forward, _gelu_backward)

ACTIVATIONS: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}

# What a layer saves for the backward pass; the rest is recomputed (less memory, more time).
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,  # save everything
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # save the dense outputs
    "full": jax.checkpoint_policies.nothing_saveable,  # save only each layer's input
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants that all encoders share; the defaults are BERT's.

    Fields are named as in a Hugging Face `config.json`, where it has them. `dtype` is the type of
    matrix products and activations. Attention scores, softmax, LayerNorm, biases, output layers and
    the gradients of all parameters are always float32, except that devices sum the gradients of
    dense layers in `reduce_dtype` if `dtype` is bfloat16. `param_dtype` is the type of the
    parameters, `remat` a key of `REMAT`, `attention` the `way` of `attention.attend`.
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
    """E, for encoders that project their embeddings to D (ELECTRA, ALBERT); None: E = D."""
    position_offset: int = 0
    """Row of the position table that holds position 0; RoBERTa's is 2."""
    tie_word_embeddings: bool = True
    """Whether the MLM head scores words with the word-embedding table; False: with its own."""

    classifier_dropout: float | None = None
    """Dropout rate before a classifier's last layer; None: the encoder's rate."""
    token_dropout: float | None = None
    """Dropout rate before a token classifier's last layer; None: `classifier_dropout`."""
    span_dropout: float = 0.0
    pooler_act: str = "tanh"
    pooler_norm: bool = False
    pooler_bias: bool = True
    pooler_dropout: bool = False
    """Whether a classifier has dropout before its pooler too, as in RoBERTa and ELECTRA."""
    pooling: str = "cls"
    """Hidden state that represents a sequence: its first token's (`cls`), or the `mean` of all."""
    transform_tokens: bool = False
    """Whether token-level heads have a pooler layer too, as in ModernBERT."""
    word_act: str | None = None
    """Activation of the MLM head's hidden layer; None: `hidden_act`."""
    word_bias: bool = True

    dtype: str = "float32"
    param_dtype: str = "float32"
    reduce_dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"

    @property
    def max_positions(self) -> int:
        """Number of tokens of the longest possible sequence."""
        return self.max_position_embeddings - self.position_offset

    @property
    def word_width(self) -> int:
        """Width of the word-embedding table, E."""
        return self.embedding_size or self.hidden_size

    @property
    def attention_rate(self) -> float:
        """Dropout rate of the attention probabilities."""
        return 0.0

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer, how far a token attends to each side; None: to its whole segment."""
        return (None,) * self.num_hidden_layers

    @property
    def classifier_rate(self) -> float:
        """Dropout rate before the last layer of a sequence classifier."""
        return self.classifier_dropout or 0.0

    @property
    def token_classifier_rate(self) -> float:
        """Dropout rate before the last layer of a token classifier."""
        return self.classifier_rate if self.token_dropout is None else self.token_dropout

    def with_dropout(self, rate: float) -> Self:
        """Return the same configuration with every dropout rate set to `rate`."""
        names = {field.name for field in dataclasses.fields(self) if "dropout" in field.name}
        names -= {"pooler_dropout"} if self.span_dropout else {"pooler_dropout", "span_dropout"}
        rates: dict[str, Any] = dict.fromkeys(names, rate)
        return dataclasses.replace(self, **rates)


def _mesh(array: Array) -> Any:
    """Return the devices that an array is placed on, as in `attention.attend`."""
    return jax.typeof(array).sharding.mesh


def _is_shared(parameter: Array) -> bool:
    """Return whether devices share one copy of the parameters (`train.fsdp`)."""
    shared: bool = _mesh(parameter).shape.get("fsdp", 1) > 1
    return shared


def whole(parameter: Array, dtype: DTypeLike) -> Array:
    """Return a parameter in `dtype`, gathered from the devices that share it (`train.fsdp`).

    It is cast first: of bfloat16, half as many bytes are gathered.
    """
    parameter = parameter.astype(dtype)
    if not _is_shared(parameter):
        return parameter
    mesh = _mesh(parameter)
    return jax.lax.with_sharding_constraint(parameter, jax.NamedSharding(mesh, jax.P()))


def _again(parameter: Array) -> Array:
    """Return a shared parameter such that XLA gathers it once more.

    Otherwise it keeps what the forward pass gathered, all parameters in the end, for the backward
    pass.
    """
    return jax.lax.optimization_barrier(parameter) if _is_shared(parameter) else parameter


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def matmul(
    x: Array,
    kernel: Array,
    out_dtype: DTypeLike,
    transposed: bool = False,
    reduce_dtype: DTypeLike = jnp.float32,
) -> Array:
    """Multiply by a parameter, with operands in `x.dtype` and sums in float32.

    Differentiating `x @ kernel.astype(x.dtype)` would round the kernel's gradient to `x.dtype` on
    each device, before it is summed over devices and micro-batches. Here it stays float32.

    Args:
      x: [..., I].
      kernel: [I, O].
      out_dtype: type of the result; the gradient of the result is cast to `x.dtype` too.
      transposed: whether the kernel is stored as [O, I].
      reduce_dtype: type in which the kernel's gradient is summed over devices, if `x.dtype` is not
        wider.

    Returns:
      [..., O].
    """
    dims = ((x.ndim - 1,), (int(transposed),)), ((), ())
    return jax.lax.dot_general(x, whole(kernel, x.dtype), dims, preferred_element_type=out_dtype)


def _matmul_forward(
    x: Array, kernel: Array, out_dtype: DTypeLike, transposed: bool, reduce_dtype: DTypeLike
) -> tuple[Array, tuple[Array, Array]]:
    return matmul(x, kernel, out_dtype, transposed, reduce_dtype), (x, kernel)


def _matmul_backward(
    out_dtype: DTypeLike,
    transposed: bool,
    reduce_dtype: DTypeLike,
    saved: tuple[Array, Array],
    grad: Array,
) -> tuple[Array, Array]:
    x, kernel = saved
    grad = grad.astype(x.dtype)
    kernel_grad = _kernel_gradient(x, grad, transposed, reduce_dtype)
    return matmul(grad, _again(kernel), x.dtype, not transposed), kernel_grad.astype(kernel.dtype)


def _kernel_gradient(
    x: Array, grad: Array, transposed: bool, reduce_dtype: DTypeLike = jnp.float32
) -> Array:
    """Return the gradient of a kernel [I, O], or [O, I] if it is stored transposed.

    A device adds up its rows in float32. Devices sum their results in the type of this array.
    """
    dtype = jnp.promote_types(x.dtype, reduce_dtype)
    leading = tuple(range(x.ndim - 1))
    # On CPUs, a pass transposes the first operand, and computes its activation function again
    # for that. So the narrower operand comes first, and the small product is transposed instead.
    # In bfloat16 XLA cannot transpose that on CPUs, and an accelerator does not need to.
    swapped = x.shape[-1] > grad.shape[-1] if x.dtype == jnp.float32 else transposed
    lhs, rhs = (grad, x) if swapped else (x, grad)
    kernel_grad = jax.lax.dot_general(
        lhs, rhs, ((leading, leading), ((), ())), preferred_element_type=dtype
    )
    return kernel_grad.T if swapped != transposed else kernel_grad


matmul.defvjp(_matmul_forward, _matmul_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def matmul_activated(
    x: Array, kernel: Array, activation: Activation, reduce_dtype: DTypeLike = jnp.float32
) -> Array:
    """Return matmul(activation(x), kernel), and save only x for the backward pass.

    XLA would save activation(x) as well, in feed-forward layers the widest array of all. Computing
    it again in a product with it costs no memory traffic.
    """
    return matmul(activation(x), kernel, x.dtype)


def _activated_forward(
    x: Array, kernel: Array, activation: Activation, reduce_dtype: DTypeLike
) -> tuple[Array, tuple[Array, Array]]:
    x = jax.lax.optimization_barrier(x)  # otherwise XLA stores activation(x) with x
    return matmul_activated(x, kernel, activation), (x, kernel)


def _activated_backward(
    activation: Activation, reduce_dtype: DTypeLike, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    _, differentiate = jax.vjp(activation, x)
    (x_grad,) = differentiate(matmul(grad, _again(kernel), x.dtype, True))
    # Both products read x. With an order XLA does not keep copies for later.
    x, grad, _ = jax.lax.optimization_barrier((x, grad, x_grad))
    kernel_grad = _kernel_gradient(activation(x), grad, False, reduce_dtype)
    return x_grad, kernel_grad.astype(kernel.dtype)


matmul_activated.defvjp(_activated_forward, _activated_backward)


def add_bias(y: Array, bias: Array) -> Array:
    """Add a bias in float32; the result has the type of y."""
    return (y.astype(jnp.float32) + bias).astype(y.dtype)


class Dense(nnx.Linear):
    """A dense layer that multiplies in `dtype` and adds its bias in float32.

    If the bias were cast to bfloat16 before the addition, its gradient would be summed in bfloat16,
    where a sum stops growing at 256 times its increment.

    Attributes:
      reduce_dtype: type in which the kernel's gradient is summed over devices.
    """

    reduce_dtype: str = "float32"

    def __call__(self, x: Array, activation: Activation | None = None) -> Array:
        """Map x, or activation(x), [..., I] to [..., O]."""
        y = self.multiply(x, activation)
        return y if self.bias is None else add_bias(y, self.bias[...])

    def multiply(self, x: Array, activation: Activation | None = None) -> Array:
        """Map x, or activation(x), [..., I] to [..., O], without the bias."""
        x = x.astype(self.dtype)
        if activation is None:
            return matmul(x, self.kernel[...], x.dtype, False, self.reduce_dtype)
        return matmul_activated(x, self.kernel[...], activation, self.reduce_dtype)


# An initializer is an attribute of its layer. Only if they share it are layers equal; see
# `apply_layer`.
_normal = functools.cache(nnx.initializers.normal)
_constant = functools.cache(nnx.initializers.constant)


def dense(
    config: EncoderConfig,
    features_in: int,
    features_out: int,
    rngs: nnx.Rngs,
    *,
    bias: bool = True,
    bias_init: float = 0.0,
    logits: bool = False,
) -> Dense:
    """Build a dense layer, initialized as in transformers: normal kernel, constant bias.

    The original BERT truncates the normal distribution at two standard deviations. That makes the
    spread 12 % smaller, and with it the gradient that reaches the encoder when fine-tuning starts.

    Args:
      config: gives dtypes and the standard deviation of the kernel.
      features_in: I, width of the input.
      features_out: O, width of the output.
      rngs: random numbers for the kernel.
      bias: whether the layer has a bias.
      bias_init: initial value of the bias.
      logits: whether the outputs are logits: computed in float32, so that close scores do not tie.
    """
    layer = Dense(
        features_in,
        features_out,
        use_bias=bias,
        dtype=jnp.float32 if logits else jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        kernel_init=_normal(config.initializer_range),
        bias_init=_constant(bias_init),
        rngs=rngs,
    )
    layer.reduce_dtype = config.reduce_dtype
    return layer


def _exchanged(table: Array, ids: Array) -> Array:
    """Look up ids [R, T] in a table [V, E] whose width is divided over devices.

    A device looks up its part of the width for the tokens of all devices that share the table. Then
    they exchange tokens for widths. So tokens are sent and not the table, of which no device ever
    has the whole, nor the whole gradient.
    """

    def exchange(part: Array, ids: Array) -> Array:
        ids = jax.lax.all_gather(ids, "fsdp", tiled=True)
        widths = jnp.take(part, ids, axis=0)  # [R, T, E / fsdp]
        return jax.lax.all_to_all(widths, "fsdp", 0, 2, tiled=True)

    mesh = _mesh(table)
    rows = jax.P(mesh.axis_names)
    mapped = jax.shard_map(
        exchange, mesh=mesh, in_specs=(jax.P(None, "fsdp"), rows), out_specs=rows
    )
    return mapped(table, ids)


class Embedding(nnx.Embed):
    """An embedding table that is looked up in float32; the caller casts the sum of embeddings.

    If the table were cast to bfloat16 first, its gradient would be scattered in bfloat16, where the
    sum of a frequent row stops growing.
    """

    # Flax's methods have further arguments that are unused here, so mypy's error is ignored.
    def __call__(self, ids: Array) -> Array:  # type: ignore[override]
        """Map ids [...] to float32 embeddings [..., width]; an id out of range gives NaN."""
        table = self.embedding[...]
        if _is_shared(table) and len(table) > ids.size // _mesh(table).size:
            return _exchanged(table, ids).astype(jnp.float32)
        return jnp.take(whole(table, table.dtype), ids, axis=0).astype(jnp.float32)

    def select(self, ids: Array) -> Array:
        """Look up ids in a table of few rows by selection, whose gradient is a sum, not a scatter.

        All tokens of a batch add to the same two or three rows, which a scatter does one by one. An
        id out of range gives row 0.
        """
        table = whole(self.embedding[...], self.embedding.dtype)
        rows = jnp.broadcast_to(table[0], (*ids.shape, table.shape[1]))
        for row_id in range(1, len(table)):
            rows = jnp.where(ids[..., None] == row_id, table[row_id], rows)
        return rows.astype(jnp.float32)

    def attend(self, query: Array) -> Array:  # type: ignore[override]
        """Score every row of the table: map [..., width] to float32 scores [..., rows]."""
        query = query.astype(self.dtype)
        return matmul(query, self.embedding[...], jnp.float32, True)


def embed(config: EncoderConfig, rows: int, width: int, rngs: nnx.Rngs) -> Embedding:
    """Build an embedding table [rows, width]."""
    return Embedding(
        rows,
        width,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        embedding_init=_normal(config.initializer_range),
        rngs=rngs,
    )


class LayerNorm(nnx.LayerNorm):
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450), computed in float32.

    The variance takes two passes: E[x^2] - E[x]^2 cancels and misses the parity tolerance of 1e-5.
    Flax's LayerNorm casts scale and bias to `dtype` first and sums their gradients in bfloat16.
    """

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """Normalize the last axis of [..., width]; the result is in `dtype`."""
        assert self.scale is not None
        x = x.astype(jnp.float32)
        x -= jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        y = x * (jax.lax.rsqrt(variance + self.epsilon) * self.scale[...])
        if self.bias is not None:
            y += self.bias[...]
        return y.astype(self.dtype)


def layer_norm(config: EncoderConfig, rngs: nnx.Rngs, width: int | None = None) -> LayerNorm:
    """Build a LayerNorm of `width` (by default D) with the checkpoint's epsilon."""
    return LayerNorm(
        width or config.hidden_size,
        epsilon=config.layer_norm_eps,
        use_bias=config.norm_bias,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )


def apply_layer(layer: Callable[..., Array], remat: str, *args: Any) -> Array:
    """Call a layer of the encoder, saving for the backward pass what `REMAT[remat]` allows.

    JAX traces a jitted function once for equal static arguments and equal shapes. So a stack of
    layers is traced, differentiated and lowered to StableHLO about as fast as one layer. XLA puts
    the calls in line before it does anything else, so that the program stays the same.

    Args:
      layer: an `nnx.Module` that takes `args`.
      remat: a key of `REMAT`.
      args: arrays, and trees of arrays.
    """
    graphdef, state = nnx.split(layer)
    result: Array = _layer(graphdef, remat, state, *args)
    return result


@functools.partial(jax.jit, static_argnums=(0, 1))
def _layer(graphdef: nnx.GraphDef[Any], remat: str, state: Any, *args: Any) -> Array:
    call: Callable[..., Array] = nnx.merge(graphdef, state).__call__
    return (call if remat == "none" else jax.checkpoint(call, policy=REMAT[remat]))(*args)

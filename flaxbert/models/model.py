"""Encoder and head as one pure function of a nested dict of parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.dropout import DropoutKeys, fold_in, token_keys
from flaxbert.models.families import FAMILIES
from flaxbert.models.families.base import Family
from flaxbert.models.heads import Head, MakeHead, Outputs
from flaxbert.models.layers import EncoderConfig
from flaxbert.types import Batch, Params


class EncoderWithHead(nnx.Module):
    """The module that a `Model` runs. Its attributes are the top level of the parameter tree."""

    def __init__(self, config: EncoderConfig, make_head: MakeHead, rngs: nnx.Rngs):
        self.encoder: Any = FAMILIES[config.model_type].build(config, rngs)
        self.head = make_head(config, rngs)

    def __call__(self, batch: Batch, key: Array | None) -> Outputs:
        keys = _token_keys(batch, key)
        hidden = self.encoder(
            batch.input_ids,
            batch.token_type_ids,
            batch.position_ids,
            batch.segment_ids,
            keys=fold_in(keys, 0),
        )
        words = (self.encoder.embeddings.word,) if self.head.uses_word_embeddings else ()
        with jax.named_scope("head"):
            return {"hidden_states": hidden, **self.head(hidden, batch, fold_in(keys, 1), *words)}


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """An encoder with an output layer that holds no parameters: `model(params, batch)`.

    NNX modules describe the computation. `nnx.split` separates them from their parameters once, so
    that `jax.jit`, `jax.grad` and Optax only see a nested dict of arrays.
    """

    config: EncoderConfig
    graphdef: nnx.GraphDef[Any]
    shapes: Params
    """`jax.ShapeDtypeStruct` of every parameter: `params` must have the same structure."""
    make_head: MakeHead
    head: type[Head]
    """Class of the output layer."""
    architecture: str
    """Transformers class of encoder and head, such as BertForQuestionAnswering."""

    @classmethod
    def create(cls, config: EncoderConfig, make_head: MakeHead) -> "Model":
        """Build a model without allocating parameters.

        Raises:
          WeightsError: if the family of encoders has no such output layer.
        """
        module = nnx.eval_shape(lambda: EncoderWithHead(config, make_head, _one_key()))
        graphdef, state = nnx.split(module)
        head = type(module.head)
        architecture = FAMILIES[config.model_type].class_name(config.model_type, head.head_type)
        return cls(config, graphdef, nnx.to_pure_dict(state), make_head, head, architecture)

    @property
    def family(self) -> Family:
        """The family of the encoder."""
        return FAMILIES[self.config.model_type]

    @property
    def layers(self) -> int:
        """Number of layers of the encoder with parameters of their own."""
        return len(self.shapes["encoder"]["layers"])

    @property
    def head_type(self) -> str:
        """Type of the output layer, such as ForQuestionAnswering."""
        return self.head.head_type

    def __call__(
        self, params: Params, batch: Batch | Mapping[str, Any], *, key: Array | None = None
    ) -> Outputs:
        """Run the model.

        Args:
          params: nested dict with the structure of `self.shapes`.
          batch: a `Batch`, or a tokenizer's dict; see `as_batch`.
          key: from `dropout_key`; None means no dropout.

        Returns:
          `hidden_states` [R, T, D] and the head's outputs, such as `logits`.
        """
        batch = jax.tree.map(jnp.asarray, as_batch(batch))
        return nnx.merge(self.graphdef, params)(batch, key)

    @staticmethod
    def first_layer(params: Params) -> Params:
        """Return the first layer's part of a tree that has the structure of the parameters.

        Layers without any leaf are passed over; if no layer has one, the whole tree is returned.
        """
        layers: Params = params["encoder"]["layers"]
        return next((layers[n] for n in sorted(layers) if jax.tree.leaves(layers[n])), params)

    def init(self, seed: int) -> Params:
        """Initialize all parameters from a seed; see `layers.dense`."""

        def init() -> Params:
            module = EncoderWithHead(self.config, self.make_head, nnx.Rngs(seed))
            return nnx.to_pure_dict(nnx.state(module))

        return jax.jit(init)()

    def init_head(self, seed: int) -> Params:
        """Initialize only the output layer, for a new task on a pre-trained encoder."""

        def init() -> Params:
            return nnx.to_pure_dict(nnx.state(self.make_head(self.config, nnx.Rngs(seed))))

        return jax.jit(init)()

    def with_new_layers(self, params: Params, count: int, seed: int) -> Params:
        """Return the parameters with new top layers of the encoder, and a new pooler if it has one.

        The last layers of a pre-trained model are specialized to its own task. Initializing them
        anew stabilizes the fine-tuning on small data sets (Zhang et al. 2021, arXiv:2006.05987,
        section 5).

        Args:
          params: pre-trained parameters; unchanged.
          count: number of layers, from the top.
          seed: seed of the new parameters.
        """
        new, encoder, head = self.init(seed), params["encoder"], params["head"]
        top = sorted(encoder["layers"])[len(encoder["layers"]) - count :]
        layers = encoder["layers"] | {layer: new["encoder"]["layers"][layer] for layer in top}
        pooler = {name: new["head"][name] for name in head if name == "pooler"}
        return params | {"encoder": encoder | {"layers": layers}, "head": head | pooler}


class _OneKey(nnx.RngStream):
    """A stream whose keys are all the same."""

    def __call__(self) -> Array:
        key: Array = self.key[...]
        return key


def _one_key() -> nnx.Rngs:
    """Return random numbers for a module of which only the shapes are needed.

    Deriving a key for each parameter takes most of the time to trace an initialization.
    """
    rngs = nnx.Rngs(0)
    rngs.default = _OneKey(0, tag="default")  # type: ignore[attr-defined]
    return rngs


def _token_keys(batch: Batch, key: Array | None) -> DropoutKeys | None:
    """Return the dropout keys of a batch's tokens, [R, T]; None without a key."""
    index, positions = batch.sequence_index, batch.position_ids
    if index is None:
        index = jnp.arange(batch.cls_position.size).reshape(batch.cls_position.shape)
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(batch.input_ids.shape[1]), batch.input_ids.shape)
    return token_keys(key, index, batch.segment_ids, positions)


def as_batch(inputs: Batch | Mapping[str, Any]) -> Batch:
    """Return named arrays, such as a tokenizer's, as a `Batch`; return a `Batch` unchanged.

    Args:
      inputs: `input_ids` [R, T] and optionally `token_type_ids`, `position_ids`, `segment_ids`
        [R, T] (see `Bert.__call__`; `attention_mask` is accepted for `segment_ids`), and
        `cls_position` [R, K], the position of each segment's [CLS]. By default a row is one segment
        with its [CLS] at 0. Arrays of other names go to `Batch.extra`.
    """
    if isinstance(inputs, Batch):
        return inputs
    arrays = {name: jnp.asarray(values) for name, values in inputs.items()}
    mask = arrays.pop("attention_mask", jnp.ones_like(arrays["input_ids"]))
    defaults = {
        "segment_ids": mask,
        "position_ids": None,
        "cls_position": jnp.zeros((len(arrays["input_ids"]), 1), jnp.int32),
    }
    return Batch.from_arrays(defaults | arrays)

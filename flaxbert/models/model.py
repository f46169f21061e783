"""Encoder and head as one pure function of a nested dict of parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxbert.models.families import FAMILIES
from flaxbert.models.families.base import Family
from flaxbert.models.heads import MakeHead, Outputs
from flaxbert.models.layers import EncoderConfig, split_key
from flaxbert.types import Batch, Params


class EncoderWithHead(nnx.Module):
    """The module behind `Model`: its attribute names are the top of the parameter tree."""

    def __init__(self, config: EncoderConfig, make_head: MakeHead, rngs: nnx.Rngs):
        self.encoder: Any = FAMILIES[config.model_type].make(config, rngs)
        self.head = make_head(config, rngs)

    def __call__(self, batch: Batch, key: Array | None) -> Outputs:
        encoder_key, head_key = split_key(key, 2)
        hidden = self.encoder(
            batch.input_ids,
            batch.token_type_ids,
            batch.position_ids,
            batch.segment_ids,
            key=encoder_key,
        )
        words = (self.encoder.embeddings.word,) if self.head.tied else ()
        return {"hidden_states": hidden, **self.head(hidden, batch, head_key, *words)}


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A BERT encoder with an output layer, free of parameters: `model(params, batch)`.

    NNX modules describe the computation; `nnx.split` has taken their parameters out once, so that
    `jax.jit`, `jax.grad` and Optax see a nested dict of arrays and nothing else.
    """

    config: EncoderConfig
    graphdef: nnx.GraphDef[Any]
    shapes: Params
    """`jax.ShapeDtypeStruct` of every parameter: the tree that `params` must have."""
    make_head: MakeHead
    kind: str
    """What the output layer is, such as ForQuestionAnswering."""
    architecture: str
    """Hugging Face class name of encoder + head, such as BertForQuestionAnswering."""

    @classmethod
    def create(cls, config: EncoderConfig, make_head: MakeHead) -> "Model":
        """Build abstractly: no parameter is allocated, whatever the size.

        Raises:
          WeightsError: if the family of encoders has no such output layer.
        """
        module = nnx.eval_shape(lambda: EncoderWithHead(config, make_head, nnx.Rngs(0)))
        graphdef, state = nnx.split(module)
        kind = module.head.kind
        architecture = FAMILIES[config.model_type].class_name(config.model_type, kind)
        return cls(config, graphdef, nnx.to_pure_dict(state), make_head, kind, architecture)

    @property
    def family(self) -> Family:
        """Names and sizes of encoders of this architecture."""
        return FAMILIES[self.config.model_type]

    def __call__(
        self, params: Params, batch: Batch | Mapping[str, Any], *, key: Array | None = None
    ) -> Outputs:
        """Run the model.

        Args:
          params: nested dict shaped as `self.shapes`.
          batch: a `Batch`, or a tokenizer's dict: see `as_batch`.
          key: dropout key; None means no dropout.

        Returns:
          `hidden_states` [R, T, D] and the head's outputs, such as `logits`.
        """
        batch = jax.tree.map(jnp.asarray, as_batch(batch))
        return nnx.merge(self.graphdef, params)(batch, key)

    @staticmethod
    def first_layer(params: Params) -> Params:
        """Return the part of a parameter tree, such as gradients, that is the first layer's."""
        layers: Params = params["encoder"]["layers"]
        first: Params = layers[min(layers)]
        return first

    def init(self, seed: int) -> Params:
        """Initialise every parameter from scratch (normal, 0.02; see `layers.dense`)."""

        def make() -> Params:
            module = EncoderWithHead(self.config, self.make_head, nnx.Rngs(seed))
            return nnx.to_pure_dict(nnx.state(module))

        return jax.jit(make)()

    def init_head(self, seed: int) -> Params:
        """Initialise the output layer alone: a new task's layer over a pre-trained encoder."""

        def make() -> Params:
            return nnx.to_pure_dict(nnx.state(self.make_head(self.config, nnx.Rngs(seed))))

        return jax.jit(make)()


def as_batch(inputs: Batch | Mapping[str, Any]) -> Batch:
    """Return a batch of named arrays, as a tokenizer gives them; a batch as it is.

    Args:
      inputs: `input_ids` [R, T] and optionally `token_type_ids`, `position_ids`, `segment_ids`
        [R, T] (see `Bert.__call__`; `attention_mask` is accepted for `segment_ids`), and
        `cls_position` [R, K], the place of each segment's [CLS]; by default one segment per row,
        at 0. Other names go to `Batch.extra`.
    """
    if isinstance(inputs, Batch):
        return inputs
    arrays = {name: jnp.asarray(values) for name, values in inputs.items()}
    core = {field.name for field in dataclasses.fields(Batch)} - {"extra"}
    mask = arrays.pop("attention_mask", jnp.ones_like(arrays["input_ids"]))
    defaults = {
        "segment_ids": mask,
        "position_ids": None,
        "cls_position": jnp.zeros((len(arrays["input_ids"]), 1), jnp.int32),
    }
    given = {name: values for name, values in arrays.items() if name in core}
    extra = {name: values for name, values in arrays.items() if name not in core}
    return Batch(**(defaults | given), extra=extra)

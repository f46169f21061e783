"""What one family of encoders declares, so that one piece of code reads and writes them all.

A family's `encoder` and `heads` map our modules to transformers'. Leaves need no line of their own:
`kernel` and `embedding` and `scale` are all called `weight` there, `bias` is `bias`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from flax import nnx
from jax import Array

from flaxbert.errors import WeightsError
from flaxbert.models.layers import ACTIVATIONS, EncoderConfig

Encoder = Callable[..., Array]
Config = TypeVar("Config", bound=EncoderConfig)

LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class Family:
    """Names and sizes of encoders that share one architecture."""

    classes: Mapping[str, str]
    """`model_type` in config.json -> how the names of transformers' classes begin."""
    read: Callable[[Mapping[str, Any]], EncoderConfig]
    """A parsed config.json -> configuration."""
    make: Callable[[Any, nnx.Rngs], nnx.Module]
    """Configuration -> encoder, which has `embeddings.word` and is called as `bert.Bert` is."""
    prefix: str
    """What transformers calls the encoder inside a model with an output layer."""
    encoder: Mapping[str, str]
    """Modules of the encoder, without its prefix. {i}: a layer; {g}, {j}: its group, its place."""
    heads: Mapping[str, Mapping[str, str]]
    """Kind of output layer -> its modules, or single parameters."""
    parts: Sequence[str]
    """How names of output layers' tensors begin. Each part is in a checkpoint whole or not at all.

    Such tensors are unused, not unexpected, when the model at hand has another output layer.
    """
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Second names under which some checkpoints store a tensor again; a difference is an error."""
    untied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Parameters of masked words' scores that bear other names in models that tie no weights."""
    ignored: Sequence[str] = ("embeddings.position_ids",)
    """Buffers of the encoder that are no parameters: older versions stored 0, 1, 2, ..."""
    suffixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Kinds whose class in transformers has another name."""

    def class_name(self, model_type: str, kind: str) -> str:
        """The name of transformers' class, such as BertForQuestionAnswering.

        Raises:
          WeightsError: if the family has no such output layer.
        """
        if kind not in self.heads:
            known = ", ".join(sorted(each for each in self.heads if each != "Model"))
            raise WeightsError(
                f"{model_type} encoders have no output layer {kind} in transformers, so its "
                f"weights would have no names (they have {known})."
            )
        return self.classes[model_type] + self.suffixes.get(kind, kind)

    def kind(self, model_type: str, class_name: str | None) -> str | None:
        """The kind of output layer that a class of transformers has; None if it is none of ours."""
        for kind in self.heads:
            if self.class_name(model_type, kind) == class_name:
                return kind
        return None

    def name(self, path: str, kind: str, config: EncoderConfig) -> str:
        """Transformers' name of the parameter at our `path`, such as encoder/layers/0/output/bias.

        Raises:
          KeyError: for a parameter that the tables do not hold (a fault of theirs).
        """
        top, _, rest = path.partition("/")
        if top == "head" and not config.tie_word_embeddings and rest in self.untied:
            return self.untied[rest]
        if top == "head" and rest in self.heads[kind]:  # a single parameter
            return self.heads[kind][rest]
        module, _, leaf = rest.rpartition("/")
        if top == "head":
            return f"{self.heads[kind][module]}.{LEAVES[leaf]}"
        index = 0
        parts = module.split("/")
        if parts[0] == "layers":
            index = int(parts[1])
            module = "/".join(["layers", "{i}", *parts[2:]])
        inner = getattr(config, "inner_group_num", 1)
        name = self.encoder[module].format(i=index, g=index // inner, j=index % inner)
        return f"{self.prefix}.{name}.{LEAVES[leaf]}"

    @property
    def tops(self) -> tuple[str, ...]:
        """First parts of the encoder's names, by which a name without prefix is known."""
        names = [*self.encoder.values(), *self.ignored]
        inner = [
            part.removeprefix(f"{self.prefix}.")
            for part in self.parts
            if part.startswith(f"{self.prefix}.")
        ]
        return tuple(sorted({f"{name.split('.')[0]}." for name in [*names, *inner]}))


OWN = {"dtype", "param_dtype", "remat"}
"""Fields that the run decides, not the checkpoint, whose config.json has a `dtype` of its own."""


def take(
    hf: Mapping[str, Any], kind: type[Config], renamed: Mapping[str, str], **fixed: Any
) -> Config:
    """Read the fields of a configuration from a parsed config.json.

    Args:
      hf: config.json.
      kind: the configuration's class.
      renamed: {name there: our name} where they differ; the first that is there counts.
      **fixed: values that the family fixes.

    Raises:
      WeightsError: for an absent size, a value of another type, or an unknown activation.
    """
    names = {field.name for field in dataclasses.fields(kind)} - OWN
    given = {key: value for key, value in hf.items() if key in names}
    for there, ours in renamed.items():
        if there in hf:
            given[ours] = hf[there]
    theirs = {ours: there for there, ours in renamed.items()}
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    absent = [theirs.get(key, key) for key in (*sizes, "intermediate_size") if key not in given]
    if absent:
        raise WeightsError(f"config.json: no {', '.join(absent)}; is this a BERT checkpoint?")
    hints = get_type_hints(kind)
    for ours in given.keys() - fixed.keys():
        hint = hints[ours] | int if hints[ours] is float else hints[ours]
        if not isinstance(given[ours], hint):
            raise WeightsError(
                f"config.json: {theirs.get(ours, ours)} is {given[ours]!r}; expected "
                f"{getattr(hints[ours], '__name__', hints[ours])}."
            )
    config = kind(**given | fixed)
    for key in ("hidden_act", "pooler_act", "word_act"):
        act = getattr(config, key)
        if act is not None and act not in ACTIVATIONS:
            raise WeightsError(
                f"config.json: {theirs.get(key, key)} is {act!r}; known: {', '.join(ACTIVATIONS)}."
            )
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        raise WeightsError(
            f"config.json: hidden_size {config.hidden_size} is not a multiple of "
            f"num_attention_heads {config.num_attention_heads}."
        )
    return config


def plain_encoder(hf: Mapping[str, Any]) -> None:
    """Refuse decoders, which see no later token, and relative positions: some checkpoints' BERT.

    Raises:
      WeightsError: for these.
    """
    for key in ("is_decoder", "add_cross_attention"):
        if hf.get(key):
            raise WeightsError(
                f"config.json: {key} is true: a decoder's weights, and flaxbert runs encoders "
                "alone. If the model is an encoder, set it to false."
            )
    kind = hf.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise WeightsError(
            f"config.json: position_embedding_type {kind!r} is not supported; BERT's is 'absolute'."
        )

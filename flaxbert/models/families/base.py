"""Families of encoders: the names and constants to read and write their checkpoints.

`encoder_names` and `heads` map this project's modules to those of transformers. Their parameters
need no entries: `kernel`, `embedding` and `scale` are called `weight` there, `bias` is `bias`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from flax import nnx

from flaxbert.errors import WeightsError
from flaxbert.models.layers import ACTIVATIONS, EncoderConfig

Config = TypeVar("Config", bound=EncoderConfig)

LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class Family:
    """Names and constants of encoders that share one architecture."""

    classes: Mapping[str, str]
    """{`model_type` in config.json: prefix of the transformers class names}."""
    read: Callable[[Mapping[str, Any]], EncoderConfig]
    """Converts a parsed config.json to a configuration."""
    build: Callable[[Any, nnx.Rngs], nnx.Module]
    """Builds the encoder of a configuration: called as `bert.Bert`, and with `embeddings.word`."""
    prefix: str
    """Name of the encoder inside a transformers model with an output layer."""
    encoder_names: Mapping[str, str]
    """{module: its name in transformers, without `prefix`}.

    {i} stands for a layer; {g} and {j} for the layer's group and its index there.
    """
    heads: Mapping[str, Mapping[str, str]]
    """{head type: {module or single parameter: its name in transformers}}."""
    head_prefixes: Sequence[str]
    """Prefixes of the names of output layers' tensors.

    A checkpoint has all tensors of a prefix or none. Tensors that the model at hand lacks are
    reported as unused if they have such a prefix, else as unexpected.
    """
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """{second name of a tensor in some checkpoints: its first name}; both must be equal."""
    untied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """MLM-head parameters whose checkpoint names differ when embeddings are untied."""
    ignored: Sequence[str] = ("embeddings.position_ids",)
    """Buffers of the encoder that are not parameters: older versions stored 0, 1, 2, ..."""
    suffixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """{head type: suffix of the transformers class name}, where they differ."""

    def class_name(self, model_type: str, head_type: str) -> str:
        """Return the name of a transformers class, such as BertForQuestionAnswering.

        Raises:
          WeightsError: if the family has no such output layer.
        """
        if head_type not in self.heads:
            known = ", ".join(sorted(name for name in self.heads if name != "Model"))
            raise WeightsError(
                f"{model_type} encoders have no output layer {head_type} in transformers, so its "
                f"weights would have no names (they have {known})."
            )
        return self.classes[model_type] + self.suffixes.get(head_type, head_type)

    def head_type(self, model_type: str, class_name: str | None) -> str | None:
        """Return the head type of a transformers class; None for an unsupported class."""
        for head_type in self.heads:
            if self.class_name(model_type, head_type) == class_name:
                return head_type
        return None

    def name(self, path: str, head_type: str, config: EncoderConfig) -> str:
        """Return the transformers name of a parameter, such as encoder/layers/0/output/bias.

        Raises:
          KeyError: for a parameter that the tables of the family lack (an internal error).
        """
        top, _, rest = path.partition("/")
        if top == "head" and not config.tie_word_embeddings and rest in self.untied:
            return self.untied[rest]
        if top == "head" and rest in self.heads[head_type]:  # a single parameter
            return self.heads[head_type][rest]
        module, _, leaf = rest.rpartition("/")
        if top == "head":
            return f"{self.heads[head_type][module]}.{LEAVES[leaf]}"
        index = 0
        keys = module.split("/")
        if keys[0] == "layers":
            index = int(keys[1])
            module = "/".join(["layers", "{i}", *keys[2:]])
        inner = getattr(config, "inner_group_num", 1)
        name = self.encoder_names[module].format(i=index, g=index // inner, j=index % inner)
        return f"{self.prefix}.{name}.{LEAVES[leaf]}"

    @property
    def encoder_prefixes(self) -> tuple[str, ...]:
        """First parts of the encoder's tensor names without `prefix`, such as embeddings."""
        names = [*self.encoder_names.values(), *self.ignored]
        inside = [
            name.removeprefix(f"{self.prefix}.")
            for name in self.head_prefixes
            if name.startswith(f"{self.prefix}.")
        ]
        return tuple(sorted({f"{name.split('.')[0]}." for name in [*names, *inside]}))


RUNTIME_FIELDS = {"dtype", "param_dtype", "remat", "attention"}
"""Fields that the run sets. In a config.json, `dtype` is the type of the stored weights."""


def config_from_hf(
    hf: Mapping[str, Any], config_type: type[Config], renamed: Mapping[str, str], **fixed: Any
) -> Config:
    """Return the configuration in a parsed config.json.

    Args:
      hf: the parsed config.json.
      config_type: class of the configuration.
      renamed: {name in config.json: name of the field} where they differ; the last present counts.
      **fixed: values that the family fixes.

    Raises:
      WeightsError: for a missing size, a value of the wrong type, or an unknown activation.
    """
    names = {field.name for field in dataclasses.fields(config_type)} - RUNTIME_FIELDS
    given = {key: value for key, value in hf.items() if key in names}
    for hf_name, name in renamed.items():
        if hf_name in hf:
            given[name] = hf[hf_name]
    hf_names = {name: hf_name for hf_name, name in renamed.items()}
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    missing = [hf_names.get(key, key) for key in (*sizes, "intermediate_size") if key not in given]
    if missing:
        raise WeightsError(f"config.json: no {', '.join(missing)}; is this a BERT checkpoint?")
    hints = get_type_hints(config_type)
    for name in given.keys() - fixed.keys():
        hint = hints[name] | int if hints[name] is float else hints[name]
        if not isinstance(given[name], hint):
            raise WeightsError(
                f"config.json: {hf_names.get(name, name)} is {given[name]!r}; expected "
                f"{getattr(hints[name], '__name__', hints[name])}."
            )
    config = config_type(**given | fixed)
    for key in ("hidden_act", "pooler_act", "word_act"):
        act = getattr(config, key)
        if act is not None and act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise WeightsError(f"config.json: {hf_names.get(key, key)} is {act!r}; known: {known}.")
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        raise WeightsError(
            f"config.json: hidden_size {config.hidden_size} is not a multiple of "
            f"num_attention_heads {config.num_attention_heads}."
        )
    return config


def reject_unsupported(hf: Mapping[str, Any]) -> None:
    """Check that a parsed config.json is of an encoder with absolute positions.

    Raises:
      WeightsError: for a decoder, or relative positions.
    """
    for key in ("is_decoder", "add_cross_attention"):
        if hf.get(key):
            raise WeightsError(
                f"config.json: {key} is true, so these are a decoder's weights; flaxbert only "
                "runs encoders. If the model is an encoder, set it to false."
            )
    positions = hf.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise WeightsError(
            f"config.json: position_embedding_type {positions!r} is not supported; BERT's is "
            "'absolute'."
        )

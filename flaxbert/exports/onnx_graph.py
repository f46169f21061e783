"""A model as an ONNX graph, with any number of texts of any length.

The graph computes what models/ computes for rows of one text, in float32 and without dropout. Shape
letters: models/layers.py. Tensors are called after the place of the parameters, such as
encoder/layers/0/output.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxbert.errors import ConfigError
from flaxbert.models.bert import BertConfig
from flaxbert.models.layers import EncoderConfig
from flaxbert.models.model import Model
from flaxbert.models.modernbert import ModernBertConfig, frequencies
from flaxbert.types import Params

OPSET = 17
"""The first with LayerNormalization. Later ones offer nothing that this graph would gain from, and
fewer runtimes read them."""
IR_VERSION = 8
"""The version of the file format that came with this opset; a newer one is refused by runtimes that
could run the graph."""
LARGEST = 2**31 - 2**26
"""Bytes of parameters that a file may hold: protobuf's messages end at 2 GiB."""
LOWEST = float(np.finfo(np.float32).min)

MODEL, DATA = "model.onnx", "model.onnx.data"


def require_onnx() -> Any:
    """Return the package onnx.

    Raises:
      ConfigError: if it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(
            f"--format=onnx needs the packages onnx and onnxruntime ({error}); install them: "
            'pip install "flaxbert[onnx]"'
        ) from None
    return onnx


def write(model: Model, params: Params, directory: Path) -> None:
    """Write model.onnx; parameters of more than 2 GB go to model.onnx.data.

    Args:
      model: an encoder with an output layer that scores sequences, tokens or spans.
      params: parameters on the host, with the structure of `model.shapes`.
      directory: receives the files.

    Raises:
      ConfigError: without the package onnx, or for another output layer.
    """
    onnx = require_onnx()
    graph = Graph(params)
    outputs = build(graph, model)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            model.architecture,
            [
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, axes)
                for name, axes in graph.inputs.items()
            ],
            [
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes)
                for name, axes in outputs.items()
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.arrays.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="flaxbert",
    )
    large = sum(array.nbytes for array in graph.arrays.values()) > LARGEST
    path = str(directory / MODEL)
    onnx.save_model(proto, path, save_as_external_data=large, location=DATA if large else None)
    onnx.checker.check_model(path, full_check=True)


def build(graph: "Graph", model: Model) -> dict[str, list[Any]]:
    """Add a whole model to an empty graph, and return its outputs: {name: axes}.

    Raises:
      ConfigError: for an output layer that no task predicts with.
    """
    heads: Mapping[str, Callable[[Graph, EncoderConfig, str, str], dict[str, list[Any]]]] = {
        "ForSequenceClassification": _score_sequences,
        "ForMultipleChoice": _score_choices,
        "ForTokenClassification": _score_tokens,
        "ForQuestionAnswering": _score_spans,
    }
    if model.head_type not in heads:
        raise ConfigError(
            f"{model.architecture} cannot be exported as ONNX: its task does not predict for "
            f"texts. Export a model with one of {', '.join(heads)}."
        )
    config = model.config
    ids, mask, types = _inputs(graph, config, choices=model.head_type == "ForMultipleChoice")
    encode = _modernbert if isinstance(config, ModernBertConfig) else _bert
    hidden = encode(graph, config, ids, mask, types)
    return heads[model.head_type](graph, config, hidden, mask)


class Graph:
    """Nodes and constants of a graph that grows."""

    def __init__(self, params: Params):
        """Start a graph.

        Args:
          params: what `parameter` reads from.
        """
        self.params = params
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs: dict[str, list[Any]] = {}

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node and return its output, called `name` if it has one."""
        (output,) = self.split(kind, *inputs, names=[name or f"{kind}_{len(self.nodes)}"],
                               **attributes)  # fmt: skip
        return output

    def split(
        self, kind: str, *inputs: str, names: Sequence[str], **attributes: Any
    ) -> Sequence[str]:
        """Add a node with several outputs, and return these."""
        make = require_onnx().helper.make_node
        self.nodes.append(make(kind, inputs, names, f"{kind}_{len(self.nodes)}", **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return a constant tensor; equal ones are stored once."""
        array = np.asarray(value, dtype)
        name = f"{array.dtype}{array.shape}_{array.ravel()[:8].tolist()}"
        if array.size > 8:
            name += f"_{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def has(self, path: str) -> bool:
        """Return whether there is a parameter, or a module of parameters."""
        node: Any = self.params
        for key in path.split("/"):
            node = _child(node, key)
            if node is None:
                return False
        return True

    def parameter(self, path: str) -> str:
        """Return a parameter as a float32 tensor of that name."""
        if path not in self.arrays:
            node: Any = self.params
            for key in path.split("/"):
                node = _child(node, key)
            self.arrays[path] = np.ascontiguousarray(node, np.float32)
        return path

    # --- layers --------------------------------------------------------------------------------

    def dense(self, path: str, x: str, name: str = "") -> str:
        """Add a dense layer: [..., I] to [..., O]."""
        biased = self.has(f"{path}/bias")
        y = self.add("MatMul", x, self.parameter(f"{path}/kernel"), name="" if biased else name)
        return self.add("Add", y, self.parameter(f"{path}/bias"), name=name) if biased else y

    def layer_norm(self, path: str, x: str, epsilon: float) -> str:
        """Add LayerNorm over the last axis."""
        bias = [self.parameter(f"{path}/bias")] if self.has(f"{path}/bias") else []
        scale = self.parameter(f"{path}/scale")
        return self.add("LayerNormalization", x, scale, *bias, axis=-1, epsilon=epsilon)

    def activation(self, kind: str, x: str) -> str:
        """Add one of `layers.ACTIVATIONS`."""
        if kind in ("relu", "tanh"):
            return self.add(kind.title(), x)
        if kind == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if kind == "gelu":
            inner = self.add("Erf", self.add("Div", x, self.constant(2**0.5, np.float32)))
        else:  # the approximation by tanh
            cube = self.add("Mul", self.add("Mul", x, x), x)
            cube = self.add("Mul", cube, self.constant(0.044715, np.float32))
            scale = self.constant((2 / np.pi) ** 0.5, np.float32)
            inner = self.add("Tanh", self.add("Mul", self.add("Add", x, cube), scale))
        one_more = self.add("Add", inner, self.constant(1.0, np.float32))
        return self.add("Mul", self.add("Mul", x, one_more), self.constant(0.5, np.float32))

    def heads(self, x: str, heads: int) -> str:
        """Split [R, T, D] into heads [R, N, T, H]."""
        split = self.add("Reshape", x, self.constant([0, 0, heads, -1]))
        return self.add("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, q: str, k: str, v: str, bias: str) -> str:
        """Add attention: q (already scaled), k and v [R, N, T, H] to [R, T, D].

        `bias` is added to the scores: [R, 1, T or 1, T].
        """
        scores = self.add("MatMul", q, self.add("Transpose", k, perm=[0, 1, 3, 2]))
        probs = self.add("Softmax", self.add("Add", scores, bias), axis=-1)
        context = self.add("Transpose", self.add("MatMul", probs, v), perm=[0, 2, 1, 3])
        return self.add("Reshape", context, self.constant([0, 0, -1]))


def _child(node: Any, key: str) -> Any:
    """Return an entry of the tree of parameters; the keys of layers are numbers."""
    if node is None:
        return None
    return node[key] if key in node else node.get(int(key)) if key.isdecimal() else None


# --- inputs ------------------------------------------------------------------------------------


def _inputs(graph: Graph, config: EncoderConfig, *, choices: bool) -> tuple[str, str, str]:
    """Declare the inputs as transformers names them, and return ids, mask and types [R, T].

    The choices of a question are an axis of their own in transformers; here they become rows.
    """
    axes = ["batch", "choices", "length"] if choices else ["batch", "length"]
    names = input_names(config)
    graph.inputs = dict.fromkeys(names, axes)
    if not choices:
        return "input_ids", "attention_mask", names[-1]
    shape = graph.add("Shape", "input_ids", name="shape")
    length = graph.add("Gather", shape, graph.constant([2]))
    rows = graph.add("Concat", graph.constant([-1]), length, axis=0)
    ids, mask, *types = (graph.add("Reshape", name, rows) for name in names)
    return ids, mask, types[0] if types else ""


def input_names(config: EncoderConfig) -> list[str]:
    """Return the names of the inputs; token types only for a model that has them."""
    typed = isinstance(config, BertConfig) and config.type_vocab_size > 1
    return ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]


def _places(graph: Graph, ids: str) -> str:
    """Return the places in a row, [T]."""
    length = graph.add("Gather", graph.add("Shape", ids), graph.constant(1))
    return graph.add("Range", graph.constant(0), length, graph.constant(1))


def _bias(graph: Graph, allowed: str) -> str:
    """Return what is added to scores: 0 where attention is allowed, else the lowest number."""
    zero, lowest = (graph.constant(value, np.float32) for value in (0.0, LOWEST))
    return graph.add("Where", allowed, zero, lowest)


def _keys(graph: Graph, mask: str) -> str:
    """Return which tokens may be attended to, booleans [R, 1, 1, T]."""
    bits = graph.add("Greater", mask, graph.constant(0))
    return graph.add("Unsqueeze", bits, graph.constant([1, 2]))


# --- encoders ----------------------------------------------------------------------------------


def _bert(graph: Graph, config: Any, ids: str, mask: str, types: str) -> str:
    """Add models/bert.py and return the hidden states [R, T, D]."""
    base, eps = "encoder/embeddings", config.layer_norm_eps
    x = graph.add("Gather", graph.parameter(f"{base}/word/embedding"), ids)
    if config.type_vocab_size:
        table = graph.parameter(f"{base}/token_type/embedding")
        # RoBERTa's table has one row: all its tokens have the same type.
        index = types if config.type_vocab_size > 1 else graph.constant(0)
        x = graph.add("Add", x, graph.add("Gather", table, index))
    places = graph.add("Add", _places(graph, ids), graph.constant(config.position_offset))
    positions = graph.add("Gather", graph.parameter(f"{base}/position/embedding"), places)
    x = graph.add("Add", x, positions)
    if not config.pre_norm:
        x = graph.layer_norm(f"{base}/norm", x, eps)
    if config.embedding_size is not None:
        x = graph.dense(f"{base}/project", x)
    bias = _bias(graph, _keys(graph, mask))
    for index in config.schedule:
        x = _bert_layer(graph, config, f"encoder/layers/{index}", x, bias)
    return graph.layer_norm("encoder/norm", x, eps) if config.pre_norm else x


def _bert_layer(graph: Graph, config: Any, path: str, x: str, bias: str) -> str:
    def norm(name: str, x: str) -> str:
        return graph.layer_norm(f"{path}/{name}", x, config.layer_norm_eps)

    if config.pre_norm:
        y = _bert_attention(graph, config, path, norm("attention_norm", x), bias)
        x = graph.add("Add", x, y)
        return graph.add("Add", x, _feed_forward(graph, config, path, norm("output_norm", x)))
    x = norm("attention_norm", graph.add("Add", x, _bert_attention(graph, config, path, x, bias)))
    return norm("output_norm", graph.add("Add", x, _feed_forward(graph, config, path, x)))


def _bert_attention(graph: Graph, config: Any, path: str, x: str, bias: str) -> str:
    width = config.hidden_size // config.num_attention_heads
    q, k, v = (graph.dense(f"{path}/attention/{part}", x) for part in ("query", "key", "value"))
    q = graph.add("Mul", q, graph.constant(width**-0.5, np.float32))
    q, k, v = (graph.heads(part, config.num_attention_heads) for part in (q, k, v))
    return graph.dense(f"{path}/attention/output", graph.attention(q, k, v, bias))


def _feed_forward(graph: Graph, config: Any, path: str, x: str) -> str:
    hidden = graph.activation(config.hidden_act, graph.dense(f"{path}/intermediate", x))
    return graph.dense(f"{path}/output", hidden)


def _modernbert(graph: Graph, config: Any, ids: str, mask: str, types: str) -> str:
    """Add models/modernbert.py and return the hidden states [R, T, D]."""
    del types
    eps = config.layer_norm_eps
    x = graph.add("Gather", graph.parameter("encoder/embeddings/word/embedding"), ids)
    x = graph.layer_norm("encoder/embeddings/norm", x, eps)
    places, keys = _places(graph, ids), _keys(graph, mask)
    biases = {window: _window_bias(graph, places, keys, window) for window in set(config.windows)}
    thetas = {config.global_rope_theta, config.local_rope_theta}
    rotations = {theta: _rotation(graph, config, places, theta) for theta in thetas}
    for index, window in enumerate(config.windows):
        theta = config.global_rope_theta if window is None else config.local_rope_theta
        path = f"encoder/layers/{index}"
        x = _modernbert_layer(graph, config, path, x, biases[window], rotations[theta])
    return graph.layer_norm("encoder/norm", x, eps)


def _window_bias(graph: Graph, places: str, keys: str, window: int | None) -> str:
    if window is None:
        return _bias(graph, keys)
    column = graph.add("Unsqueeze", places, graph.constant([1]))
    distance = graph.add("Abs", graph.add("Sub", column, places))  # [T, T]
    near = graph.add("LessOrEqual", distance, graph.constant(window))
    return _bias(graph, graph.add("And", keys, near))


def _rotation(graph: Graph, config: Any, places: str, theta: float) -> tuple[str, str]:
    """Return cosine and sine of the angles, [T, H/2]."""
    steps = np.asarray(frequencies(config.hidden_size // config.num_attention_heads, theta))
    column = graph.add("Unsqueeze", graph.add("Cast", places, to=1), graph.constant([1]))
    angles = graph.add("Mul", column, graph.constant(steps, np.float32))
    return graph.add("Cos", angles), graph.add("Sin", angles)


def _rotated(graph: Graph, x: str, rotation: tuple[str, str]) -> str:
    """Rotate [R, N, T, H]; see `modernbert.rotate`."""
    cos, sin = rotation
    number = len(graph.nodes)
    a, b = graph.split("Split", x, names=[f"half_{number}_{part}" for part in "ab"], axis=-1)
    first = graph.add("Sub", graph.add("Mul", a, cos), graph.add("Mul", b, sin))
    second = graph.add("Add", graph.add("Mul", b, cos), graph.add("Mul", a, sin))
    return graph.add("Concat", first, second, axis=-1)


def _modernbert_layer(
    graph: Graph, config: Any, path: str, x: str, bias: str, rotation: tuple[str, str]
) -> str:
    eps, heads = config.layer_norm_eps, config.num_attention_heads
    normed = x
    if graph.has(f"{path}/attention_norm"):
        normed = graph.layer_norm(f"{path}/attention_norm", x, eps)
    qkv = graph.dense(f"{path}/qkv", normed)
    parts = graph.split("Split", qkv, names=[f"{path}/{part}" for part in "qkv"], axis=-1)
    q, k, v = (graph.heads(part, heads) for part in parts)
    q, k = _rotated(graph, q, rotation), _rotated(graph, k, rotation)
    scale = (config.hidden_size // heads) ** -0.5
    q = graph.add("Mul", q, graph.constant(scale, np.float32))
    context = graph.attention(q, k, v, bias)
    x = graph.add("Add", x, graph.dense(f"{path}/attention_output", context))
    gated = graph.dense(f"{path}/intermediate", graph.layer_norm(f"{path}/norm", x, eps))
    names = [f"{path}/{part}" for part in ("hidden", "gate")]
    hidden, gate = graph.split("Split", gated, names=names, axis=-1)
    product = graph.add("Mul", graph.activation(config.hidden_act, hidden), gate)
    return graph.add("Add", x, graph.dense(f"{path}/output", product))


# --- output layers -----------------------------------------------------------------------------


def _score_sequences(graph: Graph, config: Any, hidden: str, mask: str) -> dict[str, list[Any]]:
    pooled = _pooled(graph, config, hidden, mask)
    graph.dense("head/classifier", pooled, name="logits")
    return {"logits": ["batch", _width(graph)]}


def _score_choices(graph: Graph, config: Any, hidden: str, mask: str) -> dict[str, list[Any]]:
    scores = graph.dense("head/classifier", _pooled(graph, config, hidden, mask))
    shape = graph.add("Gather", "shape", graph.constant([0, 1]))
    graph.add("Reshape", scores, shape, name="logits")
    return {"logits": ["batch", "choices"]}


def _score_tokens(graph: Graph, config: Any, hidden: str, mask: str) -> dict[str, list[Any]]:
    del mask
    graph.dense("head/classifier", _transformed(graph, config, hidden), name="logits")
    return {"logits": ["batch", "length", _width(graph)]}


def _score_spans(graph: Graph, config: Any, hidden: str, mask: str) -> dict[str, list[Any]]:
    del mask
    scores = graph.dense("head/classifier", _transformed(graph, config, hidden))
    names = ["start_logits", "end_logits"]
    for place, name in enumerate(names):
        graph.add("Gather", scores, graph.constant(place), axis=-1, name=name)
    return {name: ["batch", "length"] for name in names}


def _width(graph: Graph) -> int:
    return graph.arrays["head/classifier/kernel"].shape[1]


def _pooled(graph: Graph, config: Any, hidden: str, mask: str) -> str:
    """Add the pooler over [CLS] or over the mean of the tokens: [R, T, D] to [R, D]."""
    if config.pooling == "mean":
        weights = graph.add("Unsqueeze", graph.add("Cast", mask, to=1), graph.constant([2]))
        total = graph.add("ReduceSum", graph.add("Mul", hidden, weights), graph.constant([1]),
                          keepdims=0)  # fmt: skip
        count = graph.add("ReduceSum", weights, graph.constant([1]), keepdims=0)
        first = graph.add("Div", total, count)
    else:
        first = graph.add("Gather", hidden, graph.constant(0), axis=1)
    return _dense_norm(graph, config, "head/pooler", first)


def _transformed(graph: Graph, config: Any, hidden: str) -> str:
    if not config.transform_tokens:
        return hidden
    return _dense_norm(graph, config, "head/transform", hidden)


def _dense_norm(graph: Graph, config: Any, path: str, x: str) -> str:
    """Add `heads.DenseNorm` with the activation of the pooler."""
    x = graph.activation(config.pooler_act, graph.dense(f"{path}/dense", x))
    if graph.has(f"{path}/norm"):
        x = graph.layer_norm(f"{path}/norm", x, config.layer_norm_eps)
    return x

"""ONNX graphs give the outputs of transformers' models, in every family and output layer."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import zoo
from test_families import golden, write
from tolerance import assert_close

from flaxbert.errors import ConfigError
from flaxbert.exports import onnx_graph
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.pretrained.load import head_of, load_strictly

HEADS = (
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
QUICK = {
    "bert/ForQuestionAnswering",
    "roberta/ForMultipleChoice",
    "xlm_roberta_xl/ForTokenClassification",
    "distilbert/ForSequenceClassification",
    "electra/ForTokenClassification",
    "albert/ForSequenceClassification",
    "modernbert/ForQuestionAnswering",
    "modernbert_mean/ForSequenceClassification",
}
CASES = [
    pytest.param(case, marks=() if case in QUICK else pytest.mark.slow)
    for case in (f"{name}/{head}" for name, head in zoo.CASES if head in HEADS)
]


def graph_of(case: str, directory: Path) -> onnxruntime.InferenceSession:
    """Write the graph of a case, and load it."""
    source = directory / "source"
    source.mkdir()
    hf_config = json.loads((write(case, source) / "config.json").read_text())
    model = Model.create(read_config(hf_config), head_of(hf_config))
    model, params, _ = load_strictly(model, source)
    onnx_graph.write(model, params, directory)
    return onnxruntime.InferenceSession(directory / "model.onnx")


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_transformers(case, tmp_path):
    session, expected = graph_of(case, tmp_path), golden(case)
    padding = json.loads(str(expected["config"])).get("pad_token_id", 0)
    arrays = zoo.batch(2, padding)
    inputs = {item.name: arrays[item.name] for item in session.get_inputs()}
    mask, choices = arrays["attention_mask"] > 0, "ForMultipleChoice" in case
    if choices:
        inputs = {name: x[None] for name, x in inputs.items()}
    names = [item.name for item in session.get_outputs()]
    axes = ["batch", "choices", "length"] if choices else ["batch", "length"]  # of no fixed size
    assert all(item.shape == axes for item in session.get_inputs())
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    assert names == (["start_logits", "end_logits"] if "Question" in case else ["logits"])
    for name, values in outputs.items():
        theirs = expected[name]
        if values.shape[:2] == mask.shape:  # outputs for padding mean nothing
            values, theirs = values[mask], theirs[mask]
        assert_close(values, theirs.reshape(values.shape))


def test_large_models_have_their_parameters_in_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "LARGEST", 0)
    graph_of("distilbert/ForSequenceClassification", tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > (tmp_path / "model.onnx").stat().st_size


def test_an_output_layer_that_no_task_predicts_with_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="BertForMaskedLM cannot be exported as ONNX"):
        graph_of("bert/ForMaskedLM", tmp_path)


def test_activations_are_those_of_the_models():
    from flaxbert.models.layers import ACTIVATIONS

    x = np.linspace(-4, 4, 33, dtype=np.float32)
    for name, activation in ACTIVATIONS.items():
        graph = onnx_graph.Graph({})
        output = graph.activation(name, "x")
        info = onnx.helper.make_tensor_value_info
        proto = onnx.helper.make_model(
            onnx.helper.make_graph(
                graph.nodes,
                name,
                [info("x", 1, [33])],
                [info(output, 1, [33])],
                [onnx.numpy_helper.from_array(a, n) for n, a in graph.arrays.items()],
            ),
            opset_imports=[onnx.helper.make_opsetid("", onnx_graph.OPSET)],
            ir_version=onnx_graph.IR_VERSION,
        )
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        assert_close(session.run(None, {"x": x})[0], np.asarray(activation(x)))

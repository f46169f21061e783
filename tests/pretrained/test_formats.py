"""Checkpoints in other formats and sizes; bad ones raise one clear error."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import zoo
from conftest import ROOT
from safetensors.numpy import load_file, save_file

import flaxbert
from flaxbert.config import DataConfig, ModelConfig
from flaxbert.errors import UserError, WeightsError
from flaxbert.models.model import Model
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained import mapping
from flaxbert.pretrained.formats import read_config
from flaxbert.tasks import TASKS
from flaxbert.types import Params

FLAX = ROOT / "tests/golden/transformers4"


def load(directory: Path) -> Params:
    return mapping.flatten(flaxbert.from_pretrained(str(directory))[1])


def assert_same(a: Params, b: Params) -> None:
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[path], b[path]) for path in a)


# --- Flax of transformers 4 --------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(each.stem for each in FLAX.glob("*.msgpack")))
def test_transformers_4_flax_files_load_the_original_tensors(case: str, tmp_path: Path) -> None:
    # make_flax.py names the version that wrote them.
    shutil.copy(FLAX / f"{case}.msgpack", tmp_path / "flax_model.msgpack")
    shutil.copy(FLAX / f"{case}.json", tmp_path / "config.json")
    model, params = flaxbert.from_pretrained(str(tmp_path))
    assert_same(mapping.flatten(params), written(model))


def written(model: Model) -> Params:
    """Return the parameters of a model of the zoo, made from their names in transformers."""
    shapes, found = mapping.flatten(model.shapes), {}
    for path, name in mapping.hf_names(model).items():
        kernel = path.endswith("kernel")
        shape = shapes[path].shape[::-1] if kernel else shapes[path].shape
        if model.head_type == "Model":
            name = name.removeprefix(f"{model.family.prefix}.")
        array = zoo.tensor(name, shape)
        found[path] = array.T if kernel else array
    return found


# --- PyTorch -----------------------------------------------------------------------------------


def test_pytorch_file_without_torch_names_the_extra(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copied(checkpoint, tmp_path)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin: .*flaxbert\[torch\]"):
        load(directory)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_pytorch_file_equals_safetensors(sharded: bool, checkpoint: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    directory = copied(checkpoint, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    state = {name: torch.tensor(value) for name, value in tensors.items()}
    if sharded:
        index = {}
        for number in range(2):
            file = f"pytorch_model-0000{number}-of-00002.bin"
            part = {name: state[name] for name in sorted(state)[number::2]}
            torch.save(part, directory / file)
            index |= dict.fromkeys(part, file)
        text = json.dumps({"metadata": {}, "weight_map": index})
        (directory / "pytorch_model.bin.index.json").write_text(text)
    else:
        torch.save(state, directory / "pytorch_model.bin")
    assert_same(load(directory), load(checkpoint))


@pytest.mark.slow
def test_pytorch_parameters_load_and_float8_raises(checkpoint: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    directory = copied(checkpoint, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    file = directory / "pytorch_model.bin"
    state = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in tensors.items()}
    torch.save(state, file)
    assert_same(load(directory), load(checkpoint))
    torch.save({name: each.detach().to(torch.float8_e4m3fn) for name, each in state.items()}, file)
    with pytest.raises(WeightsError, match="is float8_e4m3fn, as in quantized models"):
        load(directory)


class Malicious:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("touch run-by-pickle",)


def _nested(directory: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weights": {"a": torch.zeros(1)}}, directory / "pytorch_model.bin")


def _list(directory: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save([torch.zeros(1)], directory / "pytorch_model.bin")


def _pickle(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Malicious()}))


def _zipped_pickle(directory: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": Malicious()}, directory / "pytorch_model.bin")


def _cut(directory: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1000)}, directory / "pytorch_model.bin")
    file = directory / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pickle, "not read, because it holds more than tensors and could run code"),
        (_zipped_pickle, "not read, because it holds more than tensors and could run code"),
        (_nested, "'weights' is a dict, not a tensor"),
        (_list, "holds a list, not tensors by name"),
        (_cut, "not a readable PyTorch file"),
    ],
)
def test_pickle_that_is_not_a_state_dict_raises(
    spoil: Callable[[Path], None],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    directory = copied(checkpoint, tmp_path)
    (directory / "model.safetensors").unlink()
    spoil(directory)
    with pytest.raises(WeightsError, match=f"pytorch_model.bin: {message}"):
        load(directory)
    assert not (tmp_path / "run-by-pickle").exists()


# --- TensorFlow --------------------------------------------------------------------------------


def original_name(name: str) -> str:
    """Return the name in google-research/bert of a tensor of BertForPreTraining."""
    name = name.replace("encoder.layer.", "encoder.layer_")
    for theirs, ours in (
        ("cls.predictions.bias", "cls.predictions.output_bias"),
        ("seq_relationship.weight", "seq_relationship.output_weights"),
        ("seq_relationship.bias", "seq_relationship.output_bias"),
        ("LayerNorm.weight", "LayerNorm.gamma"),
        ("LayerNorm.bias", "LayerNorm.beta"),
        ("_embeddings.weight", "_embeddings"),
        (".weight", ".kernel"),
    ):
        name = name.replace(theirs, ours)
    return name.replace(".", "/")


@pytest.mark.slow
def test_google_research_checkpoint_equals_safetensors(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(FLAX / "bert_ForPreTraining.msgpack", source / "flax_model.msgpack")
    shutil.copy(FLAX / "bert_ForPreTraining.json", source / "config.json")
    model, params = flaxbert.from_pretrained(str(source))
    names, tensors = mapping.hf_names(model), {}
    for path, value in mapping.flatten(params).items():
        array = np.asarray(value)
        tensors[names[path]] = array.T if path.endswith("kernel") else array
    directory = tmp_path / "uncased"
    directory.mkdir()
    config = json.loads((source / "config.json").read_text())
    kept = {key: config[key] for key in (*zoo.SIZES, "hidden_act", "hidden_dropout_prob")}
    (directory / "bert_config.json").write_text(json.dumps(kept))
    with tensorflow.Graph().as_default(), tensorflow.compat.v1.Session() as session:
        variables = [tensorflow.Variable(7, name="global_step")]
        for name, value in tensors.items():
            kernel = original_name(name).endswith("/kernel")
            variable = tensorflow.Variable(value.T if kernel else value, name=original_name(name))
            moment = tensorflow.Variable(np.zeros(3), name=f"{original_name(name)}/adam_m")
            variables += [variable, moment]
        session.run(tensorflow.compat.v1.global_variables_initializer())
        saver = tensorflow.compat.v1.train.Saver(variables)
        saver.save(session, str(directory / "bert_model.ckpt"), write_meta_graph=False)
    assert_same(load(directory), load(source))
    index = directory / "bert_model.ckpt.index"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"bert_model\.ckpt: not a readable TensorFlow"):
        load(directory)


# --- other sizes -------------------------------------------------------------------------------


def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def opened(directory: Path, **changes: object) -> tuple[Params, Params]:
    """Return the parameters of a masked language model opened with changes, and the stored ones."""
    options = TASKS["pretraining"].options_type(next_sentence=False)
    model = ModelConfig(init=str(directory), **changes)  # type: ignore[arg-type]
    data = DataConfig(max_length=16, overlap=4)
    pipeline = Pipeline.build("pretraining", model, data, options)
    flat = mapping.flatten(pipeline.load_params())
    return flat, load_file(directory / "model.safetensors")


POSITION, WORD = "encoder/embeddings/position/embedding", "encoder/embeddings/word/embedding"


def test_smaller_position_table_keeps_the_first_rows(checkpoint: Path) -> None:
    params, stored = opened(checkpoint, max_position_embeddings=20)
    assert np.array_equal(params[POSITION], stored["embeddings.position_embeddings.weight"][:20])


def test_larger_position_table_repeats_the_rows(checkpoint: Path) -> None:
    params, stored = opened(checkpoint, max_position_embeddings=100)
    table = stored["embeddings.position_embeddings.weight"]
    assert np.array_equal(params[POSITION], np.concatenate([table, table[:36]]))


def test_larger_position_table_does_not_repeat_padding_rows(tmp_path: Path) -> None:
    from test_families import write

    directory = write("roberta/Model", tmp_path)
    from flaxbert.models.families import read_config
    from flaxbert.pretrained.formats import read_json

    stored = read_config(read_json(directory / "config.json"))
    table = np.arange(37 * 2, dtype=np.float32).reshape(37, 2)
    more = __import__("dataclasses").replace(stored, max_position_embeddings=50)
    found = mapping.resized(table, POSITION, more, stored)
    assert np.array_equal(found, np.concatenate([table, table[2:15]]))


def test_added_tokens_get_the_mean_embedding(checkpoint: Path, tmp_path: Path) -> None:
    directory = copied(checkpoint, tmp_path)
    vocabulary = (directory / "vocab.txt").read_text()
    (directory / "vocab.txt").write_text(vocabulary + "flax\njax\n")
    with pytest.raises(WeightsError, match=r"--config\.model\.resize_vocab=true"):
        opened(directory)
    params, stored = opened(directory, resize_vocab=True)
    table = stored["embeddings.word_embeddings.weight"]
    assert np.array_equal(params[WORD][:-2], table)
    assert params[WORD][-2:] == pytest.approx(np.stack([table.mean(0)] * 2), rel=1e-5)
    assert params["head/word_bias"].shape == (len(table) + 2,)


def test_resizing_is_logged_and_exported(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Pipeline.build(
        "classification",
        ModelConfig(init=str(checkpoint), max_position_embeddings=100),
        DataConfig(max_length=90, overlap=4),
        TASKS["classification"].options_type(labels=("a", "b")),
    )
    with caplog.at_level("INFO", "flaxbert"):
        params = pipeline.load_params()
    assert "resized, as configured: bert.embeddings.position_embeddings.weight" in caplog.text
    pipeline.export(params, tmp_path / "export")
    again = load(tmp_path / "export")
    assert_same(again, mapping.flatten(jax.tree.map(np.asarray, params)))


# --- label names -------------------------------------------------------------------------------


def test_label_names_come_from_label2id_without_id2label(checkpoint: Path, tmp_path: Path) -> None:
    directory = copied(checkpoint, tmp_path)
    edit_config(label2id={"good": 1, "bad": 0, "fair": 2}, id2label=None)(directory)
    assert read_config(directory)["id2label"] == {"1": "good", "0": "bad", "2": "fair"}
    edit_config(id2label={"0": "a", "1": "b"}, label2id={})(directory)
    assert read_config(directory)["id2label"] == {"0": "a", "1": "b"}
    edit_config(label2id={"good": "1", "bad": "0"}, id2label=None)(directory)
    assert read_config(directory)["id2label"] == {"0": "bad", "1": "good"}


def test_unordered_id2label_keeps_its_numbers(checkpoint: Path, tmp_path: Path) -> None:
    directory = copied(checkpoint, tmp_path)
    names = {str(n): f"name {n}" for n in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    edit_config(id2label=names)(directory)
    read = read_config(directory)["id2label"]
    assert list(read.values()) == [f"name {n}" for n in range(11)]


def test_contradicting_label_maps_are_logged(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = copied(checkpoint, tmp_path)
    edit_config(id2label={"0": "bad", "1": "good"}, label2id={"bad": 1, "good": 0})(directory)
    assert read_config(directory)["id2label"] == {"0": "bad", "1": "good"}
    assert "'bad' is 0 in id2label, but 1 in label2id; using id2label" in caplog.text
    caplog.clear()
    edit_config(label2id={"LABEL_0": 0, "LABEL_1": 1})(directory)  # transformers' placeholders
    read_config(directory)
    assert not caplog.text


# --- bad checkpoints ---------------------------------------------------------------------------


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        file = directory / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return spoil


def edit_config(**changes: object) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        file = directory / "config.json"
        config = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))

    return spoil


def write_bytes(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(content) and None


def only(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        (directory / "model.safetensors").unlink()
        (directory / name).write_bytes(content)

    return spoil


def truncated(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def emptied(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def quantized(directory: Path) -> None:
    """Rewrite only the header; the number of bytes stays the same."""
    file = directory / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[UP] |= {"dtype": "F8_E4M3", "shape": [40, 24 * 4]}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


QUERY = "encoder.layer.0.attention.self.query.weight"
UP = "encoder.layer.1.intermediate.dense.weight"
TABLE = "embeddings.word_embeddings.weight"
INDEX = json.dumps({"weight_map": {TABLE: "model-00001-of-00002.safetensors"}}).encode()

DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a tensor less": (edit_tensors(lambda t: t.pop(QUERY)), f"missing: bert.{QUERY} [24, 24]"),
    "a tensor more": (
        edit_tensors(lambda t: t.update(extra=np.zeros((2, 3), np.float32))),
        "unexpected: extra [2, 3]",
    ),
    "transposed": (
        edit_tensors(lambda t: t.update({UP: np.ascontiguousarray(t[UP].T)})),
        f"mis-shaped: {UP} is [24, 40], the model has [40, 24]",
    ),
    "integers": (
        edit_tensors(lambda t: t.update({UP: t[UP].astype(np.int8)})),
        f"not floating point: {UP} is int8",
    ),
    "NaN": (
        edit_tensors(lambda t: t.update({UP: t[UP] * np.nan})),
        f"not finite: {UP} holds NaN or infinity",
    ),
    "misspelt": (edit_tensors(lambda t: t.update({"x" + UP: t.pop(UP)})), f"missing: bert.{UP}"),
    "two spellings": (
        edit_tensors(lambda t: t.update({f"bert.{UP}": t[UP]})),
        "twice, under two spellings",
    ),
    "half a pooler": (edit_tensors(lambda t: t.pop("pooler.dense.bias")), "bert.pooler.dense.bias"),
    "no tensors": (edit_tensors(lambda t: t.clear()), "missing, 37 tensors: bert.embeddings."),
    "cut off": (truncated, "model.safetensors: not a readable safetensors file"),
    "another file": (
        write_bytes("model.safetensors", b"<html>not found</html>"),
        "model.safetensors: not a readable safetensors file",
    ),
    "an empty file": (write_bytes("model.safetensors", b""), "not a readable safetensors file"),
    "a pointer to large files": (
        write_bytes("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid x"),
        "model.safetensors: a Git LFS pointer, not the weights; download them: git lfs pull",
    ),
    "a shard less": (
        only("model.safetensors.index.json", INDEX),
        "missing shards: model-00001-of-00002.safetensors. Download them",
    ),
    "an index without shards": (only("model.safetensors.index.json", b"{}"), "missing shards: all"),
    "an index that is no JSON": (only("model.safetensors.index.json", b"{"), "not valid JSON"),
    "Flax bytes cut off": (
        only(
            "flax_model.msgpack",
            (FLAX / "bert_ForPreTraining.msgpack").read_bytes()[:999],
        ),
        "flax_model.msgpack: not a readable",
    ),
    "Flax of nothing": (only("flax_model.msgpack", b"\x01"), "holds a int, not parameters"),
    "unknown format": (only("model.onnx", b"x"), "no weights (model.safetensors, pytorch_model"),
    "an empty directory": (emptied, "no config.json; not a model directory"),
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "a config that is no JSON": (write_bytes("config.json", b"{"), "config.json: not valid JSON"),
    "another architecture": (edit_config(model_type="gpt2"), "model_type is 'gpt2'"),
    "an output layer unknown": (edit_config(architectures=["BertLMHead"]), "names BertLMHead"),
    "no sizes": (edit_config(hidden_size=...), "no hidden_size"),
    "wrong width": (edit_config(hidden_size=48), "mis-shaped"),
    "wrong heads": (edit_config(num_attention_heads=5), "hidden_size 24 is not a multiple of"),
    "more layers": (edit_config(num_hidden_layers=3), "missing: bert.encoder.layer.2."),
    "fewer layers": (edit_config(num_hidden_layers=1), "unexpected: encoder.layer.1."),
    "wrong vocabulary": (edit_config(vocab_size=77), f"mis-shaped: {TABLE} is [129, 24]"),
    "wrong positions": (
        edit_config(max_position_embeddings=32),
        "mis-shaped: embeddings.position_embeddings.weight is [64, 24], the model has [32, 24]",
    ),
    "unknown activation": (edit_config(hidden_act="mish"), "hidden_act is 'mish'"),
    "relative positions": (
        edit_config(position_embedding_type="relative_key"),
        "position_embedding_type 'relative_key'",
    ),
    "an index without a map": (
        only("model.safetensors.index.json", b'{"weight_map": []}'),
        "weight_map does not name a file for each tensor",
    ),
    "names instead of numbers": (
        edit_config(id2label={"good": 0, "bad": 1}),
        'config.json: id2label is not of the form {"0": NAME',
    ),
    "a list of names": (edit_config(id2label=["good", "bad"]), "id2label is not of the form"),
    "labels without 0": (
        edit_config(label2id={"good": 1, "bad": 2}),
        "label2id has no label 0, though it has 2",
    ),
    "a gap between labels": (
        edit_config(id2label={"0": "good", "2": "bad"}),
        "id2label has no label 1, though it has 2",
    ),
    "quantized": (
        edit_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "the weights are quantized (bitsandbytes)",
    ),
    "quantized tensors": (
        edit_tensors(lambda t: t.update({f"{UP}.absmax": np.zeros(3, np.float32)})),
        f"quantized weights ({UP}.absmax)",
    ),
    "tensors of an adapter": (
        edit_tensors(
            lambda t: t.update(
                {f"{QUERY[:-7]}.lora_A.default.weight": np.zeros((2, 3), np.float32)}
            )
        ),
        "query.lora_A.default.weight; merge them first (peft: model.merge_and_unload()",
    ),
    "a number of labels in quotes": (
        edit_config(num_labels="3"),
        "num_labels is '3'; expected int",
    ),
    "a size in quotes": (
        edit_config(num_attention_heads="3"),
        "config.json: num_attention_heads is '3'; expected int",
    ),
    "a rate in quotes": (
        edit_config(classifier_dropout="0.1"),
        "classifier_dropout is '0.1'; expected float | None",
    ),
    "no heads": (edit_config(num_attention_heads=0), "is not a multiple of num_attention_heads 0"),
    "RoBERTa without padding": (
        edit_config(model_type="roberta", pad_token_id=None),
        "config.json: pad_token_id is None",
    ),
    "another summary": (
        edit_config(model_type="electra", summary_type="mean"),
        "summary_type is 'mean'; flaxbert only supports 'first'",
    ),
    "float8": (quantized, "encoder.layer.1.intermediate.dense.weight is F8_E4M3"),
    "a decoder": (edit_config(is_decoder=True), "config.json: is_decoder is true"),
    "half of a translator": (edit_config(add_cross_attention=True), "add_cross_attention is true"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_bad_checkpoint_raises_one_clear_error(case: str, checkpoint: Path, tmp_path: Path) -> None:
    spoil, message = DAMAGED[case]
    directory = copied(checkpoint, tmp_path)
    spoil(directory)
    with pytest.raises(UserError) as caught:
        load(directory)
    assert message in str(caught.value)

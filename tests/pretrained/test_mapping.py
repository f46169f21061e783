"""Weights: strict loading with one complete report, the table of names, and sources of models."""

import json
import shutil
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import SIZES, vocabulary
from flax import nnx
from safetensors.numpy import load_file, save_file

import flaxbert
from flaxbert.config import DataConfig, ModelConfig
from flaxbert.errors import HubError, WeightsError
from flaxbert.models.bert import BertConfig
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import (
    MakeHead,
    MaskedLMHead,
    PoolerHead,
    PreTrainingHead,
    SequenceClassificationHead,
    SpanHead,
)
from flaxbert.models.model import Model
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.source import resolve
from flaxbert.tasks import TASKS

Tensors = dict[str, np.ndarray]


def classifier(labels: int) -> MakeHead:
    return lambda config, rngs: SequenceClassificationHead(config, labels, rngs)


def pretraining(config: BertConfig, rngs: nnx.Rngs) -> PreTrainingHead:
    return PreTrainingHead(config, 0.15, rngs)


def masked_words(config: BertConfig, rngs: nnx.Rngs) -> MaskedLMHead:
    return MaskedLMHead(config, 0.15, rngs)


HEADS: dict[str, MakeHead] = {
    "bare": PoolerHead,
    "classes": classifier(3),
    "span": SpanHead,
    "pretraining": pretraining,
    "words": masked_words,
}

WIDTH, WORDS = SIZES["hidden_size"], len(vocabulary())
WORD_TENSORS: dict[str, tuple[int, ...]] = {
    "cls.predictions.bias": (WORDS,),
    "cls.predictions.transform.dense.weight": (WIDTH, WIDTH),
    "cls.predictions.transform.dense.bias": (WIDTH,),
    "cls.predictions.transform.LayerNorm.weight": (WIDTH,),
    "cls.predictions.transform.LayerNorm.bias": (WIDTH,),
}
NEXT_TENSORS = {"cls.seq_relationship.weight": (2, WIDTH), "cls.seq_relationship.bias": (2,)}
NEW_TENSORS: dict[str, dict[str, tuple[int, ...]]] = {
    "classes": {"classifier.weight": (3, WIDTH), "classifier.bias": (3,)},
    "span": {"qa_outputs.weight": (2, WIDTH), "qa_outputs.bias": (2,)},
    "pretraining": WORD_TENSORS | NEXT_TENSORS,
    "words": WORD_TENSORS,
}
ARCHITECTURES = {
    "classes": "BertForSequenceClassification",
    "span": "BertForQuestionAnswering",
    "pretraining": "BertForPreTraining",
    "words": "BertForMaskedLM",
}


@pytest.fixture(scope="module")
def stored(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one checkpoint per head, tensor by tensor under the names of transformers."""
    root = tmp_path_factory.mktemp("heads")
    chance = np.random.default_rng(0)
    for head, shapes in NEW_TENSORS.items():
        shutil.copytree(checkpoint, root / head)
        bare = load_file(checkpoint / "model.safetensors")
        tensors = {f"bert.{name}": array for name, array in bare.items()}
        if head in ("span", "words"):  # these have no pooler
            del tensors["bert.pooler.dense.weight"], tensors["bert.pooler.dense.bias"]
        for name, shape in shapes.items():
            tensors[name] = chance.normal(size=shape).astype(np.float32)
        save_file(tensors, root / head / "model.safetensors")
        config = json.loads((checkpoint / "config.json").read_text())
        config["architectures"] = [ARCHITECTURES[head]]
        (root / head / "config.json").write_text(json.dumps(config))
    return {"bare": checkpoint} | {head: root / head for head in NEW_TENSORS}


def make_model(directory: Path, head: MakeHead) -> Model:
    return Model.create(read_config(formats.read_json(directory / "config.json")), head)


def edited(source: Path, directory: Path, edit: Callable[[Tensors], None]) -> Path:
    """Copy a checkpoint with its tensors changed in place by `edit`."""
    shutil.copytree(source, directory)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    return directory


def configured(source: Path, directory: Path, **changes: object) -> Path:
    """Copy a checkpoint with changes in its config.json."""
    shutil.copytree(source, directory)
    config = formats.read_json(directory / "config.json") | changes
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_no_tensor_is_in_memory_twice(tmp_path: Path) -> None:
    sizes = SIZES | {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
    model = Model.create(BertConfig(vocab_size=500, **sizes), PoolerHead)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), model.shapes)
    mapping.save(model, params, tmp_path)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    tracemalloc.start()
    mapping.load(model, tmp_path, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < peak < 1.5 * size


def refusal(directory: Path, head: MakeHead, **options: bool) -> str:
    with pytest.raises(WeightsError) as caught:
        mapping.load(make_model(directory, head), directory, seed=0, **options)
    return str(caught.value)


def assert_equal(a: mapping.Params, b: mapping.Params) -> None:
    flat_a, flat_b = mapping.flatten(a), mapping.flatten(b)
    assert flat_a.keys() == flat_b.keys()
    assert all(np.array_equal(flat_a[path], flat_b[path]) for path in flat_a)


# --- the table of names ------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", FAMILIES)
def test_module_names_of_a_family_are_unique(model_type: str) -> None:
    family = FAMILIES[model_type]
    for modules in (family.encoder_names, *family.heads.values()):
        assert len(set(modules.values())) == len(modules)


@pytest.mark.parametrize("head", HEADS)
def test_parameter_names_are_unique(head: str) -> None:
    model = Model.create(BertConfig(**SIZES, vocab_size=WORDS), HEADS[head])  # type: ignore[arg-type]
    names = mapping.hf_names(model)
    assert names.keys() == mapping.flatten(model.shapes).keys()
    assert len(set(names.values())) == len(names)
    assert names["encoder/layers/1/attention/key/kernel"] == (
        "bert.encoder.layer.1.attention.self.key.weight"
    )


@pytest.mark.parametrize("head", HEADS)
def test_save_then_load_is_the_identity(head: str, stored: dict[str, Path], tmp_path: Path) -> None:
    model = make_model(stored[head], HEADS[head])
    params, report = mapping.load(model, stored[head], seed=0)
    assert report.fresh == report.unused == ()
    assert len(report.loaded) == len(mapping.flatten(params))
    mapping.save(model, params, tmp_path)
    again, _ = mapping.load(model, tmp_path, seed=1)
    assert_equal(params, again)
    before, after = (load_file(d / "model.safetensors") for d in (stored[head], tmp_path))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_kernels_are_stored_transposed_and_embeddings_are_not(
    stored: dict[str, Path],
) -> None:
    params, _ = mapping.load(make_model(stored["span"], SpanHead), stored["span"], seed=0)
    flat, tensors = mapping.flatten(params), load_file(stored["span"] / "model.safetensors")
    assert np.array_equal(flat["head/classifier/kernel"].T, tensors["qa_outputs.weight"])
    name = "bert.embeddings.word_embeddings.weight"
    assert np.array_equal(flat["encoder/embeddings/word/embedding"], tensors[name])


def test_bare_encoder_is_stored_without_prefix(stored: dict[str, Path]) -> None:
    names = load_file(stored["bare"] / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"embeddings", "encoder", "pooler"}


# --- alternative names -------------------------------------------------------------------------


def test_old_names_and_buffers_load_equal_parameters(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    def respell(tensors: Tensors) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            old = old.replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[f"bert.{old}"] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = np.arange(64)[None]

    directory = edited(stored["bare"], tmp_path / "old", respell)
    model = make_model(directory, PoolerHead)
    params, report = mapping.load(model, directory, seed=0)
    assert report.unused == ()
    assert_equal(params, mapping.load(model, stored["bare"], seed=0)[0])


def test_tensor_under_two_spellings_raises(stored: dict[str, Path], tmp_path: Path) -> None:
    def double(tensors: Tensors) -> None:
        tensors["embeddings.LayerNorm.gamma"] = tensors["embeddings.LayerNorm.weight"]

    directory = edited(stored["bare"], tmp_path / "twice", double)
    assert "twice, under two spellings: embeddings.LayerNorm" in refusal(directory, PoolerHead)


def wrapped(prefix: str, *, middle: str = "", odd: int = 0) -> Callable[[Tensors], None]:
    """Rename tensors as wrappers of a model do, and add some that are not the model's."""

    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            inner = name.replace("encoder.", f"encoder.{middle}") if middle else name
            tensors[f"{prefix}{inner}"] = tensors.pop(name)
        tensors.update({f"metric.{n}": np.zeros(2, np.float32) for n in range(odd)})

    return rename


@pytest.mark.parametrize(
    "edit",
    [
        wrapped("module."),  # DataParallel
        wrapped("_orig_mod."),  # torch.compile
        wrapped("model."),  # Lightning
        wrapped("model.encoder."),
        wrapped("bert.bert."),
        wrapped("module._orig_mod.", middle="_checkpoint_wrapped_module."),
        wrapped("", middle="_fsdp_wrapped_module."),
        wrapped("0.auto_model."),  # sentence-transformers
    ],
)
@pytest.mark.parametrize("head", ["bare", "span"])
def test_wrapper_name_parts_are_removed_and_logged_once(
    head: str,
    edit: Callable[[Tensors], None],
    stored: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    directory = edited(stored[head], tmp_path / "wrapped", edit)
    model = make_model(directory, HEADS[head])
    with caplog.at_level("INFO", "flaxbert"):
        params, _ = mapping.load(model, directory, seed=0)
    assert_equal(params, mapping.load(model, stored[head], seed=0)[0])
    assert len(caplog.records) == 1
    assert "removed the name parts that a wrapper added from" in caplog.text


def test_names_without_wrapper_are_unchanged(
    stored: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "flaxbert"):
        for head, make_head in HEADS.items():
            mapping.load(make_model(stored[head], make_head), stored[head], seed=0)
    assert not caplog.records


def test_tensor_outside_the_wrapped_model_is_the_only_problem(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = edited(stored["span"], tmp_path / "lightning", wrapped("model.", odd=1))
    message = refusal(directory, SpanHead)
    assert "1 problems with the checkpoint's tensors:\n  unexpected: metric.0 [2]\n" in message
    assert "delete these from the file if they are not the model's" in message


def test_many_problems_of_one_kind_are_one_line(stored: dict[str, Path], tmp_path: Path) -> None:
    def rename(tensors: Tensors) -> None:
        for number, name in enumerate(list(tensors)):
            tensors[f"layer{number}.weight"] = tensors.pop(name)

    lines = refusal(edited(stored["bare"], tmp_path / "other", rename), PoolerHead).splitlines()
    assert len(lines) == 3
    assert "unexpected, 39 tensors: layer0.weight" in lines[1]
    assert "missing, 37 tensors: bert.embeddings." in lines[2]  # the pooler would be new
    assert all(line.endswith("more") and len(line) < 400 for line in lines[1:])


# --- problems ----------------------------------------------------------------------------------


def test_all_problems_are_in_one_message(stored: dict[str, Path], tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        del tensors["embeddings.position_embeddings.weight"]
        tensors["embeddings.rotary.weight"] = np.zeros((2, 3), np.float32)
        name = "encoder.layer.0.intermediate.dense.weight"
        tensors[name] = np.ascontiguousarray(tensors[name].T)
        tensors["embeddings.LayerNorm.bias"] = np.zeros(24, np.int32)

    message = refusal(edited(stored["bare"], tmp_path / "spoilt", spoil), PoolerHead)
    assert message.startswith(f"{tmp_path / 'spoilt'}: 4 problems")
    for part in (
        "missing: bert.embeddings.position_embeddings.weight [64, 24]",
        "unexpected: embeddings.rotary.weight [2, 3]",
        # Shapes are those of the file, [O, I]; ours are transposed.
        "mis-shaped: encoder.layer.0.intermediate.dense.weight is [24, 40], the model has [40, 24]",
        "not floating point: embeddings.LayerNorm.bias is int32",
    ):
        assert f"\n  {part}" in message


def test_surplus_layer_raises(stored: dict[str, Path], tmp_path: Path) -> None:
    def add_layer(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("encoder.layer.1.")]:
            tensors[name.replace("layer.1.", "layer.2.")] = tensors[name].copy()

    message = refusal(edited(stored["bare"], tmp_path / "deep", add_layer), PoolerHead)
    assert "16 problems" in message  # a layer has 16 tensors: 6 dense of 2, 2 LayerNorm of 2
    assert message.count("unexpected: encoder.layer.2.") == 16


def test_missing_layer_raises(stored: dict[str, Path], tmp_path: Path) -> None:
    def drop_layer(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("encoder.layer.1.")]:
            del tensors[name]

    message = refusal(edited(stored["bare"], tmp_path / "flat", drop_layer), PoolerHead)
    assert message.count("missing: bert.encoder.layer.1.") == 16


# --- output layers -----------------------------------------------------------------------------


def test_new_output_layer_is_reported_and_depends_on_the_seed(stored: dict[str, Path]) -> None:
    model = make_model(stored["bare"], SpanHead)
    params, report = mapping.load(model, stored["bare"], seed=0)
    assert report.fresh == ("qa_outputs.bias", "qa_outputs.weight")
    assert report.unused == ("pooler.dense.bias", "pooler.dense.weight")
    assert not set(report.fresh) & set(report.loaded)
    for name in (*report.fresh, *report.unused):
        assert name in report.describe()
    assert_equal(params, mapping.load(model, stored["bare"], seed=0)[0])
    other = mapping.load(model, stored["bare"], seed=1)[0]
    assert_equal(params["encoder"], other["encoder"])
    assert not np.array_equal(
        params["head"]["classifier"]["kernel"], other["head"]["classifier"]["kernel"]
    )


def test_new_classifier_uses_the_pooler_of_the_checkpoint(stored: dict[str, Path]) -> None:
    _, report = mapping.load(make_model(stored["bare"], classifier(3)), stored["bare"], seed=0)
    assert report.fresh == ("classifier.bias", "classifier.weight")


def test_missing_pooler_is_part_of_the_new_output_layer(stored: dict[str, Path]) -> None:
    _, report = mapping.load(make_model(stored["span"], classifier(3)), stored["span"], seed=0)
    assert set(report.fresh) == {
        "classifier.bias", "classifier.weight", "bert.pooler.dense.bias", "bert.pooler.dense.weight"
    }  # fmt: skip
    assert set(report.unused) == {"qa_outputs.bias", "qa_outputs.weight"}


@pytest.mark.parametrize(
    "name", ["classifier.bias", "classifier.weight", "bert.pooler.dense.weight"]
)
def test_incomplete_output_layer_raises(name: str, stored: dict[str, Path], tmp_path: Path) -> None:
    directory = edited(stored["classes"], tmp_path / "half", lambda tensors: tensors.pop(name))
    assert f"missing: {name}" in refusal(directory, classifier(3))


def test_output_layers_of_other_tasks_are_unused(stored: dict[str, Path], tmp_path: Path) -> None:
    def add_heads(tensors: Tensors) -> None:
        tensors["cls.predictions.bias"] = np.zeros(5, np.float32)
        tensors["cls.seq_relationship.weight"] = np.zeros((2, 24), np.float32)

    directory = edited(stored["classes"], tmp_path / "pretrained", add_heads)
    _, report = mapping.load(make_model(directory, classifier(3)), directory, seed=0)
    assert set(report.unused) == {"cls.predictions.bias", "cls.seq_relationship.weight"}
    assert report.fresh == ()


def test_classifier_of_other_labels_is_replaced_only_with_reinit_head(
    stored: dict[str, Path],
) -> None:
    message = refusal(stored["classes"], classifier(5))
    assert "mis-shaped: classifier.weight is [3, 24], the model has [5, 24]" in message
    assert "--config.model.reinit_head=true" in message
    model = make_model(stored["classes"], classifier(5))
    params, report = mapping.load(model, stored["classes"], seed=0, reinit_head=True)
    assert params["head"]["classifier"]["kernel"].shape == (24, 5)
    assert "classifier.weight" in report.fresh
    assert "classifier.weight" in report.unused


# --- another task's output layer ---------------------------------------------------------------


def make_pipeline(directory: Path, task: str, *, labels: bool = True) -> Pipeline:
    options = TASKS[task].options_type(**({"labels": ("a", "b", "c")} if labels else {}))
    data = DataConfig(max_length=32, overlap=8)
    model = ModelConfig(init=str(directory))
    return Pipeline.build(task, model, data, options)


def test_output_layer_of_another_task_is_replaced_and_not_evaluated(
    stored: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Names and shapes are those of a layer that scores tokens.
    directory = edited(stored["classes"], tmp_path / "texts", lambda tensors: None)
    pipeline = make_pipeline(directory, "token_classification")
    with pytest.raises(WeightsError, match=r"BertForSequenceClassification, whose .*=token_class"):
        pipeline.load_params(trained=True)
    with caplog.at_level("INFO", "flaxbert"):
        params = pipeline.load_params()
    assert "the output layer of BertForSequenceClassification is another task's" in caplog.text
    assert "initialized from the seed: classifier.bias, classifier.weight" in caplog.text
    assert not params["head"]["classifier"]["bias"].any()


@pytest.mark.parametrize("named", [["BertForSequenceClassification"], ["BertForCats"], None])
def test_output_layer_of_the_same_task_is_loaded(
    named: list[str] | None, stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = configured(stored["classes"], tmp_path / "texts", architectures=named)
    params = make_pipeline(directory, "classification").load_params(trained=True)
    tensors = load_file(directory / "model.safetensors")
    assert np.array_equal(params["head"]["classifier"]["bias"], tensors["classifier.bias"])


@pytest.mark.parametrize(
    ("problem", "task", "use"),
    [
        ("multi_label_classification", "classification", "multi_label"),
        ("single_label_classification", "multi_label", "classification"),
        ("single_label_classification", "regression", "classification"),
        ("regression", "classification", "regression"),
        ("single_label_classification", "classification", None),
        ("single_label_classification", "token_classification", None),
        (None, "classification", None),
    ],
)
def test_problem_type_of_another_task_is_not_evaluated(
    problem: str | None, task: str, use: str | None, stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = configured(stored["classes"], tmp_path / "texts", problem_type=problem)
    if use is None:
        make_pipeline(directory, task)
    else:
        with pytest.raises(WeightsError, match=rf"{problem}.*use --config\.task={use}\."):
            make_pipeline(directory, task, labels=task != "regression")


# --- pre-training: the decoder is the word-embedding table -------------------------------------

EMBEDDING = "bert.embeddings.word_embeddings.weight"
DECODER, DECODER_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
BIAS = "cls.predictions.bias"


def store_again(tensors: Tensors) -> None:
    """Store a second copy of a tensor, as older versions of transformers did."""
    tensors[DECODER], tensors[DECODER_BIAS] = tensors[EMBEDDING].copy(), tensors[BIAS].copy()


def loaded(directory: Path, head: MakeHead) -> tuple[mapping.Params, mapping.LoadReport]:
    return mapping.load(make_model(directory, head), directory, seed=0)


@pytest.mark.parametrize("head", ["pretraining", "words"])
def test_tied_decoder_copy_loads_equal_parameters(
    head: str, stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = edited(stored[head], tmp_path / "again", store_again)
    params, report = loaded(directory, HEADS[head])
    assert report.fresh == report.unused == ()
    assert not {DECODER, DECODER_BIAS} & set(report.loaded)
    assert_equal(params, loaded(stored[head], HEADS[head])[0])


@pytest.mark.parametrize(
    ("name", "original"), [(DECODER, EMBEDDING), (DECODER_BIAS, BIAS)], ids=["weight", "bias"]
)
def test_decoder_that_differs_from_word_embeddings_raises(
    name: str, original: str, stored: dict[str, Path], tmp_path: Path
) -> None:
    def untie(tensors: Tensors) -> None:
        store_again(tensors)
        tensors[name][-1] += 1e-3  # only the last word's

    message = refusal(edited(stored["pretraining"], tmp_path / "untied", untie), pretraining)
    assert ": 1 problems" in message
    assert f"not tied: {name} differs from {original}" in message


def test_mis_shaped_decoder_raises(stored: dict[str, Path], tmp_path: Path) -> None:
    def lengthen(tensors: Tensors) -> None:
        tensors[DECODER] = np.concatenate([tensors[EMBEDDING], np.zeros((1, WIDTH), np.float32)])

    message = refusal(edited(stored["pretraining"], tmp_path / "long", lengthen), pretraining)
    assert ": 1 problems" in message
    assert f": {DECODER} " in message


def only_under_the_second_name(tensors: Tensors) -> None:
    tensors[DECODER_BIAS] = tensors.pop(BIAS)


def test_bias_stored_only_as_decoder_bias_is_loaded(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = edited(stored["pretraining"], tmp_path / "renamed", only_under_the_second_name)
    params, report = loaded(directory, pretraining)
    assert report.fresh == ()
    assert BIAS in report.loaded
    assert_equal(params, loaded(stored["pretraining"], pretraining)[0])


def test_mis_shaped_decoder_bias_raises(stored: dict[str, Path], tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> None:
        only_under_the_second_name(tensors)
        tensors[DECODER_BIAS] = tensors[DECODER_BIAS][:-1].copy()

    message = refusal(edited(stored["pretraining"], tmp_path / "short", shorten), pretraining)
    assert f": {DECODER_BIAS} " in message


@pytest.mark.parametrize("head", ["pretraining", "words"])
def test_tied_decoder_is_not_saved(head: str, stored: dict[str, Path], tmp_path: Path) -> None:
    model = make_model(stored[head], HEADS[head])
    params, _ = mapping.load(model, stored[head], seed=0)
    mapping.save(model, params, tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert {name for name in names if name.startswith("cls.")} == NEW_TENSORS[head].keys()


@pytest.mark.parametrize(
    ("head", "tensors"), [("pretraining", WORD_TENSORS | NEXT_TENSORS), ("words", WORD_TENSORS)]
)
def test_mlm_head_on_a_bare_encoder_is_new(
    head: str, tensors: dict[str, tuple[int, ...]], stored: dict[str, Path]
) -> None:
    params, report = loaded(stored["bare"], HEADS[head])
    assert set(report.fresh) == tensors.keys()
    assert "new output layer, initialized from the seed: " in report.describe()
    assert all(name in report.describe() for name in tensors)
    pooler = {"pooler.dense.weight", "pooler.dense.bias"}
    assert set(report.unused) == (pooler if head == "words" else set())
    assert not params["head"]["word_bias"].any()


def test_next_sentence_head_on_an_mlm_checkpoint_is_new(stored: dict[str, Path]) -> None:
    _, report = loaded(stored["words"], pretraining)
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert set(report.fresh) == NEXT_TENSORS.keys() | pooler


TRANSFORM = "cls.predictions.transform."


@pytest.mark.parametrize(
    "absent",
    [
        [f"{TRANSFORM}dense.weight"],
        [f"{TRANSFORM}LayerNorm.bias"],
        ["cls.predictions.bias"],
        [f"{TRANSFORM}dense.weight", f"{TRANSFORM}dense.bias"],
        [f"{TRANSFORM}LayerNorm.weight", f"{TRANSFORM}LayerNorm.bias"],
    ],
)
def test_incomplete_mlm_head_raises(
    absent: list[str], stored: dict[str, Path], tmp_path: Path
) -> None:
    def drop(tensors: Tensors) -> None:
        for name in absent:
            del tensors[name]

    message = refusal(edited(stored["words"], tmp_path / "part", drop), masked_words)
    assert all(f"missing: {name}" in message for name in absent)


def test_reinit_head_leaves_the_stored_decoder_unused(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = edited(stored["pretraining"], tmp_path / "renewed", store_again)
    model = make_model(directory, pretraining)
    _, report = mapping.load(model, directory, seed=0, reinit_head=True)
    words = WORD_TENSORS | NEXT_TENSORS
    assert set(report.fresh) == words.keys()
    assert set(report.unused) == words.keys() | {DECODER, DECODER_BIAS}


@pytest.mark.parametrize("next_sentence", [True, False])
def test_pre_training_export_loads_completely(
    next_sentence: bool, stored: dict[str, Path], tmp_path: Path
) -> None:
    source = stored["pretraining"]
    task = TASKS["pretraining"]
    pipeline = Pipeline.build(
        "pretraining",
        ModelConfig(init=str(source)),
        DataConfig(max_length=32, overlap=8),
        task.options_type(next_sentence=next_sentence),
    )
    params = pipeline.load_params()
    pipeline.export(params, tmp_path / "export")
    again, report = mapping.load(pipeline.model, tmp_path / "export", seed=1)
    assert report.fresh == report.unused == ()
    assert_equal(params, again)
    # And with the head that config.json names.
    model, third = flaxbert.from_pretrained(str(tmp_path / "export"))
    assert model.architecture == ("BertForPreTraining" if next_sentence else "BertForMaskedLM")
    assert_equal(params, third)


# --- files -------------------------------------------------------------------------------------


def shard(source: Path, directory: Path) -> Path:
    """Split a checkpoint into two files and an index, as transformers stores large models."""
    shutil.copytree(source, directory)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    weight_map = {}
    for part, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        file = f"model-{part:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, directory / file)
        weight_map |= dict.fromkeys(names, file)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(index)
    return directory


def test_shards_equal_the_single_file(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = shard(stored["span"], tmp_path / "shards")
    model = make_model(directory, SpanHead)
    params, _ = mapping.load(model, directory, seed=0)
    assert_equal(params, mapping.load(model, stored["span"], seed=0)[0])


def test_single_file_has_precedence_over_shards(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = shard(stored["span"], tmp_path / "shards")
    shutil.copy(stored["span"] / "model.safetensors", directory)
    assert formats.detect(directory)[1] == [directory / "model.safetensors"]


def test_missing_shard_is_named(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = shard(stored["span"], tmp_path / "shards")
    (directory / "model-00002-of-00002.safetensors").unlink()
    missing = "missing shards: model-00002-of-00002.safetensors. Download"
    assert missing in refusal(directory, SpanHead)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file_raises(keep: int, stored: dict[str, Path], tmp_path: Path) -> None:
    directory = edited(stored["bare"], tmp_path / "cut", lambda tensors: None)
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file}: not a readable safetensors file" in refusal(directory, PoolerHead)


def test_unsupported_format_names_the_supported_ones(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = edited(stored["bare"], tmp_path / "torch", lambda tensors: None)
    (directory / "model.safetensors").rename(directory / "model.onnx")
    message = refusal(directory, PoolerHead)
    assert "no weights (model.safetensors, pytorch_model.bin, flax_model.msgpack" in message
    assert "model.onnx contains weights for ONNX Runtime" in message
    assert "Files there: config.json, model.onnx" in message


def test_bfloat16_file_loads(stored: dict[str, Path], tmp_path: Path) -> None:
    def halve(tensors: Tensors) -> None:
        for name, array in tensors.items():
            tensors[name] = array.astype(jax.numpy.bfloat16)

    directory = edited(stored["bare"], tmp_path / "bf16", halve)
    params, _ = mapping.load(make_model(directory, PoolerHead), directory, seed=0)
    full, _ = mapping.load(make_model(directory, PoolerHead), stored["bare"], seed=0)
    for path, array in mapping.flatten(params).items():
        assert array.dtype == np.float32
        want = mapping.flatten(full)[path].astype(jax.numpy.bfloat16).astype(np.float32)
        assert np.array_equal(array, want)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "no config.json"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        (json.dumps({"model_type": "bert"}), "no vocab_size, hidden_size"),
        (json.dumps({**SIZES, "vocab_size": 9, "model_type": "gpt2"}), "model_type is 'gpt2'"),
        (json.dumps({**SIZES, "vocab_size": 9, "hidden_act": "mish"}), "hidden_act is 'mish'"),
        (
            json.dumps({**SIZES, "vocab_size": 9, "position_embedding_type": "relative_key"}),
            "position_embedding_type 'relative_key' is not",
        ),
        (
            json.dumps({**SIZES, "vocab_size": 9, "num_attention_heads": 5}),
            "hidden_size 24 is not a multiple of num_attention_heads 5",
        ),
    ],
)
def test_bad_config_json_raises(
    content: str | None, part: str, stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(stored["bare"], directory)
    (directory / "config.json").unlink()
    if content is not None:
        (directory / "config.json").write_text(content)
    with pytest.raises(WeightsError) as caught:
        flaxbert.from_pretrained(str(directory))
    assert part in str(caught.value)


def test_checkpoint_without_the_head_in_its_config_raises(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    def drop(tensors: Tensors) -> None:
        del tensors["qa_outputs.weight"], tensors["qa_outputs.bias"]

    directory = edited(stored["span"], tmp_path / "headless", drop)
    with pytest.raises(WeightsError, match=r"BertForQuestionAnswering, but .* no qa_outputs\.bias"):
        flaxbert.from_pretrained(str(directory))


# --- sources of models -------------------------------------------------------------------------


def test_resolve_returns_a_model_directory(stored: dict[str, Path]) -> None:
    assert resolve(str(stored["bare"])) == stored["bare"]


def test_resolve_returns_the_export_of_a_finished_run(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(stored["bare"], tmp_path / "export")
    (tmp_path / "checkpoints").mkdir()
    assert resolve(str(tmp_path)) == tmp_path / "export"


def test_resolve_returns_the_model_of_a_package(
    stored: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tiny_bert_for_test"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copytree(stored["bare"], package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("package://tiny_bert_for_test") == package / "model"


@pytest.mark.parametrize(
    ("init", "parts"),
    [
        ("package://absent_bert_model", ["not installed", "pip install", "absent-bert-model"]),
        ("package://json", ["package://json", "no model/config.json"]),
        ("./absent", ["model.init='./absent': no such directory"]),
        ("/absent/model", ["model.init='/absent/model': no such directory"]),
        ("runs/squad/export", ["model.init='runs/squad/export': no such directory"]),
        ("", ["model.init='': no such directory"]),
        ("two words", ["no such directory, and not a hub id", "--config.model.init=DIR"]),
    ],
)
def test_missing_model_is_named(init: str, parts: list[str]) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve(init)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_unfinished_run_raises(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WeightsError, match="a run that has not finished"):
        resolve(str(tmp_path))


def test_directory_without_config_raises(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a model directory"):
        resolve(str(tmp_path))


PEFT = {"peft_type": "LORA", "base_model_name_or_path": "google-bert/bert-base-uncased"}
CONFIG = b'{"model_type": "bert"}'


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (
            {"adapter_config.json": json.dumps(PEFT).encode(), "adapter_model.safetensors": b"x"},
            ["a LoRA adapter of google-bert/bert-base-uncased, not a complete model; merge it"],
        ),
        (
            {
                "adapter_config.json": json.dumps(
                    PEFT | {"peft_type": "IA3", "modules_to_save": ["classifier"]}
                ).encode()
            },
            ["an adapter (IA3) of google-bert", "with other trained layers (classifier)"],
        ),
        ({"adapter_config.json": b"{"}, ["an adapter (of unknown type) of an unknown model"]),
        (
            {
                f"checkpoint-{step}/{name}": CONFIG
                for step in (500, 1500, 1000)
                for name in ("config.json", "model.safetensors", "optimizer.pt")
            },
            ["the model is in a subdirectory (3 of them have one); use ", "checkpoint-1500"],
        ),
        (
            {"modules.json": b"[]"}
            | {f"0_Transformer/{name}": CONFIG for name in ("config.json", "pytorch_model.bin")},
            ["the model is in a subdirectory; use ", "0_Transformer"],
        ),
        ({"model.Q8_0.gguf": b"GGUF"}, ["model.Q8_0.gguf contains weights for llama.cpp (GGUF)"]),
        ({"onnx/model.onnx": b"x"}, ["onnx/model.onnx contains weights for ONNX Runtime"]),
        ({"openvino_model.xml": b"x"}, ["openvino_model.xml contains weights for OpenVINO"]),
        ({"tf_model.h5": b"x"}, ["weights of transformers' TensorFlow classes"]),
        (
            {"zero_to_fp32.py": b"", "global_step500/x.pt": b"x"},
            ["the weights are partitioned by DeepSpeed", "zero_to_fp32.py"],
        ),
        (
            {"pytorch_model_fsdp_0/x": b"x"},
            ["the weights are partitioned by FSDP", "accelerate merge-weights"],
        ),
        (
            {"model-00001-of-00002.safetensors": b"x", "model-00002-of-00002.safetensors": b"x"},
            [
                "2 shards such as model-00001-of-00002",
                "no model.safetensors.index.json; download it",
            ],
        ),
        ({"epoch=3.ckpt": b"x"}, ["if epoch=3.ckpt contains", "rename it to pytorch_model.bin"]),
        ({"optimizer.pt": b"x", "training_args.bin": b"x"}, ["optimizer.pt"]),
    ],
)
@pytest.mark.parametrize("configured", [False, True])
def test_recognized_directory_is_explained_with_a_remedy(
    configured: bool, files: dict[str, bytes], parts: list[str], tmp_path: Path
) -> None:
    files = files | ({"config.json": CONFIG} if configured else {})
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        formats.detect(resolve(str(tmp_path)))
    for part in parts if configured or "optimizer.pt" not in files else ():
        assert part in str(caught.value)


def test_adapter_next_to_the_weights_is_logged(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = edited(checkpoint, tmp_path / "adapted", lambda tensors: None)
    (directory / "adapter_config.json").write_text(json.dumps(PEFT))
    mapping.load(make_model(directory, PoolerHead), directory, seed=0)
    assert "ignoring the adapter (adapter_config.json) next to the weights" in caplog.text


@pytest.mark.parametrize("key", formats.STATE_DICT_KEYS)
def test_state_dict_under_a_key_of_a_training_loop_loads(key: str, monkeypatch: Any) -> None:
    class Tensor:
        def __init__(self) -> None:
            self.dtype = types.SimpleNamespace(is_floating_point=True, itemsize=4)

        def detach(self) -> "Tensor":
            return self

        def numpy(self) -> str:
            return "values"

    torch = types.SimpleNamespace(
        Tensor=Tensor,
        bfloat16=None,
        load=lambda *_, **__: {"epoch": 3, key: {"a.weight": Tensor()}},
    )
    monkeypatch.setattr(formats, "_optional", lambda *_: torch)
    assert list(formats._read_pytorch(Path("pytorch_model.bin"))) == [("a.weight", "values")]


@pytest.mark.parametrize("init", ["package://tiny_bert", "{}"])
def test_revision_without_hub_id_raises(init: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"only models of the hub .* remove revision 'v1'"):
        resolve(init.format(tmp_path), "v1")


def test_unreachable_hub_points_to_local_files() -> None:
    with pytest.raises(HubError) as caught:
        resolve("nobody/absent-model")
    assert "nobody/absent-model" in str(caught.value)
    assert "--config.model.init=DIR" in str(caught.value)

"""Every file in configs/ is valid, and its full-size model trains in shapes, without weights."""

import dataclasses
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from flaxbert.commands import args, config_file
from flaxbert.config import Config, validate
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError
from flaxbert.models.bert import BertConfig
from flaxbert.models.dropout import dropout_key
from flaxbert.models.model import Model
from flaxbert.runtime import devices
from flaxbert.tasks import TASKS
from flaxbert.training.step import make_loss
from flaxbert.types import Batch

FILES = sorted((ROOT / "configs").glob("*.py"))

# Config files that take a name after a colon, and the names.
ARGUMENTS = {
    "examples": ["qa", "ner", "spam", "sentiment_es", "qa_es", "ner_es"],
    "glue": ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"],
    "multiple_choice": ["swag", "arc_easy", "arc_challenge", "local"],
    "ner": ["wnut17", "conll"],
    "sentiment": ["en", "es"],
    "squad": ["en", "es"],
}
CONFIGS = [
    f"{file}:{name}" if name else str(file)
    for file in FILES
    for name in ARGUMENTS.get(file.stem, [""])
]

# google-bert/bert-base-uncased, its config.json.
BERT_BASE = BertConfig(
    vocab_size=30522,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    type_vocab_size=2,
)


FIRST_ARGUMENTS = tuple(f":{names[0]}" for names in ARGUMENTS.values())


@pytest.fixture(params=CONFIGS, ids=[Path(spec).name for spec in CONFIGS])
def config(request) -> Config:
    return config_file.load_config(request.param)


def test_the_config_files_are_found():
    assert {"squad", "quickstart"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_docstring_has_command_expectation_and_hardware(file):
    docstring = file.read_text().split('"""')[1]
    names = ARGUMENTS.get(file.stem)
    argument = f":({'|'.join(names)})" if names else ""
    command = rf"python -m flaxbert\.run --config=configs/{file.name}{argument} --workdir="
    assert re.search(command, docstring)
    assert re.search(r"\bexpect\b", docstring, re.IGNORECASE)
    assert re.search(r"\b(TPU|GPU|CPU)\b|Hardware: any", docstring)


@pytest.mark.parametrize("stem", ARGUMENTS)
def test_an_unknown_argument_lists_the_known_ones(stem):
    with pytest.raises(
        ConfigError, match=f"configs/{stem}.py:nothing: expected one of .*{ARGUMENTS[stem][-1]}"
    ):
        config_file.load_config(f"{ROOT}/configs/{stem}.py:nothing")


# The header lines of GLUE's own files, shortened; those of cola have none.
GLUE = {
    "mnli": "index\tsentence1\tsentence2\tlabel1\tgold_label",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "qnli": "index\tquestion\tsentence\tlabel",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "sst2": "sentence\tlabel",
    "stsb": "index\tgenre\tsentence1\tsentence2\tscore",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}


@pytest.mark.parametrize("name", GLUE)
def test_the_docstring_of_glue_names_the_columns_of_its_own_files(name):
    file = ROOT / "configs" / "glue.py"
    listed = re.search(rf"\n    {name} (.*?)(\n    \w|\n\n)", file.read_text(), re.DOTALL)
    flags = shlex.split(listed[1]) if listed else []
    config = args.parse(["run", f"--config={file}:{name}", "--workdir=x", *flags], "").config
    names = {config.options.text, config.options.pair, config.options.label} - {None}
    assert names <= set(GLUE[name].split("\t"))


def test_the_config_is_valid(config):
    validate(config, TASKS)
    assert isinstance(config.options, TASKS[config.task].options_type)
    assert config.data.max_length <= BERT_BASE.max_position_embeddings


def make_task(config: Config):
    """The task, with two labels where the real training data would name them."""
    options = config.options
    names = {"multi_label": [["no"], ["yes"]], "token_classification": [["B-X"], ["O"]]}
    column = options.tags if hasattr(options, "tags") else getattr(options, "label", None)
    texts = {getattr(options, name, None): "word" for name in ("text", "pair")}
    rows = [
        {**texts, column: name, "tokens": ["word"]}
        for name in names.get(config.task, ["no", "yes"])
    ]
    table = Table("made up", [Record(row, "here") for row in rows])
    kind = TASKS[config.task]
    labeled = kind.problem_type is not None or config.task == "token_classification"
    data = dataclasses.replace(config.data, slices=None)
    train = kind.read(table, data, options, labeled=True) if labeled else None
    return kind.create(config.data, options, train, {})


def make_shapes(config: Config) -> Batch:
    """Return the shapes of the config's largest batch, with one feature per row."""
    rows, length = config.train.batch_size, config.data.row_length or config.data.max_length
    slots = max(1, length // 8) if config.data.packing else 1
    by_token = dict.fromkeys(("input_ids", "token_type_ids", "position_ids", "segment_ids"), length)
    own = {
        "classification": {"label": (slots,)},
        "multi_label": {"label": (slots, 2)},
        "multiple_choice": {"right": (slots,), "group": (slots,)},
        "pretraining": {"label": (length,), "masked": (length,), "follows": (slots,)},
        "question_answering": {"start": (slots,), "end": (slots,)},
        "regression": {"label": (slots,)},
        "token_classification": {"label": (length,), "first": (length,)},
    }
    sizes = {name: (size,) for name, size in by_token.items()} | {"cls_position": (slots,)}
    shapes = {
        name: jax.ShapeDtypeStruct((rows, *size), np.int32)
        for name, size in (sizes | own[config.task]).items()
    }
    return Batch.from_arrays(shapes | {"weight": jax.ShapeDtypeStruct((rows, slots), np.float32)})


# The first name of each config file: the other names have the same sizes.
FIRST = [spec for spec in CONFIGS if ":" not in spec or spec.endswith(FIRST_ARGUMENTS)]


@pytest.mark.parametrize("config", FIRST, indirect=True, ids=[Path(spec).name for spec in FIRST])
def test_the_full_size_model_trains_at_its_batch_and_length(config):
    task = make_task(config)
    sizes = dataclasses.replace(BERT_BASE, dtype=devices.resolve_dtype(config.model.dtype))
    model = Model.create(sizes, task.make_head)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(model.shapes["encoder"]))
    assert count == 108_891_648  # the paper's 110M, without the pooler
    # Layers are alike, so two are enough for the gradient, which takes long to trace.
    model = Model.create(dataclasses.replace(sizes, num_hidden_layers=2), task.make_head)
    loss = make_loss(model, task)
    run = jax.value_and_grad(loss, has_aux=True)
    key = jax.eval_shape(lambda: dropout_key(0, 0))
    (total, sums), gradient = jax.eval_shape(run, model.shapes, make_shapes(config), key)
    assert {value.shape for value in (total, *jax.tree.leaves(sums))} == {()}
    assert total.dtype == jnp.float32
    same = jax.tree.map(
        lambda g, p: g.shape == p.shape and g.dtype == p.dtype, gradient, model.shapes
    )
    assert jax.tree.all(same)

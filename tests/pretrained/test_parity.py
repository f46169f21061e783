"""Modules, gradients and training equal PyTorch's; goldens: tests/golden/make_goldens.py.

Tolerances are fixed per kind: outputs 1e-5, gradients 1e-4, training losses 1e-4. Padding is left
out of all comparisons: its tokens attend to the sequence in transformers, and to padding in
flaxbert, whose rows may have several sequences. Neither result is ever used.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from tolerance import assert_close, assert_grads_close

from flaxbert.config import DataConfig, OptimConfig
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.models.dropout import dropout_key
from flaxbert.models.families import read_config
from flaxbert.models.heads import MakeHead, PoolerHead, SpanHead
from flaxbert.models.model import Model, as_batch
from flaxbert.pipeline.loader import Loader
from flaxbert.pretrained import formats, mapping
from flaxbert.runtime import sharding
from flaxbert.tasks.base import Task
from flaxbert.tasks.classification import Classification
from flaxbert.tasks.multiple_choice import MultipleChoice
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.token_classification import TokenClassification
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.training.step import make_loss, make_train_step
from flaxbert.types import Batch, Params

GOLDEN = Path(__file__).parents[1] / "golden"

TASKS: dict[str, Task] = {
    "classification": Classification(DataConfig(), Classification.options_type(), ("a", "b", "c")),
    "question_answering": QuestionAnswering(DataConfig(), QuestionAnswering.options_type()),
}
TAGS = ("O", "B-X", "I-X")
# Tasks whose output layers are in heads.npz; their training is that of the others.
OTHERS: dict[str, Task] = {
    "token_classification": TokenClassification(
        DataConfig(), TokenClassification.options_type(), TAGS
    ),
    "multiple_choice": MultipleChoice(DataConfig(), MultipleChoice.options_type()),
    "pretraining": PreTraining(DataConfig(), PreTraining.options_type()),
    "masked_lm": PreTraining(DataConfig(), PreTraining.options_type(next_sentence=False)),
}


def read(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def write_golden(
    directory: Path, rename: Callable[[str], str] = str, *, task: str | None = None
) -> Path:
    """Write the golden model as a checkpoint, with the output layer of one of `OTHERS`."""
    tensors = read("weights")
    (directory / "config.json").write_text(str(tensors.pop("config")))
    # BertForMaskedLM is BertForPreTraining without next-sentence prediction.
    prefix = f"tensor/{'pretraining' if task == 'masked_lm' else task}/"
    own = {k.removeprefix(prefix): v for k, v in read("heads").items() if k.startswith(prefix)}
    assert bool(own) == (task in OTHERS)
    tensors |= own
    save_file(
        {rename(name): tensor for name, tensor in tensors.items()}, directory / "model.safetensors"
    )
    return directory


def load(directory: Path, make_head: MakeHead, **runtime: Any) -> tuple[Model, Params]:
    """Return the model and its parameters, all of them from the file."""
    hf_config = json.loads((directory / "config.json").read_text())
    model = Model.create(read_config(hf_config, **runtime), make_head)
    params, report = mapping.load(model, directory, seed=0)
    assert report.fresh == ()
    return model, jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the golden model as a checkpoint directory."""
    return write_golden(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def golden_of(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the golden model with the output layer of a task."""

    @functools.cache
    def of(task: str) -> Path:
        if task not in OTHERS:
            return golden
        return write_golden(tmp_path_factory.mktemp(task), task=task)

    return of


@pytest.fixture(scope="module")
def ladder() -> dict[str, np.ndarray]:
    """Return inputs and the outputs of transformers."""
    return read("ladder") | read("heads")


def ids(ladder: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs of the model."""
    return {name: ladder[name] for name in ("input_ids", "token_type_ids", "attention_mask")}


# Each rung as a function of (module, outputs of the previous rung in transformers).
def _embeddings(module: Any, g: Mapping[str, np.ndarray]) -> Any:
    places = np.broadcast_to(np.arange(g["input_ids"].shape[1]), g["input_ids"].shape)
    return module.encoder.embeddings(g["input_ids"], g["token_type_ids"], places, None)


RUNGS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "embeddings": _embeddings,
    "attention": lambda m, g: m.encoder.layers[0].attention(
        g["embeddings"], g["attention_mask"], None
    ),
    "attention_block": lambda m, g: m.encoder.layers[0].attention_norm(
        g["embeddings"] + g["attention"]
    ),
    "layer_0": lambda m, g: m.encoder.layers[0](g["embeddings"], g["attention_mask"], None),
    "layer_1": lambda m, g: m.encoder.layers[1](g["layer_0"], g["attention_mask"], None),
}


@pytest.mark.parametrize("rung", RUNGS)
def test_module_equals_transformers(rung: str, golden: Path, ladder: dict[str, np.ndarray]) -> None:
    """Each module gets the output of transformers' previous one, so only a wrong module fails."""
    model, params = load(golden, PoolerHead)
    ours = RUNGS[rung](nnx.merge(model.graphdef, params), jax.tree.map(jnp.asarray, ladder))
    real = ladder["attention_mask"] == 1
    assert_close({rung: np.asarray(ours)[real]}, {rung: ladder[rung][real]})


# Output layer, and {its output: the golden array}.
HEADS: dict[str, tuple[MakeHead, dict[str, str]]] = {
    "pooler": (PoolerHead, {"pooled": "pooled"}),
    "classification": (TASKS["classification"].make_head, {"logits": "logits"}),
    "question_answering": (
        SpanHead,
        {"start_logits": "start_logits", "end_logits": "end_logits"},
    ),
    "token_classification": (OTHERS["token_classification"].make_head, {"logits": "token_logits"}),
    "multiple_choice": (OTHERS["multiple_choice"].make_head, {"logits": "choice_scores"}),
    "pretraining": (
        OTHERS["pretraining"].make_head,
        {"mlm_logits": "mlm_logits", "nsp_logits": "nsp_logits"},
    ),
    "masked_lm": (OTHERS["masked_lm"].make_head, {"mlm_logits": "mlm_logits"}),
}
PER_TOKEN = ("start_logits", "end_logits", "hidden_states", "token_logits", "mlm_logits")


def in_place(outputs: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return outputs with `mlm_logits` as [R, T, V], NaN at positions that were not scored."""
    if "masked_positions" not in outputs:
        return dict(outputs)
    places, scores = np.asarray(outputs["masked_positions"]), np.asarray(outputs["mlm_logits"])
    full = np.full((len(places), length, scores.shape[-1]), np.nan, np.float32)
    np.put_along_axis(full, places[..., None], scores, axis=1)
    return dict(outputs) | {"mlm_logits": full}


def comparable(outputs: Mapping[str, Any], names: Mapping[str, str], mask: Any) -> dict[str, Any]:
    """Return outputs by their golden names, without padding and, per sequence, as [R, ...]."""
    arrays = {theirs: np.asarray(outputs[ours]) for ours, theirs in names.items()}
    return {
        name: a[mask == 1] if name in PER_TOKEN else a.reshape(len(a), -1)
        for name, a in arrays.items()
    }


def assert_equal_outputs(
    outputs: Mapping[str, Any], names: Mapping[str, str], g: Mapping[str, np.ndarray]
) -> None:
    """Compare outputs of real tokens, and of sequences."""
    mask = g["attention_mask"]
    ours = comparable(in_place(outputs, mask.shape[1]), names, mask)
    assert_close(ours, comparable(g, {name: name for name in names.values()}, mask))


@pytest.mark.parametrize("head", HEADS)
def test_head_equals_transformers(
    head: str, golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """The input is the last hidden state of transformers."""
    make_head, names = HEADS[head]
    model, params = load(golden_of(head), make_head)
    module = nnx.merge(model.graphdef, params)
    batch = as_batch(ids(ladder))
    words = (module.encoder.embeddings.word,) if module.head.uses_word_embeddings else ()
    outputs = module.head(jnp.asarray(ladder["layer_1"]), batch, None, *words)
    assert_equal_outputs(outputs, names, ladder)


@pytest.mark.parametrize("head", HEADS)
def test_model_equals_transformers(
    head: str, golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """The inputs are ids; hidden states and outputs are compared."""
    make_head, names = HEADS[head]
    model, params = load(golden_of(head), make_head)
    outputs = jax.jit(model.__call__)(params, ids(ladder))
    theirs = ladder | {"hidden_states": ladder["layer_1"]}
    assert_equal_outputs(outputs, names | {"hidden_states": "hidden_states"}, theirs)


def test_logits_at_masked_positions_equal_transformers(
    golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """Given `masked`, the head scores 15 % of the 11 positions and one more."""
    model, params = load(golden_of("pretraining"), OTHERS["pretraining"].make_head)
    outputs = jax.jit(model.__call__)(params, ids(ladder) | {"masked": ladder["masked"]})
    assert outputs["masked_positions"].shape == (5, 3)
    assert max(ladder["masked"].sum(axis=1)) == 3  # one row uses all of them
    found = in_place(outputs, 11)["mlm_logits"]
    masked = ladder["masked"] == 1
    assert_close(found[masked], ladder["mlm_logits"][masked])


def labeled_batch(g: Mapping[str, np.ndarray], task: str = "classification") -> Batch:
    """Return the golden sequences with the labels of a task, one in each row."""
    batch = {
        "input_ids": g["input_ids"],
        "token_type_ids": g["token_type_ids"],
        "segment_ids": g["attention_mask"],
        "cls_position": np.zeros((len(g["label"]), 1), np.int32),
        "weight": np.ones((len(g["label"]), 1), np.float32),
    }
    if task == "token_classification":
        batch |= {"first": g["first"], "label": g["tag"]}
    elif task == "multiple_choice":
        sizes = np.bincount(g["question"])
        batch |= {"group": g["question"][:, None], "right": g["right"][:, None]}
        batch["weight"] /= sizes[g["question"]][:, None]
    elif task in ("pretraining", "masked_lm"):
        batch |= {"masked": g["masked"], "label": g["word"], "follows": g["follows"][:, None]}
    else:
        batch |= {name: g[name][:, None] for name in ("label", "start", "end")}
    return as_batch(batch)


@pytest.mark.parametrize(
    "task", [*TASKS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_gradients_equal_pytorch(
    task: str, golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """Compare all gradients; those that are mathematically zero are compared with zero."""
    learner = (TASKS | OTHERS)[task]
    model, params = load(golden_of(task), learner.make_head)
    loss = make_loss(model, learner)

    def mean(params: Params, batch: Any) -> jax.Array:
        return loss(params, batch, None)[0]

    flat = mapping.flatten(jax.jit(jax.grad(mean))(params, labeled_batch(ladder, task)))
    ours = {
        name: flat[path].T if path.endswith("kernel") else flat[path]
        for path, name in mapping.hf_names(model).items()
    }
    prefix = f"gradient/{task}/"
    theirs = {k.removeprefix(prefix): v for k, v in ladder.items() if k.startswith(prefix)}
    # Softmax ignores a constant added to all scores: the key bias, the bias of span scores over
    # positions, and the bias of the one score over choices.
    ends = ("key.bias", "qa_outputs.bias")
    ends += ("classifier.bias",) if task == "multiple_choice" else ()
    zero = [name for name in theirs if name.endswith(ends)]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in theirs.values()))
    for gradients in (ours, theirs):
        for name in zero:
            largest = np.max(np.abs(gradients.pop(name)))
            assert largest <= np.finfo(np.float32).eps * norm, name
    assert_grads_close(ours, theirs)


STEPS = 20


def training_features(examples: Mapping[str, np.ndarray]) -> Features:
    """Return the golden sequences without padding."""
    lengths = examples["attention_mask"].sum(axis=1)
    return Features.build(
        {
            name: [row[:n].tolist() for row, n in zip(examples[name], lengths, strict=True)]
            for name in ("input_ids", "token_type_ids")
        },
        token_indices={side: examples[side].tolist() for side in ("start", "end")},
        per_sequence={"label": examples["label"].tolist()},
    )


# A packed row of 40 tokens is longer than the position table, 37: positions restart.
@pytest.mark.parametrize(
    ("row_length", "segments", "devices"),
    [pytest.param(16, 1, 1, marks=pytest.mark.slow), (40, 5, 8)],
    ids=["one a row, one device", "packed, eight devices"],
)
@pytest.mark.parametrize("task", TASKS)
def test_training_losses_equal_pytorch(
    task: str, row_length: int, segments: int, devices: int, golden: Path
) -> None:
    """20 steps test AdamW, clipping, decay mask, schedule and smaller last batches."""
    examples = read("training")
    model, params = load(golden, TASKS[task].make_head)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    batches = Batches(
        training_features(examples),
        batch_size=6,
        row_length=row_length,
        segments=segments,
        data_parallelism=sharding.data_parallelism(mesh),
        steps=STEPS,
        seed=None,  # the order of the golden file, the same each epoch
    )
    config = OptimConfig(
        learning_rate=float(examples["learning_rate"]),
        weight_decay=float(examples["weight_decay"]),
        eps=1e-8,
    )
    optimizer, _ = make_optimizer(config, total_steps=STEPS)
    state = init_state(jax.tree.map(np.asarray, params), optimizer, mesh)
    train_step = make_train_step(
        model, TASKS[task], optimizer, state, mesh, accumulation_steps=1, seed=0, log_every=1
    )
    losses = []
    with Loader(batches, mesh) as loader:
        for step in range(STEPS):
            state, report = train_step(state, loader.batch(step))
            losses.append(float(report.sums.losses["loss"].mean))
    assert_close(np.array(losses), examples[f"{task}_losses"], 1e-4)


def test_bfloat16_is_close_to_float32_and_its_logits_are_float32(
    golden: Path, ladder: dict[str, np.ndarray]
) -> None:
    """bfloat16 has 8 bits, 4e-3; several roundings per layer add up, so the tolerance is 4e-2."""
    make_head = TASKS["classification"].make_head
    model, params = load(golden, make_head, dtype="bfloat16")
    outputs = jax.jit(model.__call__)(params, ids(ladder))
    assert outputs["hidden_states"].dtype == jnp.bfloat16
    assert outputs["logits"].dtype == jnp.float32
    names = {name: name for name in ("hidden_states", "logits")}
    mask = ladder["attention_mask"]
    theirs = ladder | {"hidden_states": ladder["layer_1"]}
    assert_close(comparable(outputs, names, mask), comparable(theirs, names, mask), 4e-2)


@pytest.fixture(scope="module")
def dropout_gradients(golden: Path) -> Callable[..., Any]:
    """Return `gradients(batch, remat=..., seed=...)` of a one-layer model with dropout 0.1."""
    task = TASKS["classification"]
    hf_config = json.loads((golden / "config.json").read_text())
    one_layer = hf_config | {"num_hidden_layers": 1, "initializer_range": 0.3}
    config = read_config(one_layer).with_dropout(0.1)
    params = Model.create(config, task.make_head).init(0)

    @functools.cache
    def compiled(remat: str) -> Callable[..., Any]:
        model = Model.create(dataclasses.replace(config, remat=remat), task.make_head)
        return jax.jit(jax.grad(make_loss(model, task), has_aux=True))

    def gradients(batch: Any, *, remat: str, seed: int) -> Params:
        return compiled(remat)(params, batch, dropout_key(seed, 0))[0]

    return gradients


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_draws_the_same_dropout(
    remat: str, dropout_gradients: Callable[..., Any], ladder: dict[str, np.ndarray]
) -> None:
    """Gradients are equal for equal keys, and differ for another key, so dropout is on."""
    batch = labeled_batch(ladder)
    plain = dropout_gradients(batch, remat="none", seed=7)
    assert_grads_close(dropout_gradients(batch, remat=remat, seed=7), plain)
    with pytest.raises(AssertionError, match="off by"):
        assert_grads_close(dropout_gradients(batch, remat=remat, seed=8), plain, 1e-1)


def test_padding_row_is_finite_and_changes_no_other_row(
    golden: Path, ladder: dict[str, np.ndarray]
) -> None:
    model, params = load(golden, SpanHead)
    run = jax.jit(model.__call__)
    whole, emptied = ids(ladder), ids(ladder)
    emptied["attention_mask"] = np.where(np.arange(5)[:, None] == 1, 0, whole["attention_mask"])
    before, after = run(params, whole), run(params, emptied)
    for name, values in after.items():
        assert np.all(np.isfinite(values)), name
        np.testing.assert_array_equal(np.delete(values, 1, 0), np.delete(before[name], 1, 0))


def test_padding_row_gives_finite_gradients(
    dropout_gradients: Callable[..., Any], ladder: dict[str, np.ndarray]
) -> None:
    batch = labeled_batch(ladder)
    batch = dataclasses.replace(
        batch, segment_ids=batch.segment_ids.at[1].set(0), weight=batch.weight.at[1].set(0.0)
    )
    gradients = dropout_gradients(batch, remat="none", seed=7)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


def test_row_longer_than_the_position_table_raises(golden: Path) -> None:
    model, params = load(golden, PoolerHead)
    with pytest.raises(ValueError, match="rows have 38 tokens, but the model has 37 positions"):
        model(params, {"input_ids": np.ones((1, 38), np.int32)})


SPELLINGS: dict[str, Callable[[str], str]] = {
    "no prefix": lambda name: name.removeprefix("bert."),
    "gamma and beta": lambda name: re.sub(
        r"LayerNorm\.(weight|bias)$",
        lambda match: "LayerNorm.gamma" if match[1] == "weight" else "LayerNorm.beta",
        name,
    ),
}
SPELLINGS["both"] = lambda name: SPELLINGS["gamma and beta"](SPELLINGS["no prefix"](name))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_alternative_tensor_names_load_equal_parameters(
    spelling: str, golden: Path, tmp_path: Path
) -> None:
    make_head = TASKS["classification"].make_head
    _, want = load(golden, make_head)
    _, have = load(write_golden(tmp_path, SPELLINGS[spelling]), make_head)
    names = {name for name, _ in formats.read_tensors(tmp_path)}
    assert names != {name for name, _ in formats.read_tensors(golden)}
    assert jax.tree.all(jax.tree.map(np.array_equal, have, want))

"""Equal to PyTorch: modules, gradients and training, against tests/golden/make_goldens.py.

Tolerances are DESIGN's, fixed per kind: outputs 1e-5, gradients 1e-4, losses of training 1e-4.
Places of padding are left out of every comparison: there transformers attends to the sequence, and
flaxbert, whose rows may hold several sequences, to padding. Neither is ever read.
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
from flaxbert.models.families import read_config
from flaxbert.models.heads import MakeHead, PoolerHead, SpanHead
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, mapping
from flaxbert.runtime import sharding
from flaxbert.tasks.base import Task
from flaxbert.tasks.classification import Classification
from flaxbert.tasks.multiple_choice import MultipleChoice
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.token_classification import TokenClassification
from flaxbert.training import state
from flaxbert.training.optim import make_optimizer
from flaxbert.training.step import make_loss, make_train_step
from flaxbert.types import Params

GOLDEN = Path(__file__).parents[1] / "golden"

TASKS: dict[str, Task] = {
    "classification": Classification(DataConfig(), Classification.options_type(), ("a", "b", "c")),
    "question_answering": QuestionAnswering(DataConfig(), QuestionAnswering.options_type()),
}
TAGS = ("O", "B-X", "I-X")
# Those whose output layers heads.npz has; their training differs from the others' in nothing.
OTHERS: dict[str, Task] = {
    "token_classification": TokenClassification(
        DataConfig(), TokenClassification.options_type(), TAGS
    ),
    "multiple_choice": MultipleChoice(DataConfig(), MultipleChoice.options_type()),
    "pretraining": PreTraining(DataConfig(), PreTraining.options_type()),
    "masked_lm": PreTraining(DataConfig(), PreTraining.options_type(next_sentence=False)),
}


def read(name: str) -> dict[str, np.ndarray]:
    """A golden file's arrays."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def write_golden(
    directory: Path, rename: Callable[[str], str] = str, *, task: str | None = None
) -> Path:
    """The golden model as a checkpoint directory, with the output layer of one of `OTHERS`."""
    tensors = read("weights")
    (directory / "config.json").write_text(str(tensors.pop("config")))
    # BertForMaskedLM has no layer of its own: it is BertForPreTraining without the next sentence.
    prefix = f"tensor/{'pretraining' if task == 'masked_lm' else task}/"
    own = {k.removeprefix(prefix): v for k, v in read("heads").items() if k.startswith(prefix)}
    assert bool(own) == (task in OTHERS)
    tensors |= own
    save_file(
        {rename(name): tensor for name, tensor in tensors.items()}, directory / "model.safetensors"
    )
    return directory


def load(directory: Path, make_head: MakeHead, **runtime: Any) -> tuple[Model, Params]:
    """Model and parameters, every one of them from the file."""
    hf_config = json.loads((directory / "config.json").read_text())
    model = Model.create(read_config(hf_config, **runtime), make_head)
    params, report = mapping.load(model, directory, seed=0)
    assert report.fresh == ()
    return model, jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model as a checkpoint directory."""
    return write_golden(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def golden_of(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The golden model with a task's output layer."""

    @functools.cache
    def of(task: str) -> Path:
        if task not in OTHERS:
            return golden
        return write_golden(tmp_path_factory.mktemp(task), task=task)

    return of


@pytest.fixture(scope="module")
def ladder() -> dict[str, np.ndarray]:
    """Inputs, and what transformers makes of them."""
    return read("ladder") | read("heads")


def ids(ladder: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's inputs."""
    return {name: ladder[name] for name in ("input_ids", "token_type_ids", "attention_mask")}


# Each rung as a function of (module, what the rung below it gives in transformers).
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
    """Fed with transformers' own output of the module below, so that a wrong one fails alone."""
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
    """Outputs with `mlm_logits` as [R, T, V]: NaN at places that were not scored."""
    if "masked_positions" not in outputs:
        return dict(outputs)
    places, scores = np.asarray(outputs["masked_positions"]), np.asarray(outputs["mlm_logits"])
    full = np.full((len(places), length, scores.shape[-1]), np.nan, np.float32)
    np.put_along_axis(full, places[..., None], scores, axis=1)
    return dict(outputs) | {"mlm_logits": full}


def comparable(outputs: Mapping[str, Any], names: Mapping[str, str], mask: Any) -> dict[str, Any]:
    """Outputs under the golden names: per token those of real tokens; per sequence [R, ...]."""
    arrays = {theirs: np.asarray(outputs[ours]) for ours, theirs in names.items()}
    return {
        name: a[mask == 1] if name in PER_TOKEN else a.reshape(len(a), -1)
        for name, a in arrays.items()
    }


def assert_equal_outputs(
    outputs: Mapping[str, Any], names: Mapping[str, str], g: Mapping[str, np.ndarray]
) -> None:
    """Wherever there is a real token, or in every sequence."""
    mask = g["attention_mask"]
    ours = comparable(in_place(outputs, mask.shape[1]), names, mask)
    assert_close(ours, comparable(g, {name: name for name in names.values()}, mask))


@pytest.mark.parametrize("head", HEADS)
def test_head_equals_transformers(
    head: str, golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """Fed with transformers' last hidden state."""
    make_head, names = HEADS[head]
    model, params = load(golden_of(head), make_head)
    module = nnx.merge(model.graphdef, params)
    cls_position = {"cls_position": jnp.zeros((len(ladder["input_ids"]), 1), jnp.int32)}
    words = (module.encoder.embeddings.word,) if module.head.uses_word_embeddings else ()
    outputs = module.head(jnp.asarray(ladder["layer_1"]), cls_position, None, *words)
    assert_equal_outputs(outputs, names, ladder)


@pytest.mark.parametrize("head", HEADS)
def test_model_equals_transformers(
    head: str, golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """From ids to the last hidden state and the outputs."""
    make_head, names = HEADS[head]
    model, params = load(golden_of(head), make_head)
    outputs = jax.jit(model.__call__)(params, ids(ladder))
    theirs = ladder | {"hidden_states": ladder["layer_1"]}
    assert_equal_outputs(outputs, names | {"hidden_states": "hidden_states"}, theirs)


def test_words_at_masked_places_equal_transformers(
    golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """Told where they are, the head scores these and few more: 15 % of 11 places, and one."""
    model, params = load(golden_of("pretraining"), OTHERS["pretraining"].make_head)
    outputs = jax.jit(model.__call__)(params, ids(ladder) | {"masked": ladder["masked"]})
    assert outputs["masked_positions"].shape == (5, 3)
    assert max(ladder["masked"].sum(axis=1)) == 3  # no place to spare in one of the rows
    found = in_place(outputs, 11)["mlm_logits"]
    masked = ladder["masked"] == 1
    assert_close(found[masked], ladder["mlm_logits"][masked])


def labelled_batch(
    g: Mapping[str, np.ndarray], task: str = "classification"
) -> dict[str, jax.Array]:
    """One sequence a row, in the golden file's order, with a task's labels."""
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
        batch.weight /= sizes[g["question"]][:, None]
    elif task in ("pretraining", "masked_lm"):
        batch |= {"masked": g["masked"], "label": g["word"], "follows": g["follows"][:, None]}
    else:
        batch |= {name: g[name][:, None] for name in ("label", "start", "end")}
    return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize(
    "task", [*TASKS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_gradients_equal_pytorch(
    task: str, golden_of: Callable[[str], Path], ladder: dict[str, np.ndarray]
) -> None:
    """Of every parameter. Those that are zero in truth are rounding alone, so zero is asked for."""
    learner = (TASKS | OTHERS)[task]
    model, params = load(golden_of(task), learner.make_head)
    loss = make_loss(model, learner)

    def mean(params: Params, batch: Any) -> jax.Array:
        return loss(params, batch, None)[0]

    flat = mapping.flatten(jax.jit(jax.grad(mean))(params, labelled_batch(ladder, task)))
    ours = {
        name: flat[path].T if path.endswith("kernel") else flat[path]
        for path, name in mapping.hf_names(model).items()
    }
    prefix = f"gradient/{task}/"
    theirs = {k.removeprefix(prefix): v for k, v in ladder.items() if k.startswith(prefix)}
    # Softmax ignores what is added to all scores: over keys the key bias, over places the span's,
    # over choices that of their one score.
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
    """The golden sequences without their padding."""
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
    """AdamW, clipping, decay mask, schedule, smaller last batches: the losses of 20 steps."""
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
        seed=None,  # the golden's order, the same each epoch
    )
    config = OptimConfig(
        learning_rate=float(examples["learning_rate"]),
        weight_decay=float(examples["weight_decay"]),
        eps=1e-8,
    )
    optimizer, _ = make_optimizer(config, total_steps=STEPS)
    now = state.create(jax.tree.map(np.asarray, params), optimizer, mesh)
    step = make_train_step(
        model, TASKS[task], optimizer, now, mesh, accumulation_steps=1, seed=0, log_every=1
    )
    losses = []
    for number in range(STEPS):
        rows = batches.padded_rows(number)
        now, sums = step(now, sharding.make_global_batch(rows, batches.build, mesh))
        losses.append(float(sums["loss"] / sums["loss/weight"]))
    assert_close(np.array(losses), examples[f"{task}_losses"], 1e-4)


def test_bfloat16_is_near_float32_and_its_logits_are_float32(
    golden: Path, ladder: dict[str, np.ndarray]
) -> None:
    """bfloat16 keeps 8 bits, 4e-3; a few roundings a layer add up, so 4e-2 is asked for."""
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
    """`gradients(batch, remat=..., seed=...)` of a one-layer model, dropout 0.1 by that seed."""
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
        return compiled(remat)(params, batch, jax.random.key(seed))[0]

    return gradients


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_draws_the_same_dropout(
    remat: str, dropout_gradients: Callable[..., Any], ladder: dict[str, np.ndarray]
) -> None:
    """Equal gradients for an equal key; and not equal for another, so dropout is on."""
    batch = labelled_batch(ladder)
    plain = dropout_gradients(batch, remat="none", seed=7)
    assert_grads_close(dropout_gradients(batch, remat=remat, seed=7), plain)
    with pytest.raises(AssertionError, match="off by"):
        assert_grads_close(dropout_gradients(batch, remat=remat, seed=8), plain, 1e-1)


def test_a_row_of_padding_gives_finite_outputs_and_changes_no_other_row(
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


def test_a_row_of_padding_gives_finite_gradients(
    dropout_gradients: Callable[..., Any], ladder: dict[str, np.ndarray]
) -> None:
    batch = labelled_batch(ladder)
    batch.segment_ids = batch.segment_ids.at[1].set(0)
    batch.weight = batch.weight.at[1].set(0.0)
    gradients = dropout_gradients(batch, remat="none", seed=7)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


def test_a_row_longer_than_the_position_table_is_an_error(golden: Path) -> None:
    model, params = load(golden, PoolerHead)
    with pytest.raises(ValueError, match="rows have 38 tokens, but the model has 37 positions"):
        model(params, {"input_ids": np.ones((1, 38), np.int32)})


SPELLINGS: dict[str, Callable[[str], str]] = {
    "no prefix": lambda name: name.removeprefix("bert."),
    "gamma and beta": lambda name: re.sub(
        r"LayerNorm\.(weight|bias)$",
        lambda found: "LayerNorm.gamma" if found[1] == "weight" else "LayerNorm.beta",
        name,
    ),
}
SPELLINGS["both"] = lambda name: SPELLINGS["gamma and beta"](SPELLINGS["no prefix"](name))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_tensor_names_load_the_same_parameters(
    spelling: str, golden: Path, tmp_path: Path
) -> None:
    make_head = TASKS["classification"].make_head
    _, want = load(golden, make_head)
    _, have = load(write_golden(tmp_path, SPELLINGS[spelling]), make_head)
    names = {name for name, _ in formats.read_tensors(tmp_path)}
    assert names != {name for name, _ in formats.read_tensors(golden)}
    assert jax.tree.all(jax.tree.map(np.array_equal, have, want))

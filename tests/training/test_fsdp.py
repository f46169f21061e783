"""Devices that share one copy of the parameters (`train.fsdp`) train as those with copies do."""

import copy
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import write_checkpoint
from jax.sharding import AbstractMesh
from safetensors.numpy import load_file
from toy import make_config

import flaxbert
from flaxbert.config import DataConfig, OptimConfig
from flaxbert.errors import ConfigError
from flaxbert.models.families import read_config
from flaxbert.models.heads import PoolerHead
from flaxbert.models.model import Model
from flaxbert.pipeline.predictor import Predictor
from flaxbert.runtime import sharding
from flaxbert.runtime.checkpoint import Store
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import TrainState, init_state, state_shapes
from flaxbert.training.step import make_train_step
from flaxbert.types import Batch

SIZES = {
    "model_type": "bert",
    "vocab_size": 203,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 16,
}
ANSWERS = QuestionAnswering(DataConfig(), QuestionAnswering.options_type())
WORDS = PreTraining(DataConfig(), PreTraining.options_type())
OPTIMIZER, _ = make_optimizer(OptimConfig(learning_rate=1e-3), 100)
ROWS, LENGTH = 16, 16


def make_params(model: Model) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(leaf.ndim == 1, 0.02, leaf.shape).astype(np.float32), model.shapes
    )


def make_batch(mesh: sharding.Mesh) -> Batch:
    """Two sequences of 8 and 7 tokens in each row."""
    rng, positions = np.random.default_rng(0), np.tile(np.r_[0:8, 0:8], (ROWS, 1))
    words = rng.integers(0, SIZES["vocab_size"], (2, ROWS, LENGTH))
    arrays = {
        "input_ids": words[0],
        "token_type_ids": np.zeros((ROWS, LENGTH)),
        "position_ids": positions,
        "segment_ids": np.tile([1] * 8 + [2] * 7 + [0], (ROWS, 1)),
        "cls_position": np.tile([0, 8], (ROWS, 1)),
        "sequence_index": np.arange(2 * ROWS).reshape(ROWS, 2),
        "masked": rng.random((ROWS, LENGTH)) < 0.2,
        "label": words[1],
        "follows": rng.integers(0, 2, (ROWS, 2)),
        "start": np.tile([2, 9], (ROWS, 1)),
        "end": np.tile([3, 12], (ROWS, 1)),
    }
    integers = {name: array.astype(np.int32) for name, array in arrays.items()}
    batch = Batch.from_arrays(integers | {"weight": np.ones((ROWS, 2), np.float32)})
    placed: Batch = sharding.make_global_batch(batch, ROWS, mesh)
    return placed


def losses(
    devices: int,
    fsdp: int,
    *,
    task: Any = WORDS,
    dropout: float = 0.1,
    accumulation_steps: int = 1,
    **runtime: Any,
) -> tuple[list[float], TrainState]:
    """Return the loss of each of ten steps, and the last state."""
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp=fsdp)
    encoder = read_config(SIZES, **runtime).with_dropout(dropout)
    model = Model.create(encoder, task.make_head)
    state = init_state(make_params(model), OPTIMIZER, mesh, task.loss_names)
    batch, results = make_batch(mesh), []
    step = make_train_step(
        model,
        task,
        OPTIMIZER,
        state,
        mesh,
        accumulation_steps=accumulation_steps,
        seed=0,
        log_every=1,
    )
    for _ in range(10):
        state, report = step(state, batch)
        results.append(sum(float(part.mean) for part in report.sums.losses.values()))
    return results, state


@pytest.fixture(scope="module")
def copied() -> list[float]:
    """The losses of one device that has all parameters."""
    return losses(1, 1)[0]


def share(state: TrainState) -> float:
    """Return the share of parameters and moments that the first device holds."""
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return sum(leaf.addressable_data(0).nbytes for leaf in leaves) / sum(x.nbytes for x in leaves)


def test_shared_parameters_are_divided_and_train_like_copies():
    expected, _ = losses(1, 1, task=ANSWERS, dropout=0.0)  # with less to compile
    values, state = losses(8, 8, task=ANSWERS, dropout=0.0)
    assert values == pytest.approx(expected, abs=1e-5)
    assert share(state) <= 0.16


@pytest.mark.slow  # each compiles a program
@pytest.mark.parametrize(
    ("devices", "fsdp", "options"),
    [
        (8, 1, {}),
        (2, 2, {}),
        (8, 8, {}),
        (4, 4, {}),
        (8, 4, {}),
        (8, 2, {}),
        (8, 8, {"accumulation_steps": 2}),
        (8, 4, {"remat": "full"}),
        (8, 8, {"remat": "dots", "accumulation_steps": 2}),
    ],
)
def test_any_mesh_trains_alike(copied, devices, fsdp, options):
    values, state = losses(devices, fsdp, **options)
    assert values == pytest.approx(copied, abs=1e-5)
    assert share(state) <= 1 / fsdp + 0.035


@pytest.mark.slow  # two programs
def test_shared_parameters_train_alike_in_bfloat16():
    runs = [losses(8, fsdp, dtype="bfloat16")[0] for fsdp in (1, 8)]
    assert runs[1] == pytest.approx(runs[0], abs=1e-3)
    rounded, _ = losses(8, 8, dtype="bfloat16", reduce_dtype="bfloat16")
    assert rounded == pytest.approx(runs[0], abs=1e-2)


def test_checkpoint_is_restored_on_another_number_of_devices(tmp_path):
    model = Model.create(read_config(SIZES), PoolerHead)
    params, after = make_params(model), sharding.make_mesh(jax.devices()[:4], fsdp=2)
    store = Store(tmp_path, max_to_keep=None)
    store.save(1, sharding.shard_params(params, sharding.make_mesh(fsdp=8)), {})
    store.wait()
    restored = store.restore(1, state_shapes(model.shapes, OPTIMIZER, after).params)
    store.close()
    jax.tree.map(np.testing.assert_array_equal, sharding.on_lead_host(restored), params)
    places = jax.tree.map(lambda leaf: leaf.sharding, restored)
    assert places == sharding.param_shardings(restored, after)


# --- the mesh and the rules ----------------------------------------------------------------------


def test_mesh_has_both_axes_and_keeps_the_order_of_devices():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(sharding.make_mesh(fsdp=-1).shape) == {"data": 1, "fsdp": 8}
    mesh = sharding.make_mesh(fsdp=4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
    assert list(mesh.devices.flat) == jax.devices()
    assert sharding.data_parallelism(mesh) == 8
    assert sharding.local_rows(16, mesh) == list(range(16))


def test_devices_of_a_slice_share_a_copy(monkeypatch):
    chips = [SimpleNamespace(slice_index=n % 2, id=n) for n in range(8)]
    arranged = []
    monkeypatch.setattr(sharding, "Mesh", lambda devices, *_, **__: arranged.append(devices))
    monkeypatch.setattr(
        jax, "make_mesh", lambda *_, devices, **__: SimpleNamespace(devices=np.array(devices))
    )
    sharding.make_mesh(chips, fsdp=4)
    assert [[chip.id for chip in group] for group in arranged[0]] == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize("fsdp", [3, 16, 0])
def test_number_that_does_not_divide_the_devices_is_refused(fsdp):
    with pytest.raises(ConfigError, match=r"train.fsdp=.* the 8 device.* 1, 2, 4, 8; or -1"):
        sharding.make_mesh(fsdp=fsdp)


def test_width_that_cannot_be_divided_is_refused():
    sizes = SIZES | {"hidden_size": 36, "num_attention_heads": 4}
    shapes = Model.create(read_config(sizes), PoolerHead).shapes
    with pytest.raises(ConfigError, match=r"no size of encoder/.*36.* Use at most 6"):
        sharding.param_shardings(shapes, sharding.make_mesh(fsdp=8))


BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 512,
}
XLM_R = BERT | {
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "type_vocab_size": 1,
    "max_position_embeddings": 514,
}
XL = XLM_R | {
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "intermediate_size": 10240,
}


@pytest.mark.parametrize(
    ("sizes", "parameters", "fsdp"),
    [
        (BERT | {"num_hidden_layers": 2}, 58e6, 8),
        pytest.param(BERT, 335e6, 8, marks=pytest.mark.slow),  # many layers take long to trace
        pytest.param(XLM_R, 560e6, 8, marks=pytest.mark.slow),
        pytest.param(XL, 3.5e9, 64, marks=pytest.mark.slow),
    ],
)
def test_large_models_are_divided_evenly(sizes, parameters, fsdp):
    shapes = Model.create(read_config(sizes), PoolerHead).shapes
    state = state_shapes(shapes, OPTIMIZER, AbstractMesh((1, fsdp), ("data", "fsdp")))
    whole = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    assert whole == pytest.approx(parameters, rel=0.02)
    leaves = jax.tree.leaves((state.params, state.opt_state))
    part = sum(4 * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert 12 * whole / fsdp <= part < 1.03 * 12 * whole / fsdp  # parameters and two moments


@pytest.mark.parametrize(
    ("dtype", "reduce_dtype", "expected"),
    [
        ("bfloat16", "float32", "f32"),
        ("bfloat16", "bfloat16", "bf16"),
        ("float32", "bfloat16", "f32"),
    ],
)
def test_gradients_of_kernels_have_the_type_of_their_sums(dtype, reduce_dtype, expected):
    model = Model.create(read_config(SIZES, dtype=dtype, reduce_dtype=reduce_dtype), PoolerHead)

    def loss(params: Any) -> jax.Array:
        hidden = model(params, {"input_ids": np.zeros((2, 8), np.int32)})["hidden_states"]
        return jnp.sum(hidden.astype(jnp.float32))

    program = str(jax.make_jaxpr(jax.grad(loss))(model.shapes))
    kernels = set(re.findall(r"(\w+)\[(?:64,128|128,64)\] = dot_general", program))
    assert kernels == {expected}


# --- whole runs ----------------------------------------------------------------------------------


def weights(workdir: Path) -> dict[str, np.ndarray]:
    return load_file(workdir / "export" / "model.safetensors")


@pytest.mark.slow  # five runs
def test_run_resumes_with_another_division_and_exports_the_same(tmp_path):
    model = write_checkpoint(tmp_path / "model", num_hidden_layers=1)
    config = make_config("classification", model, tmp_path, count=32)
    config.train.ema, config.train.keep_best = 0.9, "accuracy"
    whole = flaxbert.train(config, tmp_path / "whole")
    for before, after in ((8, 1), (1, 8)):
        workdir, part = tmp_path / f"{before}", copy.deepcopy(config)
        part.train.fsdp, part.train.max_steps = before, 2
        part.train.keep_best = None
        flaxbert.train(part, workdir)
        part.train.fsdp, part.train.max_steps = after, None
        resumed = flaxbert.train(part, workdir)
        assert resumed["step"] == whole["step"] == 4
        assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-4)
        for name, array in weights(tmp_path / "whole").items():
            np.testing.assert_allclose(weights(workdir)[name], array, atol=1e-5)
    config.train.fsdp = -1
    shared = flaxbert.train(config, tmp_path / "shared")
    assert shared["accuracy"] == whole["accuracy"]
    texts = ["the film was good", "a bad book"]
    expected = flaxbert.load(tmp_path / "whole").predict(texts)
    predictor = Predictor.from_config(config, tmp_path / "shared")
    assert not predictor.params["encoder"]["embeddings"]["word"]["embedding"].is_fully_replicated
    for actual in (predictor.predict(texts), flaxbert.load(tmp_path / "shared").predict(texts)):
        assert json.loads(json.dumps(actual)) == [
            {name: pytest.approx(value, abs=1e-4) for name, value in item.items()}
            for item in expected
        ]

"""Exhausted device memory raises one error that says how much is missing and what to change."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import build_pipeline, make_config, read_dataset

import flaxbert
from flaxbert.errors import OutOfMemoryError, WorkdirError
from flaxbert.pipeline import evaluator, predictor
from flaxbert.pipeline.evaluator import Evaluator
from flaxbert.pipeline.predictor import Predictor
from flaxbert.runtime import checkpoint, hardware, memory, sharding
from flaxbert.runtime.compilation import start_compiling
from flaxbert.training import microbatches, programs, resume

GIB = 2**30
XLA = "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\n" + "an allocation\n" * 100
BATCH = "in batches of up to 8 rows x 32 tokens"

V5E = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(49.99G) exceeds available HBM (15.75G)."
)
OLDER_TPU = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 16.50G of 15.75G hbm. Exceeded hbm capacity by 768.00M."
)
KERNEL = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space vmem. "
    "Used 20.00M of 16.00M vmem. Exceeded vmem capacity by 4.00M."
)


def fail(message):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError(message)

    return exhausted


exhausted = fail(XLA)


@pytest.fixture
def config(one_layer, tmp_path, monkeypatch):
    # Nothing is compiled: each test sets the steps that it needs.
    for module in (microbatches, evaluator):
        monkeypatch.setattr(module, "start_compiling", lambda *_: lambda: None)
    config = make_config("classification", one_layer, tmp_path, count=16)
    config.data.row_length = 32
    return config


@pytest.mark.parametrize(
    ("module", "step", "message"),
    [
        (microbatches, exhausted, f"compiling the training step {BATCH}"),
        (microbatches, lambda *_: exhausted, f"compiling the training step {BATCH}"),  # in a thread
        (microbatches, lambda *_: lambda: exhausted, f"training {BATCH}"),
        (evaluator, exhausted, r"compiling an evaluation in batches of up to \d+ rows x 32 tokens"),
    ],
)
def test_error_in_a_run_names_the_batch_and_the_options(
    config, tmp_path, monkeypatch, module, step, message
):
    monkeypatch.setattr(programs, "advice", lambda *_: "train.accumulation_steps=2")
    monkeypatch.setattr(module, "start_compiling", step)
    with pytest.raises(OutOfMemoryError, match=f"out of device memory while {message}") as raised:
        flaxbert.train(config, tmp_path / "run")
    text = str(raised.value)
    assert "allocating 123 bytes" in text
    assert len(text.splitlines()) == 1
    options = ["train.eval_batch_size", "data.max_length"]
    if module is microbatches:
        options = ["train.accumulation_steps", "model.remat", "train.batch_size", "data.max_length"]
    assert all(option in text for option in options)


def test_error_in_an_evaluation_names_eval_batch_size(config):
    pipeline = build_pipeline(config)
    evaluator = Evaluator(pipeline, read_dataset(config, pipeline, "eval"), step=exhausted)
    with pytest.raises(OutOfMemoryError, match=r"while evaluating.*train\.eval_batch_size"):
        evaluator.run(None)


def test_error_in_a_prediction_names_the_flag_of_a_server(config):
    pipeline = build_pipeline(config)
    data = read_dataset(config, pipeline, "eval", labeled=False)
    evaluator = Evaluator(pipeline, data, step=exhausted)
    with pytest.raises(OutOfMemoryError, match=r"while predicting.*--batch-size"):
        evaluator.outputs(None)


def test_advice_that_fails_does_not_hide_the_error():
    def advise(_):
        raise ValueError

    with (
        pytest.raises(OutOfMemoryError, match=r"Use less\.$"),
        memory.explain_exhaustion("x", "less", advise=advise),
    ):
        exhausted()


def test_error_in_placing_parameters_names_no_batch(config, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "init_state", exhausted)
    with pytest.raises(OutOfMemoryError, match=r"placing parameters.*a smaller model") as raised:
        flaxbert.train(config, tmp_path / "run")
    assert "rows" not in str(raised.value)


def test_a_state_or_parameters_that_do_not_fit_are_not_placed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "capacity", lambda: 1000)
    monkeypatch.setattr(resume, "init_state", None)
    with pytest.raises(OutOfMemoryError, match=r"optimizer state .*each needs \S+ of \S+ GiB"):
        flaxbert.train(config, tmp_path / "run")
    monkeypatch.setattr(memory, "capacity", lambda: 100_000)  # of 133,000
    with pytest.raises(OutOfMemoryError, match=r"Use train\.fsdp=2, which needs \S+ of \S+ GiB"):
        flaxbert.train(config, tmp_path / "run")
    monkeypatch.setattr(memory, "capacity", lambda: 1000)
    pipeline = build_pipeline(config)
    monkeypatch.setattr(sharding, "shard_params", None)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), pipeline.model.shapes)
    with pytest.raises(OutOfMemoryError, match=r"placing the parameters .*each needs"):
        Predictor(config, pipeline, params)


def test_a_server_that_has_too_little_memory_names_its_flag(config, monkeypatch):
    pipeline = build_pipeline(config)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), pipeline.model.shapes)
    served = Predictor(config, pipeline, params)
    usage = memory.Usage(10 * GIB, 6 * GIB, 2 * GIB)

    def too_large():
        raise memory.TooLargeError(usage)

    monkeypatch.setattr(predictor, "start_compiling", lambda *_: too_large)
    with pytest.raises(OutOfMemoryError) as raised:
        served.compile([["a good film"]], batch_size=64)
    text = str(raised.value)
    assert "compiling predictions in batches of up to" in text
    assert "each needs 10.0 of 6.0 GiB" in text
    assert "Use --batch-size=16, which needs about 4.0 of 6.0 GiB. Otherwise" in text


def test_a_program_that_exceeds_the_capacity_is_refused_before_it_runs(monkeypatch):
    def batch(rows):
        return jnp.ones((rows, 8))

    def start():
        return start_compiling(jax.jit(jnp.matmul), jnp.ones((8, 8)), [8], batch)()

    assert start().usage.total == 3 * 8 * 8 * 4  # two arguments and the product
    monkeypatch.setattr(memory, "capacity", lambda: 767)
    with (
        pytest.raises(OutOfMemoryError, match=r"4 rows x 2 tokens.*each needs"),
        memory.explain_exhaustion("x", "y", (4, 2)),
    ):
        start()
    monkeypatch.setattr(memory, "capacity", lambda: 768)
    start()


@pytest.mark.parametrize(
    ("message", "needs"),
    [
        (V5E, "each needs 50.0 of 15.8 GiB (2.0 GiB of arguments, 48.0 GiB of temporaries) (RESO"),
        (OLDER_TPU, "each needs 16.5 of 15.8 GiB (2.0 GiB of arguments, 14.5 GiB of temporaries)"),
    ],
)
def test_figures_of_tpu_compilers_are_read(message, needs):
    arguments = jax.ShapeDtypeStruct((GIB,), jnp.bfloat16)
    with (
        pytest.raises(OutOfMemoryError) as raised,
        memory.explain_exhaustion("compiling", "less", arguments=arguments),
    ):
        fail(message)()
    assert needs in str(raised.value)


@pytest.mark.parametrize(
    "message", ["INTERNAL: something else", KERNEL, "UNKNOWN: CUBLAS_STATUS_NOT_SUPPORTED"]
)
def test_other_device_errors_are_not_changed(message):
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="|".join(message.split()[:1])),
        memory.explain_exhaustion("x", "y"),
    ):
        fail(message)()


@pytest.mark.parametrize(
    "message",
    [
        "INTERNAL: Failed to allocate 4 bytes: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "INTERNAL: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_other_names_of_exhausted_memory_are_recognized(message):
    usage = memory.Usage(3 * GIB, 4 * GIB, GIB)
    with (
        pytest.raises(OutOfMemoryError, match=r"each needs 3\.0 of 4\.0 GiB"),
        memory.explain_exhaustion("training", memory.TRAINING, usage=usage),
    ):
        fail(message)()


def test_exhausted_memory_during_a_save_is_not_reported_as_a_disk_error(tmp_path):
    store = checkpoint.Store(tmp_path, max_to_keep=None)
    with pytest.raises(jax.errors.JaxRuntimeError), store._as_workdir_error():
        exhausted()
    with pytest.raises(WorkdirError, match="could not be written"), store._as_workdir_error():
        fail("INTERNAL: something else")()
    store.close()


def test_a_smaller_batch_is_estimated_from_the_temporaries():
    usage = memory.Usage(10 * GIB, 6 * GIB, 2 * GIB)  # 8 GiB of them
    say = memory.smaller_batch
    assert say("k", 64, 1, usage) == "k=16, which needs about 4.0 of 6.0 GiB"
    assert say("k", 64, 32, usage) == ""
    assert say("k", 64, 1, memory.Usage(10 * GIB, 2 * GIB, 2 * GIB)) == ""
    assert say("k", 64, 1, None) == ""
    assert say("k", 64, 1, memory.Usage(10 * GIB, 6 * GIB)) == ""


def test_memory_usage_is_logged_where_the_device_has_a_limit(monkeypatch, caplog):
    caplog.set_level("INFO", logger="flaxbert")
    memory.check(memory.Usage(GIB, 16 * GIB, 1), 32)
    assert not caplog.text  # the CPU states no limit
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    memory.check(memory.Usage(GIB, 16 * GIB, 1), 32)
    assert "batches of 32 rows needs 1.0 of 16.0 GiB" in caplog.text
    memory.check(memory.Usage.of(None), 32)  # a platform without memory analysis


def test_capacity_is_the_devices_limit_or_a_share_of_the_machine(monkeypatch):
    monkeypatch.setattr(hardware, "memory", lambda: 80 * GIB)
    assert memory.capacity() == 80 * GIB // jax.local_device_count()
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 16 * GIB})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert memory.capacity() == 16 * GIB
    device.memory_stats = lambda: None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert memory.capacity() is None


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/job/step", "job/memory.max"),
        ("0::/of/the/host", "memory.max"),
        ("7:cpu,memory:/job", "memory/job/memory.limit_in_bytes"),
    ],
)
def test_a_containers_limit_is_its_memory(group, file, tmp_path):
    machine = hardware.memory(tmp_path)
    path = tmp_path / "sys/fs/cgroup" / file
    for made in (tmp_path / "proc/self/cgroup", path):
        made.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpuset:/\n{group}\n")
    path.write_text("max\n")
    assert hardware.memory(tmp_path) == machine
    path.write_text(f"{2**20}\n")
    assert hardware.memory(tmp_path) == 2**20

"""Exhausted device memory raises one error that names the options to change."""

import jax
import pytest
from toy import build_pipeline, make_config, read_dataset

import flaxbert
from flaxbert.errors import OutOfMemoryError, WorkdirError
from flaxbert.pipeline import evaluator
from flaxbert.pipeline.evaluator import Evaluator
from flaxbert.runtime import checkpoint, memory
from flaxbert.training import programs, trainer

XLA = "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\n" + "an allocation\n" * 100


BATCH = "in batches of up to 8 rows x 32 tokens"


def exhausted(*_):
    raise jax.errors.JaxRuntimeError(XLA)


@pytest.fixture
def config(one_layer, tmp_path, monkeypatch):
    # Nothing is compiled: each test sets the steps that it needs.
    for module in (programs, evaluator):
        monkeypatch.setattr(module, "start_compiling", lambda *_: lambda: None)
    config = make_config("classification", one_layer, tmp_path, count=16)
    config.data.row_length = 32
    return config


@pytest.mark.parametrize(
    ("module", "step", "message"),
    [
        (programs, exhausted, f"compiling the training step {BATCH}"),
        (programs, lambda *_: exhausted, f"compiling the training step {BATCH}"),  # in its thread
        (programs, lambda *_: lambda: exhausted, f"training {BATCH}"),
        (evaluator, exhausted, r"compiling an evaluation in batches of up to \d+ rows x 32 tokens"),
    ],
)
def test_error_in_a_run_names_the_batch_and_the_options(
    config, tmp_path, monkeypatch, module, step, message
):
    monkeypatch.setattr(module, "start_compiling", step)
    with pytest.raises(OutOfMemoryError, match=f"out of device memory while {message}") as raised:
        flaxbert.train(config, tmp_path / "run")
    text = str(raised.value)
    assert "allocating 123 bytes" in text
    assert len(text.splitlines()) == 1
    options = ["train.eval_batch_size", "data.max_length"]
    if module is programs:
        options = ["train.accumulation_steps", "model.remat", "train.batch_size", "data.max_length"]
    assert all(option in text for option in options)


def test_error_in_an_evaluation_names_eval_batch_size(config):
    pipeline = build_pipeline(config)
    evaluator = Evaluator(pipeline, read_dataset(config, pipeline, "eval"), step=exhausted)
    with pytest.raises(OutOfMemoryError, match=r"while evaluating.*train\.eval_batch_size"):
        evaluator.run(None)


def test_error_in_placing_parameters_names_no_batch(config, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "init_state", exhausted)
    with pytest.raises(OutOfMemoryError, match=r"placing parameters.*a smaller model") as raised:
        flaxbert.train(config, tmp_path / "run")
    assert "rows" not in str(raised.value)


def test_exhausted_memory_during_a_save_is_not_reported_as_a_disk_error(tmp_path):
    store = checkpoint.Store(tmp_path)
    with pytest.raises(jax.errors.JaxRuntimeError), store._as_workdir_error():
        exhausted()
    with pytest.raises(WorkdirError, match="could not be written"), store._as_workdir_error():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    store.close()


def test_other_device_errors_are_not_changed(config):
    error = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError) as raised, memory.explain_exhaustion("x", "y"):
        raise error
    assert raised.value is error


def test_memory_usage_is_logged_where_the_device_has_a_limit(monkeypatch, caplog):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 16 * 2**30}

    program = jax.jit(lambda x: x + 1).lower(jax.numpy.ones(2**20)).compile()
    caplog.set_level("INFO", logger="flaxbert")
    memory.log_usage(program, 32)
    assert not caplog.text  # the CPU reports no limit
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    memory.log_usage(program, 32)
    assert "batches of 32 rows needs 0.0 of 16.0 GiB" in caplog.text
    memory.log_usage(None, 32)  # a platform without memory analysis

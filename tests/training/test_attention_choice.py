"""The way to compute attention is tried once, is equal on all hosts, and is kept on resume."""

import logging

import jax
import pytest
from test_hosts import hosts  # noqa: F401 - a fixture
from toy import build_pipeline, make_config

import flaxbert
from flaxbert.models.attention_trial import Trial
from flaxbert.runtime.checkpoint import Checkpoints
from flaxbert.training import attention_choice
from flaxbert.training.attention_choice import with_fitting_attention

KERNEL = Trial("kernel", "the kernel takes 1.00 ms of a step, plain attention 2.00 ms")
SLOW = Trial("plain", "the kernel takes 2.00 ms of a step, plain attention 1.00 ms")
WRONG = Trial("plain", "the kernel's values differ by 1.0e+00", failed=True)

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def config(one_layer, tmp_path_factory):
    config = make_config("classification", one_layer, tmp_path_factory.mktemp("data"), count=32)
    config.train.batch_size, config.train.save_every = 8, 2
    return config


@pytest.fixture
def calls(monkeypatch):
    """Let every trial choose the kernel; return the list of the trials' shapes."""
    calls = []

    def try_kernel(encoder, rows, length, device):
        calls.append((rows, length))
        return KERNEL

    monkeypatch.setattr(attention_choice, "try_kernel", try_kernel)
    return calls


@pytest.mark.parametrize(
    ("trial", "way", "level"),
    [
        (KERNEL, "kernel", logging.INFO),
        (SLOW, "plain", logging.INFO),
        (WRONG, "plain", logging.WARNING),
    ],
)
def test_the_result_of_the_trial_is_used_and_logged(trial, way, level, config, monkeypatch, caplog):
    monkeypatch.setattr(attention_choice, "try_kernel", lambda *_: trial)
    pipeline = build_pipeline(config)
    with caplog.at_level(logging.INFO, "flaxbert"):
        chosen = with_fitting_attention(pipeline, (32, 384), 1, None)
    assert chosen.model.config.attention == way
    assert chosen.model.shapes == pipeline.model.shapes
    (record,) = [record for record in caplog.records if "32 rows of 384" in record.message]
    assert record.levelno == level
    assert trial.reason in record.message


def test_no_trial_where_there_is_no_kernel_or_a_way_was_asked_for(config, calls, monkeypatch):
    pipeline = build_pipeline(config).with_attention("plain")
    assert with_fitting_attention(pipeline, (32, 384), 1, None) is pipeline
    assert calls == []
    monkeypatch.setattr(attention_choice, "try_kernel", lambda *_: None)
    pipeline = build_pipeline(config)
    assert with_fitting_attention(pipeline, (32, 384), 1, None) is pipeline


def test_hosts_use_the_kernel_only_if_it_suits_all_of_them(hosts, config, monkeypatch):  # noqa: F811
    pipeline = build_pipeline(config)

    def ways(*trials):
        monkeypatch.setattr(attention_choice, "try_kernel", lambda *_: trials[jax.process_index()])
        chosen = hosts(lambda host: with_fitting_attention(pipeline, (32, 384), 1, None))
        return [each.model.config.attention for each in chosen]

    assert ways(KERNEL, KERNEL) == ["kernel", "kernel"]
    assert ways(KERNEL, SLOW) == ["plain", "plain"]
    assert ways(WRONG, KERNEL) == ["plain", "plain"]


def test_a_run_that_resumes_keeps_its_way_without_a_trial(config, calls, tmp_path):
    config.train.max_steps = 2
    flaxbert.train(config, tmp_path)
    assert len(calls) == 1
    saved = Checkpoints(tmp_path / "checkpoints")
    assert saved.metadata(saved.latest_step()).attention == "kernel"
    config.train.max_steps = 4  # may change on resume
    trained = flaxbert.train(config, tmp_path)
    assert trained["step"] == 4
    assert trained.pipeline.model.config.attention == "kernel"
    assert len(calls) == 1

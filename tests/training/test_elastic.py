"""A run that resumes on fewer devices trains on the same examples in the same order."""

import copy
import json

import jax
import pytest
from conftest import write_checkpoint
from toy import make_config

import flaxbert
from flaxbert.data.batching import Batches
from flaxbert.runtime import sharding


@pytest.fixture
def devices(monkeypatch):
    """Return a function that sets the number of devices of a run."""
    make_mesh = sharding.make_mesh

    def use(count: int) -> None:
        monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(jax.devices()[:count]))

    return use


@pytest.fixture
def order(monkeypatch) -> list[list[int]]:
    """The sequences of each training step, in the order in which batches are built."""
    seen: list[list[int]] = []
    padded_rows = Batches.padded_rows

    def recorded(self: Batches, step: int):
        rows = padded_rows(self, step)
        if self.seed is not None:
            seen.append(sorted(sequence for row in rows for sequence in row))
        return rows

    monkeypatch.setattr(Batches, "padded_rows", recorded)
    monkeypatch.setattr(Batches, "padding_share", lambda self: 0.0)  # it reads all steps again
    return seen


@pytest.mark.slow  # five runs on as many meshes
def test_run_on_fewer_and_fewer_devices_trains_like_one_on_eight(tmp_path, devices, order):
    model = write_checkpoint(tmp_path / "model", num_hidden_layers=1)
    config = make_config("classification", model, tmp_path, count=64)
    config.train.epochs, config.train.eval_every, config.train.log_every = 2.0, 0, 4
    config.train.batch_size, config.optim.learning_rate = 8, 1e-3
    devices(8)
    whole = flaxbert.train(config, tmp_path / "whole")
    expected = list(order)
    assert len(expected) == 16
    order.clear()
    for count, last in [(8, 4), (4, 8), (2, 12), (1, 16)]:
        part = copy.deepcopy(config)
        part.train.max_steps = last
        devices(count)
        resumed = flaxbert.train(part, tmp_path / "parts")
    assert order == expected
    assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    losses = [
        [
            values["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            if "loss" in (values := json.loads(line))
            and values["step"] % config.train.log_every == 0
        ]
        for name in ("whole", "parts")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)

"""A run that resumes on fewer devices trains on the same examples in the same order."""

import copy
import json

import jax
import numpy as np
import pytest
from conftest import write_checkpoint
from toy import make_config

import flaxbert
from flaxbert.pipeline.loader import Loader
from flaxbert.runtime import sharding


@pytest.fixture
def devices(monkeypatch):
    """Return a function that sets the number of devices of a run."""
    make_mesh = sharding.make_mesh

    def use(count: int) -> None:
        monkeypatch.setattr(sharding, "make_mesh", lambda **_: make_mesh(jax.devices()[:count]))

    return use


@pytest.fixture
def order(monkeypatch) -> list[list[tuple[int, ...]]]:
    """The tokens of the sequences of each step that was trained on, sorted."""
    seen: list[list[tuple[int, ...]]] = []
    take = Loader.batch

    def recorded(self: Loader, step: int):
        batch = take(self, step)
        if self.batches.seed is not None:
            rows = zip(np.asarray(batch.input_ids), np.asarray(batch.segment_ids), strict=True)
            seen.append(
                sorted(
                    tuple(ids[segments == k].tolist())
                    for ids, segments in rows
                    for k in range(1, segments.max() + 1)
                )
            )
        return batch

    monkeypatch.setattr(Loader, "batch", recorded)
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
    assert [len(sequences) for sequences in expected] == [8] * 16
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

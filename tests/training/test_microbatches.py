"""accumulation_steps=auto is the smallest number whose program fits, and changes no result."""

import json
import logging

import jax
import pytest
from test_hosts import hosts  # noqa: F401 - a fixture
from toy import load_data, make_config

import flaxbert
from flaxbert.errors import ConfigError, OutOfMemoryError
from flaxbert.pipeline import evaluator
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import memory
from flaxbert.runtime.checkpoint import Checkpoints
from flaxbert.runtime.compilation import Step
from flaxbert.training import microbatches, programs
from flaxbert.training.microbatches import candidates, prepare

pytestmark = pytest.mark.usefixtures("one_device")

GIB = 2**30


@pytest.fixture(scope="module")
def config(one_layer, tmp_path_factory):
    config = make_config("classification", one_layer, tmp_path_factory.mktemp("data"), count=64)
    config.train.batch_size, config.train.accumulation_steps = 64, "auto"
    config.train.epochs, config.data.row_length, config.data.eval = 3.0, 64, None
    return config


@pytest.fixture(scope="module")
def loaded(config):
    return load_data(config)


def attempts(capacity, *, counted=True, refused=()):
    """Return a stand-in for `attempt`: a step needs 1 GiB and 12 GiB for each share of a batch."""

    def attempt(config, pipeline, optimizer, batches):
        parts = config.train.microbatches
        assert batches.microbatches == parts
        usage = memory.Usage(GIB + 12 * GIB // parts, capacity, GIB) if counted else None
        return (None if parts in refused else Step({64: f"in {parts}"})), usage

    return attempt


@pytest.mark.parametrize(
    ("gib", "number"),
    [(18, 1), (16, 2), (10, 2), (6, 4), (4, 8)],  # on CPUs a quarter stays free
)
def test_auto_is_the_smallest_number_that_fits(gib, number, config, loaded, monkeypatch, caplog):
    monkeypatch.setattr(microbatches, "attempt", attempts(gib * GIB))
    with caplog.at_level(logging.INFO, "flaxbert"):
        ready = prepare(config, *loaded, None, None)
    assert ready.config.train.accumulation_steps == number
    assert ready.programs == {64: f"in {number}"}
    assert f"accumulation_steps={number} fits: in batches of" in caplog.text
    assert caplog.text.count("does not fit") == number.bit_length() - 1
    assert config.train.accumulation_steps == "auto"


def test_batches_are_those_of_a_run_with_that_number(config, loaded, monkeypatch):
    monkeypatch.setattr(microbatches, "attempt", attempts(6 * GIB))
    monkeypatch.setattr(Pipeline, "featurize", None)  # nothing is tokenized again
    for row_length in (64, None):
        pipeline, data = loaded
        pipeline.data.row_length = row_length
        batches = prepare(config, pipeline, data, None, None).data.train.batches
        features, size = batches.features, batches.batch_size
        fixed = pipeline.batches(
            features, batch_size=size, seed=0, epochs=config.train.epochs, accumulation_steps=4
        )
        assert (batches.largest_shape, batches.multiple) == (fixed.largest_shape, 4)
        assert batches.padded_rows(1) == fixed.padded_rows(1)
    pipeline.data.row_length = 64


def test_a_number_is_used_as_it_is_given(config, loaded, monkeypatch):
    monkeypatch.setattr(microbatches, "attempt", None)
    given = config.with_accumulation_steps(2)
    assert prepare(given, *loaded, None, None).config is given


def test_numbers_end_with_one_row_at_a_time(config, loaded):
    pipeline, data = loaded
    *_, (parts, last) = candidates(pipeline, data.train.batches)
    assert parts in (16, 32, 64)
    assert last.largest_shape[0] == parts or parts == 64


def test_a_program_that_the_compiler_refuses_does_not_fit(config, loaded, monkeypatch):
    monkeypatch.setattr(microbatches, "attempt", attempts(None, counted=False, refused={1, 2}))
    assert prepare(config, *loaded, None, None).config.train.accumulation_steps == 4
    numbers = {2**n for n in range(9)}
    monkeypatch.setattr(microbatches, "attempt", attempts(GIB, refused=numbers))
    with pytest.raises(OutOfMemoryError, match=r"even with train\.accumulation_steps=") as raised:
        prepare(config, *loaded, None, None)
    assert "of 1.0 GiB (1.0 GiB of arguments, " in str(raised.value)
    assert "Use model.remat=full" in str(raised.value)


def test_hosts_use_a_number_that_fits_on_all_of_them(hosts, config, loaded, monkeypatch):  # noqa: F811
    def attempt(*arguments):
        return attempts((18 if jax.process_index() else 6) * GIB)(*arguments)

    monkeypatch.setattr(microbatches, "attempt", attempt)
    chosen = hosts(lambda host: prepare(config, *loaded, None, None))
    assert [ready.config.train.accumulation_steps for ready in chosen] == [4, 4]


def test_a_number_that_does_not_fit_is_an_error_with_one_that_does(config, tmp_path, monkeypatch):
    def too_large(*_):
        raise memory.TooLargeError(memory.Usage(13 * GIB, 6 * GIB, GIB))

    monkeypatch.setattr(programs, "start_train_step", lambda *_: too_large)
    monkeypatch.setattr(evaluator, "start_compiling", lambda *_: lambda: None)
    monkeypatch.setattr(microbatches, "attempt", attempts(6 * GIB))
    with pytest.raises(OutOfMemoryError) as raised:
        flaxbert.train(config.with_accumulation_steps(2), tmp_path / "run")
    text = str(raised.value)
    assert "each needs 13.0 of 6.0 GiB (1.0 GiB of arguments, 12.0 GiB of temporaries)." in text
    assert "Use train.accumulation_steps=4, which needs 4.0 of 6.0 GiB. Otherwise" in text
    assert not (tmp_path / "run" / "checkpoints" / "1").exists()


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "perf" not in k} for line in text]


@pytest.fixture
def programs_are_shared(monkeypatch):
    """Compile once for a number of rows; here it depends on the number of micro-batches."""
    start_compiling, kept = microbatches.start_compiling, {}

    def start(step, first, sizes, make_batch, compiled):
        known = {rows: kept[rows] for rows in sizes if rows in kept} | dict(compiled or {})
        finish = start_compiling(step, first, sizes, make_batch, known)

        def remember():
            ready = finish()
            kept.update(ready.programs)
            return ready

        return remember

    monkeypatch.setattr(microbatches, "start_compiling", start)


@pytest.mark.parametrize(
    ("capacity", "number", "programs"),
    [
        (2_800_000, 2, "programs_are_shared"),
        pytest.param(1_800_000, 4, "one_device", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_that_with_the_number_bit_by_bit_and_keeps_it(
    capacity, number, programs, config, tmp_path, monkeypatch, request
):
    request.getfixturevalue(programs)
    monkeypatch.setattr(memory, "capacity", lambda: capacity)
    begun, fixed = (config.with_accumulation_steps(n) for n in ("auto", number))
    begun.train.max_steps = 1  # may change on resume
    flaxbert.train(begun, tmp_path / "auto")
    compiled = map(json.loads, (tmp_path / "auto" / "compiles.jsonl").read_text().splitlines())
    shapes = [entry["shape"] for entry in compiled if entry["function"] == "train_step"]
    assert len(shapes) == len(set(shapes)) == number.bit_length()  # reused for the run
    written = json.loads((tmp_path / "auto" / "config.json").read_text())
    assert written["train"]["accumulation_steps"] == number
    flaxbert.train(fixed, tmp_path / "fixed")

    monkeypatch.setattr(memory, "capacity", lambda: None)  # where one micro-batch would fit
    resumed = flaxbert.train(config, tmp_path / "auto")
    assert resumed["step"] == 3
    saved = Checkpoints(tmp_path / "auto" / "checkpoints")
    assert saved.metadata(saved.latest_step()).config["train.accumulation_steps"] == number
    assert lines(tmp_path / "auto")[-1] == lines(tmp_path / "fixed")[-1]
    weights = [tmp_path / name / "export" / "model.safetensors" for name in ("auto", "fixed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    with pytest.raises(ConfigError, match=f"accumulation_steps: {number} there, 8 now"):
        flaxbert.train(config.with_accumulation_steps(8), tmp_path / "auto")

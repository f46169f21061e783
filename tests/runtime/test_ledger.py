"""The ledger has every program that is compiled or loaded; late ones are warnings."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxbert.runtime.compilation import start_compiling
from flaxbert.runtime.ledger import Ledger


def fresh(name: str):
    """Return a jitted function that JAX has not seen, so that it compiles."""

    def function(x):
        return x * 3 + 1

    function.__name__ = name
    return jax.jit(function)


@pytest.fixture
def empty_cache(tmp_path):
    """A cache of its own: that of the tests may have these programs already."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()


def test_program_is_compiled_once_and_then_loaded(empty_cache):
    argument = np.ones((2, 3), np.float32)
    with Ledger() as ledger:
        fresh("three")(argument)
        jax.clear_caches()  # as in another process
        fresh("three")(argument)
    assert [(e.function, e.shape, e.cached) for e in ledger.entries] == [
        ("three", "float32[2,3]", False),
        ("three", "float32[2,3]", True),
    ]
    assert ledger.summary() == f"1 programs compiled, 1 loaded from {empty_cache}"
    assert ledger.records()[1].keys() == {"function", "shape", "seconds", "cached"}
    assert ledger.late == []


def test_step_is_entered_with_the_shape_of_its_batch():
    def step_of_ledger(scale, batch):
        return scale * batch["input_ids"].sum() + batch["weight"].sum()

    def empty(rows):
        return {"input_ids": jnp.ones((rows, 4)), "weight": jnp.ones(rows)}

    with Ledger() as ledger:
        start_compiling(jax.jit(step_of_ledger), jnp.float32(2), [2, 8], empty)()
    shapes = {e.shape for e in ledger.entries if e.function == "step_of_ledger"}
    assert shapes == {"2 x 4", "8 x 4"}


def test_late_program_is_a_warning_with_its_shapes_and_its_line_of_code(caplog):
    caplog.set_level(logging.INFO, "flaxbert")
    with Ledger() as ledger:
        fresh("early")(np.ones(3, np.float32))
        assert not caplog.records
        with ledger.steady():
            fresh("late")(np.ones(5, np.float32))
    (entry,) = ledger.late
    assert entry.function == "late"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.match(
        r"the program late for float32\[5\] was (compiled|loaded) in \d+\.\d s while training was "
        r"running, and the device waited for it \(.*/tests/runtime/test_ledger\.py:\d+\)\. ",
        record.getMessage(),
    )


def test_programs_outside_of_the_ledger_are_not_entered():
    with Ledger() as ledger:
        pass
    fresh("outside")(np.ones(7, np.float32))
    assert ledger.entries == []

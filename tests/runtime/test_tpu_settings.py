"""JAX settings that the documentation recommends for TPUs reach the machine and work."""

import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from conftest import ROOT

from flaxbert.models.layers import dropout


def test_launcher_passes_jax_settings_on(tmp_path: Path) -> None:
    calls, gcloud = tmp_path / "calls", tmp_path / "gcloud"
    gcloud.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {calls}\necho READY\n')
    gcloud.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{"PROJECT": "p", "ZONE": "z", "NAME": "n"},
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "LIBTPU_INIT_ARGS": "--one=1 --two",
        "JAX_PLATFORMS": "cpu",  # for this machine only
    }
    environment.pop("JAX_DEFAULT_MATMUL_PRECISION", None)
    command = ["bash", str(ROOT / "launch/tpu_vm.sh"), "--config=c.py", "--workdir=w"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in calls.read_text().splitlines() if "flaxbert.run " in line]
    assert line.split()[:2] == ["env", "JAX_DEFAULT_PRNG_IMPL=rbg"]
    assert r"LIBTPU_INIT_ARGS=--one=1\ --two .venv/bin/python" in line
    assert "MATMUL" not in line
    assert "PLATFORMS" not in line


def test_dropout_works_with_the_hardware_random_generator() -> None:
    ones = jnp.ones((64, 129))
    with jax.default_prng_impl("rbg"):
        keys = [jax.random.fold_in(jax.random.key(3), step) for step in (0, 0, 1)]
        same, again, other = (np.asarray(dropout(ones, 0.25, key)) for key in keys)
    np.testing.assert_array_equal(same, again)
    assert (same != other).mean() > 0.3  # 2 * 0.25 * 0.75
    assert set(np.unique(same)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((same == 0).mean() - 0.25) < 0.02  # 4 standard deviations

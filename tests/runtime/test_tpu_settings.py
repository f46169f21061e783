"""JAX settings that the documentation recommends for TPUs reach the machine."""

import os
import subprocess
from pathlib import Path

from conftest import ROOT


def test_launcher_passes_jax_settings_on(tmp_path: Path) -> None:
    calls, gcloud = tmp_path / "calls", tmp_path / "gcloud"
    gcloud.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {calls}\necho READY\n')
    gcloud.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{"PROJECT": "p", "ZONE": "z", "NAME": "n"},
        "JAX_DEFAULT_MATMUL_PRECISION": "float32",
        "LIBTPU_INIT_ARGS": "--one=1 --two",
        "JAX_PLATFORMS": "cpu",  # for this machine only
    }
    environment.pop("JAX_DEFAULT_PRNG_IMPL", None)
    command = ["bash", str(ROOT / "launch/tpu_vm.sh"), "--config=c.py", "--workdir=w"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in calls.read_text().splitlines() if "flaxbert.run " in line]
    assert line.split()[:2] == ["env", "JAX_DEFAULT_MATMUL_PRECISION=float32"]
    assert r"LIBTPU_INIT_ARGS=--one=1\ --two .venv/bin/python" in line
    assert "PRNG" not in line
    assert "PLATFORMS" not in line

"""Page faults of programs in processes of their own: JAX must not have been used before."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from flaxbert.runtime import cpu_memory
cpu_memory.reuse()
import jax, jax.numpy as jnp
x = jnp.ones((5000, 16))
step = jax.jit(lambda x: jnp.sum((x @ x.T)[::-1] @ x))  # stores the product, 100 MB
faults = []
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults[10:])[10])
"""


def faults(**setting: str) -> int:
    """Return the median number of pages that the kernel clears for a call, after the first ten."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_CPU_ENABLE_ASYNC_DISPATCH"}
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, env=env | setting, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of Linux")
@pytest.mark.slow
def test_a_program_uses_the_memory_of_the_call_before() -> None:
    megabytes = 4096 / 1e6
    assert faults() * megabytes < 2
    assert faults(JAX_CPU_ENABLE_ASYNC_DISPATCH="1") * megabytes > 50  # as without `reuse`

"""Page faults of programs in processes of their own: JAX must not have been used before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flaxbert.runtime import cpu_memory

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

LARGE_PAGES = """
import pathlib, re
from flaxbert.runtime import cpu_memory
cpu_memory.reuse()
import jax, jax.numpy as jnp
array = jax.jit(lambda: jnp.ones(2**25))()  # 128 MB; NumPy would ask for large pages itself
text = pathlib.Path("/proc/self/smaps_rollup").read_text()
print(re.search(r"AnonHugePages: +(\\d+) kB", text)[1])
"""


def environment() -> dict[str, str]:
    """Return the environment without the variable that decides about keeping memory."""
    return {k: v for k, v in os.environ.items() if k != "JAX_CPU_ENABLE_ASYNC_DISPATCH"}


def large_pages(before: str = "") -> int:
    """Return the kilobytes in large pages of a process that has written an array of 128 MB."""
    command = ["bash", "-c", f'{before} exec "$0" -c "$1"', sys.executable, LARGE_PAGES]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return int(run.stdout)


def faults(**setting: str) -> int:
    """Return the median number of pages that the kernel clears for a call, after the first ten."""
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(
        command, env=environment() | setting, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


def small_pages_only() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return not setting.exists() or "[madvise]" not in setting.read_text()


@pytest.mark.skipif(small_pages_only(), reason="needs large pages for processes that ask for them")
def test_arrays_lie_in_large_pages() -> None:
    assert large_pages() > 100_000
    assert large_pages("ulimit -v 40000000;") < 50_000  # addresses are limited
    assert large_pages("ulimit -d 40000000;") < 50_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_nothing_is_reserved_where_linux_counts_memory_that_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "overcommit_memory"
    monkeypatch.setattr(cpu_memory, "OVERCOMMIT", setting)
    for value, counts in (("0\n", False), ("1\n", False), ("2\n", True)):
        setting.write_text(value)
        assert cpu_memory._ranges_count() == counts


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of Linux")
@pytest.mark.slow
def test_a_program_uses_the_memory_of_the_call_before() -> None:
    megabytes = 4096 / 1e6
    assert faults() * megabytes < 2
    assert faults(JAX_CPU_ENABLE_ASYNC_DISPATCH="1") * megabytes > 50  # as without `reuse`

"""Steps on CPUs that use the memory of the steps before.

A program on a CPU allocates its arrays anew each time, hundreds of megabytes. The C library asks
the kernel for memory of this size and returns it afterwards, and the kernel clears it page by page,
which takes an eighth of the time of a step. Only the memory of a process's first thread can be
kept, so programs have to run in the thread that starts them.
"""

import ctypes
import os
import sys
from typing import Any

import jax

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3): free memory above which some is returned, and the most
allocations that have a mapping of their own, which ends with them."""
NEVER = -1


def reuse() -> None:
    """Keep the memory of programs that ran, on CPUs with glibc.

    It has no effect if JAX was used before. JAX_CPU_ENABLE_ASYNC_DISPATCH in the environment
    decides instead, if it is set; with a true value no memory is kept.
    """
    config: Any = jax.config
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        config.update("jax_cpu_enable_async_dispatch", False)
    if config.read("jax_cpu_enable_async_dispatch") or jax.default_backend() != "cpu":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)

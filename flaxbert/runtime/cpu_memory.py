"""Reuse freed memory between steps on CPUs.

A program on a CPU allocates its arrays anew each time, hundreds of megabytes. The C library gets
memory of this size from the operating system and returns it afterwards, and clearing it again page
by page takes an eighth of the time of a step. It can be kept if programs run in the thread that
starts them.
"""

import ctypes
import os
import sys
from typing import Any

import jax

from flaxbert.runtime import devices

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3): free memory above which some is returned, and the most
allocations that have a mapping of their own, which ends with them."""
NEVER = -1


def reuse() -> None:
    """Keep the memory of programs that ran, on CPUs with glibc.

    Call it in a process that only trains or predicts, before JAX is used: the whole process keeps
    the memory that it frees. JAX_CPU_ENABLE_ASYNC_DISPATCH in the environment decides instead, if
    it is set; with a true value no memory is kept.
    """
    config: Any = jax.config
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        config.update("jax_cpu_enable_async_dispatch", False)
    if config.read("jax_cpu_enable_async_dispatch") or devices.platform() != "cpu":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)

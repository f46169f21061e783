"""Reuse freed memory between steps on CPUs, in large pages.

A program on a CPU allocates its arrays anew each time, hundreds of megabytes. The C library gets
memory of this size from the operating system and returns it afterwards, and clearing it again page
by page takes an eighth of the time of a step. It can be kept if programs run in the thread that
starts them.

Looking up where the pages of these arrays lie takes another tenth, because Linux divides memory
into pages of 4 KB unless a process asks for pages of 2 MB.
"""

import ctypes
import mmap
import os
import sys
from pathlib import Path
from typing import Any

import jax

from flaxbert.runtime import devices, hardware

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3): free memory above which some is returned, and the most
allocations that have a mapping of their own, which ends with them."""
NEVER = -1

LARGE_PAGE = 2**21
"""Bytes of a large page, and a multiple of the address at which one begins."""

OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
"""2: Linux lets processes allocate no more than there is, written or not."""


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
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
        _use_large_pages(libc)


def _use_large_pages(libc: Any) -> None:
    """Have malloc(3) return memory in large pages, up to half of what this process may use.

    The memory is allocated, advised and freed, so that the next allocations lie in it. Nothing is
    written to it, so until then it is only a range of addresses. Where a range counts as if it were
    used, pages stay small, as with a kernel that has no others.
    """
    if _ranges_count():
        return
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = (hardware.memory() or 0) // 2
    if size > LARGE_PAGE and (begin := libc.malloc(size)):
        first = -(-begin // LARGE_PAGE) * LARGE_PAGE
        libc.madvise(first, begin + size - first, mmap.MADV_HUGEPAGE)
        libc.free(begin)


def _ranges_count() -> bool:
    """Return whether memory counts before it is written: `ulimit -v` and -d, strict overcommit."""
    import resource  # Windows has none

    limits = resource.RLIMIT_AS, resource.RLIMIT_DATA
    if any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits):
        return True
    return OVERCOMMIT.exists() and OVERCOMMIT.read_text(encoding="ascii").strip() == "2"

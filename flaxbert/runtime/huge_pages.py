"""Memory in pages of 2 MiB on Linux.

A step on CPUs allocates its arrays anew, hundreds of megabytes, and the kernel fills them page by
page. With pages of 4 KiB that takes up to a sixth of the time of a step.
"""

import os
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Makes malloc ask for huge pages, since glibc 2.35 (its manual, "Memory Allocation Tunables")."""
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart() -> None:
    """Start this process again, with huge pages, where they exist and are not used yet.

    The C library reads the setting only when a process starts. A process that was started with
    GLIBC_TUNABLES, of any value, keeps it.
    """
    if sys.executable and (settings := environment()):
        os.environ.update(settings)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def environment() -> dict[str, str]:
    """Return the variable that gives huge pages to a new process; empty if nothing would change."""
    if TUNABLES in os.environ:
        return {}
    try:
        on_request = "[madvise]" in KERNEL.read_text()  # only processes that ask get them
    except OSError:
        return {}
    return {TUNABLES: HUGE_PAGES} if on_request else {}

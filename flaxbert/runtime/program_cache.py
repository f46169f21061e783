"""The directory of compiled programs, from which later processes load them.

JAX keeps programs on disk if `jax_compilation_cache_dir` is set. flaxbert sets it if neither the
program nor the environment (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE) has.
"""

import contextlib
import hashlib
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger("flaxbert")

MAX_BYTES = 2 * 2**30
"""Size above which the least recently used programs are deleted. A training step of MiniLM takes
0.7 MB on a CPU."""


def enable() -> None:
    """Keep compiled programs in `default_directory`, unless JAX is configured already.

    If the directory cannot be written, one line is logged, and programs are not kept.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    try:
        programs = default_directory()
        programs.mkdir(mode=0o700, parents=True, exist_ok=True)
        # JAX would warn about each program that it cannot write.
        tempfile.TemporaryFile(dir=programs).close()
        prune(programs.parent, MAX_BYTES)
    except (OSError, RuntimeError) as error:  # Path.home() raises a RuntimeError
        log.info(
            f"compiled programs are not kept for later runs: {error}. Set "
            "JAX_COMPILATION_CACHE_DIR to a directory that can be written."
        )
        return
    config.update("jax_compilation_cache_dir", str(programs))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # By default JAX keeps programs that take a second or longer. A start has many short ones.
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def directory() -> str | None:
    """Return the directory in use; None if programs are not kept."""
    config: Any = jax.config
    enabled = config.jax_enable_compilation_cache
    return config.jax_compilation_cache_dir or None if enabled else None


def default_directory() -> Path:
    """Return the directory for this machine's kind of processor, in the user's cache directory.

    XLA compiles for the processor that it runs on, and machines may share a home directory. On
    another kind, a program could end the process with an illegal instruction.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flaxbert" / "programs" / _processor()


def _processor() -> str:
    """Return a name for this kind of processor: its architecture and a hash of its features."""
    features = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = ("model name", "flags", "Features", "CPU part")  # the latter two on Arm
        features = "\n".join(sorted({line for line in lines if line.startswith(names)}))
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def prune(directory: Path, max_bytes: int) -> None:
    """Delete the least recently used files in a directory until the rest fits into `max_bytes`.

    JAX can limit the size itself. But then it reads the directory, under a lock, for every program,
    and stops writing for good after a process was killed between the two files of an entry.
    """
    files = []
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may delete too
            if path.is_file():
                files.append((path, path.stat()))
    files.sort(key=lambda item: max(item[1].st_atime, item[1].st_mtime))
    size = sum(status.st_size for _, status in files)
    for path, status in files:
        if size <= max_bytes:
            return
        path.unlink(missing_ok=True)
        size -= status.st_size

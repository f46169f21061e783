"""Arrays that grow by chunks: in memory as long as they are small, and then in files.

Text for pre-training, its tokens and the plan of their batches may be larger than memory. On POSIX
systems the files have no name, so they are gone when the process ends, however it ends. They are
written in the usual way, and mapped into memory only when they are complete: a write to a mapped
file would crash on a full disk.
"""

import logging
import tempfile
import weakref
from pathlib import Path
from typing import IO

import numpy as np

from flaxbert.errors import DataError

log = logging.getLogger("flaxbert")

TEMPORARY = "TMPDIR"
"""Stands for the directory of temporary files, which is only looked for when it is needed."""

IN_MEMORY = 8 * 2**20
"""Bytes of an array above which it is moved to a file."""


class GrowingArrays:
    """Arrays that grow by chunks, by name.

    In memory they grow in place. Chunks that are kept until the end and then joined need twice the
    memory, because the allocator does not give back what small arrays took.
    """

    def __init__(self, directory: Path | str | None = None) -> None:
        """Create a set without arrays.

        Args:
          directory: receives the files of arrays of more than `IN_MEMORY` bytes; created if it is
            absent. `TEMPORARY`, the directory of temporary files, replaces one that cannot be
            written. None keeps all arrays in memory.
        """
        self._directory = directory
        self._arrays: dict[str, np.ndarray] = {}
        self._sizes: dict[str, int] = {}
        self._files: dict[str, IO[bytes]] = {}

    def add(self, **chunk: np.ndarray) -> None:
        """Add the arrays of a chunk.

        Raises:
          DataError: if a file cannot be written.
        """
        for name, values in chunk.items():
            array = self._arrays.setdefault(name, np.empty(0, values.dtype))
            size = self._sizes.get(name, 0)
            end = size + len(values)
            self._sizes[name] = end
            if name in self._files:
                self._write(name, values)
            elif self._directory is not None and end * array.itemsize > IN_MEMORY:
                self._write(name, array[:size])
                self._write(name, values)
                self._arrays[name] = np.empty(0, values.dtype)
            else:
                if end > len(array):
                    array.resize(max(end, len(array) * 5 // 4), refcheck=False)
                array[size:end] = values

    def joined(self) -> dict[str, np.ndarray]:
        """Return whole arrays, those in files memory-mapped; nothing can be added after it."""
        for name, size in self._sizes.items():
            if name not in self._files:
                self._arrays[name].resize(size, refcheck=False)
                continue
            file, dtype = self._files[name], self._arrays[name].dtype
            # As a plain array: slicing a numpy.memmap is slow.
            self._arrays[name] = np.memmap(file, dtype, "r", shape=(size,)).view(np.ndarray)
            file.close()  # the mapping keeps the content
        return self._arrays

    def _write(self, name: str, values: np.ndarray) -> None:
        """Append values to the file of an array."""
        left = np.ascontiguousarray(values, self._arrays[name].dtype).data.cast("B")
        try:
            if name not in self._files:
                self._files[name] = self._open()
                weakref.finalize(self, self._files[name].close)  # an error may end the work early
            while left:  # a single write may store a part
                left = left[self._files[name].write(left) :]
        except OSError as error:
            raise DataError(
                f"{self._directory}: cannot store the temporary files of a large data set "
                f"({error.strerror or error}). Free space there, or name "
                "directories on a larger disk: --config.data.feature_cache, and TMPDIR in the "
                "environment."
            ) from None

    def _open(self) -> IO[bytes]:
        if isinstance(self._directory, Path):
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                return tempfile.TemporaryFile(buffering=0, dir=self._directory)
            except OSError as error:
                log.warning(f"{self._directory}: cannot be written ({error}); TMPDIR is used")
        self._directory = Path(tempfile.gettempdir())
        return tempfile.TemporaryFile(buffering=0, dir=self._directory)

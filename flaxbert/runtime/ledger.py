"""A ledger of the programs that a process compiles, or loads from the cache of JAX."""

import contextlib
import dataclasses
import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import jax

from flaxbert.errors import some
from flaxbert.runtime import files, multihost, program_cache

log = logging.getLogger("flaxbert")

COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's event for a program that was compiled, or loaded from its cache."""

LOADED = "/jax/compilation_cache/cache_hits"
"""JAX's event, just before and in the same thread, for one that was loaded."""

LIBRARIES = (Path(jax.__file__).parent, Path(contextlib.__file__).parent, Path(__file__))
"""Files that are not named as the cause of a compilation."""


@dataclasses.dataclass(frozen=True)
class Compilation:
    """One program that was compiled or loaded."""

    function: str
    """Name of the compiled function, such as train_step."""
    shape: str
    """The shape of its batch, or shapes and types of its arguments."""
    seconds: float
    """Time to compile or load it, without tracing."""
    cached: bool
    """Whether it was loaded from the cache."""


class _Local(threading.local):
    shape: str | None = None
    loaded = False


_local = _Local()


@contextlib.contextmanager
def shape(text: str) -> Iterator[None]:
    """Enter programs that this thread compiles in the block with a shape, such as "32 x 128"."""
    _local.shape = text
    try:
        yield
    finally:
        _local.shape = None


class Ledger:
    """All programs that the process compiles while this context manager is active.

    Attributes:
      entries: the programs, in the order in which they were ready.
      late: those of them that came in a `steady` block.
    """

    def __init__(self) -> None:
        self.entries: list[Compilation] = []
        self.late: list[Compilation] = []
        self._steady = False

    def __enter__(self) -> Self:
        jax.monitoring.register_event_listener(self._count)
        jax.monitoring.register_event_duration_secs_listener(self._enter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        jax.monitoring.unregister_event_listener(self._count)
        jax.monitoring.unregister_event_duration_listener(self._enter)

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Warn about every program that is compiled in the block: the device waits for it."""
        self._steady = True
        try:
            yield
        finally:
            self._steady = False

    def summary(self) -> str:
        """Return how many programs were compiled and loaded, for the log."""
        count = Counter(entry.cached for entry in self.entries)
        text = f"{count[False]} programs compiled, {count[True]} loaded"
        directory = program_cache.directory()
        return f"{text} from {directory}" if directory and count[True] else text

    def records(self) -> list[dict[str, Any]]:
        """Return the entries as JSON types, for compiles.jsonl."""
        return [dataclasses.asdict(entry) for entry in self.entries]

    def write(self, path: Path) -> None:
        """Write compiles.jsonl: the programs of this process so far; only the first host does."""
        with multihost.fail_together():
            if multihost.is_lead_host():
                files.write_jsonl(path, self.records())

    def _count(self, event: str, **_: str | int) -> None:
        if event == LOADED:
            _local.loaded = True

    def _enter(self, event: str, duration_secs: float, **details: str | int) -> None:
        if event != COMPILED:
            return
        cached, _local.loaded = _local.loaded, False
        function = str(details.get("fun_name")).removeprefix("jit(").removesuffix(")")
        frame = sys._getframe(1)
        arguments = _local.shape or _argument_shapes(frame)
        entry = Compilation(function, arguments, round(duration_secs, 3), cached)
        self.entries.append(entry)
        if self._steady:
            self.late.append(entry)
            log.warning(
                f"the program {function} for {arguments} was "
                f"{'loaded' if cached else 'compiled'} in {duration_secs:.1f} s while training was "
                f"running, and the device waited for it ({_caller(frame)}). Compute with numpy "
                "there, or call jax.jit with the same shapes before training begins."
            )


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _argument_shapes(frame: FrameType) -> str:
    """Return the arguments of the program that is compiled, such as `float32[8,64]`.

    JAX's events do not have them; they are a variable of the function that compiles.
    """
    for caller in _callers(frame):
        if (arguments := caller.f_locals.get("global_in_avals")) is not None:
            return some([argument.str_short() for argument in arguments], 4) or "no arguments"
    return "unknown arguments"


def _caller(frame: FrameType) -> str:
    """Return `file:line` of the code, outside of JAX, that needs the program."""
    for caller in _callers(frame):
        file = Path(caller.f_code.co_filename)
        if not any(file.is_relative_to(library) for library in LIBRARIES):
            return f"{file}:{caller.f_lineno}"
    return f"thread {threading.current_thread().name}"

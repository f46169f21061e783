"""Device memory: how much a program needs, how much there is, and which options reduce it."""

import contextlib
import dataclasses
import logging
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

from flaxbert.errors import OutOfMemoryError
from flaxbert.runtime import hardware

log = logging.getLogger("flaxbert")

FITTING = 0.95
"""The share of a device's memory that a chosen program may need. The rest is for batches that are
built in advance, other programs, and memory in pieces that are too small."""

FITTING_CPU = 0.75
"""The same on CPUs, whose memory also holds the data and other processes."""

PARTS = (
    "train.accumulation_steps=auto (computes a step in as many parts as it takes to fit, with the "
    "same result)"
)
SMALLER = (
    "model.remat=full (slower, with the same result), train.fsdp=-1 (several devices share "
    "parameters and moments), a lower train.batch_size, or a lower data.max_length (and "
    "data.row_length)"
)
TRAINING = f"{PARTS}, {SMALLER}"
PARAMETERS = (
    "train.fsdp=-1 (several devices share one copy of them), a smaller model, or devices with more "
    "memory"
)
EVALUATION = "a lower train.eval_batch_size, or a lower data.max_length (and data.row_length)"
PREDICTION = (
    "a lower train.eval_batch_size (in a server: --batch-size), or a lower data.max_length (and "
    "data.row_length)"
)

OTHER_NAMES = re.compile(r"CUDA_ERROR_OUT_OF_MEMORY|CU(BLAS|DNN)_STATUS_ALLOC_FAILED")
"""What libraries for GPUs report instead of RESOURCE_EXHAUSTED."""

KERNEL_SPACE = re.compile(r"memory space (?!hbm)")
"""A TPU's memory of a single kernel, such as vmem. No option of a run makes a kernel smaller."""

COUNTED = re.compile(
    r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"
    r"|Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"
)
"""The total of a program that does not fit, and the memory of a chip, as the compilers of two
releases of libtpu report them. The newer one says "HLO temporaries", but counts arguments too."""

UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T"))}


@dataclasses.dataclass(frozen=True)
class Usage:
    """The memory of a program on each device, in bytes, as the compiler counted it."""

    total: int
    """Arguments, outputs and temporaries; outputs that reuse an argument's memory count once."""
    capacity: int | None = None
    """Memory of the device; None if it is unknown."""
    arguments: int | None = None
    """Memory of the arguments alone; None if it is unknown."""

    @classmethod
    def of(cls, program: Any) -> "Usage | None":
        """Return the usage of a compiled program; None if its compiler counts nothing."""
        try:
            sizes = program.memory_analysis()
            return cls(_peak(sizes), capacity(), int(sizes.argument_size_in_bytes))
        except Exception:  # some platforms have no analysis, and each says so in its own way
            return None

    @classmethod
    def of_arrays(cls, tree: Any) -> "Usage":
        """Return the usage of arrays alone, or of shapes with shardings."""
        return cls(bytes_on_device(tree), capacity())

    @property
    def too_large(self) -> bool:
        """Whether the program needs more than a device has, so that it cannot run."""
        return self.capacity is not None and self.total > self.capacity

    @property
    def fits(self) -> bool:
        """Whether the program leaves enough memory free; True if the capacity is unknown."""
        share = FITTING_CPU if jax.default_backend() == "cpu" else FITTING
        return self.capacity is None or self.total <= share * self.capacity

    def scaled(self, share: float) -> "Usage":
        """Return an estimate for a share of the rows: only the arguments stay the same."""
        arguments = self.arguments or 0
        total = arguments + math.ceil(share * (self.total - arguments))
        return dataclasses.replace(self, total=total)

    @property
    def parts(self) -> str:
        """The figures that the total consists of, for messages; "" if they are unknown."""
        if self.arguments is None:
            return ""
        rest = max(0, self.total - self.arguments)
        return f" ({gib(self.arguments)} GiB of arguments, {gib(rest)} GiB of temporaries)"

    def __str__(self) -> str:
        """Return `9.1 of 15.7 GiB`."""
        whole = "" if self.capacity is None else f" of {gib(self.capacity)}"
        return f"{gib(self.total)}{whole} GiB"


class TooLargeError(OutOfMemoryError):
    """A program needs more memory than a device has; nothing has run."""

    def __init__(self, usage: Usage | None):
        super().__init__(f"out of device memory: {usage or 'the program does not fit'}.")
        self.usage = usage


def gib(count: int) -> str:
    """Return a number of bytes in GiB, for messages; small ones with more digits."""
    size = count / 2**30
    return f"{size:.1f}" if size >= 0.95 or not count else f"{size:.2g}"


def needed_bytes(program: Any) -> int:
    """Return the peak of a compiled program's memory on each device, as the compiler counted it.

    It is the sum of arguments, outputs and temporaries, without the outputs that take the place of
    an argument.
    """
    return _peak(program.memory_analysis())


def _peak(sizes: Any) -> int:
    needed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return int(needed + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes)


def bytes_on_device(tree: Any) -> int:
    """Return the bytes of arrays, or of shapes with shardings, on each device."""

    def size(leaf: Any) -> int:
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        return math.prod(shape) * int(leaf.dtype.itemsize)

    return sum(map(size, jax.tree.leaves(tree)))


def capacity() -> int | None:
    """Return the memory of each device of this host in bytes; None if it is unknown.

    CPUs state no limit; their devices share the memory of the machine, or of the container.
    """
    with contextlib.suppress(Exception):  # some platforms report nothing
        if limit := (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit"):
            return int(limit)
    machine = hardware.memory() if jax.default_backend() == "cpu" else None
    return None if machine is None else machine // jax.local_device_count()


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error means that a device is out of memory."""
    if isinstance(error, TooLargeError):
        return True
    text = str(error)
    exhausted = "RESOURCE_EXHAUSTED" in text or OTHER_NAMES.search(text)
    return bool(
        isinstance(error, jax.errors.JaxRuntimeError)
        and exhausted
        and not KERNEL_SPACE.search(text)
    )


def usage_in(error: BaseException, arguments: Any = None) -> Usage | None:
    """Return the usage of the program that an error is about; None if the error has no figures.

    Args:
      error: an error of JAX, or a `TooLargeError`.
      arguments: the program's arguments, whose size is added to what the error says.
    """
    if isinstance(error, TooLargeError):
        return error.usage
    if (match := COUNTED.search(str(error))) is None:
        return None
    found = [part for part in match.groups() if part is not None]
    total, limit = (round(float(n) * UNITS[unit]) for n, unit in (found[:2], found[2:]))
    return Usage(total, limit, None if arguments is None else bytes_on_device(arguments))


@contextlib.contextmanager
def explain_exhaustion(
    what: str,
    options: str,
    shape: tuple[int, int] | None = None,
    *,
    arguments: Any = None,
    usage: Usage | None = None,
    advise: Callable[[Usage | None], str] | None = None,
) -> Iterator[None]:
    """Raise an error that names the options to change where device memory is exhausted.

    Args:
      what: the operation, such as "training".
      options: the options that reduce its memory.
      shape: (rows, tokens per row) of its largest batch; None if it has no batches.
      arguments: the arrays that its programs receive, or their shapes.
      usage: the memory of its largest program, unless the error itself states it.
      advise: returns an option with a value that fits, such as "train.accumulation_steps=4, which
        needs 9.1 of 15.7 GiB", or "", for the usage that is known.

    Raises:
      OutOfMemoryError: if a device is out of memory, when compiling or later, or if a compiled
        program needs more than the device has.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, TooLargeError) as error:
        if not is_exhausted(error):
            raise
        counted = usage_in(error, arguments) or usage
        size = "" if shape is None else f" in batches of up to {shape[0]} rows x {shape[1]} tokens"
        need = "" if counted is None else f": each needs {counted}{counted.parts}"
        reason = ""
        if not isinstance(error, TooLargeError):
            reason = f" ({str(error).strip().splitlines()[0][:200]})"
        fitting = ""
        with contextlib.suppress(Exception):  # the error at hand is the one to report
            fitting = advise(counted) if advise else ""
        fix = f"Use {fitting}. Otherwise use {options}." if fitting else f"Use {options}."
        raise OutOfMemoryError(
            f"out of device memory while {what}{size} on {jax.device_count()} device(s){need}"
            f"{reason}. {fix}"
        ) from error


def smaller_batch(key: str, size: int, least: int, usage: Usage | None) -> str:
    """Return a batch size that fits by estimate, such as `train.eval_batch_size=16, which needs
    about 5.1 of 15.7 GiB`; "" if none does, or if too little is known.

    Args:
      key: the configuration key of the batch size.
      size: the batch size that does not fit.
      least: the smallest batch size that is useful, that of one row on each device.
      usage: the memory of the program.
    """
    if usage is None or usage.arguments is None or usage.capacity is None:
        return ""
    tried = size // 2
    while tried >= max(1, least):
        estimate = usage.scaled(tried / size)
        if estimate.fits:
            return f"{key}={tried}, which needs about {estimate}"
        tried //= 2
    return ""


def require(usage: Usage | None) -> None:
    """Check that a device has the memory that is needed, as far as both are known.

    Raises:
      TooLargeError: if it has less.
    """
    if usage is not None and usage.too_large:
        raise TooLargeError(usage)


def check(usage: Usage | None, rows: int) -> None:
    """Check that a program fits, and log how much memory it needs where devices state a limit.

    Args:
      usage: of the program; None if it is unknown.
      rows: the rows of its batches.

    Raises:
      TooLargeError: if it needs more than a device has.
    """
    require(usage)
    if usage is not None and usage.capacity is not None and jax.default_backend() != "cpu":
        log.info(f"the program for batches of {rows} rows needs {usage} of device memory")

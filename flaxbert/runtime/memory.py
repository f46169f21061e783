"""Device memory: how much a program needs, and which options reduce it."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import jax

from flaxbert.errors import OutOfMemoryError

log = logging.getLogger("flaxbert")

TRAINING = (
    "train.accumulation_steps=2 or more (computes a step in parts, with the same result), "
    "model.remat=full (slower, with the same result), a lower train.batch_size, or a lower "
    "data.max_length (and data.row_length)"
)
PARAMETERS = "a smaller model, or devices with more memory: each holds all parameters"
EVALUATION = "a lower train.eval_batch_size, or a lower data.max_length (and data.row_length)"


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error means that a device is out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


@contextlib.contextmanager
def explain_exhaustion(
    what: str, options: str, shape: tuple[int, int] | None = None
) -> Iterator[None]:
    """Raise an error that names the options to change where JAX reports exhausted memory.

    Args:
      what: the operation, such as "training".
      options: the options that reduce its memory.
      shape: (rows, tokens per row) of its largest batch; None if it has no batches.

    Raises:
      OutOfMemoryError: if a device is out of memory, when compiling or later.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_exhausted(error):
            raise
        size = "" if shape is None else f" in batches of up to {shape[0]} rows x {shape[1]} tokens"
        first_line = str(error).strip().splitlines()[0]
        raise OutOfMemoryError(
            f"out of device memory while {what}{size} on {jax.device_count()} device(s) "
            f"({first_line[:200]}). Use {options}."
        ) from error


def log_usage(program: Any, rows: int) -> None:
    """Log how much device memory a compiled program needs, if the platform reports a limit."""
    with contextlib.suppress(Exception):  # some platforms report neither, and nothing needs it
        limit = (jax.local_devices()[0].memory_stats() or {})["bytes_limit"]
        sizes = program.memory_analysis()
        needed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        needed += sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
        log.info(
            f"the program for batches of {rows} rows needs {needed / 2**30:.1f} of "
            f"{limit / 2**30:.1f} GiB of device memory"
        )

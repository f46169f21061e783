"""Device memory: what a program takes, and what to change where there is too little."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import jax

from flaxbert.data.batching import Batches
from flaxbert.errors import OutOfMemoryError

log = logging.getLogger("flaxbert")

TRAINING = (
    "train.accumulation_steps=2 or more (computes a step in parts, with the same result), "
    "model.remat=full (slower, with the same result), a lower train.batch_size, or a lower "
    "data.max_length (and data.row_length)"
)
PARAMETERS = "a smaller model, or devices with more memory: each holds all parameters"
EVALUATION = "a lower train.eval_batch_size, or a lower data.max_length (and data.row_length)"


def exhausted(error: BaseException) -> bool:
    """Return whether an error means that a device has too little memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


@contextlib.contextmanager
def explained(what: str, options: str, batches: Batches | None = None) -> Iterator[None]:
    """Turn JAX's error about device memory into one that says what to change.

    Args:
      what: the operation, such as "training".
      options: reduce the memory that it takes.
      batches: what it is done with, if with batches.

    Raises:
      OutOfMemoryError: if a device has too little memory, when compiling or later.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not exhausted(error):
            raise
        size = (
            ""
            if batches is None
            else (
                f" in batches of up to {max(batches.bucket_sizes)} rows x "
                f"{batches.row_length} tokens"
            )
        )
        first = str(error).strip().splitlines()[0]
        raise OutOfMemoryError(
            f"out of device memory while {what}{size} on {jax.device_count()} device(s) "
            f"({first[:200]}). Use {options}."
        ) from error


def report(program: Any, rows: int) -> None:
    """Log what a compiled program takes of a device's memory, where the device has a limit."""
    with contextlib.suppress(Exception):  # not every platform can tell, and nothing depends on it
        limit = (jax.local_devices()[0].memory_stats() or {})["bytes_limit"]
        sizes = program.memory_analysis()
        taken = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        taken += sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
        log.info(
            f"the program for batches of {rows} rows takes {taken / 2**30:.1f} of "
            f"{limit / 2**30:.1f} GiB of device memory"
        )

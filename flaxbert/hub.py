"""The client of the Hugging Face Hub, without its warnings about retries."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("flaxbert")


@contextlib.contextmanager
def fetching(what: str) -> Iterator[None]:
    """Log what is fetched, and silence the client's warnings about every retry."""
    log.info(f"{what}: fetching from the Hugging Face Hub or its cache")
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def commit_of(directory: Path) -> str | None:
    """Return the commit that a directory of the client's cache is named after; None elsewhere."""
    return directory.name if re.fullmatch("[0-9a-f]{40}", directory.name) else None


def reason(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

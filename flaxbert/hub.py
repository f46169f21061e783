"""The Hugging Face Hub's client, made to report a failure once and in one line."""

import contextlib
import logging
from collections.abc import Iterator

log = logging.getLogger("flaxbert")


@contextlib.contextmanager
def fetching(what: str) -> Iterator[None]:
    """Say what is fetched; keep the client's warnings about every retry off the screen."""
    log.info(f"{what}: from the Hugging Face Hub or its cache")
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def reason(error: Exception) -> str:
    """First line of an error's message, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

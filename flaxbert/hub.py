"""The client of the Hugging Face Hub, without its warnings about retries."""

import contextlib
import importlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger("flaxbert")


@contextlib.contextmanager
def fetching(what: str) -> Iterator[None]:
    """Log what is fetched; silence warnings about every retry, and bars except on a terminal."""
    # It re-exports these functions without saying so, which type checkers refuse.
    bars: Any = importlib.import_module("huggingface_hub.utils")
    log.info(f"{what}: fetching from the Hugging Face Hub or its cache")
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    quiet = not sys.stderr.isatty() and not bars.are_progress_bars_disabled()
    if quiet:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        client.setLevel(level)
        if quiet:
            bars.enable_progress_bars()


def commit_of(directory: Path) -> str | None:
    """Return the commit that a directory of the client's cache is named after; None elsewhere."""
    return directory.name if re.fullmatch("[0-9a-f]{40}", directory.name) else None


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def explain(repo: str, error: BaseException) -> str | None:
    """Return what is wrong and how to fix it, for failures that the user can fix; else None.

    Args:
      repo: the id of the model, or of the data set as datasets/ID.
      error: what the client raised, with its causes.
    """
    from huggingface_hub import constants, errors

    causes = list(chain(error))
    text = " ".join(map(str, causes))  # datasets drops the causes of its own errors

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    token = "HF_TOKEN gives no access to it" if _has_token() else "HF_TOKEN is not set"
    statuses = {getattr(getattr(c, "response", None), "status_code", None) for c in causes}
    if caused_by(errors.GatedRepoError) or "is a gated dataset" in text:
        return (
            f"it is gated, and {token}. Accept its terms at "
            f"{constants.ENDPOINT}/{repo}, and set HF_TOKEN to a token of your account"
        )
    if caused_by(errors.RevisionNotFoundError) or "Revision '" in text:
        return "it has no such branch, tag or commit"
    absent = caused_by(errors.RepositoryNotFoundError) or "exist on the Hub or cannot" in text
    if absent or statuses & {401, 403}:
        return (
            f"there is no such repository, or it is private and {token}. Create a token at "
            f"{constants.ENDPOINT}/settings/tokens, and set HF_TOKEN to it"
        )
    uncached = caused_by(errors.LocalEntryNotFoundError, ConnectionError, FileNotFoundError)
    if caused_by(errors.OfflineModeIsEnabled) or (uncached and is_offline()):
        return (
            f"HF_HUB_OFFLINE is set, and it is not in the cache {constants.HF_HUB_CACHE}. Unset "
            "HF_HUB_OFFLINE to download it once, or copy the cache of another machine"
        )
    return None


def is_offline() -> bool:
    """Return whether the client must not use the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__

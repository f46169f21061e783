"""The features of a data set: from the cache, or tokenized, by several hosts each a share."""

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxbert.data import feature_cache, sharing
from flaxbert.data.checks import Example
from flaxbert.data.features import Features
from flaxbert.data.tokenization import Tokenizer
from flaxbert.messages.language import tr
from flaxbert.pipeline.feature_key import feature_key
from flaxbert.runtime import multihost
from flaxbert.runtime.exchange import Exchange
from flaxbert.runtime.progress import Progress
from flaxbert.tasks.base import Task

log = logging.getLogger("flaxbert")

LEAST_TEXTS = 4096
"""Data sets with fewer texts are not shared. One host tokenizes them in about a second; before the
first exchange the hosts connect their devices and compile a program, which takes as long."""


def features_of(
    task: Task,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    cache: Path | None,
    *,
    labeled: bool,
    shared: str | None = None,
) -> Features:
    """Return the features of examples, from the cache if it holds them.

    Args:
      task: makes the features.
      examples: examples of the task.
      tokenizer: the tokenizer of the checkpoint.
      cache: the directory of the cache; None to use none.
      labeled: whether the examples have labels.
      shared: the name of the data set, if all hosts of a run call this for the same one. They then
        share the work, and have the features that one host alone would have. None shares nothing.

    Raises:
      DataError: see `Task.featurize`.
      HostsError: if it has failed on another host, with the message and exit code of that host.
    """
    together = shared is not None and multihost.connected()
    with multihost.fail_together() if together else contextlib.nullcontext():
        large = together and _is_large(examples)
        key = None
        if cache is not None or large:
            key = feature_key(task, examples, tokenizer, labeled=labeled)
        entry = None if cache is None or key is None else cache / key
        stored = feature_cache.load(entry) if entry is not None else None
    divided = together and _divide(str(shared), key if large else None, stored is not None)
    if stored is not None and not divided:
        return stored
    with _among_hosts(str(shared)) if divided else contextlib.nullcontext():
        features = task.featurize(examples, tokenizer, labeled=labeled)
    if stored is not None:
        return stored
    return features if entry is None else feature_cache.save(entry, features)


def _is_large(examples: Iterable[Example]) -> bool:
    """Return whether examples have at least `LEAST_TEXTS` texts."""
    counts = itertools.accumulate(len(example.texts) for example in examples)
    return any(count >= LEAST_TEXTS for count in counts)


def _divide(source: str, key: str | None, stored: bool) -> bool:
    """Return whether the hosts share the work; the same on all of them.

    A host whose cache holds the features takes part too: the others wait for its share.

    Args:
      source: the name of the data set.
      key: the key of its features on this host; None if they cannot be shared.
      stored: whether this host's cache holds them.
    """
    hosts = [json.loads(text) for text in multihost.all_gather(json.dumps([key, stored]))]
    keys = [key for key, _ in hosts]
    if all(stored for _, stored in hosts) or None in keys:
        return False
    if len(set(keys)) > 1:
        if multihost.is_lead_host():
            log.info(
                f"{source}: each host tokenizes all texts, because the hosts do not have the same "
                "examples from the same places"
            )
        return False
    return True


@contextlib.contextmanager
def _among_hosts(source: str) -> Iterator[None]:
    """Share the texts that are tokenized in the block among all hosts, and log the progress."""
    index, count = multihost.place()
    done, last = 0, time.monotonic()

    def report(texts: int) -> None:
        nonlocal done, last
        done += texts
        if index == 0 and time.monotonic() - last > Progress.SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info(
                tr(
                    "{source}: {done} texts tokenized, on each of {count} hosts a share",
                    source=source,
                    done=str(done),
                    count=str(count),
                )
            )

    exchange = Exchange(index, count, multihost.gather_array)
    peers = sharing.Peers(index, count, exchange.gather, report)
    with exchange.fail_together(), sharing.among(peers):
        yield

"""Prediction for inputs of any size, part by part.

A part is some thousand rows. While the devices compute one, a thread reads and tokenizes the next.
Each finished part is a file (`runtime/parts.py`), so memory does not grow with the input, and a
command that was stopped continues. All parts have the batch shapes of the first, so that few
programs are compiled, and so that its predictions do not depend on where a command was stopped.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from flaxbert.data.batching import Batches
from flaxbert.data.table import Table
from flaxbert.pipeline.datasets import Dataset, read_examples, stream_tables
from flaxbert.pipeline.evaluator import Evaluator
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.predict_step import PredictStep, StepOutputs, make_predict_step
from flaxbert.pipeline.predictor import Predictor
from flaxbert.pretrained import mapping
from flaxbert.runtime import memory, multihost
from flaxbert.runtime.compilation import start_compiling
from flaxbert.runtime.mirror import Workdir
from flaxbert.runtime.parts import Parts
from flaxbert.runtime.workdir import flatten
from flaxbert.types import Batch, Params

T = TypeVar("T")

ROWS = 8192
"""Rows of a part: their features take some hundred megabytes at most, and their texts less."""

INPUT_KEYS = ("data.predict", "data.feature_cache")
"""Keys that no prediction depends on, given the rows."""


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What `predict` has written."""

    count: int
    """Predictions in the file."""
    malformed: int
    """Rows that were left out."""
    commit: str | None
    """The commit of a hub data set."""
    examples: Sequence[Any]
    """Those of the first part."""
    predictions: Sequence[dict[str, Any]]
    """Those of the first part; empty on all hosts but the first."""


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """The rows of a part, tokenized unless its predictions exist."""

    number: int
    digest: str
    commit: str | None
    data: Dataset | None


def predict(predictor: Predictor, place: Workdir, name: str) -> Predicted:
    """Write predictions for `data.predict`, in its order; call it on all hosts.

    A command that was stopped continues with the first part that is not finished.

    Args:
      predictor: the model and the configuration.
      place: the workdir, which also receives the parts.
      name: of the file, in JSON lines.

    Raises:
      ConfigError: if `data.predict` is not set.
      DataError, HubError: if it cannot be read.
      DivergedError: for outputs that are not finite.
      HostsError: if the hosts have different rows.
    """
    parts = Parts.open(place, _key(predictor))
    programs, count = _Programs(predictor), 0
    commit: str | None = None
    examples: Sequence[Any] = ()
    for part in _agreed(_ahead(_prepared(predictor, parts)), predictor):
        if part.number == 0 and part.data is not None:
            commit, examples = part.commit, part.data.examples
        if part.data is not None and not parts.holds(part.number, part.digest):
            evaluator = Evaluator(
                predictor.pipeline, part.data, step=programs.step(part.data.batches)
            )
            predictions = evaluator.stream(predictor.params)
            if multihost.is_lead_host():
                parts.add(part.number, part.digest, predictions, part.data.malformed)
            else:
                collections.deque(predictions, maxlen=0)  # all hosts' devices compute each batch
        count += 1
    shown: Sequence[dict[str, Any]] = ()
    with multihost.fail_together():
        if multihost.is_lead_host():
            shown = parts.read(0)
            parts.join(count, place.local / name)
    place.upload()
    if multihost.is_lead_host():
        parts.delete()
    return Predicted(parts.records, parts.malformed, commit, examples, shown)


def _key(predictor: Predictor) -> dict[str, Any]:
    """Return everything but the rows that predictions depend on."""
    config = flatten(predictor.config.to_dict())
    return {
        "config": {name: value for name, value in config.items() if name not in INPUT_KEYS},
        "weights": predictor.digests or mapping.digests(predictor.params),
        "task": predictor.pipeline.task.hf_config(),  # labels and thresholds
        "rows of a part": ROWS,
    }


def _prepared(predictor: Predictor, parts: Parts) -> Iterator[_Prepared]:
    """Read the rows part by part; tokenize the first part, and those that are not finished."""
    first: Batches | None = None
    for number, table in enumerate(stream_tables(predictor.config.data, "predict", ROWS)):
        data: Dataset | None = None
        if first is None:
            data = _tokenize(predictor, table, stored=len(table.rows) < ROWS)
            first = data.batches
        digest = _digest(table, first)
        if data is None and not parts.holds(number, digest):
            data = _tokenize(predictor, table, like=first)
        yield _Prepared(number, digest, table.commit, data)


def _tokenize(
    predictor: Predictor, table: Table, *, like: Batches | None = None, stored: bool = False
) -> Dataset:
    config = predictor.config
    return predictor.pipeline.tokenize_in_order(
        table,
        read_examples(config.task, table, config.data, config.options, labeled=False),
        batch_size=config.train.eval_batch_size,
        labeled=False,
        most=config.data.max_examples,
        like=like,
        stored=stored,
    )


def _digest(table: Table, first: Batches) -> str:
    """Return the hash of the rows, and of the shapes, on which rounding depends."""
    shapes = first.row_length, first.slots, first.bucket_sizes
    digest = hashlib.sha256(repr(shapes).encode())
    for row in table.rows:
        digest.update(repr(row.values).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items, while a thread makes the next one."""
    with concurrent.futures.ThreadPoolExecutor(1, "prepare") as thread:
        pending = thread.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = thread.submit(next, items, None)
            yield item


def _agreed(parts: Iterator[_Prepared], predictor: Predictor) -> Iterator[_Prepared]:
    """Yield parts, after a check that all hosts have the same.

    Raises:
      HostsError: if they differ, or if reading has failed on another host.
    """
    while True:
        with multihost.fail_together():
            part = next(parts, None)
        if multihost.is_multihost():
            seen: dict[str, Any] = {"rows of data.predict": part and (part.number, part.digest)}
            if part is not None and part.data is not None:
                seen["examples"] = part.data.fingerprint(predictor.pipeline.task.labels)
                seen["rows of a step"] = list(part.data.batches.bucket_sizes)
            multihost.agree(seen)
        if part is None:
            return
        yield part


class _Programs:
    """The compiled steps of all batch shapes, each of which is compiled once."""

    def __init__(self, predictor: Predictor):
        self._params, self._mesh = predictor.params, predictor.pipeline.mesh
        parts = predictor.pipeline.model, predictor.pipeline.task, self._mesh
        self._jitted = make_predict_step(*parts, labeled=False)
        self._steps: dict[tuple[Any, ...], PredictStep] = {}

    def step(self, batches: Batches) -> PredictStep:
        """Return a step for the shapes of batches."""
        shape = batches.row_length, batches.slots, batches.features.grouped
        missing = [rows for rows in batches.bucket_sizes if (*shape, rows) not in self._steps]
        if missing:
            empty = Loader(batches, self._mesh, ahead=0).empty
            what = "compiling an evaluation", memory.EVALUATION, batches.largest_shape
            with memory.explain_exhaustion(*what):
                compiled = start_compiling(self._jitted, self._params, missing, empty)()
            self._steps |= {(*shape, rows): compiled for rows in missing}

        def step(params: Params, batch: Batch) -> StepOutputs:
            return self._steps[(*shape, batch.input_ids.shape[0])](params, batch)

        return step

"""What a server serves: a predictor behind a queue, and the state of both."""

import dataclasses
import enum
import logging
import platform
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import numpy as np

from flaxbert.errors import DataError
from flaxbert.pipeline.predictor import Predictor
from flaxbert.runtime import devices, hardware
from flaxbert.server.batcher import Batcher, Results
from flaxbert.server.forms import form_of
from flaxbert.server.metrics import Metrics

log = logging.getLogger("flaxbert")

VERSIONS = ("flaxbert", "jax", "transformers")
"""Packages whose versions `GET /v1/model` names."""


MOST_NAMES = 8
"""Labels that the message of the command names."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
      batch_size: the most inputs, and sequences of tokens, that are computed together.
      wait_ms: milliseconds that an input waits for others.
      queue: the most inputs that wait.
      seconds: the longest time for a response, from the end of the request's body.
      body_bytes: the largest body of a request.
      body_seconds: the longest time for headers, and again for a body, to arrive.
      inputs: the most inputs of a request.
      characters: the longest text.
    """

    batch_size: int = 32
    wait_ms: float = 2.0
    queue: int = 1024
    seconds: float = 30.0
    body_bytes: int = 2**20
    body_seconds: float = 10.0
    inputs: int = 128
    characters: int = 20_000

    @property
    def most_inputs(self) -> int:
        """The most inputs of a request, which must fit in the queue."""
        return min(self.inputs, self.queue)


class State(enum.Enum):
    """The state of a service."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclasses.dataclass(frozen=True)
class Key:
    """What inputs of one batch have in common."""

    work: Literal["predict", "tokens"]
    top_k: int = 1


class Service:
    """A predictor that answers the requests of a server.

    One thread uses the tokenizer and the devices: neither is safe to share between threads.

    Attributes:
      name: the model's name for people.
      predictor: the predictor.
      limits: the limits.
      form: the forms of inputs and predictions.
      metrics: counts and times.
      state: what the service does now.
    """

    def __init__(self, name: str, predictor: Predictor, limits: Limits):
        """Create a service; it answers after `prepare`.

        Raises:
          ConfigError: if the task does not predict for texts.
        """
        self.name, self.predictor, self.limits = name, predictor, limits
        self.form = form_of(predictor.pipeline.task, characters=limits.characters)
        self.state = State.STARTING
        self._changing = threading.RLock()  # a signal may come in `stop`
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.ready)
        self.batcher = Batcher(
            self._compute,
            size=limits.batch_size,
            wait=limits.wait_ms / 1000,
            capacity=limits.queue,
            observe=self.metrics.batch,
        )

    def prepare(self) -> None:
        """Compile all programs; the service is ready then, unless it stops already."""
        samples, size = self.form.samples, self.limits.batch_size
        count = self.predictor.compile(samples, batch_size=size)
        log.info(f"compiled {count} programs")
        with self._changing:  # another thread may stop the service
            if self.state is State.STARTING:
                self.state = State.READY

    def prepare_in_background(self, done: Callable[[Exception | None], None]) -> None:
        """Call `prepare` in a thread, and then `done` with its error, or None."""

        def run() -> None:
            try:
                self.prepare()
            except Exception as error:
                done(error)
            else:
                done(None)

        threading.Thread(target=run, name="compile", daemon=True).start()

    def stop(self) -> None:
        """Accept no further requests; those in the queue are answered."""
        with self._changing:
            self.state = State.STOPPING

    @property
    def ready(self) -> bool:
        """Whether requests are answered now."""
        return self.state is State.READY and self.batcher.alive

    def close(self) -> None:
        """Stop, and end the thread once the queue is empty."""
        self.stop()
        self.batcher.close(self.limits.seconds)

    def submit(self, key: Key, inputs: Sequence[Any]) -> Results:
        """Add inputs, as the predictor takes them, to the queue; see `Batcher.submit`."""
        return self.batcher.submit(key, inputs)

    @property
    def label_names(self) -> Sequence[str]:
        """The names of the first labels, and the number of the others, for people."""
        names = self.predictor.pipeline.task.labels
        more = len(names) - MOST_NAMES
        return [*names[:MOST_NAMES], *([f"{more} more labels"] if more > 0 else [])]

    def describe(self) -> dict[str, Any]:
        """Return the model, its task and the limits, as `GET /v1/model` does."""
        pipeline, config = self.predictor.pipeline, self.predictor.config
        installed = {name: hardware.version(name) for name in VERSIONS}
        versions = {name: version for name, version in installed.items() if version}
        return {
            "model": self.name,
            "task": pipeline.task_name,
            "labels": list(pipeline.task.labels),
            "max_length": config.data.max_length,
            "devices": devices.summary(),
            "dtype": config.model.dtype,
            "limits": {
                "inputs": self.limits.most_inputs,
                "characters": self.limits.characters,
                "body_bytes": self.limits.body_bytes,
                "seconds": self.limits.seconds,
            },
            "versions": {"python": platform.python_version()} | versions,
        }

    def _compute(self, key: Hashable, inputs: list[Any]) -> Sequence[Any]:
        """Return the result for each of some inputs; called in the batcher's thread."""
        assert isinstance(key, Key)
        examples, features = self.predictor.tokenize(inputs)
        if key.work == "tokens":
            return [_tokens(self.predictor, features, n) for n in range(len(inputs))]
        self._require_compiled(features)
        self.metrics.tokens(int(features.lengths.sum()))
        return self.predictor.answer(examples, features, top_k=key.top_k)

    def _require_compiled(self, features: Any) -> None:
        """Check that no input needs more rows at once than were compiled.

        Raises:
          DataError: for a text of too many windows that share a score, or too many choices.
        """
        counts, most = np.diff(features.feature_start), self.limits.batch_size
        if counts.max(initial=0) > most:
            index = int(features.example_index[features.feature_start[counts.argmax()]])
            raise DataError(
                f"inputs:{index + 1}: it has {counts.max()} windows or choices, of which at most "
                f"{most} are computed together. Shorten it, or start the server with a larger "
                "--batch-size."
            )


def _tokens(predictor: Predictor, features: Any, example: int) -> dict[str, Any]:
    """Return the tokens of an example: a list for each of its sequences."""
    tokenizer = predictor.pipeline.tokenizer
    sequences = []
    for sequence in np.flatnonzero(features.example_index == example).tolist():
        arrays = features.tokens_of(sequence)
        ids = arrays["input_ids"].tolist()
        types = arrays["token_type_ids"].tolist() if "token_type_ids" in arrays else [0] * len(ids)
        names = tokenizer.convert_ids_to_tokens(ids)
        sequences.append(
            [
                {"token": name, "id": number, "type": kind}
                for name, number, kind in zip(names, ids, types, strict=True)
            ]
        )
    return {"sequences": sequences, "truncated": example in features.truncated}

"""The side of KerasHub on JAX in `compare.py`; it classifies texts, padded to data.max_length."""

import json
import math
import os
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import rates
import turns
from turns import Work


def train(connection: Connection, side: str, directory: str, began: float) -> None:
    """Train in turns; see `compare_torch.train`. The weights are not written.

    Raises:
      ValueError: for another task, or part of an epoch.
    """
    del side
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # sides share a device
    settings = json.loads((Path(directory) / "settings.json").read_text(encoding="utf-8"))
    if settings["architecture"] != "BertForSequenceClassification":
        raise ValueError("KerasHub has no such task for BERT: only classification of texts.")
    if settings["epochs"] % 1:
        raise ValueError(f"train.epochs={settings['epochs']}: keras needs a whole number")
    import jax
    import jax.numpy as jnp
    import keras
    import keras_hub

    if settings["dtype"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(settings["seed"])
    rate = {} if settings["dropout"] is None else {"dropout": settings["dropout"]}
    backbone = keras_hub.models.BertBackbone.from_preset(settings["weights"], **rate)
    classifier = keras_hub.models.BertTextClassifier(
        backbone, num_classes=len(settings["labels"]), preprocessor=None, **rate
    )
    # The same network without KerasHub's `fit`, which needs TensorFlow for its input.
    model = keras.Model(classifier.inputs, classifier.outputs[0])
    model.compile(
        optimizer=make_optimizer(settings),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    data = make_data(settings, Path(directory) / "data.npz")

    class TakeTurns(keras.callbacks.Callback):
        turn: turns.Turns | None = None

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.logs = logs
            work = data.work.popleft()
            if self.turn is None:
                self.wait()
                startup = time.time() - began
                size = 2048 if jax.default_backend() == "cpu" else 8192
                matrix = jnp.ones((size, size), settings["dtype"])
                multiply = jax.jit(jnp.matmul)
                peak = rates.best_rate(lambda: multiply(matrix, matrix).block_until_ready(), size)
                connection.send({"startup_seconds": startup, "matrix_peak": peak})
                self.turn = turns.Turns(connection, settings["steps"] - 1, self.wait)
            else:
                self.turn.end(work)
            if not self.turn.begin():
                self.model.stop_training = True

        def wait(self) -> None:
            float(self.logs["loss"])

    model.fit(data, epochs=math.ceil(settings["epochs"]), verbose=0, callbacks=[TakeTurns()])
    stats = jax.local_devices()[0].memory_stats() or {}
    connection.send({"peak_memory": stats.get("peak_bytes_in_use", rates.peak_rss())})
    connection.send({"exported": False})


def make_optimizer(settings: dict[str, Any]) -> Any:
    """Return AdamW with the run's schedule, decay and clipping."""
    import keras

    optim, steps = settings["optim"], settings["steps"]
    warmup = optim["warmup"] if optim["warmup"] >= 1 else math.ceil(optim["warmup"] * steps)

    class Linear(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            step = keras.ops.cast(step, "float32")
            rise = step / max(1, warmup)
            fall = (steps - step) / max(1, steps - warmup)
            return optim["learning_rate"] * keras.ops.minimum(rise, fall)

    optimizer = keras.optimizers.AdamW(
        Linear(),
        weight_decay=optim["weight_decay"],
        beta_1=optim["b1"],
        beta_2=optim["b2"],
        epsilon=optim["eps"],
        global_clipnorm=optim["clip_norm"] or None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def make_data(settings: dict[str, Any], file: Path) -> Any:
    """Return the batches of an epoch as `fit` takes them, in another order in each epoch."""
    import keras

    arrays = dict(np.load(file))
    lengths, width = arrays["lengths"].astype(np.int64), settings["max_length"]
    inside = np.arange(width) < lengths[:, None]
    rows = {"padding_mask": inside.astype(np.int32)}
    for name, source in (("token_ids", "input_ids"), ("segment_ids", "token_type_ids")):
        rows[name] = np.zeros(inside.shape, np.int32)
        rows[name][inside] = arrays[source]
    size = settings["batch_size"]

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.work: deque[Work] = deque()
            self._random = np.random.default_rng(settings["seed"])
            self.on_epoch_end()

        def __len__(self) -> int:
            return math.ceil(len(lengths) / size)

        def on_epoch_end(self) -> None:
            self._order = self._random.permutation(len(lengths))

        def __getitem__(self, index: int) -> Any:
            members = self._order[index * size : (index + 1) * size]
            sizes = lengths[members]
            sums = int(sizes.sum()), len(members) * width, int((sizes**2).sum())
            self.work.append(Work(1, len(members), *sums))
            inputs = {name: values[members] for name, values in rows.items()}
            return inputs, arrays["label"][members]

    return Batches()

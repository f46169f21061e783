"""The side of flaxbert in `compare.py`."""

import dataclasses
import json
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import rates
import turns
from turns import Work


def train(
    connection: Connection, argv: list[str], equal: str, directory: str, began: float
) -> None:
    """Write the data for the other sides, then train in turns.

    Args:
      connection: the end of a pipe to the parent.
      argv: the command line.
      equal: "ROWSxLENGTH" for batches without padding; "" for the batches of a run.
      directory: receives the data and the trained weights.
      began: the time at which the process was started.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # sides share a device
    import jax
    import jax.numpy as jnp
    from training_data import open_training_data

    from flaxbert.pipeline.loader import Loader
    from flaxbert.runtime import cpu_memory, program_cache
    from flaxbert.runtime.compilation import start_compiling
    from flaxbert.training import optim, state
    from flaxbert.training.data import tokenize
    from flaxbert.training.step import step_of_run

    config = parse(argv, equal)
    program_cache.enable()  # as in a run
    cpu_memory.reuse()
    imported = time.time()
    pipeline, sources = open_training_data(config)
    batches = tokenize(pipeline, sources, config.train).train.batches
    if equal:
        features = equal_lengths(batches.features, config.data.max_length, len(batches.features))
        batches = pipeline.batches(features, batch_size=config.train.batch_size, seed=0)
    tokenized = time.time()
    features = batches.features
    if features.grouped or config.train.microbatches > 1:
        raise ValueError(
            "the other sides take batches of single sequences, without micro-batches. Choose "
            "another task, or leave train.accumulation_steps at 1."
        )
    facts = write_data(Path(directory), config, pipeline, features, batches.steps)
    connection.send({"tokenize_seconds": tokenized - imported, **facts})
    written = time.time()

    optimizer, _ = optim.make_optimizer(config.optim, batches.steps)
    now = state.init_state(
        pipeline.load_params(seed=config.train.seed), optimizer, pipeline.mesh,
        pipeline.task.loss_names,
    )  # fmt: skip
    parts = pipeline.model, pipeline.task, pipeline.mesh
    train_step = step_of_run(*parts, optimizer, now, train=config.train, optim=config.optim)
    lengths, row_length = features.lengths.astype(np.int64), batches.row_length
    with Loader(batches, pipeline.mesh) as loader:
        step = start_compiling(train_step, now, batches.bucket_sizes, loader.empty)()
        taken: Any = None

        def take(number: int) -> Work:
            nonlocal now, taken
            batch = loader.batch(number)
            now, taken = step(now, batch)
            members = lengths[batches.step_features(number)]
            places = batch.input_ids.shape[0] * row_length
            sums = int(members.sum()), places, int((members**2).sum())
            return Work(1, len(members), *sums)

        take(0)
        jax.block_until_ready(taken)
        startup = time.time() - began - (written - imported)
        size = 2048 if jax.default_backend() == "cpu" else 8192
        matrix = jnp.ones((size, size), pipeline.model.config.dtype)
        multiply = jax.jit(jnp.matmul)
        peak = rates.best_rate(lambda: multiply(matrix, matrix).block_until_ready(), size)
        connection.send({"startup_seconds": startup, "matrix_peak": peak})

        number = 1
        turn = turns.Turns(connection, batches.steps - 1, lambda: jax.block_until_ready(taken))
        while turn.begin():
            turn.end(take(number))
            number += 1
    stats = jax.local_devices()[0].memory_stats() or {}
    connection.send({"peak_memory": stats.get("peak_bytes_in_use", rates.peak_rss())})
    if number == batches.steps:
        pipeline.export(now.params, Path(directory) / "flaxbert")
    connection.send({"exported": number == batches.steps})


def evaluate(connection: Connection, argv: list[str], weights: str) -> None:
    """Send the metrics of trained weights on `data.eval`, in the precision of training."""
    from flaxbert.pipeline.predictor import Predictor

    config = parse(argv, "")
    config.model.init = weights
    with tempfile.TemporaryDirectory() as workdir:
        predictor = Predictor.from_config(config, Path(workdir), {"model.init"})
        data, _ = predictor.read(predictor.config.data, "eval")
        connection.send(predictor.run(data).metrics)


def parse(argv: list[str], equal: str) -> Any:
    """Return the configuration of a command line, with the shapes of `equal`."""
    from flaxbert.commands import args

    config = args.parse([*argv, "--workdir=unused"], "").config
    if equal:
        config.train.batch_size, config.data.max_length = map(int, equal.split("x"))
        config.data.row_length, config.train.epochs = config.data.max_length, 1.0
    return config


def equal_lengths(features: Any, length: int, count: int) -> Any:
    """Return `count` sequences of `length` tokens, cut from the tokens of a data set."""
    per_token = {
        name: np.resize(values, count * length) for name, values in features.per_token.items()
    }
    places = dict.fromkeys(features.token_indices, 1) | {"cls_position": 0}
    return dataclasses.replace(
        features,
        lengths=np.full(count, length, np.int32),
        per_token=per_token,
        token_indices={name: np.full(count, place, np.int32) for name, place in places.items()},
        per_sequence={
            name: np.resize(values, (count, *values.shape[1:]))
            for name, values in features.per_sequence.items()
        },
        example_index=np.arange(count),
        feature_index=np.arange(count),
    )


def write_data(
    directory: Path, config: Any, pipeline: Any, features: Any, steps: int
) -> dict[str, Any]:
    """Write features and settings for sides that do not import flaxbert; return the facts."""
    arrays = {"lengths": features.lengths, **features.per_token, **features.token_indices}
    np.savez(directory / "data.npz", **arrays, **features.per_sequence)
    encoder = pipeline.model.config
    facts = {
        "weights": str(pipeline.directory),
        "architecture": pipeline.model.architecture,
        "labels": list(pipeline.task.labels),
        "problem_type": pipeline.task.problem_type,
        "dropout": config.model.dropout,
        "dtype": encoder.dtype,
        "max_length": config.data.max_length,
        "batch_size": config.train.batch_size,
        "epochs": config.train.epochs,
        "steps": steps,
        "seed": config.train.seed,
        "log_every": config.train.log_every,
        "optim": dataclasses.asdict(config.optim),
        "hidden_size": encoder.hidden_size,
        "intermediate_size": encoder.intermediate_size,
        "layers": encoder.num_hidden_layers,
    }
    (directory / "settings.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts

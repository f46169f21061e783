"""Measure the error of gradients in bfloat16, for every tensor.

    python benchmarks/gradients.py --config=configs/squad.py [--config.KEY=VALUE ...]

Computes the gradient of the task's loss on a batch of real data twice, in float32 at full precision
and with model.dtype=bfloat16, without dropout, on one device: once for `train.batch_size` features,
and once for as many features as hold 24,000 tokens. The larger batch also measures the other
families of encoders, with new weights and the sizes of the checkpoint. For each group of tensors,
prints the largest |bfloat16 - float32| / |float32| (Euclidean norms) and the name of its tensor. A
tensor passes if its error is at most twice the largest error of a kernel, the cost of matrix
products alone. The bias of keys is left out, since its true gradient is zero.
"""

import dataclasses
import sys
from typing import Any

import command
import jax
import numpy as np
from training_data import open_training_data

from flaxbert.commands import args
from flaxbert.config import Config
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.model import Model
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.training.step import make_loss
from flaxbert.types import Batch, Params

TOKENS = 24_000
GROUPS = ("word", "position", "token_type", "bias", "scale", "kernel", "head")


def main() -> None:
    """Print a table for each encoder and batch; exit with 1 if a tensor's error is too large."""
    arguments = args.parse(sys.argv, __doc__ or "", flags=())
    config = arguments.config
    pipeline, sources = open_training_data(config)
    table, examples = sources.train.table, pipeline.task.resolve(sources.train.examples)
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform}, {device.device_kind}")
    failed = False
    batches = {}
    for tokens in (0, TOKENS):
        batch = make_batch(pipeline, config, examples, table.source, tokens)
        batches[f"{int((batch.segment_ids > 0).sum())} tokens"] = batch
    encoders: dict[str, tuple[Any, Params]] = {
        f"{pipeline.model.config.model_type}, {config.model.init}": (
            pipeline.hf_config,
            pipeline.load_params(),
        )
    }
    for name in FAMILIES:
        if name not in (
            "xlm-roberta",
            pipeline.model.config.model_type,
        ):  # the same encoder as roberta
            hf_config = sized(name, pipeline.model.config)
            model = Model.create(read_config(hf_config), pipeline.task.make_head)
            encoders[f"{name}, new weights"] = hf_config, model.init(0)
    for number, (encoder, (hf_config, params)) in enumerate(encoders.items()):
        for size, batch in list(batches.items())[number > 0 :]:
            print(f"\n{encoder}: rows {batch.input_ids.shape}, {size}")
            failed |= not report(errors(pipeline, hf_config, params, batch))
    sys.exit(int(failed))


def sized(name: str, like: Any) -> dict[str, Any]:
    """Return a config.json of another family with the same sizes."""
    sizes = {
        "vocab_size": like.vocab_size,
        "hidden_size": like.hidden_size,
        "num_hidden_layers": like.num_hidden_layers,
        "num_attention_heads": like.num_attention_heads,
        "intermediate_size": like.intermediate_size,
        "max_position_embeddings": like.max_position_embeddings + 2,
    }
    narrow = {"embedding_size": 128} if name in ("albert", "electra") else {}
    theirs = {
        "distilbert": {
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
        }
    }.get(name, {})
    return {"model_type": name, **{theirs.get(k, k): v for k, v in sizes.items()}, **narrow}


def make_batch(
    pipeline: Pipeline, config: Config, examples: Any, source: str, tokens: int
) -> Batch:
    """Return the arrays of one step: `train.batch_size` features, or those with `tokens` tokens."""
    size = config.train.batch_size
    if tokens:
        _, features = pipeline.featurize(examples, source, labeled=True)
        size = int(np.searchsorted(np.cumsum(features.sizes), tokens)) + 1
    data = pipeline.tokenize(
        examples, source, batch_size=size, labeled=True, seed=config.train.seed
    )
    batches = dataclasses.replace(data.batches, steps=1, data_parallelism=1)
    return batches.build(batches.padded_rows(0))


def errors(pipeline: Pipeline, hf_config: Any, params: Params, batch: Batch) -> dict[str, float]:
    """Return the relative error of each tensor's gradient, by its path."""
    gradients = []
    for dtype in ("float32", "bfloat16"):
        model = Model.create(read_config(hf_config, dtype=dtype), pipeline.task.make_head)
        gradient = jax.jit(jax.grad(make_loss(model, pipeline.task), has_aux=True))
        with jax.default_matmul_precision("float32" if dtype == "float32" else "default"):
            gradients.append(jax.device_get(gradient(params, batch, None)[0]))
    exact, rounded = map(jax.tree_util.tree_leaves_with_path, gradients)
    norm = np.sqrt(sum(np.sum(array.astype(np.float64) ** 2) for _, array in exact))
    result = {}
    for (path, array), (_, other) in zip(exact, rounded, strict=True):
        size = np.linalg.norm(array.astype(np.float64))
        if size > 1e-6 * norm:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            result[name] = float(np.linalg.norm(other.astype(np.float64) - array) / size)
    return result


def report(tensor_errors: dict[str, float]) -> bool:
    """Print the largest error of each group; return whether all are near those of kernels."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in tensor_errors:
        parts = name.split("/")
        groups[next(g for g in GROUPS[::-1] if g in parts)].append(name)
    kernels = max(tensor_errors[name] for name in groups["kernel"])
    for group, names in groups.items():
        if names:
            worst = max(names, key=lambda name: tensor_errors[name])
            mark = "" if tensor_errors[worst] <= 2 * kernels else "  <- more than twice a kernel's"
            print(f"  {group:10} {tensor_errors[worst]:.4f}  {worst}{mark}")
    return max(tensor_errors.values()) <= 2 * kernels


if __name__ == "__main__":
    command.run(main)

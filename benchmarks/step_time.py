"""Compare the time of a training step with PyTorch's, on the same examples.

    python benchmarks/step_time.py --config=configs/quickstart.py [--config.KEY=VALUE ...]

Needs the extra `parity` (pip install -e '.[parity]'). Both sides fine-tune the same checkpoint on
this machine's CPU or accelerator with AdamW, clipping and dropout, in float32 or, with
model.dtype=bfloat16, in bfloat16 (PyTorch under autocast). PyTorch runs the model of transformers
on batches that are padded to their longest text, as its Trainer does. Blocks of steps alternate,
A B A B, so that a noisy machine slows down both. The result is the ratio of the medians.
"""

import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import transformers

from flaxbert.commands import args
from flaxbert.config import Config, validate
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime.compilation import compile_buckets
from flaxbert.tasks import TASKS
from flaxbert.training import optim, state
from flaxbert.training.data import read_sources, tokenize
from flaxbert.training.step import make_train_step

BLOCKS, STEPS = 4, 3


def main() -> None:
    """Print both medians, their ratio, and the share of padding on either side."""
    arguments = args.parse([*sys.argv, "--workdir=unused"], __doc__ or "")
    config = arguments.config
    validate(config, TASKS)
    config.data.eval = None
    sources = read_sources(config.task, config.data, config.options)
    sections = config.task, config.model, config.data, config.options
    pipeline = Pipeline.build(*sections, train=sources.train.examples)
    batches = tokenize(pipeline, sources, config.train).train.batches
    members = [batches.step_features(step) for step in range(BLOCKS * STEPS)]
    ours = flaxbert_step(config, pipeline, batches)
    theirs = torch_step(config, pipeline, batches.features)
    ours(0), theirs(members[0])  # compile, warm up
    times: dict[str, list[float]] = {"flaxbert": [], "torch": []}
    for block in range(BLOCKS):
        for name in ("flaxbert", "torch"):
            for step in range(block * STEPS, (block + 1) * STEPS):
                start = time.perf_counter()
                ours(step) if name == "flaxbert" else theirs(members[step])
                times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    lengths = batches.features.lengths
    padded = sum(lengths[m].max() * len(m) for m in members)
    for name, seconds in medians.items():
        print(
            f"{name:9} {seconds:7.3f} s a step, {config.train.batch_size / seconds:6.1f} features/s"
        )
    print(f"flaxbert / torch step time {medians['flaxbert'] / medians['torch']:.2f}")
    print(f"padding: flaxbert {batches.padding_share():.3f}, ", end="")
    print(f"padded to the longest {1 - sum(lengths[m].sum() for m in members) / padded:.3f}")


def flaxbert_step(config: Config, pipeline: Pipeline, batches: Batches) -> Callable[[int], None]:
    """Return a function that takes a compiled step and waits for its result."""
    optimizer, _ = optim.make_optimizer(config.optim, 1000)
    task, mesh = pipeline.task, pipeline.mesh
    now = state.init_state(pipeline.load_params(), optimizer, mesh, task.loss_names)
    # Built when asked for, as PyTorch's: the time of a step includes that of its batch.
    loader = Loader(batches, mesh, ahead=0)
    train = config.train

    step = compile_buckets(
        make_train_step(
            pipeline.model,
            task,
            optimizer,
            now,
            mesh,
            accumulation_steps=train.accumulation_steps,
            seed=train.seed,
            log_every=train.log_every,
        ),
        now,
        batches.bucket_sizes,
        loader.empty,
    )
    holder = [now]

    def run(number: int) -> None:
        holder[0], report = step(holder[0], loader.batch(number))
        jax.block_until_ready(report)

    return run


def torch_step(
    config: Config, pipeline: Pipeline, features: Features
) -> Callable[[np.ndarray], None]:
    """Return a function that takes the same step in PyTorch."""
    kind = getattr(transformers, pipeline.model.architecture)
    labels = {"num_labels": len(pipeline.task.labels)} if pipeline.task.labels else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = kind.from_pretrained(pipeline.directory, **labels).to(device).train()
    decayed = [p for n, p in model.named_parameters() if n.endswith("weight") and "Norm" not in n]
    others = [
        p for n, p in model.named_parameters() if not (n.endswith("weight") and "Norm" not in n)
    ]
    settings = config.optim
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, eps=settings.eps)
    spans = "start" in features.token_indices
    narrow = config.model.dtype == "bfloat16"

    def run(members: np.ndarray) -> None:
        width = int(features.lengths[members].max())
        arrays = {
            name: np.zeros((len(members), width), np.int64)
            for name in ("input_ids", "token_type_ids", "attention_mask")
        }
        for row, member in enumerate(members):
            begin, length = features.sequence_start[member], features.lengths[member]
            for name in ("input_ids", "token_type_ids"):
                arrays[name][row, :length] = features.per_token[name][begin : begin + length]
            arrays["attention_mask"][row, :length] = 1
        if spans:
            arrays["start_positions"] = features.token_indices["start"][members].astype(np.int64)
            arrays["end_positions"] = features.token_indices["end"][members].astype(np.int64)
        else:
            arrays["labels"] = features.per_sequence["label"][members].astype(np.int64)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()

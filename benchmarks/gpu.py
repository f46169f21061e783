"""Check and time the training step on one NVIDIA GPU, next to PyTorch: at most eight minutes.

    python benchmarks/gpu.py [--json=FILE] [--minutes=8] [--tokens=12288]
    JAX_PLATFORMS=cpu python benchmarks/gpu.py --smoke

Needs PyTorch and transformers (pip install -e '.[cuda,parity]'); no data and no weights: models are
initialized on the machine. --smoke runs everything with tiny models, on a CPU too, to check the
script itself; its times mean nothing.

First, parity: loss and gradients of a BERT with two layers of BERT-base's width, without dropout,
against PyTorch on the same device. In float32 at full precision a gradient may differ by 1e-4 of
the largest value of its tensor, the loss by 1e-5. In bfloat16 both libraries are compared with
PyTorch's float32. The error is |difference| / |gradient| (Euclidean norms over all tensors), and
flaxbert's may be at most twice PyTorch's, whose autocast keeps the residual stream in float32. Then
the kernels for attention are compared with plain attention, and both are timed; see
attention_ways.py.

Then BERT-base and -large with an output layer for question answering, in bfloat16, dropout 0.1,
with 128, 384 and 512 tokens a row and no padding. PyTorch is the model of transformers with SDPA
attention and no mask, torch.compile, autocast to bfloat16 and fused AdamW. Both clip gradients.
Blocks of steps alternate, A B A B. While one library compiles, so may the other; nothing compiles
while times are measured. A case that does not fit into the remaining time is left out, and named.

Columns: milliseconds a step (median over blocks), rows per second, TFLOP/s of the matrix products
of the encoder, their share of PEAK and of the best rate of a large product measured before, and the
time divided by PyTorch's (median over pairs of blocks).

The command fails if a parity check fails.
"""

import argparse
import concurrent.futures
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the device

import attention_ways
import jax
import jax.numpy as jnp
import numpy as np
import rates
import torch
import transformers

from flaxbert.config import DataConfig, OptimConfig
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.pretrained import mapping
from flaxbert.runtime import sharding
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.training.step import make_loss, make_train_step
from flaxbert.types import Batch

PEAK = 989e12
"""Operations per second of an H100 or H200 (SXM) in bfloat16, without sparsity."""

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CASES = [  # the most important first: time may run out
    ("base", BASE, 384),
    ("base", BASE, 128),
    ("base", BASE, 512),
    ("large", LARGE, 384),
    ("large", LARGE, 512),
    ("large", LARGE, 128),
]
ROUNDS, STEPS = 7, 6

TASK = QuestionAnswering(DataConfig(), QuestionAnswering.options_type())
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Print the parity checks and the table; exit with 1 if a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tokens", type=int, default=12_288)
    parser.add_argument("--smoke", action="store_true")
    flags = parser.parse_args()
    deadline = time.monotonic() + 60 * flags.minutes
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    result: dict[str, Any] = {"device": name, "jax_device": jax.devices()[0].device_kind}
    result["versions"] = {
        library.__name__: library.__version__ for library in (jax, torch, transformers)
    }
    print(", ".join(f"{k} {v}" for k, v in result["versions"].items()), "on", name, flush=True)
    if DEVICE == "cpu" and not flags.smoke:
        sys.exit("PyTorch finds no CUDA device; --smoke checks the script without one.")
    result["parity"] = parity(TINY if flags.smoke else BASE | {"num_hidden_layers": 2})
    result["parity"] += attention_ways.parity(smoke=flags.smoke)
    result["attention"] = attention_ways.measure(flags.tokens, smoke=flags.smoke)
    size = 512 if flags.smoke else 8192
    result["matrix_peak"] = {"flaxbert": jax_peak(size), "torch": torch_peak(size)}
    print({k: f"{v / 1e12:.1f} TFLOP/s" for k, v in result["matrix_peak"].items()}, flush=True)
    cases, tokens = CASES, flags.tokens
    if flags.smoke:
        cases, tokens = [("tiny", TINY, 16)], 64
    result["cases"] = run_cases(cases, tokens, deadline, result["matrix_peak"], smoke=flags.smoke)
    if flags.json:
        flags.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(check["passed"] for check in result["parity"]) else "parity failed")


def full_config(sizes: dict[str, int], dropout: float = 0.1) -> dict[str, Any]:
    """Return a parsed config.json of a BERT of the given sizes."""
    config = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512, **sizes}
    config |= {"type_vocab_size": 2, "intermediate_size": 4 * sizes["hidden_size"]}
    return config | dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)


def random_arrays(rows: int, length: int) -> dict[str, np.ndarray]:
    """Return rows without padding, each one sequence with an answer."""
    rng = np.random.default_rng(0)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    return {
        "input_ids": rng.integers(1000, 30000, (rows, length)).astype(np.int32),
        "token_type_ids": (positions >= length // 4).astype(np.int32),
        "position_ids": positions,
        "segment_ids": np.ones((rows, length), np.int32),
        "cls_position": np.zeros((rows, 1), np.int32),
        "sequence_index": np.arange(rows, dtype=np.int32)[:, None],
        "weight": np.ones((rows, 1), np.float32),
        "start": rng.integers(1, length, (rows, 1)).astype(np.int32),
        "end": rng.integers(1, length, (rows, 1)).astype(np.int32),
    }


def torch_inputs(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the arrays as transformers takes them; without a mask, since nothing is padding."""
    inputs = {name: arrays[name] for name in ("input_ids", "token_type_ids")}
    inputs |= {f"{name}_positions": arrays[name][:, 0] for name in ("start", "end")}
    return {name: torch.tensor(a, dtype=torch.int64, device=DEVICE) for name, a in inputs.items()}


# --- parity --------------------------------------------------------------------------------------


def parity(sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Compare loss and gradients with PyTorch's; return and print the results."""
    config = full_config(sizes, dropout=0.0)
    arrays = random_arrays(4, 32 if DEVICE == "cpu" else 384)
    model = Model.create(read_config(config), TASK.make_head)
    params = model.init(0)
    with tempfile.TemporaryDirectory() as directory:
        mapping.save(model, jax.tree.map(np.asarray, params), Path(directory))
        (Path(directory) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        module = transformers.BertForQuestionAnswering.from_pretrained(directory).to(DEVICE)
    torch.set_float32_matmul_precision("highest")
    losses, gradients = {}, {}
    for dtype in ("float32", "bfloat16"):
        losses["flaxbert", dtype], gradients["flaxbert", dtype] = our_gradients(
            config, params, arrays, dtype
        )
        module.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = module(**torch_inputs(arrays)).loss
        loss.backward()
        losses["torch", dtype] = loss.item()
        gradients["torch", dtype] = {
            name: p.grad.float().cpu().numpy() for name, p in module.named_parameters()
        }
    expected, expected_loss = gradients["torch", "float32"], losses["torch", "float32"]
    norm = norm_of(expected)

    exact = max(
        float(np.abs(gradients["flaxbert", "float32"][name] - value).max())
        / max(float(np.abs(value).max()), 1e-4 * norm)
        for name, value in expected.items()
    )
    rounded = {
        library: norm_of(
            {name: gradients[library, "bfloat16"][name] - expected[name] for name in expected}
        )
        / norm
        for library in ("flaxbert", "torch")
    }
    loss_error = abs(losses["flaxbert", "float32"] / expected_loss - 1)
    checks = [
        {"check": "float32 loss", "error": loss_error, "allowed": 1e-5},
        {"check": "float32 gradients", "error": exact, "allowed": 1e-4},
        {
            "check": "bfloat16 gradients",
            "error": rounded["flaxbert"],
            "allowed": 2 * rounded["torch"],
        },
    ]
    for check in checks:
        check["passed"] = bool(check["error"] <= check["allowed"])
        print("parity: {check}: error {error:.2e}, allowed {allowed:.2e}".format(**check), end="")
        print("" if check["passed"] else "  FAILED", flush=True)
    return checks


def norm_of(tensors: dict[str, np.ndarray]) -> float:
    """Return the Euclidean norm of all tensors together."""
    return float(np.sqrt(sum(float(np.vdot(value, value)) for value in tensors.values())))


def our_gradients(
    config: dict[str, Any], params: Any, arrays: dict[str, np.ndarray], dtype: str
) -> tuple[float, dict[str, np.ndarray]]:
    """Return the loss, and the gradients by their names in transformers."""
    model = Model.create(read_config(config, dtype=dtype), TASK.make_head)
    gradient = jax.jit(jax.value_and_grad(make_loss(model, TASK), has_aux=True))
    with jax.default_matmul_precision("float32" if dtype == "float32" else "default"):
        (loss, _), tree = gradient(params, Batch.from_arrays(arrays), None)
    names = mapping.hf_names(model)
    by_name = {}
    for path, value in mapping.flatten(tree).items():
        array = np.asarray(value)
        by_name[names[path]] = array.T if path.endswith("kernel") else array
    return float(loss), by_name


# --- speed ---------------------------------------------------------------------------------------


def jax_peak(size: int) -> float:
    """Return the best rate of a matrix product in JAX, in operations per second."""
    matrix = jnp.ones((size, size), jnp.bfloat16)
    multiply = jax.jit(jnp.matmul)
    return rates.best_rate(lambda: multiply(matrix, matrix).block_until_ready(), size)


def torch_peak(size: int) -> float:
    """Return the best rate of a matrix product in PyTorch, in operations per second."""
    matrix = torch.ones(size, size, dtype=torch.bfloat16, device=DEVICE)

    def multiply() -> None:
        matrix @ matrix
        wait()

    return rates.best_rate(multiply, size)


def wait() -> None:
    """Wait until PyTorch's work on the GPU is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def run_cases(
    cases: list[tuple[str, dict[str, int], int]],
    tokens: int,
    deadline: float,
    peaks: dict[str, float],
    *,
    smoke: bool,
) -> list[dict[str, Any]]:
    """Measure the cases that fit into the time, and print a line for each."""
    heads = ("model", "rows x length", "library", "ms/step", "rows/s", "TFLOP/s", "of 989")
    print("".join(f"{head:>15}" for head in (*heads, "of measured", "vs torch")))
    records, longest = [], 0.0
    for name, sizes, length in cases:
        begun = time.monotonic()
        if begun + longest > deadline:
            print(f"left out, no time left: BERT-{name}, {length} tokens")
            continue
        try:
            times = measure(sizes, tokens // length, length, smoke=smoke)
        except (jax.errors.JaxRuntimeError, torch.OutOfMemoryError) as error:
            print(f"BERT-{name}, {length} tokens: {str(error).splitlines()[0][:200]}")
            continue
        longest = max(longest, time.monotonic() - begun)
        records += lines(name, sizes, tokens // length, length, times, max(peaks.values()))
    return records


def measure(
    sizes: dict[str, int], rows: int, length: int, *, smoke: bool
) -> dict[str, list[float]]:
    """Return the seconds of a step in each block, by library."""
    arrays, config = random_arrays(rows, length), full_config(sizes)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # both compile on other cores
        ours = pool.submit(our_steps, config, arrays)
        theirs = torch_steps(config, arrays, backend="aot_eager" if smoke else "inductor")
        take = {"flaxbert": ours.result(), "torch": theirs}
    for steps in take.values():
        steps(2)
    times: dict[str, list[float]] = {library: [] for library in take}
    for _ in range(ROUNDS):
        for library, steps in take.items():
            start = time.perf_counter()
            steps(STEPS)
            times[library].append((time.perf_counter() - start) / STEPS)
    del take, ours, theirs
    if DEVICE == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()
    return times


def our_steps(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[int], None]:
    """Compile the training step; return a function that takes some steps and waits."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    model = Model.create(read_config(config, dtype="bfloat16"), TASK.make_head)
    optimizer, _ = make_optimizer(OptimConfig(), 1000)
    state = init_state(model.init(0), optimizer, mesh, TASK.loss_names)
    step = make_train_step(
        model, TASK, optimizer, state, mesh, accumulation_steps=1, seed=0, log_every=10
    )
    batch = jax.device_put(Batch.from_arrays(arrays), sharding.batch_sharding(mesh))
    program = step.lower(state, batch).compile()

    def take(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, report = program(state, batch)
        jax.block_until_ready(report)

    return take


def torch_steps(
    config: dict[str, Any], arrays: dict[str, np.ndarray], *, backend: str
) -> Callable[[int], None]:
    """Compile PyTorch's training step; return a function that takes some steps and waits."""
    settings = transformers.BertConfig(**config, attn_implementation="sdpa")
    module = transformers.BertForQuestionAnswering(settings).to(DEVICE).train()
    optim = OptimConfig()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if p.ndim > 1]},
        {"params": [p for p in module.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, optim.learning_rate, eps=optim.eps, weight_decay=optim.weight_decay, fused=True
    )
    torch.set_float32_matmul_precision("high")
    compiled, inputs = torch.compile(module, backend=backend), torch_inputs(arrays)

    def take(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = compiled(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        wait()

    take(2)
    return take


def lines(
    name: str,
    sizes: dict[str, int],
    rows: int,
    length: int,
    times: dict[str, list[float]],
    matrix_peak: float,
) -> list[dict[str, Any]]:
    """Print and return the figures of a case, one record for each library."""
    operations = rates.matrix_operations(
        layers=sizes["num_hidden_layers"],
        hidden_size=sizes["hidden_size"],
        intermediate_size=4 * sizes["hidden_size"],
        tokens=rows * length,
        pairs=rows * length**2,
    )
    records = []
    for library, seconds in times.items():
        median = float(np.median(seconds))
        record = {
            "model": name,
            "rows": rows,
            "length": length,
            "library": library,
            "step_seconds": median,
            "blocks": seconds,
            "rows_per_second": rows / median,
            "flops_per_second": operations / median,
            "peak_share": operations / median / PEAK,
            "measured_peak_share": operations / median / matrix_peak,
            "vs_torch": float(np.median(np.divide(seconds, times["torch"]))),
        }
        records.append(record)
        cells = (
            f"BERT-{name}",
            f"{rows} x {length}",
            library,
            f"{1000 * median:.1f}",
            f"{record['rows_per_second']:.0f}",
            f"{record['flops_per_second'] / 1e12:.1f}",
            f"{record['peak_share']:.3f}",
            f"{record['measured_peak_share']:.3f}",
            f"{record['vs_torch']:.2f}",
        )
        print("".join(f"{cell:>15}" for cell in cells), flush=True)
    return records


if __name__ == "__main__":
    main()

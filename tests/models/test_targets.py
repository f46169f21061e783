"""Checks of a bfloat16 training step as it is compiled for a TPU v5e and for an H100.

The programs are compiled and not run, so no accelerator is needed. `pip install -e '.[targets]'`
installs both compilers (several gigabytes); a test is skipped if its compiler is missing.
"""

import re
from typing import Any

import jax
import pytest
from targets import bfloat16_sums, compiled_step, h100_devices, v5e_devices

from flaxbert.config import DataConfig
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.token_classification import TokenClassification

SIZES = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 1,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
ALBERT = SIZES | {"model_type": "albert", "embedding_size": 128, "vocab_size": 30000}
MODERN = SIZES | {
    "model_type": "modernbert",
    "vocab_size": 50368,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
}

DATA = DataConfig()
TASKS: dict[str, tuple[Any, dict[str, tuple[str, ...]]]] = {
    "question_answering": (
        QuestionAnswering(DATA, QuestionAnswering.options_type()),
        {"by_segment": ("start", "end")},
    ),
    "pretraining": (
        PreTraining(DATA, PreTraining.options_type()),
        {"by_token": ("masked", "label"), "by_segment": ("follows",)},
    ),
    "words": (
        PreTraining(DATA, PreTraining.options_type(next_sentence=False)),
        {"by_token": ("masked", "label")},
    ),
    "token_classification": (
        TokenClassification(DATA, TokenClassification.options_type(), ("O", "B-PER", "I-PER")),
        {"by_token": ("label", "first")},
    ),
}
CASES = [
    ("question_answering", SIZES),
    ("pretraining", SIZES),
    ("token_classification", ALBERT),
    ("words", MODERN),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "config"), CASES, ids=[f"{t}-{c['model_type']}" for t, c in CASES]
)
@pytest.mark.parametrize("target", ["v5e", "h100"])
def test_nothing_is_summed_in_bfloat16(target: str, task: str, config: dict[str, Any]) -> None:
    pytest.importorskip("libtpu" if target == "v5e" else "jax_cuda12_plugin")
    devices = v5e_devices() if target == "v5e" else h100_devices()
    made, arrays = TASKS[task]
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        program = compiled_step(made, config, devices, **arrays)
    finally:
        jax.config.update("jax_disable_most_optimizations", True)  # as conftest.py has it
    assert re.search(r"bf16\[[^\n]* (dot|convolution|custom-call)\(", program)
    assert re.search(r"f32\[[^\n]* all-reduce(-start)?\(", program)
    assert not bfloat16_sums(program)

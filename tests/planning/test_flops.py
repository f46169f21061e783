"""The analytic count of operations, next to the count of the compiler."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from flaxbert.config import DataConfig, OptimConfig, TrainConfig
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.planning.step import Analysis, analyze
from flaxbert.runtime import sharding
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering

# Wide enough that matrix products make almost all of the operations.
SIZES = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 2000}
SIZES |= {
    "intermediate_size": 1024,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ROWS, LENGTH, SEGMENTS = 8, 64, 2


def analyzed(task: Any, config: dict[str, Any], names: dict[str, int], **train: Any) -> Analysis:
    """Compile a step for two devices; `names` are the task's arrays and their sizes."""
    names = dict.fromkeys(("input_ids", "position_ids", "segment_ids"), LENGTH) | names
    names |= dict.fromkeys(("token_type_ids",), LENGTH)
    names |= dict.fromkeys(("cls_position", "sequence_index"), SEGMENTS)
    arrays = {name: jax.ShapeDtypeStruct((ROWS, size), jnp.int32) for name, size in names.items()}
    arrays["weight"] = jax.ShapeDtypeStruct((ROWS, SEGMENTS), jnp.float32)
    options = {"train": TrainConfig(**train), "optim": OptimConfig(), "steps": 10}
    model = Model.create(read_config(config | SIZES), task.make_head)
    mesh = sharding.make_mesh(jax.devices()[:2])
    analysis = analyze(model, task, mesh, arrays, **options)
    assert isinstance(analysis, Analysis)
    return analysis


QA = QuestionAnswering(DataConfig(), QuestionAnswering.options_type())
SPANS = {"start": SEGMENTS, "end": SEGMENTS}


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_analytic_count_is_that_of_the_compiler(parts: int) -> None:
    analysis = analyzed(QA, {"model_type": "bert"}, SPANS, accumulation_steps=parts)
    assert analysis.compiled_flops == pytest.approx(analysis.model_flops, rel=0.05)
    assert set(analysis.collectives) == {"all-reduce"}
    assert analysis.peak >= analysis.parameters + analysis.optimizer


@pytest.mark.slow
def test_shared_layers_and_scores_of_words_are_counted() -> None:
    task = PreTraining(DataConfig(), PreTraining.options_type())
    names = {"masked": LENGTH, "label": LENGTH, "follows": SEGMENTS}
    analysis = analyzed(task, {"model_type": "albert", "embedding_size": 128}, names)
    assert analysis.compiled_flops == pytest.approx(analysis.model_flops, rel=0.05)

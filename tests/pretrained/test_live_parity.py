"""Exports loaded in PyTorch compute the same. Needs torch; run with `-m slow`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tolerance import assert_close

from flaxbert.config import DataConfig, ModelConfig
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks import TASKS

pytestmark = pytest.mark.slow

# Task, its options, the transformers class, and {output: its name in transformers}.
HEADS: dict[str, tuple[str, dict[str, Any], str, dict[str, str]]] = {
    "classification": (
        "classification",
        {"labels": ("no", "maybe", "yes")},
        "AutoModelForSequenceClassification",
        {"logits": "logits"},
    ),
    "question_answering": (
        "question_answering",
        {},
        "AutoModelForQuestionAnswering",
        {"start_logits": "start_logits", "end_logits": "end_logits"},
    ),
    "token_classification": (
        "token_classification",
        {"labels": ("O", "B-LOC", "I-LOC")},
        "AutoModelForTokenClassification",
        {"logits": "logits"},
    ),
    "multiple_choice": (
        "multiple_choice",
        {},
        "AutoModelForMultipleChoice",
        {"logits": "logits"},
    ),
    "pretraining": (
        "pretraining",
        {},
        "AutoModelForPreTraining",
        {"mlm_logits": "prediction_logits", "nsp_logits": "seq_relationship_logits"},
    ),
    "masked_lm": (
        "pretraining",
        {"next_sentence": False},
        "AutoModelForMaskedLM",
        {"mlm_logits": "logits"},
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_export_gives_equal_logits_in_transformers(
    head: str, checkpoint: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    task, options, class_name, names = HEADS[head]
    pipeline = Pipeline.build(
        task,
        ModelConfig(init=str(checkpoint)),
        DataConfig(max_length=32, overlap=8),
        TASKS[task].options_type(**options),
    )
    params = pipeline.load_params()
    # A new head is initialized close to zero, where all logits are about equal.
    rng = np.random.default_rng(0)
    spread = jax.tree.map(lambda x: rng.normal(x, 0.5).astype(np.float32), params["head"])
    params = params | {"head": spread}
    pipeline.export(params, tmp_path / "export")

    theirs, report = getattr(transformers, class_name).from_pretrained(
        tmp_path / "export", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    texts = ["where is the old bridge?", "a book"], ["paris is a city in the book", "she read it"]
    batch = tokenizer(*texts, padding=True, return_tensors="np")
    inputs = {name: torch.from_numpy(x) for name, x in batch.items()}
    if task == "multiple_choice":  # [questions, choices, T]: one question of two
        inputs = {name: x[None] for name, x in inputs.items()}
    with torch.no_grad():
        outputs = theirs.eval()(**inputs)
    ours = pipeline.model(params, dict(batch))
    real = batch["attention_mask"] == 1
    assert not real.all()
    for name, other in names.items():
        a, b = np.asarray(ours[name]), outputs[other].numpy()
        if name == "mlm_logits":  # without `masked`, all positions are scored in order
            assert np.array_equal(ours["masked_positions"], [np.arange(real.shape[1])] * 2)
        if a.shape[:2] == real.shape:  # one per token
            a, b = a[real], b[real]
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, a.shape[-1])
        assert np.ptp(b) > 0.1
        assert_close({name: a}, {name: b}, 1e-4)
    if "labels" in options:
        assert theirs.config.id2label == dict(enumerate(options["labels"]))

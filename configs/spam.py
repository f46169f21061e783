"""Spam or ham: short messages from your own file with columns text and label.

    python -m flaxbert.run --config=configs/spam.py --workdir=runs/spam \
        --config.data.train=train.csv --config.data.eval=dev.csv

`f1` is that of the label `spam`, the number to look at: accuracy flatters when most messages are
ham. Expect an F1 above 0.95 on the SMS Spam Collection. Hardware: one GPU with 8 GB or one TPU chip
(minutes); a CPU will do.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions


def get_config() -> Config:
    """BERT-base, three epochs."""
    return Config(
        task="classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(max_length=128),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=3e-5),
        options=ClassificationOptions(labels=("ham", "spam"), positive="spam"),
    )

"""Spam or ham: short messages from your own files with the columns text and label.

    python -m flaxbert.run --config=configs/spam.py --workdir=runs/spam \
        --config.data.train=train.csv --config.data.eval=dev.csv

Compare models by `f1`, the F1 of the label `spam`: if most messages are ham, accuracy is always
high. Expect an F1 that depends on your data. Hardware: one GPU with 8 GB or one TPU chip; a CPU is
enough for small files.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions


def get_config() -> Config:
    """Return the configuration of three epochs with batch size 32."""
    return Config(
        task="classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(max_length=128),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=3e-5),
        options=ClassificationOptions(labels=("ham", "spam"), positive="spam"),
    )

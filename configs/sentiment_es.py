"""Sentiment of Spanish texts (negativo, neutro, positivo) from your own file, with BETO.

    python -m flaxbert.run --config=configs/sentiment_es.py --workdir=runs/sentiment_es \
        --config.data.train=train.tsv --config.data.eval=dev.tsv

Columns text and label; other names: --config.options.text=... and --config.options.label=..., other
labels: --config.options.labels=pos --config.options.labels=neg. Expect accuracy and macro F1 that
depend on your data; compare them with the share of the most frequent label. Hardware: one GPU with
8 GB, one TPU chip, or patience and a CPU.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions


def get_config() -> Config:
    """BETO, a Spanish BERT-base, for three epochs."""
    return Config(
        task="classification",
        model=ModelConfig(init="dccuchile/bert-base-spanish-wwm-uncased"),
        data=DataConfig(max_length=128),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=3e-5),
        options=ClassificationOptions(labels=("negativo", "neutro", "positivo")),
    )

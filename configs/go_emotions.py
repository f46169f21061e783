"""GoEmotions: any of 28 emotions in a Reddit comment, with a threshold for each.

    python -m flaxbert.run --config=configs/go_emotions.py --workdir=runs/go_emotions

A twentieth of the training comments is kept out of training; each emotion's threshold is fitted on
them and stored with the export (--config.data.threshold_split=0 keeps 0.5). Expect a macro F1 near
0.46 with BERT-base (Demszky et al. 2020, table 4). Local files: a column `labels` that holds a
list, or a text with commas. Hardware: one GPU with 8 GB or one TPU chip.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.multi_label import MultiLabelOptions


def get_config() -> Config:
    """Four epochs at batch 16, as Demszky et al., section 5.3."""
    data = "google-research-datasets/go_emotions:simplified"
    return Config(
        task="multi_label",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train=data, eval=data, max_length=64, threshold_split=0.05),
        train=TrainConfig(epochs=4.0, batch_size=16),
        optim=OptimConfig(learning_rate=5e-5),
        options=MultiLabelOptions(),
    )

"""GoEmotions: any number of 28 emotions in a Reddit comment, each with its own threshold.

    python -m flaxbert.run --config=configs/go_emotions.py --workdir=runs/go_emotions

5 % of the training comments are held out to fit the threshold of each emotion. Thresholds are
stored with the export (--config.data.threshold_split=0 keeps all at 0.5). With BERT-base, expect a
macro F1 near 0.46 (Demszky et al. 2020, table 4). Local files need a column `labels` with a list,
or with names separated by commas. Hardware: one GPU with 8 GB or one TPU chip.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.multi_label import MultiLabelOptions


def get_config() -> Config:
    """Return the configuration of four epochs with batch size 16.

    Both are those of section 5.3 of Demszky et al.
    """
    data = "google-research-datasets/go_emotions:simplified"
    return Config(
        task="multi_label",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train=data, eval=data, max_length=64, threshold_split=0.05),
        train=TrainConfig(epochs=4.0, batch_size=16),
        optim=OptimConfig(learning_rate=5e-5),
        options=MultiLabelOptions(),
    )

"""Continued pre-training on plain text: masked words and next-sentence prediction.

    python -m flaxbert.run --config=configs/pretrain.py --workdir=runs/pretrain \
        --config.data.train='books/*.txt' --config.data.eval='held_out/*.txt'

This continues the training of a checkpoint, to adapt it to a domain. Fine-tune the result with
--config.model.init=runs/pretrain. In a .txt file a blank line ends a paragraph, and each file is a
document. The format of the original BERT scripts (one sentence per line, a blank line between
documents) needs --config.options.document=none --config.options.sentences=line. The text may be
larger than memory: it and its tokens are in files, in the directory that data.feature_cache names
(about ten bytes for each byte of text). Expect the `perplexity` of the held-out text to fall
after the first evaluation. Hardware: one TPU v5e or v6e host, or one GPU with 16 GB or more.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.pretraining import PreTrainingOptions


def get_config() -> Config:
    """Return the configuration of ten epochs with batch size 64."""
    return Config(
        task="pretraining",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(max_length=128),
        train=TrainConfig(epochs=10.0, batch_size=64),
        optim=OptimConfig(learning_rate=5e-5),
        options=PreTrainingOptions(),
    )

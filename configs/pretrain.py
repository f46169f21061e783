"""Pre-training on plain text: masked words, and whether one text follows another.

    python -m flaxbert.run --config=configs/pretrain.py --workdir=runs/pretrain \
        --config.data.train='books/*.txt' --config.data.eval='held_out/*.txt'

Continues from a checkpoint, which adapts it to a domain or a language's older texts; then fine-tune
from the result with --config.model.init=runs/pretrain. In a .txt file a blank line ends a
paragraph, and a file is a document; the form of BERT's own scripts (a sentence a line, a blank line
between documents) needs --config.options.document=none --config.options.sentences=line. Expect
`perplexity` on held-out text to fall from its value at the first evaluation. Hardware: one TPU v5e
or v6e host, or one GPU with 16 GB or more (add --config.model.dtype=bfloat16).
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.pretraining import PreTrainingOptions


def get_config() -> Config:
    """Ten epochs at batch 64."""
    return Config(
        task="pretraining",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(max_length=128),
        train=TrainConfig(epochs=10.0, batch_size=64),
        optim=OptimConfig(learning_rate=5e-5),
        options=PreTrainingOptions(),
    )

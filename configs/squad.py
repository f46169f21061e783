"""SQuAD v1.1: find the answer to a question in a paragraph.

    python -m flaxbert.run --config=configs/squad.py --workdir=runs/squad

With BERT-base on SQuAD v1.1, expect the BERT paper's exact match 80.8 and F1 88.5 on the
development set (Devlin et al. 2019, table 2), give or take half a point from seed to seed. Written
for one TPU v5e or v6e host, or one GPU with 16 GB or more (add --config.model.dtype=bfloat16).

Local files in SQuAD's JSON form:

    --config.data.train=train-v1.1.json --config.data.eval=dev-v1.1.json
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.question_answering import QuestionAnsweringOptions


def get_config() -> Config:
    """Two epochs at batch 32, as the BERT paper's section 4.2 and its code's README."""
    return Config(
        task="question_answering",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(
            train="rajpurkar/squad", eval="rajpurkar/squad", max_length=384, overlap=128
        ),
        train=TrainConfig(epochs=2.0, batch_size=32),
        optim=OptimConfig(learning_rate=5e-5),
        options=QuestionAnsweringOptions(),
    )

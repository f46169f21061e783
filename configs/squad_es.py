"""SQuAD in Spanish: answers in a Spanish paragraph, from BETO.

    python -m flaxbert.run --config=configs/squad_es.py --workdir=runs/squad_es \
        --config.data.train=train.json --config.data.eval=dev.json

The files are in SQuAD's JSON form, such as SQuAD-es v1.1 (Carrino et al. 2020), a machine
translation. Expect an F1 that depends on your files; compare it with that of a multilingual BERT
(--config.model.init=google-bert/bert-base-multilingual-uncased). Hardware: one TPU v5e or v6e host,
or one GPU with 16 GB or more (add --config.model.dtype=bfloat16).
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.question_answering import QuestionAnsweringOptions


def get_config() -> Config:
    """As configs/squad.py, with a Spanish model."""
    return Config(
        task="question_answering",
        model=ModelConfig(init="dccuchile/bert-base-spanish-wwm-uncased"),
        data=DataConfig(max_length=384, overlap=128),
        train=TrainConfig(epochs=2.0, batch_size=32),
        optim=OptimConfig(learning_rate=5e-5),
        options=QuestionAnsweringOptions(),
    )

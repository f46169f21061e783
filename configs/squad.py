"""SQuAD v1.1, find the answer to a question in a paragraph: en or es.

    python -m flaxbert.run --config=configs/squad.py:en --workdir=runs/squad
    python -m flaxbert.run --config=configs/squad.py:es --workdir=runs/squad_es \
        --config.data.train=train.json --config.data.eval=dev.json

`en` (the default) fine-tunes BERT-base on SQuAD v1.1 from the hub. Expect results close to those of
the BERT paper on the development set: exact match 80.8, F1 88.5 (Devlin et al. 2019, table 2). `es`
fine-tunes BETO, a Spanish BERT-base, on your files, such as SQuAD-es v1.1 (Carrino et al. 2020), a
machine translation. Compare its F1 with that of a multilingual BERT
(--config.model.init=google-bert/bert-base-multilingual-uncased). Hardware: one TPU v5e or v6e host,
or one GPU with 16 GB or more.

Local files have SQuAD's JSON format:

    --config.data.train=train-v1.1.json --config.data.eval=dev-v1.1.json
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.question_answering import QuestionAnsweringOptions

# Language: model, data set.
LANGUAGES = {
    "en": ("google-bert/bert-base-uncased", "rajpurkar/squad"),
    "es": ("dccuchile/bert-base-spanish-wwm-uncased", None),
}


def get_config(name: str = "en") -> Config:
    """Return the configuration of two epochs with batch size 32; `name` is a key of LANGUAGES.

    Section 4.2 of the paper uses the same batch size and three epochs.
    """
    if name not in LANGUAGES:
        raise ValueError(f"configs/squad.py:{name}: expected one of {', '.join(LANGUAGES)}")
    init, data = LANGUAGES[name]
    return Config(
        task="question_answering",
        model=ModelConfig(init=init),
        data=DataConfig(train=data, eval=data, max_length=384, overlap=128),
        train=TrainConfig(epochs=2.0, batch_size=32),
        optim=OptimConfig(learning_rate=5e-5),
        options=QuestionAnsweringOptions(),
    )

"""Sentiment of texts from your own files with the columns text and label: en or es.

    python -m flaxbert.run --config=configs/sentiment.py:en --workdir=runs/sentiment \
        --config.data.train=train.tsv --config.data.eval=dev.tsv
    python -m flaxbert.run --config=configs/sentiment.py:es --workdir=runs/sentiment_es \
        --config.data.train=train.tsv --config.data.eval=dev.tsv

`en` (the default) fine-tunes BERT-base with the labels negative, neutral and positive. `es`
fine-tunes BETO, a Spanish BERT-base, with negativo, neutro and positivo. Files can be .tsv, .csv,
.json, .jsonl or .parquet. Other column names: --config.options.text=... and
--config.options.label=.... Other labels: --config.options.labels=bad,good, or
--config.options.labels= to take them from the training file. If a column names a group (language,
product, source), --config.data.slices=COLUMN also reports the metrics of each group. Expect scores
that depend on your data; compare the accuracy with the share of the most frequent label. Hardware:
one GPU with 8 GB or one TPU chip; a CPU works but is slow.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.classification import ClassificationOptions

# Language: model, labels.
LANGUAGES = {
    "en": ("google-bert/bert-base-uncased", ("negative", "neutral", "positive")),
    "es": ("dccuchile/bert-base-spanish-wwm-uncased", ("negativo", "neutro", "positivo")),
}


def get_config(name: str = "en") -> Config:
    """Return the configuration of three epochs with batch size 32; `name` is a key of LANGUAGES."""
    if name not in LANGUAGES:
        raise ValueError(f"configs/sentiment.py:{name}: expected one of {', '.join(LANGUAGES)}")
    init, labels = LANGUAGES[name]
    return Config(
        task="classification",
        model=ModelConfig(init=init),
        data=DataConfig(max_length=128),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=3e-5),
        options=ClassificationOptions(labels=labels),
    )

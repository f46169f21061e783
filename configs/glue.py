"""GLUE: sentences and sentence pairs. One of cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli.

    python -m flaxbert.run --config=configs/glue.py:mrpc --workdir=runs/mrpc

GLUE's own .tsv files serve too (--config.data.train=train.tsv --config.data.eval=dev.tsv, for mnli
dev_matched.tsv), except those of CoLA, which have no line of column names. Columns that they name
otherwise must be given:

    mnli    --config.options.text=sentence1 --config.options.pair=sentence2
            --config.options.label=gold_label
    mrpc    --config.options.text='#1 String' --config.options.pair='#2 String'
            --config.options.label=Quality
    qqp     --config.options.label=is_duplicate
    stsb    --config.options.label=score

With BERT-base expect, as the BERT paper's table 1 (test sets; development sets lie near): Matthews
0.52 on cola, accuracy 0.85 on mnli, F1 0.89 on mrpc, accuracy 0.91 on qnli, F1 0.71 on qqp,
accuracy 0.66 on rte and 0.94 on sst2, Spearman 0.86 on stsb. Small sets vary by several points from
seed to seed. Hardware: one TPU v5e or v6e host, or one GPU with 8 GB or more (add
--config.model.dtype=bfloat16).
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks import classification, regression

# Task: columns of the text and of its pair, split to evaluate on.
TASKS = {
    "cola": ("sentence", None, "validation"),
    "mnli": ("premise", "hypothesis", "validation_matched"),
    "mrpc": ("sentence1", "sentence2", "validation"),
    "qnli": ("question", "sentence", "validation"),
    "qqp": ("question1", "question2", "validation"),
    "rte": ("sentence1", "sentence2", "validation"),
    "sst2": ("sentence", None, "validation"),
    "stsb": ("sentence1", "sentence2", "validation"),
    "wnli": ("sentence1", "sentence2", "validation"),
}


def get_config(name: str = "mrpc") -> Config:
    """Three epochs at batch 32, as the BERT paper's section 4.1; `name` is one of TASKS."""
    if name not in TASKS:
        raise ValueError(f"configs/glue.py:{name}: one of {', '.join(TASKS)}")
    text, pair, split = TASKS[name]
    options = (
        regression.RegressionOptions if name == "stsb" else classification.ClassificationOptions
    )
    return Config(
        task="regression" if name == "stsb" else "classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(
            train=f"nyu-mll/glue:{name}", eval=f"nyu-mll/glue:{name}@{split}", max_length=128
        ),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=2e-5),
        options=options(text=text, pair=pair),
    )

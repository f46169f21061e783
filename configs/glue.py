"""GLUE, sentences and sentence pairs: cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb or wnli.

    python -m flaxbert.run --config=configs/glue.py:mrpc --workdir=runs/mrpc

GLUE's own .tsv files work too: --config.data.train=train.tsv --config.data.eval=dev.tsv, or
dev_matched.tsv for mnli. The files of these tasks have other column names, which must be given:

    mnli    --config.options.text=sentence1 --config.options.pair=sentence2
            --config.options.label=gold_label
    mrpc    --config.options.text='#1 String' --config.options.pair='#2 String'
            --config.options.label=Quality
    qqp     --config.options.label=is_duplicate
    stsb    --config.options.label=score

The files of cola have no header line, and need --config.data.columns=source,label,mark,sentence.

With BERT-base, expect results close to those of the BERT paper (Devlin et al. 2019, table 1, test
sets): Matthews correlation 0.52 on cola, accuracy 0.85 on mnli, F1 0.89 on mrpc, accuracy 0.91 on
qnli, F1 0.71 on qqp, accuracy 0.66 on rte and 0.94 on sst2, Spearman correlation 0.86 on stsb. The
runs here are evaluated on the validation sets. On small data sets results vary between seeds.
Hardware: one TPU v5e or v6e host, or one GPU with 8 GB or more.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks import classification, regression

# Name: column of the text, column of its pair, evaluation split.
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
    """Return the configuration of three epochs with batch size 32, as in section 4.1 of the paper.

    `name` is a key of TASKS.
    """
    if name not in TASKS:
        raise ValueError(f"configs/glue.py:{name}: expected one of {', '.join(TASKS)}")
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

"""Named entities: a tag for every word.

    python -m flaxbert.run --config=configs/ner.py:wnut17 --workdir=runs/ner
    python -m flaxbert.run --config=configs/ner.py:conll --workdir=runs/ner \
        --config.data.train=train.conll --config.data.eval=dev.conll

`wnut17` is the WNUT-17 set of unusual names from the hub; `conll` is any column file: the word
first, its tag last, a blank line between sentences, tags in BIO, IOB1, BIOES or IO; CoNLL-U, and
any other order with --config.data.columns=index,word,pos,tag. Malformed lines are an error, or
skipped and counted with --config.data.on_bad_row=skip. Expect an entity F1 in the forties on
WNUT-17 and above 0.9 on CoNLL-2003 (BERT paper, table 7: 0.924 on its test set, with a cased
BERT-base: --config.model.init=google-bert/bert-base-cased). `f1` is conlleval's reading,
`strict_f1` that of strict IOB2. Hardware: one GPU with 8 GB or one TPU chip; a CPU for small sets.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.token_classification import TokenClassificationOptions

SETS = {
    "conll": (None, TokenClassificationOptions()),
    "wnut17": ("leondz/wnut_17", TokenClassificationOptions(tags="ner_tags")),
}


def get_config(name: str = "conll") -> Config:
    """Three epochs at batch 32; `name` is one of SETS."""
    if name not in SETS:
        raise ValueError(f"configs/ner.py:{name}: one of {', '.join(SETS)}")
    data, options = SETS[name]
    return Config(
        task="token_classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train=data, eval=data, max_length=128, overlap=32),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=5e-5),
        options=options,
    )

"""Named entities, a tag for every word: wnut17 or conll.

    python -m flaxbert.run --config=configs/ner.py:wnut17 --workdir=runs/ner
    python -m flaxbert.run --config=configs/ner.py:conll --workdir=runs/ner \
        --config.data.train=train.conll --config.data.eval=dev.conll

`wnut17` is the WNUT-17 data set from the hub. `conll` reads your files with one word per line. The
word is in the first column and its tag (BIO, IOB1, BIOES, BILOU, BMES or IO) in the last; a blank
line ends a sentence. CoNLL-U files need no options. Name any other order of columns with
--config.data.columns=index,word,pos,tag. A malformed line is an error;
--config.data.on_bad_row=skip skips and counts such lines. With a cased BERT-base
(--config.model.init=google-bert/bert-base-cased) expect an entity F1 of 0.924 on the test set of
CoNLL-2003 (Devlin et al. 2019, table 7). `f1` is scored as in conlleval, `strict_f1` by strict
IOB2. Hardware: one GPU with 8 GB or one TPU chip; a CPU for small data sets.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.token_classification import TokenClassificationOptions

SETS = {
    "conll": (None, TokenClassificationOptions()),
    "wnut17": ("leondz/wnut_17", TokenClassificationOptions(tags="ner_tags")),
}


def get_config(name: str = "conll") -> Config:
    """Return the configuration of three epochs with batch size 32; `name` is a key of SETS."""
    if name not in SETS:
        raise ValueError(f"configs/ner.py:{name}: expected one of {', '.join(SETS)}")
    data, options = SETS[name]
    return Config(
        task="token_classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train=data, eval=data, max_length=128, overlap=32),
        train=TrainConfig(epochs=3.0, batch_size=32),
        optim=OptimConfig(learning_rate=5e-5),
        options=options,
    )

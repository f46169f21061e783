"""Multiple choice, choose the answer to a question: swag, arc_easy, arc_challenge or local.

    python -m flaxbert.run --config=configs/multiple_choice.py:swag --workdir=runs/swag
    python -m flaxbert.run --config=configs/multiple_choice.py:local --workdir=runs/choice \
        --config.data.train=train.jsonl --config.data.eval=dev.jsonl

Local files have the columns question, choices (a list; its length may vary) and label (the number
of the correct choice, from 0). With BERT-base, expect an accuracy of 0.816 on the development set
of SWAG (Devlin et al. 2019, table 4). ARC-Challenge tests knowledge, so expect little more than
chance. Hardware: one TPU v5e or v6e host, or one GPU with 16 GB or more.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.multiple_choice import MultipleChoiceOptions

ENDINGS = ("ending0", "ending1", "ending2", "ending3")
SETS = {
    "swag": ("allenai/swag:regular", MultipleChoiceOptions("sent1", "sent2", ENDINGS)),
    "arc_easy": ("allenai/ai2_arc:ARC-Easy", MultipleChoiceOptions(label="answerKey")),
    "arc_challenge": ("allenai/ai2_arc:ARC-Challenge", MultipleChoiceOptions(label="answerKey")),
    "local": (None, MultipleChoiceOptions()),
}


def get_config(name: str = "local") -> Config:
    """Return the configuration of three epochs with batch size 16, as in section 4.4 of the paper.

    `name` is a key of SETS.
    """
    if name not in SETS:
        raise ValueError(f"configs/multiple_choice.py:{name}: expected one of {', '.join(SETS)}")
    data, options = SETS[name]
    return Config(
        task="multiple_choice",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train=data, eval=data, max_length=128),
        train=TrainConfig(epochs=3.0, batch_size=16),
        optim=OptimConfig(learning_rate=2e-5),
        options=options,
    )

"""SQuAD v2.0: find the answer to a question in a paragraph, or predict that there is none.

    python -m flaxbert.run --config=configs/squad_v2.py --workdir=runs/squad_v2

5 % of the training paragraphs are held out, and the no-answer threshold is fitted on their
questions. The threshold is stored with the export, and used by --mode=eval and --mode=predict. The
BERT paper reports an F1 of 81.9 on the development set for BERT-large (Devlin et al. 2019, table
3); expect less with BERT-base. Hardware: one TPU v5e or v6e host, or one GPU with 16 GB or more.
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks.question_answering import QuestionAnsweringOptions


def get_config() -> Config:
    """Return the configuration of two epochs with batch size 48.

    Both are those of section 4.3 of the BERT paper.
    """
    return Config(
        task="question_answering",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(
            train="rajpurkar/squad_v2",
            eval="rajpurkar/squad_v2",
            max_length=384,
            overlap=128,
            threshold_split=0.05,
        ),
        train=TrainConfig(epochs=2.0, batch_size=48),
        optim=OptimConfig(learning_rate=5e-5),
        options=QuestionAnsweringOptions(unanswerable=True),
    )

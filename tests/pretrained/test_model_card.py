"""The model card of an export names the command of the run."""

import sys

import pytest

from flaxbert import Config
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import SpanHead
from flaxbert.models.model import Model
from flaxbert.pretrained.model_card import model_card

FLAGS = ["--config=configs/squad.py", "--workdir=a b"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["python", "-m", "flaxbert.run", *FLAGS], "python -m flaxbert.run"),
        (["python", "-m", "flaxbert", "train", *FLAGS], "flaxbert train"),
        (["/usr/bin/python", "/venv/bin/flaxbert", "train", *FLAGS], "flaxbert train"),
        (["python", "mine.py", *FLAGS], None),
        (["python", "-m", "pytest", "flaxbert"], None),
    ],
)
def test_card_has_the_command_of_the_run(words, command, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", words)
    config = Config(task="question_answering")
    config.data.train = "train.json"
    encoder = BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, vocab_size=9)
    card = model_card(Model.create(encoder, SpanHead), config.to_dict(), {"f1": 90.0})
    line = f"```\n{command} --config=configs/squad.py '--workdir=a b'\n```\n"
    assert (line in card) == (command is not None)
    assert card.count("```\n") == (4 if command else 2)  # others begin with ```json
    assert "| f1 | 90 |" in card

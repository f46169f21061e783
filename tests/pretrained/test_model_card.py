"""The model card of an export: the metadata of the hub, results with intervals, limits, command."""

import sys

import pytest
from huggingface_hub import ModelCard

from flaxbert import Config
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import SequenceClassificationHead, SpanHead
from flaxbert.models.model import Model
from flaxbert.pretrained.model_card import Facts, model_card

ENCODER = BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, vocab_size=9)
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
    config.data.train, config.data.eval = "train.json", "dev.json"
    model = Model.create(ENCODER, SpanHead)
    card = model_card(model, config.to_dict(), {"f1": 90.0})
    line = f"```\n{command} --config=configs/squad.py '--workdir=a b'\n```\n"
    assert (line in card) == (command is not None)
    assert card.count("```\n") == (5 if command else 3)  # others begin with ```json or ```python
    assert "| f1 | 90 |" in card


RESULTS = {
    "accuracy": 0.8125,
    "accuracy_low95": 0.75,
    "accuracy_high95": 0.875,
    "accuracy/en": 0.9,
    "accuracy/es": 0.7,
    "perf/eval_seconds": 3.0,
    "data/eval/malformed": 0.0,
}


def sentiment(**changes: str) -> Config:
    config = Config(task="classification")
    config.model.init, config.data.slices = "google-bert/bert-base-cased", "lang"
    config.data.train, config.data.eval = "me/opinions@train", "me/opinions:es@test#main"
    for name, value in changes.items():
        setattr(config.data, name, value)
    return config


def classifier() -> Model:
    return Model.create(ENCODER, SequenceClassificationHead.maker(2))


def test_the_client_of_the_hub_reads_the_metadata():
    commits = {"data.train": "1" * 40, "data.eval": "2" * 40}
    facts = Facts(("bad", "good | fine"), 500, 7)
    text = model_card(classifier(), sentiment().to_dict(), RESULTS, commits, facts)
    card = ModelCard(text)
    data = card.data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.base_model == "google-bert/bert-base-cased"
    assert data.license == "apache-2.0"
    assert data.language == ["en", "es"]
    assert data.datasets == ["me/opinions"]
    assert data.widget == [{"text": "I liked it very much."}]
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.8125)
    assert (result.dataset_type, result.dataset_revision) == ("me/opinions", "2" * 40)
    assert result.task_type == "text-classification"
    assert "| accuracy | 0.8125 (0.75 to 0.875) |" in text
    assert "accuracy_low95" not in card.text.partition("## Full configuration")[0]
    assert "perf/" not in text
    assert "| good &#124; fine | 1 |" in text
    assert "On 500 examples of me/opinions:es@test#main (commit 222" in text
    assert "In the evaluation set these were 7." in text
    assert "The evaluation set is small (500 examples)" in text
    assert 'flaxbert.load("MODEL")' in text


def test_names_cannot_break_the_card():
    config = sentiment(train="train.tsv", eval="dev_😀.tsv")
    labels = Facts(("spam\n\n## License\nMIT", "<b>ham</b>"), 500, 0)
    text = model_card(classifier(), config.to_dict(), RESULTS, {}, labels)
    (result,) = ModelCard(text).data.eval_results
    assert result.dataset_name == "dev_😀.tsv"
    assert "\n## License" not in text
    assert "| spam ## License MIT | 0 |" in text
    assert "| &lt;b&gt;ham&lt;/b&gt; | 1 |" in text


def test_what_is_not_known_is_absent():
    config = sentiment(train="train.tsv", eval="dev.tsv", slices="topic")
    config.model.init = "./mine"
    data = ModelCard(model_card(classifier(), config.to_dict(), {"accuracy": 0.5})).data
    assert data.license is data.base_model is data.language is data.datasets is None
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("file", "dev.tsv")
    config.data.eval = None
    text = model_card(classifier(), config.to_dict(), {"step": 3.0})
    assert ModelCard(text).data.eval_results is None
    assert "The run had no evaluation set." in text

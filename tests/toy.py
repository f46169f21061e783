"""Tiny data sets on disk, made of the tiny checkpoint's words."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flaxbert import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.tasks import TASKS

LABELS = ("negative", "positive")
OPINIONS = (("bad", "awful"), ("good", "great", "fine"))
FILLERS = ("the", "film", "food", "book", "was", "it", "is", "and", "very", "king", "table", "old")
PLACES = ("paris", "london", "city", "river", "bridge")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_sentiment(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """Texts of 3 to `most_words` words, exactly one of which tells the label."""
    choose = random.Random(seed)
    rows = []
    for n in range(count):
        words = choose.choices(FILLERS, k=choose.randint(2, most_words - 1))
        words.insert(choose.randrange(len(words)), choose.choice(OPINIONS[n % 2]))
        rows.append({"text": " ".join(words), "label": LABELS[n % 2]})
    return write_lines(path, rows)


def write_squad(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """SQuAD's JSON form: the answer is the context's only place; long contexts need windows."""
    choose = random.Random(seed)
    paragraphs = []
    for n in range(count):
        words = choose.choices(FILLERS, k=choose.randint(3, most_words))
        place, answer = choose.randrange(len(words)), choose.choice(PLACES)
        words.insert(place, answer)
        first = len(" ".join([*words[:place], ""]))
        question = {"id": f"q{n}", "question": "where is the king?"}
        question["answers"] = [{"text": answer, "answer_start": first}]
        paragraphs.append({"context": " ".join(words), "qas": [question]})
    path.write_text(json.dumps({"data": [{"title": "toy", "paragraphs": paragraphs}]}))
    return path


WRITERS = {"classification": write_sentiment, "question_answering": write_squad}
SUFFIXES = {"classification": "jsonl", "question_answering": "json"}


def make_config(
    task: str, checkpoint: Path, directory: Path, *, count: int = 40, most_words: int = 20
) -> Config:
    """Write `count` examples each for training and evaluation, and configure a run on them."""
    paths = [directory / f"{name}.{SUFFIXES[task]}" for name in ("train", "eval")]
    for seed, path in enumerate(paths):
        WRITERS[task](path, count, seed=seed, most_words=most_words)
    return Config(
        task=task,
        model=ModelConfig(init=str(checkpoint)),
        data=DataConfig(train=str(paths[0]), eval=str(paths[1]), max_length=32, overlap=8),
        train=TrainConfig(epochs=1.0, batch_size=8, log_every=1),
        optim=OptimConfig(learning_rate=1e-3),
        options=TASKS[task].options_type(),
    )

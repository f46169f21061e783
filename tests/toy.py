"""Tiny data sets on disk, made of the tiny checkpoint's words."""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flaxbert import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.data.checks import log_issues
from flaxbert.pipeline.datasets import Dataset, read_examples, read_table
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import checkpoint
from flaxbert.tasks import TASKS
from flaxbert.training.data import TrainingData, read_sources, tokenize
from flaxbert.types import Batch, WeightedSum


def logged(items: Any) -> Any:
    """Log the issues of a table or of examples, as a run does, and return these."""
    log_issues(items.issues)
    return items


def make_batch(**arrays: Any) -> Batch:
    """A batch of these arrays; fields that are not given are None."""
    names = [field.name for field in dataclasses.fields(Batch) if field.name != "extra"]
    extra = {name: value for name, value in arrays.items() if name not in names}
    return Batch(**{name: arrays.get(name) for name in names}, extra=extra)


def arrays_of(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch by name."""
    names = [field.name for field in dataclasses.fields(batch) if field.name != "extra"]
    values = {name: getattr(batch, name) for name in names}
    return {name: value for name, value in values.items() if value is not None} | batch.extra


def parts_of(loss: WeightedSum) -> tuple[Any, Any]:
    """The sum of a loss and that of its weights."""
    return loss.total, loss.weight


def edit_metadata(workdir: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the metadata of the latest checkpoint, with a valid checksum."""
    latest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    metadata, checksums = latest / checkpoint.METADATA, latest / checkpoint.CHECKSUMS
    content = json.loads(metadata.read_text())
    edit(content)
    metadata.write_text(json.dumps(content))
    digest = hashlib.sha256(metadata.read_bytes()).hexdigest()
    checksums.write_text(json.dumps(json.loads(checksums.read_text()) | {metadata.name: digest}))


def load_data(config: Config) -> tuple[Pipeline, TrainingData]:
    """Read and tokenize the data of a run, as training does."""
    sources = read_sources(config.task, config.data, config.options)
    sections = config.task, config.model, config.data, config.options
    pipeline = Pipeline.build(*sections, train=sources.train.examples)
    return pipeline, tokenize(pipeline, sources, config.train)


def build_pipeline(config: Config, init: str | None = None) -> Pipeline:
    """Return the pipeline of a training run."""
    table = read_table(config.data, "train")
    train = read_examples(config.task, table, config.data, config.options, labeled=True)
    sections = config.task, config.model, config.data, config.options
    return Pipeline.build(*sections, init=init, train=train)


def read_dataset(config: Config, pipeline: Pipeline, key: str, *, labeled: bool = True) -> Dataset:
    """Return the examples of `data.train` or `data.eval` in their order, as evaluated."""
    table = read_table(config.data, key)
    examples = read_examples(config.task, table, config.data, config.options, labeled=labeled)
    size = config.train.eval_batch_size
    return pipeline.tokenize_in_order(table, examples, batch_size=size, labeled=labeled)


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


def some_words(choose: random.Random, most_words: int) -> list[str]:
    return choose.choices(FILLERS, k=choose.randint(2, most_words - 1))


def write_multi_label(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """Labels none, one or both: whether a text has a place, and whether it has an opinion."""
    choose = random.Random(seed)
    rows = []
    for n in range(count):
        words = some_words(choose, most_words - 1)
        words += [choose.choice(PLACES)] * (n % 2) + ["good"] * (n // 2 % 2)
        choose.shuffle(words)
        labels = ["place"] * (n % 2) + ["opinion"] * (n // 2 % 2)
        rows.append({"text": " ".join(words), "labels": labels})
    return write_lines(path, rows)


def write_regression(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """Pairs of texts; the number is the share of the first one's words that are places."""
    choose = random.Random(seed)
    rows = []
    for _ in range(count):
        words = choose.choices([*FILLERS, *PLACES], k=choose.randint(2, most_words // 2))
        share = sum(word in PLACES for word in words) / len(words)
        other = " ".join(some_words(choose, most_words // 2))
        rows.append({"text": " ".join(words), "pair": other, "label": share})
    return write_lines(path, rows)


def write_multiple_choice(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """Two to four choices, exactly one of which has a place."""
    choose = random.Random(seed)
    rows = []
    for n in range(count):
        choices = [some_words(choose, most_words // 2) for _ in range(2 + n % 3)]
        right = choose.randrange(len(choices))
        choices[right].append(choose.choice(PLACES))
        texts = [" ".join(words) for words in choices]
        rows.append({"question": "where is the king?", "choices": texts, "label": right})
    return write_lines(path, rows)


def write_tags(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """CoNLL columns: places are entities, two in a row are one. Long sentences need windows."""
    choose = random.Random(seed)
    lines = []
    for _ in range(count):
        before = "O"
        for _ in range(choose.randint(2, 2 * most_words)):
            word = choose.choice([*FILLERS, *PLACES])
            tag = ("B-LOC" if before == "O" else "I-LOC") if word in PLACES else "O"
            lines.append(f"{word}\t{tag}\n")
            before = tag
        lines.append("\n")
    path.write_text("".join(lines))
    return path


def write_documents(path: Path, count: int, *, seed: int, most_words: int) -> Path:
    """Documents of two paragraphs with some sentences each."""
    choose = random.Random(seed)
    rows = []
    for n in range(count):
        for _ in range(2):
            sentences = [" ".join(some_words(choose, most_words // 2)) for _ in range(3)]
            rows.append({"file": f"book {n}", "text": ". ".join(s.title() for s in sentences)})
    return write_lines(path, rows)


WRITERS = {
    "classification": write_sentiment,
    "multi_label": write_multi_label,
    "multiple_choice": write_multiple_choice,
    "pretraining": write_documents,
    "question_answering": write_squad,
    "regression": write_regression,
    "token_classification": write_tags,
}
SUFFIXES = {"question_answering": "json", "token_classification": "conll"}
OPTIONS: dict[str, dict[str, Any]] = {"regression": {"pair": "pair"}}


def make_config(
    task: str, checkpoint: Path, directory: Path, *, count: int = 40, most_words: int = 20
) -> Config:
    """Write `count` examples each for training and evaluation, and configure a run on them."""
    suffix = SUFFIXES.get(task, "jsonl")
    paths = [directory / f"{name}.{suffix}" for name in ("train", "eval")]
    for seed, path in enumerate(paths):
        WRITERS[task](path, count, seed=seed, most_words=most_words)
    return Config(
        task=task,
        model=ModelConfig(init=str(checkpoint)),
        data=DataConfig(train=str(paths[0]), eval=str(paths[1]), max_length=32, overlap=8),
        train=TrainConfig(epochs=1.0, batch_size=8, log_every=1),
        optim=OptimConfig(learning_rate=1e-3),
        options=TASKS[task].options_type(**OPTIONS.get(task, {})),
    )

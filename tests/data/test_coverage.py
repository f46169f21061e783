"""Texts that a tokenizer cannot read: unknown words, dropped characters, words that become one."""

import logging
from pathlib import Path
from typing import Any

import kinds
import pytest

from flaxbert.commands import lint
from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.data import coverage
from flaxbert.data.table import Record, Table
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks.classification import ClassificationOptions
from flaxbert.tasks.question_answering import QuestionAnswering, QuestionExample
from flaxbert.tasks.question_answering import QuestionAnsweringOptions as QuestionOptions

READ, STRANGE = "the king was old", "ქალაქი მდინარე"


def classified(checkpoint: Path, directory: Path, texts: list[str]) -> Config:
    file = directory / "train.tsv"
    rows = [f"{text}\t{'good' if n % 2 else 'bad'}\n" for n, text in enumerate(texts)]
    file.write_text("text\tlabel\n" + "".join(rows))
    return Config(
        task="classification",
        model=ModelConfig(init=str(checkpoint)),
        data=DataConfig(train=str(file), max_length=32),
        options=ClassificationOptions(labels=("bad", "good")),
    )


@pytest.mark.parametrize("overlap", [0, 4])
def test_unknown_tokens_are_counted_by_text(overlap: int, tokenizer: Any) -> None:
    contexts = [(READ, READ), (STRANGE, READ), (READ, STRANGE * 9), (f"{READ} ქ", READ)]
    examples = [QuestionExample("q", a, b, (), None, f"x:{n}") for n, (a, b) in enumerate(contexts)]
    task = QuestionAnswering.create(
        DataConfig(max_length=16, overlap=overlap), QuestionOptions(), None, {}
    )
    features = task.featurize(examples, tokenizer, labeled=False)
    unknown = coverage.unknown(features, tokenizer)
    assert unknown.lost == [1, 2]
    rows = [tokenizer.convert_ids_to_tokens(features.per_token["input_ids"].tolist())]
    words = [token for row in rows for token in row if token not in ("[CLS]", "[SEP]")]
    assert unknown.share == pytest.approx(words.count("[UNK]") / len(words))
    assert unknown.serious
    assert unknown.describe(examples) == (
        f"{unknown.share:.1%} of the tokens are [UNK]; 2 of 4 examples have a text that is nothing "
        "else, the first x:1. Take a checkpoint for the language and script of the texts."
    )


def test_texts_without_tokens_have_no_unknown_words(tokenizer: Any) -> None:
    example = QuestionExample("q", "", "\u200b", (), None, "x:1")
    task = QuestionAnswering.create(DataConfig(), QuestionOptions(), None, {})
    features = task.featurize([example], tokenizer, labeled=False)
    assert coverage.unknown(features, tokenizer) == coverage.Unknown("[UNK]", 0.0, [])


@pytest.mark.parametrize(
    ("texts", "level"),
    [
        ([READ] * 4, None),
        ([READ] * 8 + [f"{READ} ქ"], logging.INFO),
        ([READ] * 8 + [STRANGE], logging.WARNING),
        ([f"{READ} ქ"] * 4, logging.WARNING),
    ],
)
def test_a_run_reports_unknown_words_in_one_line(
    texts: list[str], level: int | None, checkpoint: Path, tmp_path: Path, caplog: Any
) -> None:
    config = classified(checkpoint, tmp_path, texts)
    pipeline = Pipeline.build(config.task, config.model, config.data, config.options)
    table = Table("train.tsv", [Record({"text": t, "label": "bad"}, "train.tsv:2") for t in texts])
    with caplog.at_level(logging.INFO, "flaxbert"):
        examples = pipeline.task.examples(table, labeled=True)
        pipeline.tokenize(examples, table.source, batch_size=4, labeled=True)
    told = [record for record in caplog.records if "[UNK]" in record.message]
    assert [record.levelno for record in told] == ([] if level is None else [level])
    assert not pipeline.task.data.eval


def test_lint_finds_what_the_tokenizer_cannot_read(checkpoint: Path, tmp_path: Path) -> None:
    texts = [READ, "the k\u0301ing\uf0b7 re\u00add", STRANGE, "café book", "cafe book", "KÖNIG"]
    found = lint.lint(classified(checkpoint, tmp_path, texts))
    told = {finding.kind: finding.text for finding in found}
    assert told["unknown words"].startswith("8.3% of the tokens are [UNK]; 1 of 6 examples")
    assert told["characters that vanish"] == (
        "the tokenizer drops U+0301 (1 times), U+F0B7 (1 times), U+00AD (1 times)"
    )
    assert told["words that become one"] == "the tokenizer reads 'café' as 'cafe'"


def test_lint_is_silent_about_a_tokenizer_that_reads_all(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(kinds.write_tokenizer("roberta", tmp_path))
    texts = ["the k\u0301ing\uf0b7 re\u00add", STRANGE, "café book", "cafe book"]
    assert not coverage.vanishing(texts, tokenizer)
    assert not coverage.merged(texts, tokenizer)


def test_a_message_names_a_few_characters_and_words() -> None:
    assert coverage.named(dict.fromkeys(map(chr, range(0x600, 0x700)), 2)).endswith(
        "U+0609 (2 times), 246 more characters"
    )
    assert coverage.pairs({str(n): "a" for n in range(12)}).endswith("'9' as 'a', 2 more words")

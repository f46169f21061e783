"""Tokenizers: special tokens written in texts, and what is exported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from flaxbert.config import DataConfig
from flaxbert.data.tokenization import expect_words, load_tokenizer, reset
from flaxbert.errors import WeightsError
from flaxbert.tasks.pretraining import DocumentExample, PreTraining, PreTrainingOptions

TEXT = "the [MASK] king [SEP] was [CLS] old [PAD]"


def pieces(name: str) -> list[str]:
    """Of a special token as text; brackets are no tokens of the tiny vocabulary."""
    first, *rest = name.lower()
    return ["[UNK]", first, *(f"##{letter}" for letter in rest), "[UNK]"]


WORDS = [["the"], pieces("mask"), ["king"], pieces("sep"), ["was"], pieces("cls"), ["old"],
         pieces("pad")]  # fmt: skip
PIECES = ["[CLS]", *(piece for word in WORDS for piece in word), "[SEP]"]


def configured(checkpoint: Path, directory: Path, **settings: Any) -> Path:
    """The tiny checkpoint with settings in its tokenizer_config.json."""
    shutil.copytree(checkpoint, directory)
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return directory


def test_a_special_token_in_a_text_is_text(tokenizer: Any) -> None:
    for settings in ({}, {"truncation": True, "max_length": 64}):
        encoded = tokenizer(TEXT, return_offsets_mapping=True, **settings)
        assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == PIECES
        # The offsets are those of the pieces: they cover all but the spaces.
        covered = [TEXT[start:end] for start, end in encoded["offset_mapping"]]
        assert "".join(covered) == TEXT.replace(" ", "")


def test_a_special_token_among_words_is_a_word(tokenizer: Any) -> None:
    encoded = tokenizer(TEXT.split(), is_split_into_words=True)
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == PIECES
    numbers = [n for n, word in enumerate(WORDS) for _ in word]
    assert encoded.word_ids() == [None, *numbers, None]


def test_a_special_token_in_a_pair_is_text(tokenizer: Any) -> None:
    encoded = tokenizer([TEXT], ["[SEP]"], return_token_type_ids=True)
    found = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert found == [*PIECES, *pieces("sep"), "[SEP]"]
    assert sum(encoded["token_type_ids"][0]) == len(pieces("sep")) + 1


def test_a_special_token_in_a_text_is_no_mask_to_guess(tokenizer: Any) -> None:
    task = PreTraining.create(
        DataConfig(max_length=64), PreTrainingOptions(next_sentence=False), None, {}
    )
    example = DocumentExample("book", (TEXT,), None, "texts.jsonl:1")
    features = task.featurize([example], tokenizer, labeled=True)
    labels = features.per_token["label"].tolist()
    assert tokenizer.mask_token_id not in labels
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert [token for token in labels if token in special] == [labels[0], labels[-1]]


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        (None, ["Paris", "king"]),
        ({}, ["Paris", "king"]),
        ({"do_lower_case": True}, ["paris", "king"]),
    ],
)
def test_a_vocabulary_with_capitals_is_cased_unless_it_is_said(
    settings: dict[str, Any] | None, pieces: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "cased"
    shutil.copytree(checkpoint, directory)
    with (directory / "vocab.txt").open("a") as file:
        file.write("Paris\n")
    (directory / "tokenizer_config.json").unlink()
    if settings is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_tokenizer(directory).tokenize("Paris king") == pieces


def test_single_capitals_and_special_tokens_do_not_make_a_vocabulary_cased(
    checkpoint: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "chinese"  # as Google's
    shutil.copytree(checkpoint, directory)
    with (directory / "vocab.txt").open("a") as file:
        file.write("A\n##B\n<S>\n<T>\nparis\n")
    (directory / "tokenizer_config.json").unlink()
    assert load_tokenizer(directory).tokenize("Paris king") == ["paris", "king"]


@pytest.mark.parametrize(
    ("steps", "normalizer"),
    [
        ([pre_tokenizers.ByteLevel(add_prefix_space=False)], None),
        ([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)], None),
        ([pre_tokenizers.Split("_", "merged_with_next")], normalizers.Replace(" ", "_")),
        ([pre_tokenizers.Metaspace(prepend_scheme="always")], None),
        ([pre_tokenizers.Metaspace(prepend_scheme="first")], None),
        ([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()], None),
    ],
)
def test_a_word_has_the_tokens_that_it_has_in_a_text(
    steps: list[Any], normalizer: Any, tmp_path: Path
) -> None:
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if normalizer is not None:
        built.normalizer = normalizer
    built.train_from_iterator(
        ["a king12 a queen12 a"] * 9,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=built)
    expect_words(wrapped)
    wrapped.save_pretrained(tmp_path)
    for tokenizer in (wrapped, AutoTokenizer.from_pretrained(tmp_path)):
        words = tokenizer(["queen", "king12"], is_split_into_words=True)
        text = tokenizer("a queen king12")
        assert words.tokens() == text.tokens()[1:]
        assert set(words.word_ids()) == {0, 1}


def test_words_that_a_tokenizer_joins_are_refused() -> None:
    merges = [("a", " "), ("a ", "a")]
    built = Tokenizer(models.BPE({"a": 0, " ": 1, "a ": 2, "a a": 3}, merges))
    with pytest.raises(WeightsError, match="joins words of a text"):
        expect_words(PreTrainedTokenizerFast(tokenizer_object=built))


@pytest.mark.parametrize("own", ["extra_special_tokens", "additional_special_tokens"])
def test_markers_of_a_checkpoint_stay_tokens(own: str, checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(configured(checkpoint, tmp_path / "own", **{own: ["[E1]"]}))
    found = tokenizer.convert_ids_to_tokens(tokenizer("the [E1] king")["input_ids"])
    assert found == ["[CLS]", "the", "[E1]", "king", "[SEP]"]


@pytest.mark.parametrize("said", [None, False, True])
def test_the_saved_tokenizer_reads_special_tokens_as_the_checkpoint_does(
    said: bool | None, checkpoint: Path, tmp_path: Path
) -> None:
    settings = {} if said is None else {"split_special_tokens": said}
    source = configured(checkpoint, tmp_path / "source", **settings)
    tokenizer = load_tokenizer(source)
    assert tokenizer.convert_ids_to_tokens(tokenizer(TEXT)["input_ids"]) == PIECES
    reset(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    original, saved = (AutoTokenizer.from_pretrained(each) for each in (source, tmp_path / "saved"))
    assert saved(TEXT)["input_ids"] == original(TEXT)["input_ids"]
    assert saved.split_special_tokens == bool(said)
    assert "split_special_tokens" not in (tmp_path / "saved" / "tokenizer.json").read_text()
    again = load_tokenizer(tmp_path / "saved")
    assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]

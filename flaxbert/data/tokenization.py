"""Tokenizers: the one that belongs to the checkpoint, through Hugging Face transformers."""

import json
from pathlib import Path
from typing import Any

from flaxbert.errors import WeightsError

Tokenizer = Any
"""A fast tokenizer of transformers (`PreTrainedTokenizerFast`); imported late, it is slow to."""


FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""Of tokenizers: any; BERT's WordPiece, RoBERTa's BPE, ALBERT's and XLM-R's SentencePiece."""


def has_tokenizer(directory: Path) -> bool:
    """Whether a checkpoint comes with a tokenizer."""
    return any((directory / file).is_file() for file in FILES)


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load a checkpoint's tokenizer, with any truncation and padding stored in it reset.

    Such settings (sentence-transformers stores "128 tokens, padded") would cut every text in
    silence; the task decides both. And "[SEP]" or "[MASK]" written in a text is text.

    Raises:
      WeightsError: without tokenizer files, or if the tokenizer gives no character offsets.
    """
    from transformers import AutoTokenizer, BertTokenizerFast

    if not has_tokenizer(directory):
        raise WeightsError(f"{directory}: no tokenizer ({' or '.join(FILES)}) beside the weights.")
    try:
        if any((directory / file).is_file() for file in ("config.json", "tokenizer.json")):
            tokenizer = AutoTokenizer.from_pretrained(
                directory, use_fast=True, trust_remote_code=False, **_case(directory)
            )
        else:  # google-research/bert's form, a vocabulary alone
            tokenizer = BertTokenizerFast.from_pretrained(directory, **_case(directory))
    except Exception as error:  # transformers and tokenizers raise many types, bare Exception too
        raise WeightsError(f"{directory}: the tokenizer cannot be read ({error}).") from error
    if not tokenizer.is_fast:
        raise WeightsError(f"{directory}: no fast tokenizer (tokenizer.json), so no offsets.")
    # Its warning of long texts is for those who feed them to a model uncut.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    reset(tokenizer)
    _split_special_tokens(tokenizer)
    return tokenizer


def _case(directory: Path) -> dict[str, bool]:
    """Whether to lower case, where only the words of a vocabulary tell."""
    if (directory / "tokenizer.json").is_file() or not (directory / "vocab.txt").is_file():
        return {}
    file = directory / "tokenizer_config.json"
    if file.is_file() and "do_lower_case" in json.loads(file.read_text(encoding="utf-8")):
        return {}
    return {"do_lower_case": _is_uncased(directory / "vocab.txt")}


def _is_uncased(vocabulary: Path) -> bool:
    """Whether no word of a vocabulary, special tokens aside, has a capital letter."""
    words = vocabulary.read_text(encoding="utf-8").splitlines()
    return all(word == word.lower() for word in words if not word.startswith("["))


def expect_words(tokenizer: Tokenizer) -> None:
    """Prepare a tokenizer for texts that are split into words already.

    Byte-level BPE (RoBERTa, ModernBERT) knows a word's beginning by the space before it, which
    words alone do not have: it has to put one there. WordPiece and SentencePiece need nothing.

    Raises:
      WeightsError: if words, even with a space, are other tokens than in a text.
    """
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if state.get("type") == "ByteLevel" and not state["add_prefix_space"]:
        regex = state.get("use_regex", True)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=regex)
        # What is saved is one or the other, by the tokenizer's class.
        tokenizer.init_kwargs["add_prefix_space"] = True
        tokenizer.add_prefix_space = True
    elif not _knows_words(tokenizer):
        # A ByteLevel behind other steps would put a space before each of their pieces.
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *own])
    if not _knows_words(tokenizer):
        raise WeightsError(
            f"{tokenizer.name_or_path}: the tokenizer joins words of a text, so that a list of "
            "words has other tokens; token_classification needs one that keeps them apart."
        )


def _knows_words(tokenizer: Tokenizer) -> bool:
    """Whether a word is the same tokens alone as behind another in a text."""
    alone, text = (
        tokenizer(words, is_split_into_words=not isinstance(words, str), add_special_tokens=False)
        for words in (["a", "a"], "a a")
    )
    return bool(alone["input_ids"][-1] == text["input_ids"][-1])


def _split_special_tokens(tokenizer: Tokenizer) -> None:
    """Take special tokens written in a text for text.

    Unless the checkpoint has more than those with a role, such as "[E1]" around an entity: they
    are meant to be written there.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    own = special - set(tokenizer.special_tokens_map.values())
    if not own and not tokenizer.split_special_tokens:
        # What is named here is saved with its present value. False is the default anyway.
        tokenizer.init_kwargs.pop("split_special_tokens", None)
        tokenizer.split_special_tokens = True


def reset(tokenizer: Tokenizer) -> None:
    """Take out truncation and padding, which each call leaves behind in the tokenizer."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for key in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"):
        tokenizer.init_kwargs.pop(key, None)

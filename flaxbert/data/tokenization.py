"""Tokenizers: the one that belongs to the checkpoint, through Hugging Face transformers."""

from pathlib import Path
from typing import Any

from flaxbert.errors import WeightsError

Tokenizer = Any
"""A fast tokenizer of transformers (`PreTrainedTokenizerFast`); imported late, it is slow to."""


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load a checkpoint's tokenizer, with any truncation and padding stored in it reset.

    Such settings (sentence-transformers stores "128 tokens, padded") would cut every text in
    silence; the task decides both. And "[SEP]" or "[MASK]" written in a text is text.

    Raises:
      WeightsError: without tokenizer files, or if the tokenizer gives no character offsets.
    """
    from transformers import AutoTokenizer

    files = ("tokenizer.json", "vocab.txt")
    if not any((directory / file).is_file() for file in files):
        raise WeightsError(f"{directory}: no tokenizer ({' or '.join(files)}) beside the weights.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True)
    except Exception as error:  # transformers and tokenizers raise many types, bare Exception too
        raise WeightsError(f"{directory}: the tokenizer cannot be read ({error}).") from error
    if not tokenizer.is_fast:
        raise WeightsError(f"{directory}: no fast tokenizer (tokenizer.json), so no offsets.")
    # Its warning of long texts is for those who feed them to a model uncut.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    reset(tokenizer)
    _split_special_tokens(tokenizer)
    return tokenizer


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

"""The tokenizer of a checkpoint, loaded by Hugging Face transformers."""

import hashlib
import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

from flaxbert.data.readers import probe
from flaxbert.errors import WeightsError

# transformers says so when it is imported, but only its tokenizers are used here.
logging.getLogger("transformers").addFilter(
    lambda record: not record.getMessage().startswith("PyTorch was not found")
)

Tokenizer = Any
"""A fast tokenizer of transformers (`PreTrainedTokenizerFast`), which is slow to import."""


FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""Files of a tokenizer: any kind, WordPiece (BERT), BPE (RoBERTa), SentencePiece (ALBERT)."""


def has_tokenizer(directory: Path) -> bool:
    """Return whether a checkpoint comes with a tokenizer."""
    return any((directory / file).is_file() for file in FILES)


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load a checkpoint's tokenizer, and reset the truncation and padding stored in it.

    Such settings (sentence-transformers stores "128 tokens, padded") would silently truncate every
    text. "[SEP]" or "[MASK]" in a text is treated as text. If there is a tokenizer.json, it
    determines the tokens.

    Raises:
      WeightsError: without tokenizer files, or for a tokenizer that `probe.check` refuses.
    """
    from transformers import AutoTokenizer, BertTokenizerFast

    if not has_tokenizer(directory):
        raise WeightsError(f"{directory}: no tokenizer ({' or '.join(FILES)}) next to the weights.")
    try:
        if any((directory / file).is_file() for file in ("config.json", "tokenizer.json")):
            tokenizer = AutoTokenizer.from_pretrained(
                directory, use_fast=True, trust_remote_code=False, **_case(directory)
            )
        else:  # google-research/bert's form, a vocabulary alone
            tokenizer = BertTokenizerFast.from_pretrained(directory, **_case(directory))
        tokenizer = _as_stored(tokenizer, directory)
        _name_token_types(tokenizer, directory)
    except Exception as error:  # transformers and tokenizers raise many types, bare Exception too
        raise WeightsError(f"{directory}: the tokenizer cannot be read ({error}).") from error
    if not tokenizer.is_fast:
        raise WeightsError(f"{directory}: no fast tokenizer (tokenizer.json), so no offsets.")
    # The warning about long texts is for callers that do not truncate.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    _split_special_tokens(tokenizer)
    reset(tokenizer)
    probe.check(tokenizer, directory)
    reset(tokenizer)
    return tokenizer


SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "add_prefix_space": "add_prefix_space",
}
"""Keys of tokenizer_config.json that change a step of tokenizer.json: {key: name in that step}."""


def _as_stored(tokenizer: Tokenizer, directory: Path) -> Tokenizer:
    """Return a tokenizer whose tokens are those of tokenizer.json, if there is that file.

    Most classes of transformers 5 take only the vocabulary from it and rebuild the rest with their
    own defaults: a cased tokenizer.json becomes uncased, other steps are lost. `SETTINGS` in
    tokenizer_config.json still apply.
    """
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    file, config_file = directory / "tokenizer.json", directory / "tokenizer_config.json"
    if not file.is_file() or not tokenizer.is_fast:
        return tokenizer
    stored = Backend.from_file(str(file))
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    for step in ("normalizer", "pre_tokenizer"):
        part = getattr(stored, step)
        for key, name in SETTINGS.items():
            if config.get(key) is not None and hasattr(part, name):
                setattr(part, name, config[key])
        if part is not None:
            setattr(stored, step, part)
    reset(tokenizer)
    stored.no_truncation()
    stored.no_padding()
    if probe.same(tokenizer.backend_tokenizer, stored):
        return tokenizer
    kept = {
        key: value
        for key, value in tokenizer.init_kwargs.items()
        if key not in ("tokenizer_file", "vocab_file", "merges_file", "vocab", "merges", *SETTINGS)
    }
    return PreTrainedTokenizerFast(
        **kept
        | {"name_or_path": tokenizer.name_or_path, "tokenizer_object": stored}
        | dict(tokenizer.special_tokens_map)
        | {"model_input_names": tokenizer.model_input_names}
    )


def _name_token_types(tokenizer: Tokenizer, directory: Path) -> None:
    """Make the exported tokenizer return token types for a model that has them.

    In transformers 5 ALBERT's class does not, and a pair would look like one text.
    """
    file, names = directory / "config.json", tokenizer.model_input_names
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if config.get("type_vocab_size", 0) > 1 and "token_type_ids" not in names:
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names


def _case(directory: Path) -> dict[str, bool]:
    """Return whether to lower-case and to strip accents, as the words of a vocabulary show."""
    if (directory / "tokenizer.json").is_file() or not (directory / "vocab.txt").is_file():
        return {}
    file = directory / "tokenizer_config.json"
    if file.is_file() and "do_lower_case" in json.loads(file.read_text(encoding="utf-8")):
        return {}
    words = [
        word
        for word in (directory / "vocab.txt").read_text(encoding="utf-8").splitlines()
        if not word.startswith(("[", "<"))  # special tokens
    ]
    # Google's Chinese BERT has lower-cased words, and the single capitals as characters.
    if any(word != word.lower() for word in words if len(word.removeprefix("##")) > 1):
        return {"do_lower_case": False}
    accents = any(
        unicodedata.category(char) == "Mn"  # what stripping takes
        for word in words
        for char in unicodedata.normalize("NFD", word)
    )
    return {"do_lower_case": True} | ({"strip_accents": False} if accents else {})


def id_count(tokenizer: Tokenizer) -> int:
    """Return the number of rows that a tokenizer needs in the embedding table.

    It is the highest id + 1, which exceeds the number of tokens where ids are unused.
    """
    return int(max(tokenizer.get_vocab().values())) + 1


def doubled_word(directory: Path) -> str:
    """Return the first duplicate word of vocab.txt, with its lines; "" if there is none."""
    file = directory / "vocab.txt"
    lines: dict[str, int] = {}
    words = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    for number, word in enumerate(filter(None, words), 1):
        if (first := lines.setdefault(word, number)) != number:
            return f"{file}:{number}: {word!r} is in line {first} too"
    return ""


def needs_blank(tokenizer: Tokenizer) -> bool:
    """Return whether a text needs a leading blank to get the tokens that it has in a longer text.

    Byte-level BPE (RoBERTa, ModernBERT) marks a word's beginning by the blank before it.
    """
    backend = tokenizer.backend_tokenizer
    alone, after_blank, longer = (
        backend.encode(text, add_special_tokens=False).ids for text in ("a", " a", "a a")
    )
    return bool(longer != alone + alone and longer == alone + after_blank)


def expect_words(tokenizer: Tokenizer) -> None:
    """Prepare a tokenizer for texts that are already split into words.

    Byte-level BPE (RoBERTa, ModernBERT) marks a word's beginning by the space before it, which a
    single word lacks: the tokenizer has to add one. WordPiece and SentencePiece need no change.

    Raises:
      WeightsError: if single words, even with a space, have other tokens than in a text.
    """
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if state.get("type") == "ByteLevel" and not state["add_prefix_space"]:
        regex = state.get("use_regex", True)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=regex)
        # Which of the two is saved depends on the tokenizer's class.
        tokenizer.init_kwargs["add_prefix_space"] = True
        tokenizer.add_prefix_space = True
    elif not _keeps_words(tokenizer):
        # A ByteLevel after other steps would add a space before each of their pieces.
        steps = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *steps])
    if not _keeps_words(tokenizer):
        raise WeightsError(
            f"{tokenizer.name_or_path}: the tokenizer joins words of a text, so that a list of "
            "words has other tokens; token_classification needs one that keeps them apart."
        )


def _keeps_words(tokenizer: Tokenizer) -> bool:
    """Return whether a word has the same tokens alone and after another word."""
    alone, text = (
        tokenizer(words, is_split_into_words=not isinstance(words, str), add_special_tokens=False)
        for words in (["a", "a"], "a a")
    )
    return bool(alone["input_ids"][-1] == text["input_ids"][-1])


def _split_special_tokens(tokenizer: Tokenizer) -> None:
    """Treat special tokens that are written in a text as text.

    Checkpoints with further special tokens, such as "[E1]" around an entity, are left unchanged:
    these are meant to be written in texts.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    further = special - set(tokenizer.special_tokens_map.values())
    if not further and not tokenizer.split_special_tokens:
        # A key in init_kwargs is saved with its present value; False is the default anyway.
        tokenizer.init_kwargs.pop("split_special_tokens", None)
        tokenizer.split_special_tokens = True


def mask_id(tokenizer: Tokenizer) -> int:
    """Return the id of the mask token.

    Raises:
      WeightsError: if there is none.
    """
    if tokenizer.mask_token_id is None:
        raise WeightsError(
            f"{tokenizer.name_or_path}: the tokenizer has no mask token, which pre-training puts "
            "in place of words to predict. If the model has one, name it in "
            'tokenizer_config.json ("mask_token": "[MASK]"); else take another checkpoint.'
        )
    return int(tokenizer.mask_token_id)


def reset(tokenizer: Tokenizer) -> None:
    """Remove truncation and padding, which every call stores in the tokenizer."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    for key in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of",
                "truncation_side", "padding_side"):  # fmt: skip
        tokenizer.init_kwargs.pop(key, None)


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of what tokens depend on besides the text, in hexadecimal."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    special = dict(tokenizer.special_tokens_map), tokenizer.split_special_tokens
    return hashlib.sha256(f"{special!r}\n{backend.to_str()}".encode()).hexdigest()


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Save a tokenizer so that transformers 4.55 and 5 read it and return the same tokens."""
    reset(tokenizer)
    tokenizer.save_pretrained(directory)
    file = directory / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config = {
        key: value
        for key, value in config.items()
        if key[0] != "_" and key not in ("backend", "is_local", "local_files_only")
    }
    if config.get("tokenizer_class") == "TokenizersBackend":  # transformers 5's name for it
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):  # a dict in transformers 4
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")

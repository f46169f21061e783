"""Checks of a loaded tokenizer, before any text depends on it.

Checkpoints come with tokenizers saved by all kinds of tools. Training with a tokenizer that adds no
[CLS], whose offsets are one letter off or whose windows leave text out raises no error: the model
just trains on the wrong tokens.
"""

import json
from pathlib import Path
from typing import Any

from flaxbert.errors import WeightsError

TEXTS = (
    "paris by the river, paris  (Paris)\nBY  the 12 Rivers",
    " schön Café cafe\u0301 İstanbul \ufb01n \uff21\uff42\uff43 \uff11\uff12",
    "東京で 国王 왕은 พระราชา राजा ने العربيّة שָׁלוֹם мост",
    "a\u00adb c\u200dd e\u00a0f g\u200bh \ue000 👩\u200d👧 ❤\ufe0f \u0007 x\ufffdy `` '' --",
)
"""Case, accents, full-width forms, scripts, marks, joiners, and characters that are dropped."""

WORDS = "paris by the river"
"""The text whose offsets and windows are compared with its letters."""


def same(one: Any, other: Any) -> bool:
    """Return whether two backends give equal tokens, offsets and token types for `TEXTS`."""

    def encoded(backend: Any) -> list[Any]:
        inputs = [*TEXTS, (TEXTS[0], TEXTS[1])]
        return [(e.ids, e.offsets, e.type_ids) for e in backend.encode_batch(inputs)]

    return bool(encoded(one) == encoded(other))


def check(tokenizer: Any, directory: Path) -> None:
    """Check special tokens, offsets and windows; repair offsets that are trimmed twice.

    Raises:
      WeightsError: for a tokenizer that cannot be used.
    """
    _check_ends(tokenizer, directory)
    if _misplaced(tokenizer):
        _keep_blanks(tokenizer)
    if wrong := _misplaced(tokenizer):
        raise WeightsError(
            f"{directory}: the tokenizer's offsets are wrong: in {WORDS!r}, the tokens of "
            f"{wrong[0]!r} say that they are {wrong[1]!r}. Answers and words would be cut. Save "
            "the tokenizer again with a pre_tokenizer that keeps offsets, or use another."
        )
    _check_windows(tokenizer, directory)


def _check_ends(tokenizer: Any, directory: Path) -> None:
    """Check that a text is enclosed in [CLS] and [SEP], whatever their names."""
    single, pair = tokenizer(WORDS).encodings[0], tokenizer(WORDS, WORDS).encodings[0]
    for encoding in (single, pair):
        ends = encoding.sequence_ids[0], encoding.sequence_ids[-1]
        if not encoding.ids or ends != (None, None):
            raise WeightsError(
                f"{directory}: the tokenizer adds no special token before or after a text, such "
                "as [CLS] and [SEP]; every task reads the first. Its tokenizer.json needs a "
                "post_processor that adds them, as the model was trained with."
            )
    if pair.sequence_ids[pair.sequence_ids.index(1) - 1] is not None:
        raise WeightsError(
            f"{directory}: the tokenizer puts no special token between two texts, such as [SEP]. "
            "Its tokenizer.json needs a post_processor whose pair has one."
        )
    if max(pair.type_ids) > 1:
        raise WeightsError(
            f"{directory}: the tokenizer gives token types up to {max(pair.type_ids)}; the models "
            "support only 0 and 1. Its tokenizer.json needs another post_processor."
        )
    for role, token in (("cls", single.tokens[0]), ("sep", single.tokens[-1])):
        named = getattr(tokenizer, f"{role}_token")
        if named is None:  # tokenizer.json alone says it
            setattr(tokenizer, f"{role}_token", token)
        elif named != token:
            raise WeightsError(
                f"{directory}: tokenizer_config.json says {role}_token={named!r}, but the "
                f"tokenizer puts {token!r} there. Correct {role}_token, or the post_processor of "
                "tokenizer.json."
            )


def _misplaced(tokenizer: Any) -> tuple[str, str] | None:
    """Return the first of `WORDS` that its tokens do not cover, and what they cover; or None."""
    backend = tokenizer.backend_tokenizer
    offsets = backend.encode(WORDS, add_special_tokens=False).offsets
    covered = {place for start, end in offsets for place in range(start, end)}
    start = 0
    for word in WORDS.split():
        places = range(start, start + len(word))
        held = "".join(WORDS[place] for place in places if place in covered)
        # Letters that the vocabulary lacks may have no token at all; that is not checked here.
        known = all(backend.encode(char, add_special_tokens=False).ids for char in word)
        if known and held != word:
            return word, held
        start += len(word) + 1
    return None


def _keep_blanks(tokenizer: Any) -> None:
    """Set trim_offsets to false, so that offsets may begin with blanks.

    Byte-level tokenizers trim one character of each word, for the blank before it. Where words are
    split before, there is no blank, and the first letter is trimmed.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())

    def untrimmed(part: Any) -> Any:
        if isinstance(part, list):
            return [untrimmed(item) for item in part]
        if isinstance(part, dict):
            return {k: False if k == "trim_offsets" else untrimmed(v) for k, v in part.items()}
        return part

    state["post_processor"] = untrimmed(state["post_processor"])
    special = tokenizer.backend_tokenizer.encode_special_tokens
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))
    tokenizer.backend_tokenizer.encode_special_tokens = special


def _check_windows(tokenizer: Any, directory: Path) -> None:
    """Check that the windows of a long text cover it, with the requested overlap."""
    text, overlap = " ".join([WORDS] * 8), 2
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    for first in ([], [WORDS]):
        encoded = tokenizer(
            *first,
            text,
            truncation="only_second" if first else "only_first",
            max_length=len(tokenizer(*first, "")["input_ids"]) + 7,
            stride=overlap,
            return_overflowing_tokens=True,
        )
        joined: list[int] = []
        for number, encoding in enumerate(encoded.encodings):
            pairs = zip(encoding.ids, encoding.sequence_ids, strict=True)
            ids = [token for token, sequence in pairs if sequence == len(first)]
            joined += ids[overlap if number else 0 :]
        if joined != whole:
            from tokenizers import __version__

            raise WeightsError(
                f"{directory}: the windows of a long text do not cover it ({len(joined)} of "
                f"{len(whole)} tokens): a bug of some releases of tokenizers, of which "
                f"{__version__} is installed. Install another: python -m pip install -U tokenizers"
            )

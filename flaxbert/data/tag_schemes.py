"""Tag schemes: BIO, IOB1 and BIOES, their spellings and conversions."""

import collections
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PREFIXES = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIMELSU"}
"""Prefixes of each scheme: B begins an entity, I and M continue one, E and L end one. S and U mark
entities of one token."""


FIRST, LAST = "BSU", "ELSU"  # letters that always begin an entity; that always end one
TYPED = re.compile(f"[{PREFIXES['BIOES']}]-.+", re.DOTALL)

AHEAD = re.compile(r"([bimelsu])[-_](.+)", re.DOTALL | re.IGNORECASE)

BEHIND = re.compile(r"(.+)[-_]([bimelsu])", re.DOTALL | re.IGNORECASE)
"""A prefix in lower case, with an underscore, or behind: b-per, B_PER, PER-B."""

OUTSIDE = {"0", "o", "_", "-", "other", "out", "outside", "none", "null"}
"""Other spellings of O, in lower case."""

SYMBOLS = ("0", "_")
"""Spellings of O that are not words, and so unlikely to be the name of a class."""

FREQUENT = 0.1
"""Share of all tags from which the only tag without a prefix is read as O."""


def respelled(tags: Mapping[str, int]) -> dict[str, str]:
    """Return how tags that are not spelled B-TYPE and O are read: {tag: usual spelling}.

    * O written otherwise: `0`, `_`, `OTHER`, or the only tag without a prefix, if it is frequent.
      Where no tag has a prefix, `0` or `_` is O if it is the most frequent tag.
    * Prefixes in lower case, with an underscore, or after the type, if all are.

    Args:
      tags: the tags of a file and how often each occurs.
    """
    named = [tag for tag in tags if tag != "O"]
    plain = [tag for tag in named if not AHEAD.fullmatch(tag)]
    if plain and all(map(BEHIND.fullmatch, [tag for tag in plain if tag.lower() not in OUTSIDE])):
        plain = [tag for tag in plain if not BEHIND.fullmatch(tag)]
    letters = [tag for tag in plain if tag in PREFIXES["BIOES"]]
    others = {tag.lower() for tag in named} - {tag.lower() for tag in letters}
    if "B" in letters and len(others) == 1 and others <= OUTSIDE:
        plain = [tag for tag in plain if tag not in letters]  # B, I and O without types
    prefixed = sum(tags[tag] for tag in named if tag not in plain)
    usual = [tag for tag in plain if tag.lower() in OUTSIDE]
    frequent = FREQUENT * sum(tags.values())
    outside: list[str] = []
    if "O" in tags:
        outside = [tag for tag in plain if tag in ("0", "o")]
    elif len(usual) == 1 and sum(tags[tag] for tag in plain if tag not in usual) < prefixed:
        outside = usual
    elif len(plain) == 1 and tags[plain[0]] >= frequent:
        outside = plain
    if not prefixed:
        outside = [tag for tag in SYMBOLS if _is_outside_types(tag, tags)]
    spelling = dict.fromkeys(outside, "O")
    rest = [tag for tag in named if tag not in spelling]
    if rest and not any(map(TYPED.fullmatch, rest)) and ("O" in tags or spelling):
        ahead, behind = ([form.fullmatch(tag) for tag in rest] for form in (AHEAD, BEHIND))
        if all(ahead):
            spelling |= {
                tag: f"{m[1].upper()}-{m[2]}" for tag, m in zip(rest, ahead, strict=True) if m
            }
        elif all(behind) and any(m[2] in "bB" for m in behind if m):
            spelling |= {
                tag: f"{m[2].upper()}-{m[1]}" for tag, m in zip(rest, behind, strict=True) if m
            }
    return spelling


def _is_outside_types(tag: str, tags: Mapping[str, int]) -> bool:
    """Return whether a tag means O among types without prefixes: it is more frequent than each."""
    types = tags.keys() - {tag}
    return tag in tags and is_io({*types, "O"}) and all(tags[t] < tags[tag] for t in types - {"O"})


def detect_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of a file's tags.

    * "IO": types without prefixes, and O (see `is_io`).
    * "plain": at least half of the tags other than O have no prefix: parts of speech, say. If
      fewer have none, these are mistakes (see `odd_tags`).
    * "BIOES": any tag has a prefix of BIOES, of BILOU (L for E, U for S) or of BMES (M for I).
    * "BIO" (IOB2): entities start with B-.
    * "IOB1": entities start with I-, and with B- only right after one of the same type.

    The last two differ in entities that are not right after one of their type: the prefix that most
    of these start with decides. So a file without B- is IOB1, and a BIO file may have a few
    entities that start with I- (see `to_bio`). A tie, or a file without entities, is BIO.

    Tags may have no type if none has one: B, I and O.

    Args:
      sequences: the tags of every sentence of the file, in the spelling that `respelled` returns.
    """
    tags: collections.Counter[str] = collections.Counter()
    begin = inside = 0
    for sequence in sequences:
        tags.update(sequence)
        begin += _starts(sequence, "B")
        inside += _starts(sequence, "I")
    if is_io(tags):
        return "IO"
    del tags["O"]
    odd = odd_tags(tags)
    if odd and 2 * sum(tags[tag] for tag in odd) >= tags.total():
        return "plain"
    if any(tag[0] not in PREFIXES["BIO"] for tag in tags.keys() - odd):
        return "BIOES"
    return "IOB1" if inside > begin else "BIO"


def odd_tags(tags: Collection[str]) -> set[str]:
    """Return the tags without a prefix among tags that have one."""
    if set(tags) - {"O"} <= set(PREFIXES["BIOES"]):  # without types
        return set()
    return {tag for tag in tags if tag != "O" and not TYPED.fullmatch(tag)}


def is_io(tags: Collection[str]) -> bool:
    """Return whether tags are O and types without prefixes, so that a run of a type is an entity.

    Parts of speech have no O, except in a few sets whose tags are single letters.
    """
    types = set(tags) - {"O"}
    alone = not any(map(TYPED.fullmatch, types))
    return "O" in tags and alone and any(len(tag) > 1 for tag in types)


def both_tags(types: Sequence[str]) -> list[str]:
    """Return B- and I- of each type, in the types' order; O is kept."""
    pairs = [[name] if name == "O" else [f"B-{name}", f"I-{name}"] for name in types]
    return list(itertools.chain.from_iterable(pairs))


def _starts(tags: Sequence[str], prefix: str) -> int:
    """Count the entities that start with this prefix and are not right after one of their type."""
    return sum(
        tag[:1] == prefix and (before == "O" or before[1:] != tag[1:])
        for before, tag in itertools.pairwise(["O", *tags])
    )


CONTINUES = {"BIO": "I", "IOB1": "B", "BIOES": "IMEL"}
"""Prefixes that each scheme allows only right after a tag of the same type."""


def misplaced(tags: Sequence[str], scheme: str) -> list[int]:
    """Return the places of tags that their scheme does not allow after the tag before them.

    The place of the sentence's end is the number of its tags: in BIOES an entity ends before it.
    """
    places = []
    before = None  # type of the entity that may go on here
    for place, tag in enumerate([*tags, "O"]):
        if tag != "O" and tag[:1] in CONTINUES.get(scheme, ""):
            wrong = before != tag[1:]
        else:
            wrong = scheme == "BIOES" and before is not None
        if wrong:
            places.append(place)
        ended = tag == "O" or (scheme == "BIOES" and tag[:1] in LAST)
        before = None if ended else tag[1:]
    return places


def to_bio(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the same entities in IOB2: each starts with B- and continues with I-.

    Broken sequences are read as the CoNLL-2000 script conlleval reads them: a tag that should
    continue an entity, but does not follow one of its type, starts one. Thus a stray I- in a BIO
    file becomes B-, no entity is lost, and strict and lenient scoring agree on the labels.
    `misplaced` finds such tags.

    Args:
      tags: the tags of one sentence.
      scheme: as `detect_scheme` returns it; "plain" tags are returned as they are.

    Raises:
      ValueError: for a tag that does not belong to the scheme.
    """
    if scheme == "plain":
        return list(tags)
    if scheme == "IO":
        tags, scheme = [tag if tag == "O" else f"I-{tag}" for tag in tags], "BIO"
    result = []
    open_type = None  # of the entity that the next tag may continue: "-PER", "" if untyped
    for tag in tags:
        if tag == "O":
            open_type = None
            result.append(tag)
            continue
        prefix, type_ = tag[:1], tag[1:]
        if prefix not in PREFIXES[scheme] or not (type_ == "" or TYPED.fullmatch(tag)):
            raise ValueError(f"tag {tag!r} does not belong to the scheme {scheme}")
        starts = prefix in FIRST or type_ != open_type
        result.append(("B" if starts else "I") + type_)
        open_type = None if prefix in LAST else type_
    return result


def mark_entities(labels: Collection[str]) -> bool:
    """Return whether labels mark entities: most have a prefix, or they are B, I and O.

    Parts of speech do not. In some sets one of them is I, an interjection.
    """
    return 2 * len(odd_tags(labels)) < len(set(labels) - {"O"})


def not_iob2(labels: Collection[str]) -> str | None:
    """Return a label of another scheme than IOB2; None if there is none.

    Such labels are a type alone, a letter of BIOES, or I- of a type without B-.
    """
    if is_io(labels):
        return next(label for label in labels if label != "O")
    odd = (label for label in labels if label[0] != "I" or f"B{label[1:]}" not in labels)
    return next((label for label in odd if label[0] != "B" and TYPED.fullmatch(label)), None)


def filled(tags: Sequence[str | None], outside: str) -> list[str]:
    """Return IOB2 tags with one for each None: an entity continues over it, else it is `outside`.

    None stands for a word without any token.
    """
    following, known = [], outside
    for tag in reversed(tags):
        known = known if tag is None else tag
        following.append(known)
    result: list[str] = []
    for tag, after in zip(tags, reversed(following), strict=True):
        around = after[:2] in ("I-", "I") and result[-1:] in ([after], [f"B{after[1:]}"])
        result.append(tag or (after if around else outside))
    return result


def tagged_words(
    sentences: Sequence[Sequence[str]],
    owners: np.ndarray,
    places: np.ndarray,
    tags: Sequence[str],
    probabilities: np.ndarray,
    outside: str,
) -> list[dict[str, Any]]:
    """Return the predictions of sentences: `tokens`, and the `tags` and `probability` of each word.

    A word without any token has the probability None, and its tag is that of `filled`.

    Args:
      sentences: the words of each.
      owners: the index of the sentence of each word with a token [W].
      places: the index of each such word in its sentence [W].
      tags: their tags [W].
      probabilities: of these tags [W].
      outside: the tag of a word outside all entities.
    """
    known: list[list[str | None]] = [[None] * len(words) for words in sentences]
    chances: list[list[float | None]] = [[None] * len(words) for words in sentences]
    rows = zip(owners.tolist(), places.tolist(), tags, probabilities.tolist(), strict=True)
    for owner, place, tag, probability in rows:
        known[owner][place], chances[owner][place] = tag, probability
    return [
        {"tokens": list(words), "tags": filled(row, outside), "probability": p}
        for words, row, p in zip(sentences, known, chances, strict=True)
    ]

"""Tag schemes: BIO, IOB1 and BIOES, their spellings and conversions."""

import collections
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

PREFIXES = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIMELSU"}
"""Letters of each scheme: B begins, I and M are inside, E and L end, S and U are alone."""


FIRST, LAST = "BSU", "ELSU"  # letters that always begin an entity; that always end one
TYPED = re.compile(f"[{PREFIXES['BIOES']}]-.+", re.DOTALL)

AHEAD = re.compile(r"([bimelsu])[-_](.+)", re.DOTALL | re.IGNORECASE)

BEHIND = re.compile(r"(.+)[-_]([bimelsu])", re.DOTALL | re.IGNORECASE)
"""A prefix in lower case, with an underscore, or behind: b-per, B_PER, PER-B."""

OUTSIDE = {"0", "o", "_", "-", "other", "out", "outside", "none", "null"}
"""What is written for O, in lower case."""

SYMBOLS = ("0", "_")
"""Those of them that are no words, and so hardly the name of a class."""

FREQUENT = 0.1
"""Share of all tags that the only one without prefix has where it stands for O."""


def respelled(tags: Mapping[str, int]) -> dict[str, str]:
    """Tags that mark entities but are not spelled B-TYPE and O, and how they are read.

    * O written otherwise: `0`, `_`, `OTHER`, or the only tag without a prefix, if it is frequent.
      Where no tag has a prefix, `0` or `_` is O if it is the most frequent tag.
    * Prefixes in lower case, with an underscore, or behind the type, if all are.

    Args:
      tags: of a file, with their numbers.
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
    found = dict.fromkeys(outside, "O")
    rest = [tag for tag in named if tag not in found]
    if rest and not any(map(TYPED.fullmatch, rest)) and ("O" in tags or found):
        ahead, behind = ([form.fullmatch(tag) for tag in rest] for form in (AHEAD, BEHIND))
        if all(ahead):
            found |= {
                tag: f"{m[1].upper()}-{m[2]}" for tag, m in zip(rest, ahead, strict=True) if m
            }
        elif all(behind) and any(m[2] in "bB" for m in behind if m):
            found |= {
                tag: f"{m[2].upper()}-{m[1]}" for tag, m in zip(rest, behind, strict=True) if m
            }
    return found


def _is_outside_types(tag: str, tags: Mapping[str, int]) -> bool:
    """Whether a tag stands for O among types alone: it is more frequent than each of them."""
    types = tags.keys() - {tag}
    return tag in tags and is_io({*types, "O"}) and all(tags[t] < tags[tag] for t in types - {"O"})


def detect_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """Which scheme a file's tags follow.

    * "IO": types alone beside O (see `is_io`).
    * "plain": at least half of the tags other than O have no prefix: parts of speech, say. If
      fewer have none, these are mistakes (see `odd_tags`).
    * "BIOES": any tag has a prefix of BIOES, of BILOU (L for E, U for S) or of BMES (M for I).
    * "BIO" (IOB2): entities start with B-.
    * "IOB1": entities start with I-, and with B- only right behind one of the same type.

    The last two differ in entities that are not right behind one of their type, and what most of
    these start with decides: so a file without B- is IOB1, and a BIO file may have a few that
    start with I- (see `to_bio`). A tie, or a file without entities, is BIO.

    Tags may do without a type if all do: B, I and O alone.

    Args:
      sequences: the tags of every sentence of the file, as `respelled` has them.
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
    """Tags that have no prefix, where others have one."""
    if set(tags) - {"O"} <= set(PREFIXES["BIOES"]):  # without types
        return set()
    return {tag for tag in tags if tag != "O" and not TYPED.fullmatch(tag)}


def is_io(tags: Collection[str]) -> bool:
    """Whether tags are types alone beside O, so that a run of one type is an entity.

    Sets of parts of speech have no O, save some whose tags are all of one letter.
    """
    types = set(tags) - {"O"}
    alone = not any(map(TYPED.fullmatch, types))
    return "O" in tags and alone and any(len(tag) > 1 for tag in types)


def both_tags(types: Sequence[str]) -> list[str]:
    """B- and I- of each type, in the types' order; O stays as it is."""
    pairs = [[each] if each == "O" else [f"B-{each}", f"I-{each}"] for each in types]
    return list(itertools.chain.from_iterable(pairs))


def _starts(tags: Sequence[str], prefix: str) -> int:
    """Number of entities that start with this prefix and are not right behind their own type."""
    return sum(
        tag[:1] == prefix and (before == "O" or before[1:] != tag[1:])
        for before, tag in itertools.pairwise(["O", *tags])
    )


CONTINUES = {"BIO": "I", "IOB1": "B", "BIOES": "IMEL"}
"""Letters that in each scheme stand only right behind a tag of the same type."""


def misplaced(tags: Sequence[str], scheme: str) -> list[int]:
    """Places of tags that their scheme does not allow behind the tag before them.

    The place of the sentence's end is the number of its tags: in BIOES an entity ends before it.
    """
    found = []
    before = None  # type of the entity that may go on here
    for place, tag in enumerate([*tags, "O"]):
        if tag != "O" and tag[:1] in CONTINUES.get(scheme, ""):
            wrong = before != tag[1:]
        else:
            wrong = scheme == "BIOES" and before is not None
        if wrong:
            found.append(place)
        ended = tag == "O" or (scheme == "BIOES" and tag[:1] in LAST)
        before = None if ended else tag[1:]
    return found


def to_bio(tags: Sequence[str], scheme: str) -> list[str]:
    """The same entities in IOB2: each starts with B- and goes on with I-.

    Broken sequences are read as the CoNLL-2000 script conlleval reads them: a tag that should
    continue an entity, but has none of its type before it, starts one. Thus a stray I- in a BIO
    file becomes B-, no entity of the file is lost, and strict and lenient scoring agree on what
    the gold entities are. `misplaced` finds such tags.

    Args:
      tags: of one sentence.
      scheme: as `detect_scheme` returns it; "plain" tags are returned as they are.

    Raises:
      ValueError: for a tag that is not of the scheme.
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
            raise ValueError(f"tag {tag!r} is not of the scheme {scheme}")
        starts = prefix in FIRST or type_ != open_type
        result.append(("B" if starts else "I") + type_)
        open_type = None if prefix in LAST else type_
    return result


def mark_entities(labels: Collection[str]) -> bool:
    """Return whether labels mark entities; parts of speech do not."""
    return any(label[:2] in ("B-", "I-", "B", "I") for label in labels)


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
    result: list[str] = []
    for place, tag in enumerate(tags):
        after = next((other for other in tags[place:] if other is not None), outside)
        around = after[:2] in ("I-", "I") and result[-1:] in ([after], [f"B{after[1:]}"])
        result.append(tag or (after if around else outside))
    return result

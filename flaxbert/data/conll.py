"""Column files of labelled words (CoNLL), and the schemes by which their tags mark entities.

One token a line: the token, then any further columns, the tag last; a blank line ends a sentence.

    EU     NNP  B-ORG
    votes  VBZ  O

A file of one column is unlabelled.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from flaxbert.data.table import shown
from flaxbert.errors import DataError

DOCUMENT = "-DOCSTART-"  # the first column of a line that stands between two documents
LONE_RETURN = "a carriage return within the line; expected lines to end with \\n or \\r\\n"


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Tokens and their further columns, each as long as `tokens`."""

    tokens: list[str]
    columns: list[list[str]]
    """One list a column behind the token; the last holds the tags. Empty in an unlabelled file."""
    line: int
    """Of the first token, counted from 1."""

    def values(self) -> dict[str, list[str]]:
        """The sentence as a row's values: `tokens`, `column2`, `column3` and so on, `tags`."""
        names = [f"column{n}" for n in range(2, len(self.columns) + 1)]
        return {"tokens": self.tokens} | dict(zip([*names, "tags"], self.columns, strict=False))


def sentences(
    path: Path, *, columns: Sequence[str] = (), encoding: str = "utf-8-sig"
) -> tuple[list[Sentence], list[DataError]]:
    r"""Read a column file.

    * Lines end with \n or \r\n alone, and columns are parted by tabs if half of the lines have
      one, else by runs of spaces. Other white space, such as U+00A0 or U+0085, is part of a token.
    * A line of nothing but white space ends a sentence, as does a line that begins with the word
      -DOCSTART-, which is dropped.
    * Most lines that do not begin with "# " decide the number of columns for the whole file. A
      line with another number, without a token or without a tag is malformed.
    * A line that begins with "# " is a comment where a sentence would start and the number of
      columns is another: a token "#" has a tag behind it. So is one that begins with "# id ", as
      MultiCoNER's, which may have as many columns; and in a file with tabs, any without a tab.

    A malformed line is left out, not its sentence. Most such lines in published corpora hold a
    token that cannot be seen, and nothing is missed; a sentence dropped would take its other
    entities out of the score. Where the line did hold a word, its sentence becomes one shorter, so
    the lines are returned for the caller to refuse or to tell.

    Args:
      path: a text file.
      columns: their names, of which "word" is the token and "tag" the tags; () if not given.
      encoding: Python's codec.

    Returns:
      The sentences, and what is wrong with each malformed line.

    Raises:
      UnicodeDecodeError: if the file is of another encoding.
    """
    # Not read_text or splitlines: both also end a line at a lone \r, the latter at U+0085 too.
    ended = path.read_bytes().decode(encoding).split("\n")
    lines = [line.removesuffix("\r") for line in ended]
    tabs, first = _form(lines)
    found: list[Sentence] = []
    faults: list[DataError] = []
    sentence = None
    for number, line in enumerate(lines, start=1):
        if _ends_sentence(line):
            sentence = None
            continue
        cells = _cells(line, tabs)
        if line.startswith("# ") and (
            (tabs and "\t" not in line)
            or (sentence is None and (len(cells) != first[1] or line.startswith("# id ")))
        ):
            continue
        fault = _fault(line, cells, first)
        if fault:
            parted = f"{'tabs' if tabs else 'spaces'} part columns here"
            faults.append(DataError(f"{path}:{number}: {fault} ({parted}): {_shortened(line)}."))
            continue
        if sentence is None:
            sentence = Sentence([], [[] for _ in cells[1:]], number)
            found.append(sentence)
        sentence.tokens.append(cells[0])
        for column, cell in zip(sentence.columns, cells[1:], strict=True):
            column.append(cell)
    return found, faults


def _ends_sentence(line: str) -> bool:
    return not line.strip() or line.split(maxsplit=1)[0] == DOCUMENT


def _form(lines: Sequence[str]) -> tuple[bool, tuple[int, int]]:
    """Whether tabs part columns, the first line of the form that most lines have, its columns."""
    numbered = [each for each in enumerate(lines, start=1) if not _ends_sentence(each[1])]
    tokens = [each for each in numbered if not each[1].startswith("# ")] or numbered[:1]
    tabs = bool(tokens) and 2 * sum("\t" in line for _, line in tokens) >= len(tokens)
    widths = [len(_cells(line, tabs)) for _, line in tokens]
    if not widths:
        return tabs, (0, 0)
    width = collections.Counter(widths).most_common(1)[0][0]  # of equals the first
    return tabs, (tokens[widths.index(width)][0], width)


def _cells(line: str, tabs: bool) -> list[str]:
    if tabs:
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in line.split(" ") if cell]


def _fault(line: str, cells: list[str], first: tuple[int, int]) -> str | None:
    """What is wrong with a line, and what was expected."""
    number, width = first
    if "\r" in line:  # the line ends of old Macs: the whole file would be one token
        return LONE_RETURN
    if len(cells) != width:
        return f"columns: {len(cells)}; expected {width}, as in line {number}"
    if any("\t" in cell for cell in cells):  # of a file of spaces: both columns would be the token
        return "a tab; expected spaces alone, as in most lines"
    if not cells[0].strip():
        return "the token is empty; expected text in the first column"
    if not cells[-1].strip():
        return "the tag is empty; expected one in the last column"
    return None


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 80 else f"{line[:80]}...")


# --- schemes -----------------------------------------------------------------------------------

PREFIXES = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIMELSU"}
"""Letters of each scheme: B begins, I and M are inside, E and L end, S and U are alone."""
FIRST, LAST = "BSU", "ELSU"  # letters that always begin an entity; that always end one
TYPED = re.compile(f"[{PREFIXES['BIOES']}]-.+", re.DOTALL)
MISSPELT = re.compile(r"[bimelsu]-.+|[bimelsu]_.+|.+[-_][BI]", re.DOTALL | re.IGNORECASE)
"""A prefix in lower case, with an underscore or behind: b-per, B_PER, PER-B."""


def detect_scheme(sequences: Iterable[Sequence[str]], name: str) -> str:
    """Which scheme a file's tags follow.

    * "IO": types alone beside O (see `is_io`).
    * "plain": at least half of the tags other than O have no prefix: parts of speech, say.
    * "BIOES": any tag has a prefix of BIOES, of BILOU (L for E, U for S) or of BMES (M for I).
    * "BIO" (IOB2): entities start with B-.
    * "IOB1": entities start with I-, and with B- only right behind one of the same type.

    The last two differ in entities that are not right behind one of their type, and what most of
    these start with decides: so a file without B- is IOB1, and a BIO file may have a few that
    start with I- (see `to_bio`). A tie, or a file without entities, is BIO.

    Tags may do without a type if all do: B, I and O alone.

    Args:
      sequences: the tags of every sentence of the file.
      name: of the file, for the message.

    Raises:
      DataError: if more than half of the tags other than O have a prefix, but not all; or if all
        are spelt like b-per, B_PER or PER-B.
    """
    tags: collections.Counter[str] = collections.Counter()
    begin = inside = 0
    for sequence in sequences:
        tags.update(sequence)
        begin += _starts(sequence, "B")
        inside += _starts(sequence, "I")
    types_alone = is_io(tags)
    del tags["O"]
    if set(tags) <= set(PREFIXES["BIOES"]):  # without types
        odd = {}
    else:
        odd = {tag: count for tag, count in tags.items() if not TYPED.fullmatch(tag)}
    named = odd.keys() - {"o"}
    if named and all(map(MISSPELT.fullmatch, named)) and len(odd) == len(tags):
        raise DataError(
            f"{name}: tags such as {shown(min(named))}; expected B-PER: the upper-case letter "
            "first, then a hyphen and the type, or O outside all entities. Rewrite them so."
        )
    if types_alone:
        return "IO"
    if odd and 2 * sum(odd.values()) >= tags.total():
        return "plain"
    if odd:
        tag = max(odd, key=lambda tag: odd[tag])
        raise DataError(
            f"{name}: {len(odd)} tags, such as {shown(tag)} ({odd[tag]} times), do not look like "
            "B-TYPE or I-TYPE, but most do. Give them a prefix, or O outside all entities."
        )
    if any(tag[0] not in PREFIXES["BIO"] for tag in tags):
        return "BIOES"
    return "IOB1" if inside > begin else "BIO"


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

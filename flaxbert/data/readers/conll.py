"""Column files of labeled words (CoNLL), and the schemes by which their tags mark entities.

A line holds one token: the token, any further columns, and the tag. A blank line ends a sentence.

    EU     NNP  B-ORG
    votes  VBZ  O

A file of one column is unlabeled. A first column that numbers the words is left out. CoNLL-U, ten
columns, has words in its second and parts of speech in its fourth. `data.columns` names others.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from flaxbert.data.checks import READ_AS, Issue
from flaxbert.data.table import shown
from flaxbert.data.tag_schemes import TYPED
from flaxbert.errors import DataError

DOCUMENT = "-DOCSTART-"  # the first column of a line that stands between two documents
LONE_RETURN = "a carriage return within the line; expected lines to end with \\n or \\r\\n"


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Tokens and their further columns, each as long as `tokens`."""

    tokens: list[str]
    columns: dict[str, list[str]]
    """The further columns by name; `tags` is not among them in an unlabeled file."""
    lines: list[int]
    """The line of each token, counted from 1."""

    def values(self) -> dict[str, list[str]]:
        """Return the values of a record: `tokens`, `tags`, and further columns by their names."""
        return {"tokens": self.tokens} | self.columns


def sentences(
    path: Path, *, columns: Sequence[str] = (), encoding: str = "utf-8-sig"
) -> tuple[list[Sentence], list[DataError | Issue]]:
    r"""Read a column file.

    * Lines end with \n or \r\n alone, and columns are separated by tabs if half of the lines have
      one, else by runs of spaces. Other white space, such as U+00A0 or U+0085, is part of a token.
    * A line of nothing but white space ends a sentence, as does a line that begins with the word
      -DOCSTART-, which is dropped.
    * The number of columns is that of most lines that do not begin with "# ". A line with another
      number, without a token or without a tag is malformed.
    * A line that begins with "# " is a comment if it stands where a sentence would start and has
      another number of columns: a token "#" has a tag after it. Also comments are lines that begin
      with "# id ", as in MultiCoNER, which may have as many columns; lines whose last word is not
      like the file's tags (see `_is_tag`), which is reported; and, in a file with tabs, lines
      without a tab. "#begin document" and "#end document" are comments anywhere.
    * A first column that numbers the words, from 0 or 1 in each sentence or through the file, is
      left out. Ten columns with it are CoNLL-U's: words in its FORM, tags in its UPOS; lines of
      several words ("1-2") or none ("1.1") are left out.

    A malformed line is left out, not its sentence. Most such lines in published corpora hold an
    invisible token, so nothing is lost; dropping the sentence would remove its other entities from
    the score. If the line did hold a word, its sentence becomes one word shorter, so such lines are
    returned for the caller to refuse or to report.

    Args:
      path: a text file.
      columns: their names, of which "word" is the token and "tag" its tag; () if not given.
      encoding: a codec of Python.

    Returns:
      The sentences; and what is wrong with each malformed line, and how the columns are read if not
      as words first and tags last.

    Raises:
      UnicodeDecodeError: if the file is of another encoding.
      DataError: if the columns are not those that `columns` names, or words first and tags last.
    """
    # Not read_text or splitlines: both also end a line at a lone \r, the latter at U+0085 too.
    ended = path.read_bytes().decode(encoding).split("\n")
    lines = [line.removesuffix("\r") for line in ended]
    tabs, first = _form(lines)
    records, problems = _records(lines, tabs, first, path)
    layout = _layout(records, first, columns, path)
    if layout.note:
        problems.append(Issue(READ_AS, str(path), layout.note))
    sentences: list[Sentence] = []
    for record in records:
        sentence = Sentence([], {name: [] for name in layout.names if name != WORD}, [])
        for number, cells in record:
            if layout.conllu and not cells[0].isdecimal():
                continue
            problem = _empty_cell(dict(zip(layout.names, cells, strict=True)))
            if problem:
                problems.append(_error(path, number, problem, tabs, lines[number - 1]))
                continue
            for name, cell in zip(layout.names, cells, strict=True):
                (sentence.tokens if name == WORD else sentence.columns[name]).append(cell)
            sentence.lines.append(number)
        sentence.columns.pop("", None)
        if sentence.tokens:
            sentences.append(sentence)
    return sentences, problems


Record = list[tuple[int, list[str]]]
"""The lines of a sentence: (number, cells)."""


def _records(
    lines: Sequence[str], tabs: bool, first: tuple[int, int], path: Path
) -> tuple[list[Record], list[DataError | Issue]]:
    """Return sentences as lines of equally many cells, and what is wrong with other lines."""
    records: list[Record] = []
    problems: list[DataError | Issue] = []
    # A line inside a sentence is not a comment; one that follows a comment may be.
    known = {
        cells[-1]
        for before, line in itertools.pairwise(["", *lines])
        if (cells := _cells(line, tabs))
        and not (line.startswith("#") and (_ends_sentence(before) or before.startswith("#")))
    }
    comments: list[int] = []
    inside = False
    for number, line in enumerate(lines, start=1):
        if _ends_sentence(line):
            inside = False
            continue
        cells = _cells(line, tabs)
        if line.startswith("# ") and (
            (tabs and "\t" not in line)
            or (not inside and (len(cells) != first[1] or line.startswith("# id ")))
        ):
            continue
        two = not inside and first[1] == 2 and line.startswith("# ")
        if two and known and not _is_tag(cells[-1], known):
            comments.append(number)
            continue
        problem = _line_problem(line, cells, first)
        if problem:
            problems.append(_error(path, number, problem, tabs, line))
            continue
        if not inside:
            records.append([])
        inside = True
        records[-1].append((number, cells))
    if comments:
        what = (
            f"lines read as comments: {len(comments)}, such as "
            f"{shown(lines[comments[0] - 1])}, whose last word is not like the file's tags; if "
            "'#' is a word there, separate the columns with tabs"
        )
        problems.append(Issue(READ_AS, f"{path}:{comments[0]}", what))
    return records, problems


def _is_tag(word: str, known: Collection[str]) -> bool:
    """Return whether the last word of a line that begins with "# " is a tag, as in other lines.

    Some tags occur only after "#", such as SYM in few sentences: they look like the others.
    """
    if word in known or word in ("#", "O"):
        return True
    if any(map(TYPED.fullmatch, known)):
        return bool(TYPED.fullmatch(word))
    return word.isupper() and all(tag == tag.upper() for tag in known)


def _error(path: Path, number: int, problem: str, tabs: bool, line: str) -> DataError:
    separated = f"columns are separated by {'tabs' if tabs else 'spaces'} here"
    return DataError(f"{path}:{number}: {problem} ({separated}): {shown(line)}.")


def _ends_sentence(line: str) -> bool:
    return not line.strip() or line.split(maxsplit=1)[0] == DOCUMENT or bool(MARK.match(line))


MARK = re.compile("#(begin|end) document")
"""Matches the lines between the documents of CoNLL-2012."""

WORD, TAG = "tokens", "tags"
"""Names of a record's values."""

CONLLU = ("", WORD, "lemma", TAG, "xpos", "feats", "head", "deprel", "deps", "misc")
NUMBERED = re.compile(r"\d+([-.]\d+)?")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of a file's columns; "" for a column that is left out."""

    names: Sequence[str]
    note: str = ""
    conllu: bool = False


def _layout(
    records: Sequence[Record], first: tuple[int, int], columns: Sequence[str], path: Path
) -> Layout:
    """Return the columns of a file: those that are named, or what their content shows.

    Raises:
      DataError: for names that do not fit; for a first column of tags or of one value per sentence.
    """
    width = first[1]
    if columns:
        names = [{"word": WORD, "tag": TAG}.get(name, name) for name in columns]
        if WORD not in names:
            raise DataError(
                f"{path}: data.columns={','.join(columns)} names no column 'word'; name all "
                "columns, such as --config.data.columns=index,word,pos,tag."
            )
        if len(names) != width:
            raise DataError(
                f"{path}:{first[0]}: columns: {width}, but data.columns names {len(names)} "
                f"({','.join(columns)}). Name all, such as --config.data.columns="
                f"{','.join(_usual(width))}."
            )
        return Layout(names)
    places = [[cells[0] for _, cells in record] for record in records]
    if width == len(CONLLU) and all(NUMBERED.fullmatch(cell) for cells in places for cell in cells):
        left_out = sum(not cell.isdecimal() for cells in places for cell in cells)
        note = "CoNLL-U: the words are the column FORM, the tags UPOS"
        note += f"; {left_out} lines of several words or none are left out" if left_out else ""
        return Layout(CONLLU, f"{note} (others: --config.data.columns)", conllu=True)
    named = (WORD, *(f"column{n}" for n in range(2, width)), TAG)[:width]
    last = [cells[-1] for record in records for _, cells in record]
    words = len(last) >= SURE or len(set(last)) == len(last)  # of two columns: not tags
    if _counts(places) and (width > 2 or words):
        note = "the first column numbers the words and is left out"
        named = ("", *(WORD, *(f"column{n}" for n in range(3, width)), TAG)[: width - 1])
        return Layout(named, f"{note} (if it does not: --config.data.columns)")
    if width > 1:
        _check_order(records, places, first, path)
    return Layout(named)


MOST = 0.9
"""Share of the sentences, or the words, that identify a column."""

SURE = 10
"""Words that a file needs before its first column is judged to be numbers, or not words."""


def _usual(width: int) -> list[str]:
    return [*("word", *(f"column{n}" for n in range(2, width)), "tag")][:width]


def _counts(places: Sequence[Sequence[str]]) -> bool:
    """Return whether cells number the words: in each sentence from 0 or 1, or through the file."""
    if not all(cell.isdecimal() and len(cell) < 10 for cells in places for cell in cells):
        return False
    numbers = [list(map(int, cells)) for cells in places]
    flat = list(itertools.chain.from_iterable(numbers))
    if len(flat) < 2 or max(map(len, numbers)) < 2:
        return False
    start = flat[0]
    running = flat == list(range(start, start + len(flat)))
    return start < 2 and (running or all(n == list(range(start, start + len(n))) for n in numbers))


def _check_order(
    records: Sequence[Record], places: Sequence[Sequence[str]], first: tuple[int, int], path: Path
) -> None:
    """Refuse files whose first column does not hold words.

    Raises:
      DataError: with the value to give `data.columns`.
    """
    number, width = first
    tags = {cell for cells in places for cell in cells}
    last = {cells[-1] for record in records for _, cells in record}
    fix = f"name the columns in their order, such as --config.data.columns={{}}. Of {width} columns"
    fix += " one is 'word', and 'tag' is the label to predict."
    marks = [all(tag == "O" or TYPED.fullmatch(tag) for tag in column) for column in (tags, last)]
    if marks == [True, False] and any(map(TYPED.fullmatch, tags)):
        named = ",".join(["tag", *(f"column{n}" for n in range(2, width)), "word"])
        raise DataError(
            f"{path}:{number}: the first column holds tags, such as {min(tags)!r}, where words are "
            f"expected; {fix.format(named)}"
        )
    several = [cells for cells in places if len(cells) > 1]
    flat = list(itertools.chain.from_iterable(several))
    alike = sum(len(set(cells)) == 1 for cells in several) >= MOST * len(several)
    numbers = sum(map(str.isdecimal, flat)) >= MOST * len(flat)
    if width > 2 and len(flat) >= SURE and (alike or numbers):
        values = [{cells[n] for record in records for _, cells in record} for n in range(width - 1)]
        texts = [len(v) if not all(map(str.isdecimal, v)) else 0 for v in values]
        names = [*(f"column{n}" for n in range(1, width)), "tag"]
        names[texts.index(max(texts))] = "word"
        named = ",".join(names)
        what = "numbers" if numbers else "one value per sentence"
        raise DataError(
            f"{path}:{number}: the first column has {what}, such as {shown(flat[0])}, where words "
            f"are expected; {fix.format(named)}"
        )


def _form(lines: Sequence[str]) -> tuple[bool, tuple[int, int]]:
    """Return whether tabs separate columns; the first regular line, and its number of columns."""
    numbered = [(n, line) for n, line in enumerate(lines, 1) if not _ends_sentence(line)]
    tokens = [(n, line) for n, line in numbered if not line.startswith("# ")] or numbered[:1]
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


def _line_problem(line: str, cells: list[str], first: tuple[int, int]) -> str | None:
    """Return what is wrong with a line, and what was expected; None for a valid line."""
    number, width = first
    if "\r" in line:  # line ends of old Macs: the whole file would be one token
        return LONE_RETURN
    if len(cells) != width:
        return f"columns: {len(cells)}; expected {width}, as in line {number}"
    if any("\t" in cell for cell in cells):  # with spaces, both columns would be the token
        return "a tab; expected spaces alone, as in most lines"
    return None


def _empty_cell(cells: Mapping[str, str]) -> str | None:
    """Return what is wrong with a line without a word or a tag; None for other lines."""
    if not cells[WORD].strip():
        return "the token is empty; expected text in its column"
    if not cells.get(TAG, WORD).strip():
        return "the tag is empty; expected one in its column"
    return None

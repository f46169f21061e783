"""Issues in data: malformed records, doubtful examples, and duplicates between data sets."""

import collections
import dataclasses
import itertools
import logging
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("flaxbert")

MALFORMED = "malformed"
"""The kind of records that cannot be used: an error, or skipped and counted (`data.on_bad_row`)."""

UNUSABLE = "unusable"
"""The kind of issues that always stop a run, such as a file that cannot be decoded."""

READ_AS = "read as"
"""The kind of notes about how a file is read that differs from its name."""

RARE = 20
"""Report a set of columns that fewer than 1 in this many rows have."""


def _high(encoding: str, least: int, most: int) -> str:
    """Return some bytes, decoded, for a character class of a pattern."""
    texts = (bytes([byte]).decode(encoding, "ignore") for byte in range(least, most + 1))
    return re.escape("".join(texts))


# Continuation bytes of UTF-8, decoded in another encoding.
_MORE = "[\x80-\xbf" + _high("cp1252", 0x80, 0xBF) + "]"
_MORE_1251 = "[" + _high("cp1251", 0x80, 0xBF) + "]"

MISREAD = {
    "UTF-8 was read as latin-1": re.compile(
        f"[\xc2\xc3]{_MORE}|\xe2\u20ac|(?:[\xd0\xd1]{_MORE}){{2}}|(?:[\xe3-\xe9]{_MORE}{{2}}){{2}}"
        f"|\xf0\u0178{_MORE}"
    ),
    "UTF-8 was read as cp1251": re.compile(f"(?:[\u0420\u0421]{_MORE_1251}){{2}}|\u0432\u0402"),
    "Cyrillic (cp1251) was read as latin-1": re.compile("(?<![a-zA-Z])[\xc0-\xff][\xe0-\xff]{4}"),
}
"""Matches texts that were read in the wrong encoding: accented letters, typographic quotes,
Cyrillic, Chinese or Japanese, and emoji."""

CONTROL = re.compile("[\x80-\x9f]")
"""Matches quotes and dashes of cp1252 that were read as latin-1."""

SENTINELS = {
    *("nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "-1", "-", "?"),
    *("unknown", "undefined", "missing", "empty", "tbd", "todo"),
}
"""Spellings of a missing value, in lower case."""

FEW_EXAMPLES = 3
"""A label with fewer examples is hardly learned."""

MANY_NUMBERS = 10
"""Up to this many different numbers are taken for classes."""

LONG_SENTENCE = 1000
"""Words of a sentence: longer ones are files without blank lines, or whole documents."""

LONG_TEXT = 1_000_000
"""Characters of a text: longer ones are whole files, or a line end is missing."""

SHOWN = 60
"""Characters of a text that an issue quotes."""


@dataclasses.dataclass(frozen=True)
class Issue:
    """One thing that is wrong or doubtful, and its place."""

    kind: str
    place: str
    """file:line, or as close as the format allows; "" if the text begins with it."""
    text: str
    group: tuple[str, str] | None = dataclasses.field(default=None, compare=False)
    """The source, and how the log counts issues like this one: ("train.tsv", "malformed rows
    skipped"). None for an issue that has its own line."""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


def count_malformed(issues: Iterable[Issue]) -> int:
    """Return how many issues are lines, rows or answers that were left out."""
    return sum(issue.kind == MALFORMED for issue in issues)


def too_long_issues(source: str, dropped: Mapping[int, str]) -> list[Issue]:
    """Return the issues of `Features.dropped`."""
    group = source, "malformed rows skipped"
    return [Issue(MALFORMED, "", text, group) for text in dropped.values()]


def log_issues(issues: Iterable[Issue]) -> None:
    """Log issues: those of one group in one line, with their number and the first of them."""
    groups: dict[Hashable, list[Issue]] = collections.defaultdict(list)
    for issue in issues:
        groups[issue.group or issue].append(issue)
    for members in groups.values():
        first = members[0]
        if first.group is None:
            log.info(str(first))
        else:
            source, what = first.group
            log.info(f"{source}: {len(members)} {what}, the first: {first}")


class Example:
    """The base class of all tasks' examples, with what checks, slices and messages need."""

    slice: str | None
    """Value of the `data.slices` column: the example also counts in `metric/SLICE`."""
    origin: str
    """Where the example comes from, such as train.tsv:17."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts: examples with equal texts are duplicates, or leak from train to eval.

        They can be compared and hashed. Those of a document may be read from disk each time.
        """
        raise NotImplementedError

    @property
    def target(self) -> Hashable:
        """The target of the prediction; None if unlabeled, or if it is derived from the text."""
        return None

    @property
    def supervision(self) -> Hashable:
        """What training depends on besides the target, such as a weight; None without it."""
        return None

    @property
    def labels(self) -> tuple[int | str, ...]:
        """The labels, as names or as indices of the task's `labels`; () without class labels."""
        return ()

    @property
    def shared_context(self) -> str:
        """A text that several examples may be about, such as a question's context; "" if none."""
        return ""

    @property
    def word_count(self) -> int:
        """The number of words of a sentence that is split into words; 0 for other texts."""
        return 0

    def agrees_with(self, other: Any) -> bool:
        """Return whether one prediction can be right for this example and for `other`."""
        return self.target == other.target


def check_file(path: Path, encoding: str, *, quoted: bool) -> Iterator[Issue]:
    """Report byte-order marks and mixed line ends of a text file.

    Args:
      path: the path of the file.
      encoding: a codec of Python.
      quoted: whether cells in quotes may hold line breaks.
    """
    content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        yield Issue("byte-order mark", f"{path}:1", "is left out; save the file without it")
    text = content.decode(encoding, "replace")  # its reader reports what cannot be decoded
    outside = text
    if quoted:  # spreadsheets write \n in a cell, and \r\n after a row
        outside = re.sub('"[^"]*"', lambda cell: '"' * len(cell[0]), text)
    patterns = {"\\r\\n": r"\r\n", "\\n": r"(?<!\r)\n", "\\r": r"\r(?!\n)"}
    counts = {end: len(re.findall(pattern, outside)) for end, pattern in patterns.items()}
    used = {end: count for end, count in counts.items() if count}
    if len(used) > 1:
        rarest = min(used, key=lambda end: used[end])
        first = next(re.finditer(patterns[rarest], outside)).start()
        line = text.count("\n", 0, first) + 1
        listed = ", ".join(f"{count} {end}" for end, count in used.items())
        yield Issue("mixed line ends", f"{path}:{line}", f"{listed}; write them all alike")


def check_columns(rows: Sequence[tuple[str, Mapping[str, object]]]) -> Iterator[Issue]:
    """Report rows, given as (origin, values), that have other columns than most rows."""
    sets = collections.Counter(frozenset(values) for _, values in rows)
    common = sets.most_common(1)[0][0] if sets else frozenset()
    for origin, values in rows:
        columns = frozenset(values)
        # Frequent sets exist by design, such as SQuAD v2.0's plausible answers.
        if columns != common and (sets[columns] == 1 or sets[columns] * RARE < len(rows)):
            missing, extra = sorted(common - columns), sorted(columns - common)
            parts = [f"lacks {missing}"] if missing else []
            parts += [f"has the extra {extra}"] if extra else []
            yield Issue("other columns", origin, f"{' and '.join(parts)}, unlike most rows")


def check_examples(examples: Iterable[Example]) -> Iterator[Issue]:
    """Report what is doubtful in single examples."""
    for example in examples:
        if (words := example.word_count) > LONG_SENTENCE:
            what = f"a sentence of {words:,} words: are blank lines missing?"
            yield Issue("very long sentence", example.origin, what)
        for text in example.texts:
            if not text.strip():
                yield Issue("empty text", example.origin, "a text without a word")
            if len(text) > LONG_TEXT:
                what = f"a text of {len(text):,} characters: is a line end or a quote missing?"
                yield Issue("very long text", example.origin, what)
            if "\0" in text:
                at = text.index("\0")
                yield Issue("NUL", example.origin, f"a NUL at character {at}; tokenizers drop it")
            if "\ufffd" in text:
                what = (
                    f"U+FFFD at character {text.index(chr(0xFFFD))} replaces a letter that was lost"
                )
                yield Issue("wrong encoding", example.origin, f"{what} in reading an older file")
            if not text.isascii() and (misread := _misread(text)):
                yield Issue("wrong encoding", example.origin, f"{misread} before it was saved")
            elif not text.isascii() and (match := CONTROL.search(text)):
                what = f"{match[0]!r} at character {match.start()}: cp1252 was read as latin-1"
                yield Issue("wrong encoding", example.origin, f"{what} before it was saved")
            if "\ufeff" in text:
                what = f"at character {text.index(chr(0xFEFF))}: were files joined?"
                yield Issue("byte-order mark", example.origin, what)


def _misread(text: str) -> str | None:
    """Return where a text was decoded wrongly, and how; None if it was not."""
    for what, pattern in MISREAD.items():
        if match := pattern.search(text):
            return f"{match[0]!r} at character {match.start()}: {what}"
    return None


def compare_splits(
    train: Sequence[Example], evaluated: Sequence[Example], names: Sequence[str] = ()
) -> Iterator[Issue]:
    """Compare examples: report duplicates, contradictions, leaks, and doubtful labels.

    Args:
      train: the training examples.
      evaluated: the examples of evaluation.
      names: the names of labels that are numbers.
    """
    yield from _duplicates(train)
    yield from _duplicates(evaluated)
    yield from _leaks(train, evaluated)
    known = _first_places(train, names)
    yield from _doubtful_labels(train, names, known)
    types = {name.removeprefix("B-").removeprefix("I-") for name in known}
    for name in names if known else ():
        if name not in known and name.removeprefix("B-").removeprefix("I-") not in types:
            what = f"{name!r} is in no training example, so it cannot be learned"
            yield Issue("label without example", "labels", what)
    for name, origin in _first_places(evaluated, names).items() if known else ():
        if name not in known:
            what = f"label {name!r} is in no training example, so it cannot be learned"
            yield Issue("unseen label", origin, what)
    spelling: dict[str, str] = {}
    for name, origin in known.items():
        same = "".join(filter(str.isprintable, name)).strip().casefold()
        if (other := spelling.setdefault(same, name)) != name:
            what = f"label {name!r} next to {other!r}: is it one, spelled in two ways?"
            yield Issue("labels alike", origin, what)


def _duplicates(examples: Iterable[Example]) -> Iterator[Issue]:
    first: dict[Sequence[str], Example] = {}
    for example in examples:
        twin = first.setdefault(example.texts, example)
        if twin is example:
            continue
        if twin.agrees_with(example):
            yield Issue("duplicate", example.origin, f"as {twin.origin}: {_quoted(example)}")
        else:
            what = f"as {twin.origin}, but with another answer: {_quoted(example)}"
            yield Issue("contradiction", example.origin, what)


def _leaks(train: Iterable[Example], evaluated: Iterable[Example]) -> Iterator[Issue]:
    """Report examples that are in both data sets, and, once each, contexts that are."""
    first: dict[Sequence[str], Example] = {}
    contexts: dict[str, str] = {}
    for example in train:
        first.setdefault(example.texts, example)
        contexts.setdefault(example.shared_context, example.origin)
    for example in evaluated:
        if leaked := first.get(example.texts):
            other = "" if leaked.agrees_with(example) else ", with another answer"
            what = f"is in the training data too ({leaked.origin}){other}: {_quoted(example)}"
            yield Issue("leak", example.origin, what)
        elif (context := example.shared_context) and (shared := contexts.pop(context, "")):
            what = f"its context is in the training data too ({shared}), with another question"
            yield Issue("leaked context", example.origin, what)


def _first_places(examples: Iterable[Example], names: Sequence[str]) -> dict[str, str]:
    """Return the names of the labels that examples have, and where each occurs first."""
    first: dict[int | str, str] = {}
    for example in examples:
        for label in example.labels:
            first.setdefault(label, example.origin)
    return {_name(label, names): origin for label, origin in first.items()}


def _name(label: int | str, names: Sequence[str]) -> str:
    return names[label] if names and isinstance(label, int) else str(label)


def label_counts(examples: Iterable[Example], names: Sequence[str]) -> collections.Counter[str]:
    """Count how often each label is given."""
    given = itertools.chain.from_iterable(example.labels for example in examples)
    numbers = collections.Counter(given)
    return collections.Counter({_name(label, names): n for label, n in numbers.items()})


def _doubtful_labels(
    train: Sequence[Example], names: Sequence[str], first: Mapping[str, str]
) -> Iterator[Issue]:
    """Report labels that may be missing values, single mistakes, or numbers to predict."""
    counts = label_counts(train, names)
    for name, count in counts.items():
        if name.strip().casefold() in SENTINELS:
            what = f"label {name!r} ({count} times) is a class of its own: is it a missing value?"
            yield Issue("missing label", first[name], f"{what} Then remove its rows")
        elif count < FEW_EXAMPLES and len(train) >= 20 * len(counts):
            what = f"label {name!r} is given {count} times: too few to learn it; a mistake?"
            yield Issue("rare label", first[name], what)
    single = all(len(example.labels) == 1 for example in train)
    numbers = [name for name in counts if name.strip().casefold() not in SENTINELS]
    if single and numbers and all(map(is_number, numbers)):
        fractions = [name for name in numbers if "." in name or "e" in name.lower()]
        many = len(numbers) > MANY_NUMBERS and 10 * len(numbers) > len(train)
        if fractions or many:
            name = fractions[0] if fractions else max(numbers, key=float)
            what = f"{len(numbers)} different numbers, such as {name}, are classes here"
            advice = "to predict numbers, set --config.task=regression"
            yield Issue("numbers as labels", first[name], f"{what}; {advice}")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, or a text that writes one."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _quoted(example: Example) -> str:
    text = ""
    for part in filter(None, example.texts):
        text = f"{text} | {part}" if text else part
        if len(text) > SHOWN:  # the other texts of a document may be larger than memory
            break
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def summarize(issues: Iterable[Issue], command: str) -> Iterator[str]:
    """Yield a line for each kind of issue: its first place, and how many more there are."""
    kinds: dict[str, list[Issue]] = collections.defaultdict(list)
    for issue in issues:
        kinds[issue.kind].append(issue)
    for kind, members in kinds.items():
        rest = f" (and {len(members) - 1} more; {command} lists all)" if len(members) > 1 else ""
        yield f"{kind}: {members[0]}{rest}"

"""What is found wrong or doubtful in data: by readers, by tasks, and by comparing examples."""

import collections
import dataclasses
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

MALFORMED = "malformed"
"""The kind of what cannot be used: an error, or left out and counted (`data.malformed=skip`)."""

LONG_TEXT = 1_000_000
"""Characters: a text this long is a file read as one, or a line end that is missing."""

SHOWN = 60
"""Characters of a text that a finding quotes."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing at one place."""

    kind: str
    place: str
    """file:line, or as near to it as the format allows; "" if the text begins with it."""
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class Comparable(Protocol):
    """What examples are compared by."""

    @property
    def origin(self) -> str:
        """Where it comes from."""

    @property
    def content(self) -> tuple[str, ...]:
        """Its texts, in an order that means something."""

    @property
    def gold(self) -> Hashable:
        """What is to be predicted; None if unlabelled."""

    @property
    def labels(self) -> tuple[int | str, ...]:
        """Its labels."""


def in_file(path: Path) -> Iterator[Finding]:
    """What the bytes of a text file show."""
    content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        yield Finding("byte-order mark", f"{path}:1", "is left out; save the file without it")
    ends = {
        "\\r\\n": len(re.findall(rb"\r\n", content)),
        "\\n": len(re.findall(rb"(?<!\r)\n", content)),
        "\\r": len(re.findall(rb"\r(?!\n)", content)),
    }
    if len(used := {end: count for end, count in ends.items() if count}) > 1:
        counts = ", ".join(f"{count} {end}" for end, count in used.items())
        rarest = {"\\r\\n": rb"\r\n", "\\n": rb"(?<!\r)\n", "\\r": rb"\r(?!\n)"}
        first = re.search(rarest[min(used, key=lambda end: used[end])], content)
        line = content.count(b"\n", 0, first.start()) + 1 if first else 1
        yield Finding("mixed line ends", f"{path}:{line}", f"{counts}; write them all alike")


def in_columns(rows: Sequence[tuple[str, Mapping[str, object]]]) -> Iterator[Finding]:
    """Rows, as (origin, values), whose columns are not those of the first one."""
    expected = set(rows[0][1]) if rows else set()
    for origin, values in rows:
        if set(values) != expected:
            missing, extra = sorted(expected - set(values)), sorted(set(values) - expected)
            parts = [f"lacks {missing}"] if missing else []
            parts += [f"has {extra} besides"] if extra else []
            yield Finding("other columns", origin, f"{' and '.join(parts)}, unlike the first row")


def in_examples(examples: Iterable[Comparable]) -> Iterator[Finding]:
    """What single examples show."""
    for example in examples:
        for text in example.content:
            if not text.strip():
                yield Finding("empty text", example.origin, "a text without a word")
            if len(text) > LONG_TEXT:
                what = f"a text of {len(text):,} characters: is a line end or a quote missing?"
                yield Finding("very long text", example.origin, what)
            if "\0" in text:
                at = text.index("\0")
                yield Finding("NUL", example.origin, f"a NUL at character {at}; tokenizers drop it")


def between(
    train: Sequence[Comparable], evaluated: Sequence[Comparable], names: Sequence[str] = ()
) -> Iterator[Finding]:
    """What shows where examples are compared: duplicates, contradictions, leaks, unseen labels.

    Args:
      train: examples of training.
      evaluated: those of evaluation.
      names: of labels that are numbers.
    """
    first: dict[tuple[str, ...], Comparable] = {}
    for example in train:
        twin = first.setdefault(example.content, example)
        if twin is example:
            continue
        if twin.gold == example.gold:
            yield Finding("duplicate", example.origin, f"as {twin.origin}: {_quoted(example)}")
        else:
            what = f"as {twin.origin}, but with another answer: {_quoted(example)}"
            yield Finding("contradiction", example.origin, what)
    for example in evaluated:
        if leaked := first.get(example.content):
            what = f"is in the training data too ({leaked.origin}): {_quoted(example)}"
            yield Finding("leak", example.origin, what)
    known = {label for example in train for label in example.labels}
    for example in evaluated if known else ():
        for label in example.labels:
            if label not in known:
                known.add(label)  # told once
                name = names[label] if names and isinstance(label, int) else label
                what = f"label {name!r} is in no training example, so it cannot be learnt"
                yield Finding("unseen label", example.origin, what)


def _quoted(example: Comparable) -> str:
    text = " | ".join(part for part in example.content if part)
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def summary(findings: Iterable[Finding], command: str) -> Iterator[str]:
    """A line for each kind: how often, and the first place."""
    kinds: dict[str, list[Finding]] = collections.defaultdict(list)
    for finding in findings:
        kinds[finding.kind].append(finding)
    for kind, found in kinds.items():
        rest = f" (and {len(found) - 1} more; {command} lists all)" if len(found) > 1 else ""
        yield f"{kind}: {found[0]}{rest}"

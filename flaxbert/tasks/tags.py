"""Words and their tags, read from any source, with tags of any scheme."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from flaxbert.data import tag_schemes
from flaxbert.data.checks import READ_AS, Issue
from flaxbert.data.readers import conll
from flaxbert.data.table import Reading, Record, Table, shown, unprinted
from flaxbert.errors import DataError, some
from flaxbert.tasks.label_names import refuse_from_one


def require_words(table: Table, columns: Mapping[str, str], *, slices: str | None = None) -> None:
    """Check that columns exist (see `Table.require`), and recognize data in other forms.

    Raises:
      DataError: for an absent column, spans of characters, or a column file that is read as a
        table; with the form that is expected.
    """
    if not set(columns) <= set(table.columns):
        for row in table.rows[:FIRST]:
            for name, value in row.values.items():
                if isinstance(value, list) and value and all(map(_is_span, value)):
                    raise DataError(
                        f"{row.origin}: {name} holds spans of characters, such as "
                        f"{shown(value[0])}. Token classification reads words with a tag each: "
                        "export the annotations as CoNLL (BIO), or write rows with the lists "
                        "`tokens` and `tags`."
                    )
        single = [name for name in table.columns if name.strip().casefold() in ("word", "token")]
        if single and isinstance(table.rows[0].values.get(single[0]), str):
            raise DataError(
                f"{table.source}: {single[0]} holds one word per row; expected one sentence per "
                "row, or a column file: one word and its tag per line, a blank line after each "
                "sentence, and no header (--config.data.format=conll)."
            )
    if _is_column_file(table):
        raise DataError(
            f"{table.source}: one word per line, and blank lines between sentences, but the file "
            "is read as a table. Set --config.data.format=conll. Unless the word is the first "
            "column and its tag the last, name all: --config.data.columns=index,word,pos,tag."
        )
    table.require(columns, slices=slices)


FIRST = 100
"""Number of records that are searched for spans of characters."""


def _is_column_file(table: Table) -> bool:
    """Return whether the first cells of a table are words, with blank lines between some."""
    cells = [list(row.values.values()) for row in table.rows[:FIRST] if row.values]
    if len(table.columns) == 1 and all(isinstance(row[0], str) for row in cells):
        widths = {len(row[0].split()) for row in cells}  # columns with spaces between
        return len(widths) == 2 and min(widths) == 0 and max(widths) > 1
    if not all(isinstance(cell, str) and "\n" not in cell for row in cells for cell in row):
        return False  # lists; or a cell of several lines, which looks like lines left out
    ends = [row.origin.rpartition(":")[2] for row in table.rows[:FIRST]]
    lines = [int(end) for end in ends if end.isdecimal()]
    single = all(len(row[0].split()) < 2 and not row[0].startswith("[") for row in cells)
    return single and any(after - before > 1 for before, after in itertools.pairwise(lines))


def _is_span(value: object) -> bool:
    """Return whether a value is [start, end, type] or such an object, as annotation tools write."""
    if isinstance(value, dict):
        keys = ({"start", "end"}, {"start_offset", "end_offset"})
        return any(pair <= value.keys() for pair in keys)
    return isinstance(value, list) and [type(v) for v in value] == [int, int, str]


def read_words(row: Record, column: str) -> list[str]:
    """Return the words of a record.

    Raises:
      DataError: for anything but a list of texts, or an empty list.
    """
    value = unprinted(row.values.get(column))
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise DataError(f"{row.origin}: {column} is {shown(value)}; expected a list of texts.")
    if not value:
        raise DataError(f"{row.origin}: {column} is empty; remove the row.")
    return list(value)


@dataclasses.dataclass(frozen=True)
class TaggedWords:
    """The words of a record and their tags."""

    record: Record
    words: list[str]
    tags: list[str]


def read_tags(
    table: Table, words: str, column: str, labels: Sequence[str], on_bad_row: str
) -> tuple[Reading[TaggedWords], str]:
    """Read words and tags; convert tags that mark entities to IOB2, and return their scheme.

    Args:
      table: the records of one source.
      words: column of the words.
      column: column of the tags.
      labels: the names behind integers, if the source has none.
      on_bad_row: see `Reading.map`.

    Raises:
      DataError: for a record without a tag for each word, or tags of no scheme.
    """
    require_words(table, {words: "options.tokens", column: "options.tags"})
    known = table.label_names.get(column, labels)
    cells = (unprinted(row.values.get(column)) for row in table.rows)
    integers = {t for tags in cells if isinstance(tags, list) for t in tags if type(t) is int}
    refuse_from_one(integers, known, table.source)

    def tagged(row: Record) -> TaggedWords:
        tags, tokens = unprinted(row.values.get(column)), read_words(row, words)
        if isinstance(tags, list):
            tags = [known[t] if type(t) is int and 0 <= t < len(known) else t for t in tags]
        if not isinstance(tags, list) or not all(tag and isinstance(tag, str) for tag in tags):
            raise DataError(
                f"{row.origin}: {column} is {shown(tags)}; expected a list of tags. Integers need "
                "the names that they stand for: --config.options.labels, in their order."
            )
        if len(tags) != len(tokens):
            raise DataError(f"{row.origin}: {len(tokens)} words, but {len(tags)} tags.")
        return TaggedWords(row, tokens, tags)

    reading = table.read(tagged, on_bad_row)
    counts = collections.Counter(tag for item in reading for tag in item.tags)
    spelled = tag_schemes.respelled(counts)
    if spelled:
        pairs = [f"{shown(tag)} ({counts[tag]} times) as {spelled[tag]}" for tag in spelled]
        what = f"tags are read in the usual spelling: {some(pairs, 5)}"
        reading = _with_tags(reading, lambda tags: [spelled.get(tag, tag) for tag in tags])
        reading = reading.with_issues([Issue(READ_AS, table.source, what)])
    scheme = tag_schemes.detect_scheme(item.tags for item in reading)
    if scheme == "plain" and (symbols := [tag for tag in tag_schemes.SYMBOLS if tag in counts]):
        what = (
            f"{some([shown(tag) for tag in symbols])} is read as a tag like the others, each word "
            "on its own; write O for words outside entities"
        )
        reading = reading.with_issues([Issue(READ_AS, table.source, what)])
    many = len(counts) > max(MOST_TAGS, SHARE_OF_TAGS * counts.total())
    first = reading[0].record
    same = len(counts) == 1 and counts.total() >= conll.SURE and len(first.values) > 2
    if scheme == "plain" and (many or (same and first.lines)):
        raise DataError(
            f"{table.source}: {len(counts)} different tags for {counts.total()} words, such as "
            f"{some([shown(tag) for tag in counts], 5)}. If another column of the file has the "
            "tags, name all in their order, such as --config.data.columns=word,tag,lemma."
        )
    if scheme not in ("plain", "IO") and (
        odd := tag_schemes.odd_tags(counts.keys() - spelled.keys())
    ):
        reading = _without_odd(reading, odd, on_bad_row)
    reading = reading.with_issues(_check_sequences(reading, scheme))
    return _with_tags(reading, lambda tags: tag_schemes.to_bio(tags, scheme)), scheme


def _with_tags(
    reading: Reading[TaggedWords], convert: Callable[[list[str]], list[str]]
) -> Reading[TaggedWords]:
    return reading.with_items(
        [dataclasses.replace(tagged, tags=convert(tagged.tags)) for tagged in reading]
    )


MOST_TAGS, SHARE_OF_TAGS = 100, 0.1
"""A column with more different values, and a larger share of the words, does not hold tags."""


def _without_odd(
    reading: Reading[TaggedWords], odd: Collection[str], on_bad_row: str
) -> Reading[TaggedWords]:
    """Refuse or leave out records with a tag that has no prefix, unlike most of the file's.

    Raises:
      DataError: for such a tag, with its line, if `on_bad_row` is not "skip".
    """
    total = sum(tag in odd for tagged in reading for tag in tagged.tags)
    others = f" There are {total} such tags." if total > 1 else ""

    def regular(tagged: TaggedWords) -> TaggedWords:
        for place, tag in enumerate(tagged.tags):
            if tag in odd:
                raise DataError(
                    f"{tagged.record.place(place)}: the tag of word {place + 1}, "
                    f"{shown(tagged.words[place])}, is {shown(tag)}, but most look like "
                    f"B-TYPE or I-TYPE. Give it a prefix, or O outside all entities.{others}"
                )
        return tagged

    return reading.map(regular, on_bad_row)


def _check_sequences(reading: Reading[TaggedWords], scheme: str) -> Iterator[Issue]:
    """Report tags that their scheme does not allow after the tag before them."""
    group = reading.source, f"tags that {scheme} does not allow where they stand"
    for tagged in reading:
        for place in tag_schemes.misplaced(tagged.tags, scheme):
            yield Issue(
                "invalid tag sequence",
                tagged.record.place(min(place, len(tagged.tags) - 1)),
                _misplaced(tagged.words, tagged.tags, place),
                group,
            )


def _misplaced(words: Sequence[str], tags: Sequence[str], place: int) -> str:
    before = f"after {tags[place - 1]}" if place else "at the start"
    if place == len(tags):
        return f"the sentence ends {before}, which does not end an entity; it is read as its end"
    reading = "it is read as the start of an entity" if tags[place] != "O" else "it is read as O"
    return f"{tags[place]} {before} (word {place + 1}, {shown(words[place])}); {reading}"

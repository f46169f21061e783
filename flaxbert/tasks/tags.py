"""Words and their tags, from rows of any source and tags of any scheme."""

from collections.abc import Sequence

from flaxbert.data import conll
from flaxbert.data.findings import Finding
from flaxbert.data.table import Row, Table, shown, unprinted
from flaxbert.errors import DataError
from flaxbert.tasks.labels import refuse_from_one


def refuse_prose(table: Table) -> None:
    """Refuse a .txt file, which many sets of words in columns come as.

    Raises:
      DataError: with the name to give it.
    """
    if table.source.endswith(".txt"):
        raise DataError(
            f"{table.source}: a .txt file is read as prose, for pre-training. Words in columns are "
            "read from a file that ends with .conll: rename it."
        )


def read_words(row: Row, column: str) -> list[str]:
    """The words of a row.

    Raises:
      DataError: if they are no list of texts, or none.
    """
    value = unprinted(row.values.get(column))
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise DataError(f"{row.origin}: {column} is {shown(value)}; expected a list of texts.")
    if not value:
        raise DataError(f"{row.origin}: {column} is empty; remove the row.")
    return list(value)


def read_tags(
    table: Table, words: str, column: str, labels: Sequence[str], malformed: str
) -> tuple[list[tuple[Row, list[str]]], str]:
    """Rows with their tags, in IOB2 where they mark entities, and the scheme they were in.

    Args:
      table: rows of one source.
      words: column of the words.
      column: column of the tags.
      labels: what integers stand for, if the source does not say.
      malformed: see `Table.read`.

    Raises:
      DataError: for a row without a tag a word, or tags of no scheme.
    """
    refuse_prose(table)
    table.require({words: "options.tokens", column: "options.tags"})
    known = table.label_names.get(column, labels)
    cells = (unprinted(row.values.get(column)) for row in table.rows)
    integers = {t for tags in cells if isinstance(tags, list) for t in tags if type(t) is int}
    refuse_from_one(integers, known, table.source)

    def tagged(row: Row) -> tuple[Row, list[str]]:
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
        return row, tags

    rows = table.read(tagged, malformed)
    scheme = conll.detect_scheme((tags for _, tags in rows), table.source)
    table.tell(
        [
            Finding(
                "invalid tag sequence", row.origin, _misplaced(read_words(row, words), tags, place)
            )
            for row, tags in rows
            for place in conll.misplaced(tags, scheme)
        ],
        f"tags that {scheme} does not allow where they stand",
    )
    return [(row, conll.to_bio(tags, scheme)) for row, tags in rows], scheme


def _misplaced(words: Sequence[str], tags: Sequence[str], place: int) -> str:
    before = f"behind {tags[place - 1]}" if place else "at the start"
    if place == len(tags):
        return f"the sentence ends {before}, which is no entity's end; it is read as one"
    reading = "it is read as the start of an entity" if tags[place] != "O" else "it is read as O"
    return f"{tags[place]} {before} (word {place + 1}, {words[place]!r}); {reading}"

"""Readers of local files and of Hugging Face data sets, which all return a `Table`.

The ending of a local file gives its format (see ENDINGS), unless `data.format` does. A .json may be
a list of objects or a published SQuAD file; a .txt is plain text, and each paragraph is a record. A
pattern such as `books/*.txt` stands for all matching files, in order. `train.texts+train.labels`
are files side by side, one line for each example. A file may be at a URL, such as
gs://BUCKET/train.tsv (see data/remote.py). Anything else is a hub data set,
`ID[:CONFIG][@SPLIT][#REVISION]`, such as `nyu-mll/glue:sst2@validation` or `ID@train[:100]`. A
revision is a branch, tag or commit, such as `ID#v1.1`.
"""

import collections
import contextlib
import dataclasses
import glob
import itertools
import logging
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from json import loads
from pathlib import Path
from typing import TypeVar

from flaxbert import hub, packaged
from flaxbert.config import FORMATS, DataConfig
from flaxbert.data import remote, stores, tag_schemes
from flaxbert.data.checks import MALFORMED, READ_AS, Issue
from flaxbert.data.readers import conll, delimited, parallel
from flaxbert.data.readers.encodings import ARCHIVES, codec, undecodable
from flaxbert.data.readers.json import read_document, read_lines
from flaxbert.data.readers.parquet import _parquet_names, _read_parquet
from flaxbert.data.readers.text import StoredRows, _read_txt
from flaxbert.data.table import Record, RecordOrIssue, Table, refuse_systematic
from flaxbert.errors import DataError, HubError

log = logging.getLogger("flaxbert")

T = TypeVar("T")


def read(spec: str, data: DataConfig, *, split: str) -> Table:
    """Read local files or a hub data set.

    Args:
      spec: a path or URL, a pattern of them, or `ID[:CONFIG][@SPLIT][#REVISION]`.
      data: the format of files (`format`, `columns`, `separator`, `quoting`, `encoding`), and
        whether malformed lines are an error (`on_bad_row`).
      split: the split of a hub data set whose specification names none.

    Raises:
      DataError: if a file is absent, malformed or of an unknown format; the message has file:line.
      HubError: if the data set cannot be fetched; RemoteError for a URL.
    """
    if parallel.parts(spec):
        return parallel.read(spec, data)
    if _is_pattern(spec):
        if matches := files(spec):
            return _together(spec, (_read_file(str(file), file, data) for file in matches), data)
        if "@" not in spec:  # else the brackets may belong to a hub split: ID@train[:100]
            raise DataError(f"{spec}: no file matches (from {Path.cwd()}).")
    path = remote.local(spec)
    if not path.exists():
        if path.suffix.lower() in ENDINGS:
            raise DataError(f"{spec}: no such file (from {Path.cwd()}).")
        return _read_hub(spec, split)
    return _read_file(spec, path, data)


def _is_pattern(spec: str) -> bool:
    if stores.is_url(spec):
        return remote.is_pattern(spec)
    return glob.has_magic(spec) and not Path(spec).exists()


def _read_file(spec: str, path: Path, data: DataConfig) -> Table:
    if not path.is_file():
        raise DataError(f"{spec}: not a file; for a directory's files: {spec.rstrip('/')}/*.tsv")
    with _readable(spec, path, data):
        form, _ = form_of(path, data)
    rows: list[Record] | StoredRows = StoredRows(data) if form == "txt" else []
    table = _table(spec, rows, _items(spec, path, data), data)
    names = _parquet_names(path) if form == "parquet" else {}
    return dataclasses.replace(table, label_names=names)


def stream(spec: str, data: DataConfig, *, split: str, size: int) -> Iterator[Table]:
    """Read the rows without labels of local files or a hub data set, `size` at a time.

    Of JSON lines, plain text and Parquet only these rows are in memory. Other formats, such as
    CoNLL, are read one file after the other, and hub data sets at once.

    Yields:
      Tables, one at least, without the names behind integer labels.

    Raises:
      DataError, HubError: see `read`.
    """
    paths = [] if parallel.parts(spec) else files(spec)
    if not paths or not all(path.is_file() for path in paths):
        whole = read(spec, data, split=split)
        for first in range(0, max(1, len(whole.rows)), size):
            issues = whole.issues if first == 0 else ()
            yield dataclasses.replace(whole, rows=whole.rows[first : first + size], issues=issues)
        return
    names = [spec] if len(paths) == 1 else list(map(str, paths))
    sources = (_items(name, path, data) for name, path in zip(names, paths, strict=True))
    numbered = _numbered(itertools.chain.from_iterable(sources), size)
    empty = True
    for _, part in itertools.groupby(numbered, key=operator.itemgetter(0)):
        yield _table(spec, [], (item for _, item in part), data)
        empty = False
    if empty:
        yield Table(spec, [])


def _numbered(items: RecordOrIssue, size: int) -> Iterator[tuple[int, Record | DataError | Issue]]:
    """Yield items with the numbers of their tables, which have `size` records each."""
    records = 0
    for item in items:
        records += isinstance(item, Record)
        yield max(0, records - 1) // size, item


def _items(spec: str, path: Path, data: DataConfig) -> RecordOrIssue:
    """Yield what a local file holds, after an issue if its content decides the format."""
    with _readable(spec, path, data):
        form, note = form_of(path, data)
        if note is not None:
            yield note
        yield from READERS[form](path, data)


@contextlib.contextmanager
def _readable(spec: str, path: Path, data: DataConfig) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise DataError(f"{spec}:{undecodable(path.read_bytes(), data.encoding)}.") from None
    except OSError as error:
        raise DataError(f"{spec}: cannot be read ({error.strerror or error}).") from None


def _table(
    spec: str, rows: list[Record] | StoredRows, items: RecordOrIssue, data: DataConfig
) -> Table:
    """Return the table of what a reader yields, with the records in `rows`."""
    errors: list[DataError] = []
    notes: list[Issue] = []
    for item in items:
        if isinstance(item, Record):
            rows.append(item)
        elif isinstance(item, Issue):
            notes.append(item)
        elif data.on_bad_row == "skip":
            errors.append(item)
        else:
            raise DataError(
                f"{item} Fix the line, or leave such lines out with --config.data.on_bad_row=skip."
            )
    refuse_systematic(errors, len(rows) + len(errors), "lines")
    group = spec, "malformed lines skipped"
    malformed = [Issue(MALFORMED, "", str(error), group) for error in errors]
    return Table(spec, rows, {}, (*malformed, *notes))


def with_split(spec: str, split: str) -> str:
    """Return a specification that names its split, if it is a hub data set without one."""
    path = packaged.local(spec)
    local = (
        stores.is_url(spec)
        or parallel.parts(spec)
        or path.exists()
        or path.suffix.lower() in ENDINGS
    )
    if local or "@" in spec or glob.has_magic(spec):
        return spec
    source, sign, revision = spec.partition("#")
    return f"{source}@{split}{sign}{revision}"


def form_of(path: Path, data: DataConfig) -> tuple[str, Issue | None]:
    """Return the format of a local file, one of FORMATS, and an issue if its content decides.

    Raises:
      DataError: for an archive; if neither `data.format`, the ending nor the content shows it.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    for begin, what in ARCHIVES.items():
        if head.startswith(begin):
            raise DataError(f"{path}: not text but {what}.")
    if data.format != "auto":
        return data.format, None
    form = ENDINGS.get(path.suffix.lower())
    if form not in (None, "csv", "tsv"):
        return form, None
    by_content = _form_of_content(head, path, data, named=form is not None)
    if by_content is None and form is None:
        raise DataError(
            f"{path}: the ending {path.suffix!r} is none of {', '.join(ENDINGS)}, and the content "
            f"does not show its format. Set --config.data.format to one of {', '.join(FORMATS)} "
            "(conll: one word and its tag per line)."
        )
    if by_content is None:
        return str(form), None
    what = f"read as {by_content} by its content; set --config.data.format if it is not"
    return by_content, Issue(READ_AS, str(path), what)


HEAD = 100_000
"""Bytes of a file by which its format is detected."""


def _form_of_content(head: bytes, path: Path, data: DataConfig, *, named: bool) -> str | None:
    """Return the format that the first bytes show; for a file `named` as a table only whether it is
    CoNLL.
    """
    if head.startswith(b"PAR1") and not named:
        return "parquet"
    lines = head.decode(codec(data.encoding), "replace").split("\n")
    if len(head) == HEAD and len(lines) > 1:  # the last line is cut
        del lines[-1]
    if _is_conll(lines):
        return "conll"
    if named:
        return None
    first = next((line for line in lines if line.strip()), "").strip()
    if first.startswith("{"):
        try:
            loads(first)
        except ValueError:
            return "json"
        return "jsonl"
    if first.startswith("[") and not first.endswith("]"):
        return "json"
    return delimited.form_of("\n".join(lines), path, data)


def _is_conll(lines: Sequence[str]) -> bool:
    """Return whether lines are CoNLL-U, or columns of words and entity tags, with blank lines."""
    words = [line.split("\t" if "\t" in line else None) for line in lines if line.strip()]
    words = [cells for cells in words if not cells[0].startswith(("#", conll.DOCUMENT))]
    blank = any(not line.strip() for line in lines[:-1])
    if not blank or len({len(cells) for cells in words}) != 1 or len(words[0]) < 2:
        return False
    numbered = all(conll.NUMBERED.fullmatch(cells[0]) for cells in words)
    if numbered and len(words[0]) == len(conll.CONLLU):
        return True
    counts = collections.Counter(cells[-1].strip() for cells in words)
    spelled = tag_schemes.respelled(counts)
    tags = {spelled.get(tag, tag) for tag in counts} - {"O"}
    return bool(tags) and all(map(tag_schemes.TYPED.fullmatch, tags))


def files(spec: str) -> list[Path]:
    """Return the files of a specification, or their local copies; those of a pattern in order.

    Raises:
      DataError, RemoteError: for a URL; see `remote.local_copies`.
    """
    if stores.is_url(spec):
        return (
            list[Path](remote.local_copies(spec))
            if remote.is_pattern(spec)
            else [remote.local_copy(spec)]
        )
    path = packaged.local(spec)
    if path.exists() or not glob.has_magic(spec):
        return [path]
    return [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]


def _together(spec: str, tables: Iterable[Table], data: DataConfig) -> Table:
    """Return the table of the rows of several files; rows on disk are read file by file."""
    rows: list[Record] | StoredRows = []
    parts: list[Table] = []
    for table in tables:
        if isinstance(table.rows, StoredRows) and isinstance(rows, list):
            before, rows = rows, StoredRows(data)
            rows.extend(before)
        rows.extend(table.rows)
        parts.append(dataclasses.replace(table, rows=()))
    issues = tuple(issue for part in parts for issue in part.issues)
    return Table(spec, rows, _same_names(parts), issues)


def _same_names(tables: Iterable[Table]) -> dict[str, list[str]]:
    """Return the label names of several files of one source.

    Raises:
      DataError: if they differ.
    """
    names: dict[str, list[str]] = {}
    for table in tables:
        for column, labels in table.label_names.items():
            if names.setdefault(column, labels) != labels:
                raise DataError(
                    f"{table.source}: the integers of {column} stand for {labels}, but for "
                    f"{names[column]} in files before it; write the names in place of integers."
                )
    return names


def _read_csv(path: Path, data: DataConfig) -> RecordOrIssue:
    return delimited.rows(path, data, ",")


def _read_tsv(path: Path, data: DataConfig) -> RecordOrIssue:
    return delimited.rows(path, data, "\t")


def _read_conll(path: Path, data: DataConfig) -> RecordOrIssue:
    sentences, problems = conll.sentences(path, columns=data.columns, encoding=codec(data.encoding))
    yield from problems
    for sentence in sentences:
        yield Record(sentence.values(), f"{path}:{sentence.lines[0]}", sentence.lines)


READERS: dict[str, Callable[[Path, DataConfig], RecordOrIssue]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "json": read_document,
    "jsonl": read_lines,
    "conll": _read_conll,
    "parquet": _read_parquet,
    "txt": _read_txt,
}

ENDINGS = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".conll": "conll",
    ".conllu": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".txt": "txt",
}
"""The formats that endings of file names stand for."""


@contextlib.contextmanager
def _bars_for_people() -> Iterator[None]:
    """Show the bars of `datasets` on a terminal only; those of downloads already do so."""
    import datasets

    quiet = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            datasets.enable_progress_bars()


def _read_hub(spec: str, split: str) -> Table:
    import datasets

    source, sign, revision = spec.partition("#")
    name, _, chosen = source.partition("@")
    repo, _, config = name.partition(":")
    chosen = chosen or split
    if sign and (Path(source).expanduser().exists() or Path(source).suffix.lower() in ENDINGS):
        raise DataError(
            f"{spec}: only data sets of the hub have revisions, and {source} is a file; leave "
            f"#{revision} out."
        )
    if sign and not revision:
        raise DataError(f"{spec}: no branch, tag or commit after the #.")
    advice = (
        "Use local files instead: --config.data.train=FILE --config.data.eval=FILE "
        f"({', '.join(ENDINGS)})."
    )
    try:
        with hub.fetching(spec), _bars_for_people():
            data = datasets.load_dataset(
                repo, config or None, split=chosen, revision=revision or None
            )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        at = f", revision {revision}" if revision else ""
        what = hub.explain(f"datasets/{repo}", error) or hub.reason(error).rstrip(".")
        raise HubError(
            f"{spec!r} is no local file, and as a hub data set (split {chosen}{at}) it could not "
            f"be fetched: {what}. {advice}"
        ) from None
    names = {
        column: list(label.names)
        for column, feature in data.features.items()
        # A list of labels, such as tags, has the names inside.
        if isinstance(label := getattr(feature, "feature", feature), datasets.ClassLabel)
    }
    rows = [Record(dict(record), f"{spec}: row {n}") for n, record in enumerate(data, start=1)]
    cached = [Path(file["filename"]).parent for file in data.cache_files]
    commit = hub.commit_of(cached[0]) if cached else None
    if commit:
        log.info(f"{source}: commit {commit}; append #{commit[:12]} to always read this commit")
    return Table(spec, rows, names, commit=commit)

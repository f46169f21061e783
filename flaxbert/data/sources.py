"""Sources: local files and Hugging Face data sets, all read into the same rows.

A local file is recognised by its ending: .tsv .csv .json .jsonl .parquet .conll .txt. A .json may
be a list of objects or a SQuAD file as published, a .txt is plain text, a row a paragraph. A
pattern such as `books/*.txt` is all files that it matches, in order. Anything else is a hub data
set, `ID[:CONFIG][@SPLIT]`, such as `nyu-mll/glue:sst2@validation` or `...@train[:100]`.
"""

import collections
import csv
import glob
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from flaxbert import hub
from flaxbert.data import conll
from flaxbert.data.findings import MALFORMED, Finding
from flaxbert.data.table import Row, Table, shortened, shown
from flaxbert.errors import ConfigError, DataError, HubError

log = logging.getLogger("flaxbert")

T = TypeVar("T")

Found = Iterator[Row | DataError]
"""What a reader yields: a record, or what is wrong with a malformed line that can be left out."""


def read(spec: str, *, split: str, malformed: str = "error") -> Table:
    """Read local files or a hub data set.

    Args:
      spec: a path, a pattern of paths, or `ID[:CONFIG][@SPLIT]`.
      split: of a hub data set whose specification names none.
      malformed: whether malformed lines are an "error", or left out and told ("skip").

    Raises:
      ConfigError: for another value of `malformed`.
      DataError: if the file is absent, malformed or of an unknown kind; the message has file:line.
      HubError: if the data set cannot be fetched.
    """
    if malformed not in ("error", "skip"):
        raise ConfigError(f"data.malformed is {malformed!r}; expected error or skip.")
    if glob.has_magic(spec) and not Path(spec).exists():
        if found := files(spec):
            tables = [read(str(file), split=split, malformed=malformed) for file in found]
            all_rows = [row for table in tables for row in table.rows]
            told = sum((table.findings for table in tables), collections.Counter[Finding]())
            return Table(spec, all_rows, _same_names(tables), told)
        if "@" not in spec:  # else brackets may be a part of a hub's split: ID@train[:100]
            raise DataError(f"{spec}: no file matches (from {Path.cwd()}).")
    path = Path(spec).expanduser()
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        if path.exists():
            raise DataError(f"{spec}: ends with none of {', '.join(READERS)}.")
        return _read_hub(spec, split)
    if not path.is_file():
        raise DataError(f"{spec}: no such file (from {Path.cwd()}).")
    rows: list[Row] = []
    faults: list[DataError] = []
    try:
        for each in reader(path):
            if isinstance(each, Row):
                rows.append(each)
            elif malformed == "skip":
                faults.append(each)
            else:
                raise DataError(f"{each} Mend it, or --config.data.malformed=skip leaves such out.")
    except UnicodeDecodeError:
        raise DataError(f"{spec}:{_undecodable(path.read_bytes())}.") from None
    except OSError as error:
        raise DataError(f"{spec}: cannot be read ({error.strerror or error}).") from None
    table = Table(spec, rows, _parquet_names(path) if reader is _read_parquet else {})
    table.tell([Finding(MALFORMED, "", str(each)) for each in faults], "malformed lines skipped")
    return table


def files(spec: str) -> list[Path]:
    """The local files that a specification stands for, those of a pattern in order."""
    path = Path(spec).expanduser()
    if path.exists() or not glob.has_magic(spec):
        return [path]
    return [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]


def _same_names(tables: Iterable[Table]) -> dict[str, list[str]]:
    """The label names of several files of one source."""
    names: dict[str, list[str]] = {}
    for table in tables:
        for column, own in table.label_names.items():
            if names.setdefault(column, own) != own:
                raise DataError(
                    f"{table.source}: the integers of {column} stand for {own}, but for "
                    f"{names[column]} in files before it; write the names in place of integers."
                )
    return names


def _undecodable(content: bytes) -> str:
    """The first line that is not UTF-8, and the mend: it depends on what the file is instead."""
    text = content.decode("utf-8", "surrogateescape")  # bytes that are not UTF-8 end up as these
    faults = [place for place, char in enumerate(text) if "\udc80" <= char <= "\udcff"]
    line = text.count("\n", 0, faults[0] if faults else 0) + 1
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"{line}: not UTF-8 but UTF-16; convert the file with iconv -f utf16 -t utf8"
    if 2 * len(faults) < sum(not char.isascii() for char in text):
        return f"{line}: not UTF-8, as the rest of the file is; mend the line"
    # Both are of Western Europe; where cp1252 has quotes and dashes, latin-1 has control characters
    encoding = "cp1252" if re.search(b"[\x80-\x9f]", content) else "latin1"
    return f"{line}: not UTF-8; convert the file, for example with iconv -f {encoding} -t utf8"


LARGEST_CELL = 2**31 - 1
"""Characters: csv's own limit is 131,072, fewer than a long document has; this is the highest."""

Records = Iterator[tuple[int, list[str] | str]]
"""Of a file of columns: the line that each begins in, and its cells or what is wrong with it."""


def _csv_records(path: Path) -> Records:
    csv.field_size_limit(LARGEST_CELL)  # csv keeps it for the process, not for a reader
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        reader = csv.reader(file, strict=True)
        while True:
            begin = reader.line_num + 1  # a record of several lines is found by its first
            try:
                yield begin, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "new-line" not in str(error):  # a quote: the lines behind it may be cells
                    raise DataError(f"{path}:{begin}: {error}.") from None
                yield begin, conll.LONE_RETURN


def _tsv_records(path: Path) -> Records:
    """GLUE's form: a quote is just a character."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, ended in enumerate(file, start=1):
            line = ended.removesuffix("\n").removesuffix("\r")
            cells = line.split("\t") if line else []
            yield number, conll.LONE_RETURN if "\r" in line else cells


def _rows(path: Path, records: Records) -> Found:
    begin, header = next(records, (1, []))
    if isinstance(header, str):
        raise DataError(f"{path}:{begin}: {header}.")
    repeated = [name for name, count in collections.Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{path}:1: columns named twice: {shortened(sorted(repeated))}.")
    blank: list[Row] = []
    for begin, cells in records:
        origin = f"{path}:{begin}"
        if not cells:
            # In one column an empty text, or the rows behind it would shift; not at the end.
            blank += [Row({name: ""}, origin) for name in header if len(header) == 1]
            continue
        yield from blank
        blank = []
        if isinstance(cells, str):
            yield DataError(f"{origin}: {cells}.")
        elif len(cells) != len(header):
            yield DataError(
                f"{origin}: {len(cells)} columns, but the first line names {len(header)} "
                f"({', '.join(shortened(header))})."
            )
        else:
            yield Row(dict(zip(header, cells, strict=True)), origin)


def _read_csv(path: Path) -> Found:
    return _rows(path, _csv_records(path))


def _read_tsv(path: Path) -> Found:
    return _rows(path, _tsv_records(path))


DEEPEST = 50
"""Lists or objects in one another: far more than data has, far fewer than Python can compare."""


def _object(value: Any, origin: str) -> Row | DataError:
    if not isinstance(value, dict):
        return DataError(f"{origin}: expected a JSON object, found {type(value).__name__}.")
    fault = _unfit(value)
    return DataError(f"{origin}: {fault}.") if fault else Row(value, origin)


def _unfit(value: Any) -> str | None:
    """What keeps a JSON value from being used, though it is valid."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, Twice):
                return f"the key {shown(each.key)} stands twice in one object; remove one"
            if isinstance(each, dict):
                inner += [*each, *each.values()]
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str) and not each.isascii():
                try:
                    each.encode()
                except UnicodeEncodeError as error:  # a text cut within an emoji, most often
                    half = ascii(each[error.start])
                    return f"{half} is half of a character (a lone surrogate); remove it"
        if not inner:
            return None
        level = inner
    return f"lists or objects in one another more than {DEEPEST} deep"


class Twice(dict[str, Any]):
    """A JSON object with a key twice: a dict keeps the last value, and drops the others unseen."""

    def __init__(self, values: dict[str, Any], key: str):
        super().__init__(values)
        self.key = key


def _dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    ((key, _),) = collections.Counter(key for key, _ in pairs).most_common(1)
    return Twice(values, key)


def _parse(text: str) -> Any:
    """The value of a text in JSON.

    Raises:
      ValueError: if there is none, or none that Python can hold; of JSON's own kind in the first.
    """
    try:
        return json.loads(text, object_pairs_hook=_dict)
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ValueError("a number of thousands of digits") from None
    except RecursionError:
        raise ValueError("lists or objects in one another without end") from None


def _read_jsonl(path: Path) -> Found:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                origin = f"{path}:{number}"
                try:
                    yield _object(_parse(line), origin)
                except ValueError as error:
                    reason = getattr(error, "msg", error)
                    yield DataError(f"{origin}: not valid JSON ({reason}).")


def _read_json(path: Path) -> Found:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = _parse(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}).") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    if isinstance(content, Twice):
        raise DataError(f"{path}: {_unfit(content)}.")
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
        if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
            yield from _squad_rows(path, content)
            return
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, or SQuAD's {{'data': [...]}}.")
    for number, value in enumerate(content, start=1):
        yield _object(value, f"{path}: item {number}")


def _squad_rows(path: Path, articles: list[Any]) -> Found:
    """SQuAD's nesting (article > paragraph > question) in the hub's flat form."""
    place = "data"
    try:
        for a, article in enumerate(articles):
            place = f"data[{a}]"
            for p, paragraph in enumerate(_list(_once(article)["paragraphs"])):
                place = f"data[{a}].paragraphs[{p}]"
                for q, question in enumerate(_list(_once(paragraph)["qas"])):
                    place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                    yield _squad_row(path, place, paragraph, question)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {place}: not in SQuAD's form ({shown(error)}).") from None


def _squad_row(path: Path, place: str, paragraph: dict[str, Any], question: Any) -> Row | DataError:
    try:
        _once(question)
        values = {
            "id": question["id"],
            "question": question["question"],
            "context": paragraph["context"],
        }
        # Answers that are absent are not the same as none: [] says that there is none.
        if "answers" in question:
            answers = [_once(answer) for answer in _list(question["answers"])]
            values["answers"] = {
                "text": [answer["text"] for answer in answers],
                "answer_start": [answer["answer_start"] for answer in answers],
            }
        extra = {key: value for key, value in question.items() if key not in values}
    except (KeyError, TypeError, AttributeError) as error:
        return DataError(f"{path}: {place}: not in SQuAD's form ({shown(error)}).")
    name = place if _unfit(question["id"]) else f"question {question['id']}"
    return _object(values | extra, f"{path}: {name}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):  # an empty text or object would pass for an empty list
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return value


def _once(value: Any) -> Any:
    if isinstance(value, Twice):
        raise TypeError(_unfit(value))
    return value


def _from_parquet(path: Path, get: Callable[[Path], T]) -> T:
    import pyarrow

    try:
        return get(path)
    # Besides Arrow's own: text that is not UTF-8, and times beyond Python's years.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason}).") from None


def _read_parquet(path: Path) -> Found:
    import pyarrow.parquet

    def records(path: Path) -> list[dict[str, Any]]:
        # Few files have checksums; a changed byte is seen in those that do.
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
        return table.to_pylist()

    for number, record in enumerate(_from_parquet(path, records), start=1):
        yield Row(record, f"{path}: row {number}")


def _parquet_names(path: Path) -> dict[str, list[str]]:
    """The names behind integer labels, which the library `datasets` writes into a file's schema."""
    import pyarrow.parquet

    schema = _from_parquet(path, pyarrow.parquet.read_schema)
    written = (schema.metadata or {}).get(b"huggingface")
    try:
        return _class_labels(written)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError(
            f"{path}: the key 'huggingface' of its metadata is not as the library datasets writes "
            "it, so integer labels may lack their names; write the file without that key."
        ) from None


def _class_labels(written: bytes | None) -> dict[str, list[str]]:
    features = json.loads(written).get("info", {}).get("features", {}) if written else {}
    # A list of labels, such as tags, has the names inside.
    inner = {
        column: feature.get("feature", feature)
        for column, feature in features.items()
        if isinstance(feature, dict)
    }
    names = {
        column: _list(feature["names"])
        for column, feature in inner.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    if not all(own and all(isinstance(name, str) for name in own) for own in names.values()):
        raise ValueError("names that are no texts")
    return names


def _read_conll(path: Path) -> Found:
    sentences, faults = conll.sentences(path)
    yield from faults
    yield from (Row(each.values(), f"{path}:{each.line}") for each in sentences)


def _read_txt(path: Path) -> Found:
    """Paragraphs: lines up to a blank one. The form BERT's own data has, and that of books."""
    lines: list[str] = []
    start = 1
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate([*file, ""], start=1):
            if line.strip():
                start = start if lines else number
                lines.append(line.strip())
            elif lines:
                yield Row({"text": "\n".join(lines), "file": str(path)}, f"{path}:{start}")
                lines = []


READERS: dict[str, Callable[[Path], Found]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".conll": _read_conll,
    ".txt": _read_txt,
}


def _read_hub(spec: str, split: str) -> Table:
    import datasets

    name, _, chosen = spec.partition("@")
    repo, _, config = name.partition(":")
    chosen = chosen or split
    mend = (
        "Use local files instead: --config.data.train=FILE --config.data.eval=FILE "
        f"({', '.join(READERS)})."
    )
    try:
        with hub.fetching(spec):
            data = datasets.load_dataset(repo, config or None, split=chosen)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise HubError(
            f"{spec!r} is no local file, and as a hub data set (split {chosen}) it could not be "
            f"fetched ({hub.reason(error)}). {mend}"
        ) from None
    names = {
        column: list(label.names)
        for column, feature in data.features.items()
        # A list of labels, such as tags, has the names inside.
        if isinstance(label := getattr(feature, "feature", feature), datasets.ClassLabel)
    }
    rows = [Row(dict(record), f"{spec}: row {n}") for n, record in enumerate(data, start=1)]
    return Table(spec, rows, names)

"""JSON documents and JSON lines, read into rows by their form.

Rows are a list of objects, one object per line, or columns (as pandas writes them). Questions may
be nested as in SQuAD: articles with paragraphs, paragraphs with questions (`context`, `qas`), or
one of these. MRQA's files have one paragraph per line.
"""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxbert.config import DataConfig
from flaxbert.data.checks import READ_AS, Issue
from flaxbert.data.readers.encodings import codec
from flaxbert.data.table import Record, RecordOrIssue, shown
from flaxbert.errors import DataError, shortened

MAX_DEPTH = 50
"""The deepest nesting of lists and objects: far more than data has, and far less than Python can
compare."""


def _object(value: Any, origin: str) -> Record | DataError:
    if not isinstance(value, dict):
        return DataError(f"{origin}: expected a JSON object, found {type(value).__name__}.")
    problem = _json_problem(value)
    return DataError(f"{origin}: {problem}.") if problem else Record(value, origin)


def _json_problem(value: Any) -> str | None:
    """Return what makes a valid JSON value unusable; None if nothing does."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, DuplicateKeyDict):
                return f"the key {shown(item.key)} occurs twice in one object; remove one"
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError as error:  # a text cut within an emoji, most often
                    half = ascii(item[error.start])
                    return f"{half} is half of a character (a lone surrogate); remove it"
        if not inner:
            return None
        level = inner
    return f"lists or objects are nested more than {MAX_DEPTH} deep"


class DuplicateKeyDict(dict[str, Any]):
    """A JSON object with a duplicate key, of which a plain dict would keep only the last value."""

    def __init__(self, values: dict[str, Any], key: str):
        super().__init__(values)
        self.key = key


def _dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    ((key, _),) = collections.Counter(key for key, _ in pairs).most_common(1)
    return DuplicateKeyDict(values, key)


def _parse(text: str) -> Any:
    """Parse a JSON text.

    Raises:
      json.JSONDecodeError: for a text that is not JSON.
      ValueError: for a value that Python cannot hold.
    """
    try:
        return json.loads(text, object_pairs_hook=_dict)
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ValueError("a number of thousands of digits") from None
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None


def read_lines(path: Path, data: DataConfig) -> RecordOrIssue:
    """Read JSON lines; a file that is one JSON document is read as one, whatever its name."""
    with open(path, encoding=codec(data.encoding)) as file:
        first = next((line for line in file if line.strip()), "")
    if _lines(first, path, data) is None:
        text = path.read_text(encoding=codec(data.encoding))
        try:
            content = _parse(text)
        except ValueError:  # each bad line is reported below
            content = None
        if isinstance(content, list | dict):
            yield Issue(READ_AS, str(path), "one JSON document, not one JSON object per line")
            yield from _document(path, content)
            return
    yield from _read_lines(path, data)


def _lines(first: str, path: Path, data: DataConfig) -> dict[str, Any] | None:
    """Return the object of the first line; None if that line belongs to one JSON document."""
    try:
        value = _parse(first)
    except ValueError:
        return None
    nested = isinstance(value, dict) and _nested(value.get("data"))
    return value if isinstance(value, dict) and not nested else None


def _nested(items: Any) -> bool:
    """Return whether these are articles or paragraphs in SQuAD's form."""
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and ("paragraphs" in first or {"qas", "context"} <= first.keys())


def _read_lines(path: Path, data: DataConfig) -> RecordOrIssue:
    with open(path, encoding=codec(data.encoding)) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                origin = f"{path}:{number}"
                try:
                    value = _parse(line)
                except ValueError as error:
                    reason = getattr(error, "msg", error)
                    yield DataError(f"{origin}: not valid JSON ({reason}).")
                    continue
                if isinstance(value, dict) and value.keys() == {"header"}:  # MRQA's first line
                    yield Issue(READ_AS, origin, "a header, which is left out")
                elif _nested([value]):
                    yield from _questions(f"{origin}: ", [("object", value)])
                else:
                    yield _object(value, origin)


def read_document(path: Path, data: DataConfig) -> RecordOrIssue:
    """Read a JSON document; a file of JSON lines is read as such, whatever its name."""
    text = path.read_text(encoding=codec(data.encoding))
    try:
        content = _parse(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and isinstance(_first(text), dict):
            yield Issue(READ_AS, str(path), "JSON lines, an object each")
            yield from _read_lines(path, data)
            return
        several = " (several values; write one per line, or a list of them)"
        hint = several if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}){hint}.") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    yield from _document(path, content)


def _first(text: str) -> Any:
    """Return the value of a text's first line; None if that line is not a value."""
    try:
        return _parse(text.lstrip().partition("\n")[0])
    except ValueError:
        return None


def _document(path: Path, content: Any) -> RecordOrIssue:
    if isinstance(content, DuplicateKeyDict):
        raise DataError(f"{path}: {_json_problem(content)}.")
    published = isinstance(content, dict) and isinstance(content.get("data"), list)
    items, place = content, ""
    if isinstance(content, dict):
        if rows := _by_key(content):
            yield Issue(
                READ_AS, str(path), f"rows by their keys, such as {shown(next(iter(content)))}"
            )
            items = rows
        elif columns := _columns(content):
            yield Issue(READ_AS, str(path), f"columns {shortened(list(columns[0]))} of rows")
            items = columns
        elif published:
            items, place = content["data"], "data"
        elif _nested([content]):
            items = [content]
    if not isinstance(items, list):
        if isinstance(content, dict) and content and all(map(_is_objects, content.values())):
            raise DataError(
                f"{path}: a list of objects for each of {shortened(list(content))}; expected one "
                "list. Write each into its own file, and name them by --config.data.train, "
                "--config.data.eval and --config.data.predict."
            )
        keys = f" with the keys {shortened(list(content))}" if isinstance(content, dict) else ""
        raise DataError(
            f"{path}: expected a list of objects, or SQuAD's {{'data': [...]}}; found "
            f"{type(content).__name__}{keys}."
        )
    if _nested(items):
        if not published or "paragraphs" not in items[0]:
            form = "articles" if "paragraphs" in items[0] else "paragraphs"
            yield Issue(READ_AS, str(path), f"{form} with questions, as SQuAD has them")
        yield from _questions(
            f"{path}: ", [(f"{place}[{n}]", item) for n, item in enumerate(items)]
        )
        return
    _refuse_label_studio(path, items)
    for number, value in enumerate(items, start=1):
        yield _object(value, f"{path}: item {number}")


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _by_key(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of {key: row}, which pandas writes with orient="index"; [] for other objects.

    Columns look the same if each is {row's key: cell}, but the keys of rows are mostly numbers.
    Otherwise a table has more rows than columns. A key that is not a number becomes the row's id.
    """
    rows = list(content.values())
    if not rows or not all(isinstance(row, dict) for row in rows):
        return []
    if not set.intersection(*(set(row) for row in rows)):
        return []
    if all(row.keys() == rows[0].keys() for row in rows):
        numbers = [all(map(str.isdecimal, keys)) for keys in (content, rows[0])]
        if numbers[1] or (not numbers[0] and len(content) <= len(rows[0])):
            return []
    if all(map(str.isdecimal, content)):
        return rows
    # An object with a duplicate key is kept as it is: it is refused later.
    return [r if isinstance(r, DuplicateKeyDict) else {"id": key} | r for key, r in content.items()]


def _columns(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a table that pandas wrote by columns; [] for other objects."""
    names, cells = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(cells, list):  # orient="split"
        alike = all(isinstance(row, list) and len(row) == len(names) for row in cells)
        return [dict(zip(map(str, names), row, strict=True)) for row in cells] if alike else []
    columns = list(content.values())
    if columns and all(isinstance(c, dict) and c.keys() == columns[0].keys() for c in columns):
        keys = list(columns[0])  # a column may have them in another order
        columns = [[column[key] for key in keys] for column in columns]
    alike = all(isinstance(c, list) and len(c) == len(columns[0]) > 0 for c in columns)
    if not columns or not alike or all(map(_is_objects, columns)):
        return []
    return [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]


def _refuse_label_studio(path: Path, items: Sequence[Any]) -> None:
    for item in items[:1]:
        tasks = item.get("annotations") if isinstance(item, dict) and "data" in item else None
        if isinstance(tasks, list) and any(isinstance(t, dict) and "result" in t for t in tasks):
            raise DataError(
                f"{path}: Label Studio's JSON, which holds annotations by their regions. Export "
                "as CSV or JSON-MIN for labels of texts, or as CONLL2003 for words and tags."
            )


def _questions(origin: str, items: Sequence[tuple[str, Any]]) -> RecordOrIssue:
    """Flatten SQuAD's nesting (article > paragraph > question) into the hub's form.

    Args:
      origin: the file, or its line.
      items: articles or paragraphs with their places.
    """
    place = items[0][0]
    article = "paragraphs" in items[0][1]
    try:
        for place, item in items:
            paragraphs = [(place, item)]
            if article:
                inner = as_list(_reject_duplicates(item)["paragraphs"])
                paragraphs = [(f"{place}.paragraphs[{n}]", part) for n, part in enumerate(inner)]
            for place, paragraph in paragraphs:
                for q, question in enumerate(as_list(_reject_duplicates(paragraph)["qas"])):
                    yield _question(origin, f"{place}.qas[{q}]", paragraph, question)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{origin}{place}: not in SQuAD's form ({shown(error)}).") from None


def _question(
    origin: str, place: str, paragraph: dict[str, Any], question: Any
) -> Record | DataError:
    try:
        _reject_duplicates(question)
        values = {"question": question["question"], "context": paragraph["context"]}
        if key := next((key for key in ("id", "qid") if key in question), None):
            values = {"id": question[key]} | values
        # Absent answers differ from []: an empty list says that the question has no answer.
        if "detected_answers" in question:
            values["answers"] = _detected(question["detected_answers"], paragraph["context"])
        elif isinstance(answers := question.get("answers"), list):
            pairs = [_reject_duplicates(answer) for answer in answers]
            values["answers"] = {
                "text": [answer["text"] for answer in pairs],
                "answer_start": [answer["answer_start"] for answer in pairs],
            }
        elif "answers" in question:
            values["answers"] = answers
        extra = {key: value for key, value in question.items() if key not in values}
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        return DataError(f"{origin}{place}: not in SQuAD's form ({shown(error)}).")
    usable = "id" in values and not _json_problem(values["id"])
    name = f"question {values['id']}" if usable else place
    return _object(values | extra, f"{origin}{name}")


def _detected(answers: Any, context: str) -> dict[str, Any]:
    """Convert the answers of MRQA, whose spans include their last character."""
    spans = [as_list(_reject_duplicates(answer)["char_spans"])[0] for answer in as_list(answers)]
    return {
        "text": [context[first : last + 1] for first, last in spans],
        "answer_start": [first for first, _ in spans],
    }


def as_list(value: Any) -> list[Any]:
    """Return a list, or raise TypeError for anything else."""
    if not isinstance(value, list):  # an empty text or object would pass for an empty list
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return value


def _reject_duplicates(value: Any) -> Any:
    if isinstance(value, DuplicateKeyDict):
        raise TypeError(_json_problem(value))
    return value

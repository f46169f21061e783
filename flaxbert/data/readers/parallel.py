"""Files side by side, one line for each example: `train.texts+train.labels`, `seq.in+seq.out`.

Line n of every file belongs to example n. `data.columns` names the files. Without it two files are
`tokens` and `tags` if their lines have equally many words, else `text` and `label`.
"""

import itertools
from collections.abc import Sequence
from pathlib import PurePath

from flaxbert import packaged
from flaxbert.config import DataConfig
from flaxbert.data import remote, stores
from flaxbert.data.checks import READ_AS, Issue
from flaxbert.data.readers.encodings import codec, undecodable
from flaxbert.data.table import Record, Table
from flaxbert.errors import DataError

WORDS = ("tokens", "tags")
"""Columns whose lines are split into words at blanks."""


def parts(spec: str) -> list[str]:
    """Return the files of a specification FILE+FILE; [] if it is something else.

    All files after one at a URL are URLs too; any other plus sign belongs to a name.
    """
    files = spec.split("+")
    if len(files) < 2:
        return []
    if stores.is_url(spec):
        return files if all(map(stores.is_url, files)) else []
    return [] if packaged.local(spec).exists() or not packaged.local(files[0]).is_file() else files


def read(spec: str, data: DataConfig) -> Table:
    """Read files side by side.

    Args:
      spec: the files, with a plus sign between them.
      data: the names of the files (`columns`), and their `encoding`.

    Raises:
      DataError: for a file that cannot be read, and for files of different lengths.
    """
    files = parts(spec)
    columns = [_lines(file, data) for file in files]
    counts = [len(lines) for lines in columns]
    if len(set(counts)) > 1:
        named = ", ".join(f"{file} {count}" for file, count in zip(files, counts, strict=True))
        raise DataError(
            f"{spec}: the files have different numbers of lines ({named}); line n of each must "
            "belong to the same example."
        )
    names = _names(spec, columns, data)
    rows = [
        Record(
            {
                name: line.split() if name in WORDS else line
                for name, line in zip(names, lines, strict=True)
            },
            f"{files[0]}:{number}",
        )
        for number, lines in enumerate(zip(*columns, strict=True), start=1)
    ]
    what = " and ".join(f"{file} as {name}" for file, name in zip(files, names, strict=True))
    return Table(spec, rows, issues=(Issue(READ_AS, "", f"{what}, one line for each example"),))


def _lines(file: str, data: DataConfig) -> list[str]:
    path = remote.local(file)
    content = b""
    try:
        content = path.read_bytes()
        text = content.decode(codec(data.encoding))
    except UnicodeDecodeError:
        raise DataError(f"{file}:{undecodable(content, data.encoding)}.") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}).") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def _names(spec: str, columns: Sequence[Sequence[str]], data: DataConfig) -> tuple[str, ...]:
    """Return a name for each file.

    Raises:
      DataError: if `data.columns` names another number of files, or none where it must.
    """
    if data.columns or len(columns) != 2:
        if len(data.columns) == len(columns):
            return data.columns
        raise DataError(
            f"{spec}: {len(columns)} files, but data.columns names {len(data.columns)} "
            f"({','.join(data.columns) or 'none'}). Name each, such as "
            f"--config.data.columns={','.join(_examples(len(columns)))}."
        )
    pairs = list(itertools.islice(zip(*columns, strict=True), 1000))
    counts = [tuple(len(line.split()) for line in pair) for pair in pairs]
    same = sum(words == tags for words, tags in counts)
    # A line with a missing tag is an error of that line, not another kind of file.
    tagged = same >= SAME * len(counts) and any(n > 1 for n, _ in counts)
    return WORDS if tagged else ("text", "label")


SAME = 0.95
"""The share of lines with equally many words, from which two files are words and tags."""


def _examples(count: int) -> list[str]:
    return ["tokens", "label", *(f"column{n}" for n in range(3, count)), "tags"][:count]


def sibling(spec: str) -> str | None:
    """Return FILE+FILE for a file of texts with a file of labels next to it; None without one."""
    path = PurePath(spec)
    names = {
        "seq.in": ("label", "seq.out"),
        f"{path.stem}.texts": (f"{path.stem}.labels",),
        f"{path.stem}.text": (f"{path.stem}.label", f"{path.stem}.labels"),
        f"{path.stem}.txt": (f"{path.stem}.labels", f"{path.stem}.label"),
    }
    others = [spec.removesuffix(path.name) + name for name in names.get(path.name, ())]
    return next((f"{spec}+{other}" for other in others if remote.is_file(other)), None)

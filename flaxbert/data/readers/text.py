"""Plain text: each paragraph is a record."""

from pathlib import Path

from flaxbert.config import DataConfig
from flaxbert.data.readers.encodings import codec
from flaxbert.data.table import Record, RecordOrIssue


def _read_txt(path: Path, data: DataConfig) -> RecordOrIssue:
    """Read paragraphs, which end at a blank line, as in BERT's own data and in books."""
    lines: list[str] = []
    start = 1
    with open(path, encoding=codec(data.encoding)) as file:
        for number, line in enumerate([*file, ""], start=1):
            if line.strip():
                start = start if lines else number
                lines.append(line.strip())
            elif lines:
                yield Record({"text": "\n".join(lines), "file": str(path)}, f"{path}:{start}")
                lines = []

"""metrics.jsonl: one JSON object per line."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flaxbert.runtime.files import nonfinite_to_none, write_text

log = logging.getLogger("flaxbert")


class JsonlTracker:
    """A file of metrics with one JSON object per line.

    Attributes:
      first_loss: the loss of the first line about training; None if there is none.
      last_logged_step: the step of the last line about training; 0 if there is none.
    """

    def __init__(self, path: Path, *, step: int, evaluated: bool = True):
        """Open the file, cut back to the step that the run continues from.

        Args:
          path: of the file.
          step: later lines are removed.
          evaluated: whether the evaluation of that step is complete; if not, its line is removed.
        """
        kept = [
            (values, line)
            for values, line in _read_lines(path)
            if values["step"] < step or (values["step"] == step and (evaluated or "loss" in values))
        ]
        write_text(path, "".join(f"{line}\n" for _, line in kept))
        training = [values for values, _ in kept if "loss" in values]
        self.first_loss: float | None = training[0]["loss"] if training else None
        self.last_logged_step = int(training[-1]["step"]) if training else 0
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line; null stands for a value that is not finite."""
        line = {"step": step, **nonfinite_to_none(metrics)}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Return once all lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


def _read_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (values, line) of the valid lines; the last is unfinished if a run was killed."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            yield values, line
        elif number < len(lines):
            log.warning(f"{path}:{number}: corrupt line removed: {line[:80]!r}")

"""metrics.jsonl: one JSON object a line."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flaxbert.runtime.files import finite, write_text
from flaxbert.runtime.trackers.tensorboard import TensorBoardTracker

log = logging.getLogger("flaxbert")


class MetricsWriter:
    """metrics.jsonl and TensorBoard scalars. Only the first host writes."""

    def __init__(self, workdir: Path, *, step: int, active: bool, evaluated: bool = True):
        """Open both, cut back to `step`, the one that the run continues from.

        `evaluated`: whether the evaluation of that step is done; if not, its line goes too.
        """
        self._active = active
        self.first_loss: float | None = None
        """Of the first line; None for a new run."""
        self.logged = 0
        """Step of the last line about training."""
        if not active:
            return
        path = workdir / "metrics.jsonl"
        kept = [
            (values, line)
            for values, line in _read_lines(path)
            if values["step"] < step or (values["step"] == step and (evaluated or "loss" in values))
        ]
        write_text(path, "".join(f"{line}\n" for _, line in kept))
        trained = [values for values, _ in kept if "loss" in values]
        if trained:
            self.first_loss, self.logged = trained[0]["loss"], int(trained[-1]["step"])
        self._file = path.open("a", encoding="utf-8")
        self._board = TensorBoardTracker(workdir / "tensorboard", first=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line, and a scalar for each metric; null, and none, for what is not finite."""
        if self._active:
            line = {"step": step, **finite(metrics)}
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            self._board.write(step, {name: v for name, v in metrics.items() if math.isfinite(v)})

    def sync(self) -> None:
        """Return once the lines are on the disk."""
        if self._active:
            os.fsync(self._file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        if self._active:
            self._file.close()
            self._board.close()


def _read_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines that can be read; a last one may be unfinished, where a run was killed."""
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
            log.warning(f"{path}:{number}: damaged, and left out: {line[:80]!r}")

"""The files of a run, each written whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from flaxbert.config import Config
from flaxbert.errors import ConfigError

# A run may be continued with other values of these: they change no number that it computes.
FREE = (
    "train.max_steps",
    "train.save_every",
    "data.predict",
)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        result |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return result


def claim_workdir(workdir: Path, config: Config) -> None:
    """Check that a directory belongs to the same run, or to none that has saved anything.

    Raises:
      ConfigError: if it holds a run of another configuration; the message has every difference.
    """
    path = workdir / "config.json"
    saved = any(entry.name.isdecimal() for entry in (workdir / "checkpoints").glob("*"))
    if path.exists() and saved:
        try:
            old = flat(json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError:
            raise ConfigError(f"{path}: not valid JSON; choose another --workdir.") from None
        differences = [
            f"{key}: {old.get(key)!r} there, {value!r} now"
            for key, value in flat(config.to_dict()).items()
            if key not in FREE and old.get(key) != value
        ]
        if differences:
            raise ConfigError(
                f"{workdir} holds a run with another configuration:\n  "
                + "\n  ".join(differences)
                + "\nChoose another --workdir, or remove it to start again."
            )


class MetricsWriter:
    """metrics.jsonl and TensorBoard scalars. Only the first host writes."""

    def __init__(self, workdir: Path, *, step: int, active: bool):
        """Open both, cut back to `step`, the one that the run continues from."""
        self._active = active
        if not active:
            return
        path = workdir / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line, and a scalar for each metric."""
        if self._active:
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._active:
            self._file.close()
            self._board.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")  # a line that a killed run did not finish

"""Tables of metrics and predictions for the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxbert.errors import clip
from flaxbert.messages.language import span, tr
from flaxbert.tasks.base import Task
from flaxbert.types import Prediction

SHOWN = 8
"""Predictions in the table that a run prints at its end."""

CELL = 200
"""Characters of a text in the tables."""

METRICS = 40
"""Metrics in the table of results; hundreds of labels have more, which are only in the file."""


def show_metrics(metrics: Mapping[str, float], title: str) -> None:
    """Print a table of metrics, with their confidence intervals in the same line."""
    table = Table(tr("metric"), tr("value"), tr("95 % interval"), title=Text(title))
    names = [name for name in metrics if "_low95" not in name and "_high95" not in name]
    for name in names[:METRICS]:
        value = metrics[name]
        low, high = (metrics.get(_bound(name, side)) for side in ("low95", "high95"))
        interval = "" if low is None or high is None else span(f"{low:.3f}", f"{high:.3f}")
        table.add_row(Text(clip(name, CELL)), f"{value:.4g}", interval)
    if len(names) > METRICS:
        table.add_row(
            Text(tr("... {n} more in {file}", n=len(names) - METRICS, file=title)), "", ""
        )
    Console(file=sys.stdout).print(table)


def _bound(name: str, side: str) -> str:
    metric, slash, part = name.partition("/")
    return f"{metric}_{side}{slash}{part}"


def spread(count: int) -> range:
    """Return the indices of a few of `count` predictions, spread evenly over the data set."""
    return range(0, count, max(1, count // SHOWN))[:SHOWN]


def show_predictions(
    task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> None:
    """Print some predictions, spread evenly over the data set."""
    if not predictions:
        return
    lines = [task.table_row(examples[i], predictions[i]) for i in spread(len(predictions))]
    table = Table(*map(_head, lines[0]), title=tr("predictions"))
    for line in lines:
        cells = [clip(text, CELL) for text in line.values()]
        table.add_row(*map(Text, cells))  # not markup: a text may hold [brackets]
    Console(file=sys.stdout).print(table)


def _head(name: str) -> str:
    """Return the head of a column of `Task.table_row`."""
    heads = {
        "answer": tr("answer"),
        "document": tr("document"),
        "label": tr("label"),
        "labels": tr("labels"),
        "masked": tr("masked"),
        "pair": tr("second text"),
        "perplexity": tr("perplexity"),
        "predicted": tr("predicted"),
        "probability": tr("probability"),
        "question": tr("question"),
        "right": tr("right"),
        "tags": tr("tags"),
        "text": tr("text"),
    }
    return heads.get(name, name)

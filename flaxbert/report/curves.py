"""Curves of a training run: losses, metrics, learning rate, gradient and speed by step."""

from collections.abc import Sequence
from typing import Any

from flaxbert.messages.language import tr
from flaxbert.report.charts import Series, line_chart
from flaxbert.report.html import Html, tag
from flaxbert.report.quality import Quality
from flaxbert.report.rundir import RunFiles

METRICS = (
    "accuracy", "f1", "f1_micro", "f1_macro", "matthews", "exact_match", "precision", "recall",
    "pearson", "spearman", "mlm_accuracy", "nsp_accuracy",
)  # fmt: skip
"""Metrics that share a chart; all are higher if better, and one task's have the same scale."""

MOST = 4
"""Metrics in a chart."""


def points(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Return (step, value) of the lines of metrics.jsonl that have a value."""
    return [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]


def eval_points(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Return (step, value) of an evaluation's metric."""
    return points(lines, f"eval/{name}")


def curves(files: RunFiles, quality: Quality | None) -> Html:
    """Return the charts of a run; empty without metrics.jsonl."""
    lines = files.lines
    charts = [
        *_main_charts(lines, quality),
        line_chart(
            tr("Learning rate"), [Series(tr("learning rate"), points(lines, "learning_rate"))]
        ),
        line_chart(
            tr("Norm of the gradient"),
            [
                Series(tr("all layers"), points(lines, "grad_norm")),
                Series(tr("first layer"), points(lines, "lowest_grad_norm")),
            ],
        ),
        line_chart(
            tr("Examples per second"),
            [Series(tr("speed"), points(lines, "perf/examples_per_s"))],
        ),
    ]
    return _next_to_each_other(charts)


def main_curves(files: RunFiles, quality: Quality | None) -> Html:
    """Return the charts of the losses and of the metrics; empty without metrics.jsonl."""
    return _next_to_each_other(_main_charts(files.lines, quality))


def _main_charts(lines: Sequence[dict[str, Any]], quality: Quality | None) -> list[Html]:
    evaluated = Series(tr("evaluation data"), eval_points(lines, "loss"), marks=True)
    loss = line_chart(tr("Loss"), [Series(tr("training data"), points(lines, "loss")), evaluated])
    return [loss, _metrics(lines, quality)]


def _next_to_each_other(charts: Sequence[Html]) -> Html:
    shown = [chart for chart in charts if chart]
    return tag("div", *shown, class_="charts") if shown else Html()


def _metrics(lines: Sequence[dict[str, Any]], quality: Quality | None) -> Html:
    """Return the chart of the evaluations' metrics; empty for a single evaluation."""
    names = [quality.main] if quality else []
    names = list(dict.fromkeys([*names, *METRICS]))
    series = [Series(name, eval_points(lines, name), marks=True) for name in names]
    several = [one for one in series if len(one.points) > 1]
    return line_chart(tr("Metrics of the evaluation data"), several[:MOST])

"""A comparison of several runs as a page."""

import itertools
import os.path
from collections.abc import Sequence

import numpy as np

from flaxbert.messages.language import amount, span, tr
from flaxbert.report.charts import Series, line_chart
from flaxbert.report.curves import eval_points, points
from flaxbert.report.details import shown
from flaxbert.report.html import Html, join, note, number, page, section, share, table, tag
from flaxbert.report.page import METRICS, assess, evaluated_of
from flaxbert.report.quality import Quality, estimate_of, main_metrics
from flaxbert.report.rundir import RunFiles
from flaxbert.report.style import STYLE

LOWER_IS_BETTER = ("loss", "error", "perplexity")
"""Endings of metrics whose lowest value is the best."""

CHARTS = 4
"""Metrics whose curves are compared."""

PAIRS = 28
"""Pairs of runs that are compared example by example: those of 8 runs."""


def make_comparison(runs: Sequence[RunFiles]) -> str:
    """Return the comparison of two or more runs."""
    names = run_names(runs)
    qualities = [assess(evaluated_of(files)) for files in runs]
    title = tr("{n} runs compared", n=len(runs))
    tasks = ", ".join(dict.fromkeys(files.task.replace("_", " ") for files in runs))
    return page(
        tr("{title} - flaxbert report", title=title),
        STYLE,
        tag("header", tag("h1", title), tag("p", f"{tasks}: {', '.join(names)}", class_="lead")),
        section(tr("Metrics"), _metrics(runs, names, qualities)),
        section(tr("Same examples"), _pairs(runs, names, qualities)),
        section(tr("Curves"), _curves(runs, names)),
        section(tr("Settings that differ"), _settings(runs, names)),
        section(tr("Speed"), _speed(runs, names)),
    )


def run_names(runs: Sequence[RunFiles]) -> list[str]:
    """Return a short, different name for each run: the end of its path."""
    paths = [str(files.workdir.resolve()) for files in runs]
    common = os.path.commonpath(paths) if len(set(paths)) > 1 else os.path.dirname(paths[0])
    names = [os.path.relpath(path, common) for path in paths]
    return [f"{name} ({n})" if names.count(name) > 1 else name for n, name in enumerate(names, 1)]


def _metrics(
    runs: Sequence[RunFiles], names: list[str], qualities: Sequence[Quality | None]
) -> Html:
    """Return the metrics of all runs; the best value of each is marked."""
    metrics = list(dict.fromkeys(name for files in runs for name in main_metrics(files.results)))
    details = {name for quality in qualities if quality for name in quality.details}
    rows = []
    for metric in [name for name in metrics if name not in details][:METRICS]:
        values = [files.results.get(metric) for files in runs]
        known = [value for value in values if isinstance(value, int | float)]
        lower = metric.endswith(LOWER_IS_BETTER)
        best = (min if lower else max)(known, default=None)
        cells = []
        for files, quality, value in zip(runs, qualities, values, strict=True):
            text = number(value)
            if value is not None:
                _, low, high, _ = estimate_of(files, quality, metric)
                text += "" if low == high else f" ({span(number(low), number(high))})"
            is_best = value == best and len(set(known)) > 1
            cells.append(tag("td", text, class_="number best" if is_best else "number"))
        rows.append([metric, *cells])
    grid = table(tr("Final evaluations"), [tr("metric"), *names], rows, numeric=names)
    about = note(
        tr("In parentheses: 95 % intervals. ✓ marks the best value, however small the lead.")
    )
    same = all(_same_examples(runs[0], files) for files in runs[1:])
    warning = note(
        tr("The runs were evaluated on different examples, or their labels are not stored.")
    )
    return join(grid, about, None if same else warning)


def _pairs(runs: Sequence[RunFiles], names: list[str], qualities: Sequence[Quality | None]) -> Html:
    """Return which of two runs is right where the other is wrong, with McNemar's exact test."""
    import scipy.stats  # takes a second

    rows = []
    for one, other in itertools.islice(itertools.combinations(range(len(runs)), 2), PAIRS):
        a, b = (
            quality.correct if quality else None for quality in (qualities[one], qualities[other])
        )
        if a is None or b is None or not _same_examples(runs[one], runs[other]):
            continue
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        differing = only_a + only_b
        p = scipy.stats.binomtest(only_a, differing).pvalue if differing else 1.0
        agreed = share(float((a == b).sum()), len(a))
        verdict = tr("a clear difference") if p < 0.05 else tr("may be chance")
        pair = f"{names[one]}, {names[other]}"
        rows.append([pair, amount(only_a), amount(only_b), agreed, f"{p:.3g}", verdict])
    columns = [
        *(tr("runs"), tr("only the first is right"), tr("only the second is right")),
        *(tr("equally right"), "p", tr("difference")),
    ]
    grid = table(tr("Right and wrong, example by example"), columns, rows, numeric=columns[1:5])
    about = tr(
        "p: probability of a difference as large as this between two equally good models on other "
        "examples of the same kind (exact test of McNemar 1947). It does not cover the seeds."
    )
    return join(grid, note(about)) if rows else Html()


def _same_examples(one: RunFiles, other: RunFiles) -> bool:
    """Return whether two runs were evaluated on the same examples with the same labels."""

    def known(files: RunFiles) -> list[dict[str, object]]:
        excerpts = ("context", "offset")  # these depend on the predictions
        return [{k: v for k, v in label.items() if k not in excerpts} for label in files.labels]

    return bool(one.labels) and known(one) == known(other)


def _curves(runs: Sequence[RunFiles], names: list[str]) -> Html:
    """Return the curves of all runs, in one chart for each metric."""
    pairs = list(zip(names, runs, strict=True))
    training = [Series(name, points(files.lines, "loss")) for name, files in pairs]
    charts = [line_chart(tr("Loss on the training data"), training)]
    metrics = list(dict.fromkeys(name for files in runs for name in main_metrics(files.results)))
    order = ["loss", *(name for name in metrics if name != "loss")]
    for metric in order[: CHARTS + 1]:
        series = [
            Series(name, eval_points(files.lines, metric), marks=True) for name, files in pairs
        ]
        charts.append(line_chart(tr("{metric} on the evaluation data", metric=metric), series))
    return tag("div", *(chart for chart in charts if chart), class_="charts")


def _settings(runs: Sequence[RunFiles], names: list[str]) -> Html:
    """Return the settings in which the runs differ."""
    keys = list(dict.fromkeys(key for files in runs for key in files.config))
    rows = []
    for key in keys:
        values = [files.config.get(key) for files in runs]
        if any(value != values[0] for value in values):
            rows.append([tag("code", key), *(tag("code", shown(value)) for value in values)])
    return table(tr("Configuration"), [tr("key"), *names], rows)


def _speed(runs: Sequence[RunFiles], names: list[str]) -> Html:
    """Return timings of all runs."""
    measures = {
        "perf/train_seconds": tr("training, s"),
        "perf/examples_per_s": tr("examples per second"),
        "perf/tokens_per_s": tr("tokens per second"),
        "perf/compile_seconds": tr("compiling, s"),
        "padding_share": tr("share of padding"),
        "step": tr("steps"),
    }
    rows = [
        [about, *(number(files.results.get(name)) for files in runs)]
        for name, about in measures.items()
        if np.any([name in files.results for files in runs])
    ]
    return table(tr("Timings"), ["", *names], rows, numeric=names)

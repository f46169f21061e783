"""The report of one run as a page."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from flaxbert.messages.language import amount, plural, span, tr
from flaxbert.metrics.calibration import excess_confidence, expected_calibration_error
from flaxbert.report import answers, classes, entities, label_sets, numbers
from flaxbert.report.charts import interval_bar, reliability_chart
from flaxbert.report.curves import curves
from flaxbert.report.details import data_and_speed, details
from flaxbert.report.hints import hints
from flaxbert.report.html import (
    Html,
    contents,
    join,
    note,
    number,
    page,
    section,
    table,
    tag,
    user_text,
)
from flaxbert.report.quality import Estimate, Evaluated, Quality, estimate_of, main_metrics
from flaxbert.report.rundir import TRAINED, RunFiles
from flaxbert.report.style import STYLE
from flaxbert.report.words import in_words

ASSESS: dict[str, Callable[[Evaluated], Quality]] = {
    "label": classes.assess,
    "labels": label_sets.assess,
    "value": numbers.assess,
    "index": classes.assess_choices,
    "tags": entities.assess,
    "answers": answers.assess,
}
"""The assessment by the key of the label (see `labels.label_records`)."""

TOP, TOP_SUSPECTS = 20, 30
"""Examples in each list."""

SLICES = 40
"""Slices in the table: those with most examples."""


def evaluated_of(files: RunFiles) -> Evaluated:
    """Return the evaluated examples of a run; none if their labels are not stored."""
    names = files.export.get("id2label") or {}
    ordered = [str(names[key]) for key in sorted(names, key=int)]
    fitted = files.export.get("flaxbert", {})
    return Evaluated(files.labels, files.predictions, ordered, files.config, fitted)


def assess(evaluated: Evaluated) -> Quality | None:
    """Assess predictions; None without examples, or for a task that no function assesses."""
    for key, function in ASSESS.items():
        if len(evaluated) and all(key in label for label in evaluated.labels):
            return function(evaluated)
    return None


def evaluated_on(files: RunFiles) -> str:
    """Return the evaluation data in words."""
    train, given = (files.config.get(f"data.{key}") for key in ("train", "eval"))
    if share := 0.0 if given else files.config.get("data.eval_split", 0.0):
        return tr("{share} of {data}, held out", share=f"{share:.0%}", data=train)
    return str(given or tr("no data"))


def make_page(files: RunFiles) -> str:
    """Return the report of a run."""
    evaluated = evaluated_of(files)
    quality = assess(evaluated)
    task = files.task.replace("_", " ")
    title = f"{files.name}: {task}"
    parts = {
        tr("In words"): in_words(files, quality),
        tr("Metrics"): metrics_table(files, quality),
        tr("Training"): curves(files, quality),
        tr("Predictions"): _side_by_side(quality.sections if quality else ()),
        tr("Calibration"): _calibration(quality),
        tr("Slices"): _slices(evaluated),
        **_examples(evaluated, quality),
        tr("Data and speed"): data_and_speed(files),
        tr("How to repeat it"): details(files),
    }
    return page(
        tr("{title} - flaxbert report", title=title),
        STYLE,
        tag("header", tag("h1", title), tag("p", user_text(_lead(files)), class_="lead")),
        tiles(files, quality),
        hints(files, quality),
        contents(title for title, part in parts.items() if part),
        *(section(title, part) for title, part in parts.items()),
    )


def _lead(files: RunFiles) -> str:
    """Return what was done with which model."""
    model, data = str(files.config.get("model.init", "")), evaluated_on(files)
    if files.names is TRAINED:
        return tr("Training run of {model}, evaluated on {data}", model=model, data=data)
    return tr("Evaluation of {model}, evaluated on {data}", model=model, data=data)


def _side_by_side(parts: Sequence[Html]) -> Html:
    """Return parts next to each other where the screen is wide enough."""
    shown = [part for part in parts if part]
    return tag("div", *shown, class_="beside") if shown else Html()


def estimate_cells(estimate: Estimate) -> list[object]:
    """Return a value, its interval, a bar of both, and the baseline; a dash for what is unknown."""
    value, low, high, baseline = estimate
    if low == high:
        return [number(value), "-", "", number(baseline)]
    most = max(value, high, baseline or 0.0)
    scale = 1.0 if most <= 1 else 100.0 if most > 10 else most  # shares, percent, or errors
    bar = interval_bar(value, low, high, baseline, max(scale, most))
    return [number(value), span(number(low), number(high)), bar, number(baseline)]


def metrics_table(files: RunFiles, quality: Quality | None) -> Html:
    """Return the metrics with intervals and baselines."""
    rows = []
    names = main_metrics(files.results)
    for name in [n for n in names if not quality or n not in quality.details][:METRICS]:
        rows.append([name, *estimate_cells(estimate_of(files, quality, name))])
    columns = [tr("metric"), tr("value"), tr("95 % interval"), "", tr("baseline")]
    grid = table(tr("Final evaluation"), columns, rows, numeric=[*columns[1:3], columns[4]])
    if quality is None:
        return grid
    about = tr(
        "Intervals are Wilson's for accuracy, else from resampling the examples 1,000 times. They "
        "say how much a number would vary with other examples, not with another seed. Baseline: "
        "{baseline}.",
        baseline=quality.baseline,
    )
    return join(grid, note(about))


METRICS = 40
"""Metrics in the table; hundreds of labels have more."""


def tiles(files: RunFiles, quality: Quality | None) -> Html:
    """Return the most important numbers."""
    shown: dict[str, object] = {}
    names = list(main_metrics(files.results))
    main = quality.main if quality and quality.main in names else next(iter(names), None)
    if main is not None:
        value, low, high, baseline = estimate_of(files, quality, main)
        about = main if low == high else f"{main} (95 %: {span(number(low), number(high))})"
        shown[about] = number(value)
        if baseline is not None:
            shown[tr("{metric} of the baseline", metric=main)] = number(baseline)
    if quality is not None and quality.correct is not None:
        wrong = int((~quality.correct).sum())
        shown[tr("of {n} examples have an error", n=len(quality.correct))] = amount(wrong)
    train = files.about.get("data", {}).get("train", {})
    if "examples" in train:
        shown[tr("training examples")] = amount(train["examples"])
    seconds = files.results.get("perf/train_seconds")
    if seconds is not None:
        shown[tr("of training, without compiling")] = duration(seconds)
    items = [tag("li", tag("b", value), tag("span", name)) for name, value in shown.items()]
    return tag("ul", *items, class_="tiles") if items else Html()


def duration(seconds: float) -> str:
    """Return a time in its largest fitting unit."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _calibration(quality: Quality | None) -> Html:
    """Return the reliability diagram and its error, if there are probabilities."""
    if quality is None or quality.calibration is None:
        return Html()
    bins, outcome = quality.calibration
    error, excess = expected_calibration_error(bins), excess_confidence(bins)
    values = {"error": error, "bins": len(bins), "excess": abs(excess), "outcome": outcome}
    if excess > 0:
        summary = tr(
            "Expected calibration error {error:.3f} ({bins} bins). Probabilities are {excess:.3f} "
            "higher than the share of {outcome} on average.",
            **values,
        )
    else:
        summary = tr(
            "Expected calibration error {error:.3f} ({bins} bins). Probabilities are {excess:.3f} "
            "lower than the share of {outcome} on average.",
            **values,
        )
    legend = tr(
        "A bar at the dashed diagonal is calibrated; below it, probabilities are too high. The "
        "horizontal mark is the mean probability of the bin, and darker bars have more predictions."
    )
    chart = tag("div", reliability_chart(bins, outcome), class_="charts")
    return join(tag("p", f"{summary} {legend}"), chart)


def _slices(evaluated: Evaluated) -> Html:
    """Return the main metric of each slice."""
    members: dict[str, list[int]] = {}
    for n, label in enumerate(evaluated.labels):
        if label.get("slice") is not None:
            members.setdefault(str(label["slice"]), []).append(n)
    rows = []
    largest = sorted(members.items(), key=lambda item: -len(item[1]))[:SLICES]
    main = ""
    for name, chosen in largest:
        quality = assess(evaluated.part(chosen))
        if quality is None:
            return Html()
        main = quality.main
        cells = estimate_cells(quality.estimates[main])
        rows.append([user_text(name, 60), amount(len(chosen)), *cells])
    columns = [tr("slice"), tr("examples"), main, tr("95 % interval"), "", tr("baseline")]
    numeric = [column for column in columns[1:] if column]
    more = note(tr("The {shown} largest of {n}.", shown=SLICES, n=len(members)))
    grid = table(tr("{metric} of each slice", metric=main), columns, rows, numeric=numeric)
    return join(grid, more if len(members) > SLICES else None)


def _examples(evaluated: Evaluated, quality: Quality | None) -> dict[str, Html]:
    """Return the lists of examples by their headings."""
    if quality is None:
        return {}
    silent = quality.doubt is None and quality.suspects is None
    worst = worst_examples(evaluated, quality, TOP)
    unranked = tr(
        "The predictions of this task have no probabilities, so the most doubtful ones are not "
        "listed. Wrong labels are most likely among these."
    )
    lists = {tr("Most wrong predictions"): join(worst, note(unranked) if silent else None)}
    if quality.doubt is not None:
        doubtful = np.argsort(-quality.doubt, kind="stable")[:TOP]
        shown = example_table(tr("Most doubtful"), evaluated, quality, doubtful.tolist())
        about = plural(
            len(doubtful),
            "Right or wrong, the one where {doubt}.",
            "Right or wrong, the {n} where {doubt}.",
            doubt=quality.doubt_name,
        )
        lists[tr("Most doubtful predictions")] = join(shown, note(about))
    return lists | {tr("Likely label errors"): _suspects(evaluated, quality)}


def worst_examples(evaluated: Evaluated, quality: Quality, most: int) -> Html:
    """Return the examples with the worst predictions; empty if all are right."""
    right = quality.correct
    wrong = np.arange(len(evaluated)) if right is None else np.flatnonzero(~right)
    worst = wrong[np.argsort(-quality.wrongness[wrong], kind="stable")][:most]
    about = tr(
        "The {shown} of {wrong} with most {measure}, of {n} evaluated examples. Long texts are "
        "shortened.",
        shown=len(worst),
        wrong=len(wrong),
        measure=quality.wrongness_name,
        n=len(evaluated),
    )
    measure = quality.wrongness, quality.wrongness_name
    shown = example_table(tr("Most wrong"), evaluated, quality, worst.tolist(), measure)
    return join(shown, note(about) if len(worst) else None)


def _suspects(evaluated: Evaluated, quality: Quality) -> Html:
    """Return the examples whose labels are probably wrong."""
    if quality.suspects is None:
        return Html()
    shown = quality.suspects[:TOP_SUSPECTS]
    likely = {suspect.example: user_text(suspect.likely, 80) for suspect in shown}
    counts = {"n": len(quality.suspects), "count": len(evaluated), "shown": len(shown)}
    found = tr(
        "The model confidently contradicts the label of {n} of {count} evaluated examples.",
        **counts,
    )
    if len(shown) < len(quality.suspects):
        found = tr(
            "The model confidently contradicts the label of {n} of {count} evaluated examples, and "
            "the first {shown} are shown.",
            **counts,
        )
    advice = tr(
        "Read them: some labels are wrong, and others are right but hard; the better the model, "
        "the fewer of those. This is the evaluation data. To check the training file in the same "
        "way, train for a single epoch, before wrong labels are learned by heart, and evaluate on "
        "that file: --mode=eval --config.data.eval=FILE."
    )
    chosen = [suspect.example for suspect in shown]
    rows = example_table(tr("Likely label errors"), evaluated, quality, chosen, extra=likely)
    return join(tag("p", f"{found} {advice}"), rows)


def example_table(
    caption: str,
    evaluated: Evaluated,
    quality: Quality,
    chosen: Sequence[int],
    measure: tuple[np.ndarray, str] | None = None,
    extra: Mapping[int, Html] | None = None,
) -> Html:
    """Return a table of examples.

    Args:
      caption: its heading.
      evaluated: all examples.
      quality: their assessment.
      chosen: the indices of the examples.
      measure: values [N] for a further column, and its name.
      extra: {index: label} for the column "likely label".
    """
    lines: list[dict[str, object]] = []
    for n in chosen:
        cells = dict(quality.row(n))
        if extra is not None:
            cells[tr("likely label")] = extra[n]
        if measure is not None:
            cells[measure[1]] = number(float(measure[0][n]))
        label = evaluated.labels[n]
        if label.get("slice") is not None:
            cells[tr("slice")] = user_text(label["slice"], 40)
        cells[tr("place")] = user_text(_short(str(label.get("origin", ""))), 80)
        lines.append(cells)
    columns = list(dict.fromkeys(key for cells in lines for key in cells))
    rows = [[cells.get(column, "") for column in columns] for cells in lines]
    return table(caption, columns, rows, classes="texts")


def _short(origin: str) -> str:
    """Return a place without the directory of its file."""
    return origin.rpartition("/")[2] or origin

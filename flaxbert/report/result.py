"""The result of a run, which shows itself in a notebook and in a console."""

import dataclasses
import logging
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxbert.messages.language import span, tr
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.report.curves import main_curves
from flaxbert.report.hints import hints
from flaxbert.report.html import Html, note, number, tag, user_text
from flaxbert.report.page import (
    assess,
    evaluated_of,
    evaluated_on,
    metrics_table,
    tiles,
    worst_examples,
)
from flaxbert.report.quality import main_metrics
from flaxbert.report.rundir import RunFiles, read_run
from flaxbert.report.style import IN_A_NOTEBOOK
from flaxbert.runtime import mirror, storage
from flaxbert.runtime.files import nonfinite_to_none
from flaxbert.types import Prediction

log = logging.getLogger("flaxbert")

MOST = 12
"""Metrics in a console."""

WORST = 5
"""Examples in a notebook; the report has more."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trained(Mapping[str, float]):
    """The result of a finished run: a mapping of metrics, as in results.json.

    It is equal to every mapping with the same metrics. As the last value of a cell, a notebook
    shows it with its curves and its worst errors.
    """

    results: dict[str, float]
    pipeline: Pipeline
    examples: Sequence[Any]
    """The examples of the evaluation data; empty without any."""
    predictions: list[Prediction]
    """The final prediction for each of them."""
    workdir: Path
    """The directory with the files of the run."""

    def __getitem__(self, name: str) -> float:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        """Return the most important metrics as lines of text."""
        names = list(main_metrics(self.results))
        width = max(map(len, names[:MOST]), default=0)
        steps = int(self.results.get("step", 0))
        lines = [tr("Run in {workdir}, {n} steps", workdir=self.workdir, n=steps)]
        for name in names[:MOST]:
            line = f"  {name:<{width}}  {number(self.results[name]):>7}"
            low, high = (self.results.get(f"{name}_{end}") for end in ("low95", "high95"))
            interval = "" if low is None else f"  (95 %: {span(number(low), number(high))})"
            lines.append(line + interval)
        if len(names) > MOST:
            lines.append("  " + tr("and {n} more in results.json", n=len(names) - MOST))
        return "\n".join([*lines, "  " + tr("report: {file}", file=self.workdir / "report.html")])

    def _repr_html_(self) -> str | None:
        """Return the result as HTML; None if the files of the run are not there any more."""
        try:
            with mirror.opened(self.workdir) as place:
                files = dataclasses.replace(read_run(place.local), workdir=self.workdir)
            if dict(files.results) != nonfinite_to_none(self.results):
                return None  # they are those of a later run
            return summary(files)
        except Exception as error:
            log.warning(f"{self.workdir}: cannot be shown ({type(error).__name__}: {error})")
            return None


def summary(files: RunFiles) -> Html:
    """Return what a notebook shows of a run: metrics, curves, errors and a link to the report."""
    evaluated = evaluated_of(files)
    quality = assess(evaluated)
    title = tag("h2", f"{files.name}: {files.task.replace('_', ' ')}")
    model, data = files.config.get("model.init", ""), evaluated_on(files)
    lead = tr("{model}, evaluated on {data}", model=model, data=data)
    errors = worst_examples(evaluated, quality, WORST) if quality is not None else None
    return tag(
        "div",
        tag("style", Html(IN_A_NOTEBOOK)),
        title,
        tag("p", user_text(lead), class_="lead"),
        tiles(files, quality),
        hints(files, quality),
        metrics_table(files, quality),
        main_curves(files, quality),
        tag("h3", tr("Most wrong predictions")) if errors else None,
        errors,
        _link(files.workdir / files.names.page),
        class_="flaxbert",
    )


def _link(path: Path) -> Html:
    """Return a link to the report; only its path if a notebook server cannot open it from here."""
    here = Path.cwd().resolve()
    path = path if storage.is_remote(path) else path.resolve()
    if not path.is_relative_to(here):
        return note(tr("All about this run:"), " ", tag("code", path))
    place = path.relative_to(here).as_posix()
    link = tag("a", place, href=urllib.parse.quote(place), target="_blank")
    return note(tr("All about this run:"), " ", link)

"""What the numbers of a run suggest to look at first."""

from collections.abc import Iterator

from flaxbert.metrics.calibration import excess_confidence, expected_calibration_error
from flaxbert.report.curves import eval_points
from flaxbert.report.html import Html, number, tag
from flaxbert.report.quality import Quality
from flaxbert.report.rundir import RunFiles

OVERFITTED = 1.1
"""A last evaluation loss above this multiple of the lowest one is overfitting."""

MANY_CUT = 0.05
"""Share of shortened texts that is worth a hint."""

MISCALIBRATED = 0.1
"""Expected calibration error that is worth a hint."""

FEW = 30
"""Fewer evaluated examples than this decide little."""

_LONG = "options.long_texts"


def hints(files: RunFiles, quality: Quality | None) -> Html:
    """Return hints as a list; empty without any."""
    items = [tag("li", text) for text in _hints(files, quality)]
    return tag("ul", *items, class_="hints", aria_label="Hints") if items else Html()


def _hints(files: RunFiles, quality: Quality | None) -> Iterator[str]:
    if quality is not None:
        yield from _quality_hints(quality)
    losses = eval_points(files.lines, "loss")
    if len(losses) > 1:
        step, lowest = min(losses, key=lambda point: point[1])
        if losses[-1][1] > OVERFITTED * lowest:
            yield (
                f"The loss on the evaluation data was lowest at step {step:,} ({number(lowest)}), "
                f"and is {number(losses[-1][1])} now: the model learns the training data by heart. "
                "Try fewer epochs, or train.keep_best to export the best weights."
            )
    for name, data in files.about.get("data", {}).items():
        if data.get("cut", 0) > MANY_CUT * max(1, data.get("examples", 0)):
            windows = ", or options.long_texts=windows" if _LONG in files.config else ""
            yield (
                f"{data['cut']:,} of {data['examples']:,} texts of data.{name} lost text to "
                f"data.max_length={files.config.get('data.max_length')}. Try a larger one{windows}."
            )


def _quality_hints(quality: Quality) -> Iterator[str]:
    main = quality.estimates.get(quality.main)
    count = len(quality.wrongness)
    if count < FEW:
        yield f"Only {count} examples were evaluated: the metrics are rough estimates."
    if main is not None and main.baseline is not None and main.low <= main.baseline:
        yield (
            f"{quality.main} {number(main.value)} is not clearly better than a baseline that "
            f"ignores the texts ({number(main.baseline)}: {quality.baseline})."
        )
    if quality.calibration is not None and count >= FEW:
        bins = quality.calibration.bins
        if (error := expected_calibration_error(bins)) > MISCALIBRATED:
            kind = "too high" if excess_confidence(bins) > 0 else "too low"
            yield f"Probabilities are {kind} (expected calibration error {error:.2f})."

"""What the numbers of a run suggest to look at first."""

from collections.abc import Iterator

from flaxbert.messages.language import plural, tr
from flaxbert.metrics.calibration import excess_confidence, expected_calibration_error
from flaxbert.report.curves import eval_points
from flaxbert.report.html import Html, number, tag
from flaxbert.report.quality import Quality
from flaxbert.report.rundir import RunFiles
from flaxbert.report.words import change, training_trend

MANY_CUT = 0.05
"""Share of shortened texts that is worth a hint."""

MISCALIBRATED = 0.1
"""Expected calibration error that is worth a hint."""

FEW = 30
"""Fewer evaluated examples than this decide little."""

STILL_FALLING = 0.05
"""Share by which a loss that falls in the last evaluation suggests more epochs."""

_LONG = "options.long_texts"


def hints(files: RunFiles, quality: Quality | None) -> Html:
    """Return hints as a list; empty without any."""
    items = [tag("li", text) for text in hint_texts(files, quality)]
    return tag("ul", *items, class_="hints", aria_label=tr("Hints")) if items else Html()


def hint_texts(files: RunFiles, quality: Quality | None) -> Iterator[str]:
    """Yield hints."""
    if quality is not None:
        yield from _quality_hints(quality)
    yield from _loss_hints(files)
    for name, data in files.about.get("data", {}).items():
        if data.get("cut", 0) > MANY_CUT * max(1, data.get("examples", 0)):
            advice = tr("Try a larger one.")
            if _LONG in files.config:
                advice = tr("Try a larger one, or options.long_texts=windows.")
            lost = tr(
                "{cut} of {count} texts of data.{name} lost text to data.max_length={length}.",
                cut=data["cut"],
                count=data["examples"],
                name=name,
                length=str(files.config.get("data.max_length")),
            )
            yield f"{lost} {advice}"


def _loss_hints(files: RunFiles) -> Iterator[str]:
    """Yield what the losses suggest: overfitting, nothing learned, or more epochs."""
    losses = eval_points(files.lines, "loss")
    kind = change([loss for _, loss in losses]) if len(losses) > 1 else ""
    step, lowest = min(losses, key=lambda point: point[1], default=(0, 0.0))
    if kind == "overfits":
        yield tr(
            "The loss on the evaluation data was lowest at step {step} ({lowest}), and is {last} "
            "now: the model learns the training data by heart.",
            step=int(step),
            lowest=number(lowest),
            last=number(losses[-1][1]),
        ) + " " + (
            tr("The exported weights are the best ones (train.keep_best).")
            if files.config.get("train.keep_best")
            else tr("Try fewer epochs, or train.keep_best to export the best weights.")
        )  # fmt: skip
    elif (trained := training_trend(files)) and change(trained) != "falls":
        yield tr(
            "The loss on the training data did not fall. Try another optim.learning_rate (2e-5 to "
            "5e-5 are usual for BERT) or more epochs, and check that the labels fit the texts "
            "(flaxbert lint)."
        )
    elif len(losses) > 2 and losses[-1][1] < (1 - STILL_FALLING) * losses[-2][1]:
        yield tr(
            "The loss on the evaluation data was still falling at the end. Try more epochs "
            "(train.epochs)."
        )


def _quality_hints(quality: Quality) -> Iterator[str]:
    main = quality.estimates.get(quality.main)
    count = len(quality.wrongness)
    if count < FEW:
        yield plural(
            count,
            "Only 1 example was evaluated: the metrics are rough estimates.",
            "Only {n} examples were evaluated: the metrics are rough estimates.",
        )
    if main is not None and main.baseline is not None and main.low <= main.baseline:
        yield tr(
            "{metric} {value} is not clearly better than a baseline that ignores the texts "
            "({reached}: {baseline}).",
            metric=quality.main,
            value=number(main.value),
            reached=number(main.baseline),
            baseline=quality.baseline,
        )
    if quality.calibration is not None and count >= FEW:
        bins = quality.calibration.bins
        error = f"{expected_calibration_error(bins):.2f}"
        if expected_calibration_error(bins) <= MISCALIBRATED:
            return
        if excess_confidence(bins) > 0:
            yield tr(
                "Probabilities are too high (expected calibration error {error}).", error=error
            )
        else:
            yield tr("Probabilities are too low (expected calibration error {error}).", error=error)

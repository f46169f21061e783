"""What a run did, and what its numbers mean, in sentences for a person who is new to it."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from flaxbert.messages.language import percent, plural, tr
from flaxbert.report.curves import eval_points, points
from flaxbert.report.html import Html, join, number, tag
from flaxbert.report.quality import Estimate, Quality, estimate_of
from flaxbert.report.rundir import RunFiles

OVERFITTED = 1.1
"""A last evaluation loss above this multiple of the lowest one is overfitting."""

FLAT = 0.02
"""A loss that changes by less than this share of itself is the same."""

NEGLIGIBLE = 0.01
"""Differences below this share of the first loss are noise, however small the loss is by then."""


def in_words(files: RunFiles, quality: Quality | None) -> Html:
    """Return the sentences about a run as paragraphs."""
    sizes, data = files.begun.get("parameters") or {}, files.about.get("data", {})
    counts = {name: part.get("examples", 0) for name, part in data.items()}
    cut, length = data.get("train", {}).get("cut", 0), files.config.get("data.max_length", 0)
    paragraphs = [
        [
            *weights(sizes.get("loaded", 0), sizes.get("new", 0)),
            *(examples(files.task, counts, cut, length) if "train" in counts else ()),
        ],
        course(files),
        score(files, quality),
    ]
    return join(*(tag("p", " ".join(lines)) for lines in map(list, paragraphs) if lines))


def weights(loaded: int, new: int) -> Iterator[str]:
    """Yield where the parameters come from; nothing if that is not known."""
    if not loaded:
        return
    if new:
        yield tr(
            "{loaded} parameters come from the pre-trained model. Only the output layer is new and "
            "random: its {new} parameters have everything to learn.",
            loaded=loaded,
            new=new,
        )
    else:
        yield tr(
            "All {loaded} parameters come from the checkpoint, also those of the output layer.",
            loaded=loaded,
        )


def examples(task: str, counts: Mapping[str, int], cut: int, length: int) -> Iterator[str]:
    """Yield how many examples there are for what.

    Args:
      task: the name of the task.
      counts: the number of examples of `train`, and of `eval` if there are any.
      cut: the number of training examples that lost text.
      length: `data.max_length`.
    """
    yield plural(
        counts["train"],
        "The model learns from 1 example ({kind}).",
        "The model learns from {n} examples ({kind}).",
        kind=_kind(task),
    )
    if counts.get("eval"):
        yield plural(
            counts["eval"],
            "1 other example, which it never learns from, measures how well it does on new ones.",
            "{n} others, which it never learns from, measure how well it does on new ones.",
        )
    else:
        yield tr(
            "No examples are held out, so nothing measures how well it does on new ones: set "
            "data.eval, or data.eval_split=0.1."
        )
    if cut:
        yield plural(
            cut,
            "1 text is longer than {length} tokens (data.max_length), and was cut.",
            "{n} texts are longer than {length} tokens (data.max_length), and were cut.",
            length=length,
        )


def _kind(task: str) -> str:
    """Return what an example of a task is."""
    kinds = {
        "classification": tr("texts with their label"),
        "multi_label": tr("texts with their labels"),
        "regression": tr("texts with their number"),
        "multiple_choice": tr("questions with their right choice"),
        "question_answering": tr("questions with their text and answer"),
        "token_classification": tr("sentences with a tag for each word"),
    }
    return kinds.get(task, tr("documents"))


def course(files: RunFiles) -> Iterator[str]:
    """Yield how the losses went, of the evaluation data if it was evaluated more than once."""
    trained, losses = training_trend(files), [x for _, x in eval_points(files.lines, "loss")]
    if len(losses) > 1:
        ends = _ends(losses)
        kind = change(losses)
        if kind == "falls":
            yield tr(
                "The loss on the evaluation data fell from {first} to {last}: the predictions for "
                "new examples became better.",
                **ends,
            )
        elif kind == "overfits":
            yield tr(
                "The loss on the evaluation data was lowest at {lowest}, and rose to {last}: the "
                "model began to learn the training data by heart (overfitting).",
                **ends,
            )
        elif kind == "flat":
            yield tr(
                "The loss on the evaluation data hardly changed from the first evaluation to the "
                "last ({first} and {last}).",
                **ends,
            )
        else:
            yield tr(
                "The loss on the evaluation data rose a little, from {first} to {last}.", **ends
            )
    if trained and change(trained) == "falls":
        yield tr("The loss on the training data fell from {first} to {last}.", **_ends(trained))
    elif trained:
        yield tr(
            "The loss on the training data did not fall ({first} at the beginning, {last} at the "
            "end): the model learned nothing.",
            **_ends(trained),
        )


def training_trend(files: RunFiles) -> list[float]:
    """Return the training loss at the beginning and at the end; [] with too few lines.

    A single line is noisy, so each is the mean of a fifth of the lines.
    """
    lines = [loss for _, loss in points(files.lines, "loss")]
    part = max(1, len(lines) // 5)
    few = lines[:part], lines[-part:]
    return [statistics.fmean(losses) for losses in few] if len(lines) > 1 else []


def change(losses: Sequence[float], scale: float | None = None) -> str:
    """Return what the losses of evaluations do: "falls", "flat", "rises" or "overfits".

    Args:
      losses: the losses, the oldest one first.
      scale: the first loss of the run; by default the first of these.
    """
    first, last, lowest = losses[0], losses[-1], min(losses)
    noise = NEGLIGIBLE * (first if scale is None else scale)
    if last > OVERFITTED * lowest and last - lowest > noise:
        return "overfits"
    if abs(last - first) < max(FLAT * first, noise):
        return "flat"
    return "falls" if last < first else "rises"


def _ends(losses: Sequence[float]) -> dict[str, str]:
    ends = {"first": losses[0], "last": losses[-1], "lowest": min(losses)}
    return {name: number(value) for name, value in ends.items()}


def evaluated(task: str, metrics: Mapping[str, float], losses: Sequence[float]) -> str:
    """Return the outcome of an evaluation during training.

    Args:
      task: the name of the task.
      metrics: those of the evaluation.
      losses: those of all evaluations so far, this one last.
    """
    parts = [headline(task, metrics)]
    if len(losses) == 1:
        parts.append(tr("loss on the evaluation data {loss}", loss=number(losses[0])))
    elif losses:
        parts.append(_course_so_far(losses))
    return "; ".join(filter(None, parts))


def _course_so_far(losses: Sequence[float]) -> str:
    """Return what the loss did since the evaluation before, or since its lowest value."""
    ends = {"before": number(losses[-2])} | _ends(losses)
    # A single high loss may be chance: many runs recover from it.
    high = [change(losses[: len(losses) - n]) == "overfits" for n in range(min(3, len(losses)))]
    if high == [True, True, True]:
        return tr("the loss is {last}, after {lowest} at its lowest", **ends)
    if high[:2] == [True, True]:
        return tr(
            "the loss, {last}, stays above its lowest value, {lowest}: the model learns the "
            "training data by heart (overfitting)",
            **ends,
        )
    kind = change(losses[-2:], scale=losses[0])
    if kind == "falls":
        return tr("the loss falls, from {before} to {last}", **ends)
    if kind == "flat":
        return tr("the loss hardly changes ({last})", **ends)
    return tr("the loss rises, from {before} to {last}", **ends)


def headline(task: str, metrics: Mapping[str, float]) -> str:
    """Return the most important metric of an evaluation in a few words; "" for other metrics."""
    if task in ("classification", "multiple_choice") and "accuracy" in metrics:
        return tr("{share} right", share=percent(metrics["accuracy"]))
    if task == "question_answering" and "exact_match" in metrics:
        share = percent(metrics["exact_match"] / 100)
        return tr("{share} of the answers exactly right", share=share)
    if task == "pretraining" and "mlm_accuracy" in metrics:
        share = percent(metrics["mlm_accuracy"])
        return tr("{share} of the hidden words guessed", share=share)
    if task == "regression" and "pearson" in metrics:
        return tr("correlation {value}", value=f"{metrics['pearson']:.2f}")
    name = next((name for name in ("f1", "f1_micro") if name in metrics), None)
    return "" if name is None else f"F1 {percent(metrics[name])}"


def score(files: RunFiles, quality: Quality | None) -> Iterator[str]:
    """Yield what the final metric means, with its interval and what a baseline reaches."""
    if quality is None or quality.main not in files.results:
        if text := headline(files.task, files.results):
            yield tr("Result: {text}.", text=text)
        return
    estimate = estimate_of(files, quality, quality.main)
    yield _meaning(files, quality, estimate)
    scale = 100.0 if files.task == "question_answering" else 1.0

    def shown(value: float) -> str:
        is_share = quality.main != "pearson"
        return percent(value / scale) if is_share else f"{value:.2f}"

    low, high = shown(estimate.low), shown(estimate.high)
    if low != high:
        yield tr(
            "With other examples of the same kind the result would be between {low} and {high} (95 "
            "% interval).",
            low=low,
            high=high,
        )
    if estimate.baseline:
        yield tr(
            "Without reading the texts the result would be {share} ({baseline}).",
            share=shown(estimate.baseline),
            baseline=quality.baseline,
        )


def _meaning(files: RunFiles, quality: Quality, estimate: Estimate) -> str:
    """Return what the value of the main metric says."""
    count, value = len(quality.wrongness), estimate.value
    if quality.main == "accuracy" and files.task in ("classification", "multiple_choice"):
        right = round(value * count)
        return plural(
            right,
            "The model is right on 1 of {count} evaluation examples: {share}.",
            "The model is right on {n} of {count} evaluation examples: {share}.",
            count=count,
            share=percent(value),
        )
    texts = {
        "accuracy": tr("{share} of the words have the right tag.", share=percent(value)),
        "f1": tr(
            "The predicted entities agree with the right ones to {share} (F1, which counts both "
            "missed and wrong ones).",
            share=percent(value),
        ),
        "f1_micro": tr(
            "The predicted labels agree with the right ones to {share} (F1, which counts both "
            "missed and wrong ones).",
            share=percent(value),
        ),
        "pearson": tr(
            "The predicted numbers follow the right ones with a correlation of {value} (1 is "
            "perfect, 0 is chance).",
            value=f"{value:.2f}",
        ),
    }
    if files.task == "question_answering":
        return tr(
            "{exact} of the answers are exactly right; their words agree with the right ones to "
            "{share} (F1).",
            exact=percent(files.results.get("exact_match", 0.0) / 100),
            share=percent(value / 100),
        )
    return texts.get(quality.main, f"{quality.main}: {number(value)}.")

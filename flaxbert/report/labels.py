"""The labels of evaluated examples, in the form of predictions: eval_labels.jsonl.

Predictions are stored without labels, and the data may move. With this file a report can be made
again from the workdir alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxbert.tasks.base import Task
from flaxbert.tasks.multiple_choice import ChoiceExample
from flaxbert.tasks.questions import QuestionExample
from flaxbert.tasks.sentences import SentenceExample
from flaxbert.tasks.texts import TextExample
from flaxbert.types import Prediction

AROUND = 160
"""Characters of a context that are stored before and after an answer."""


def label_records(
    task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> Iterator[dict[str, Any]]:
    """Yield what is stored of each example: `origin`, `slice` and the label.

    The label has the keys of the task's prediction: `label`, `labels`, `value`, `index` with its
    `choices`, or `tags`. A question has `answers`, and `context`, an excerpt around the predicted
    and the right answers that begins at the character `offset` of the whole context, whose
    length is `length`. Examples of other tasks have no label.
    """
    for example, prediction in zip(examples, predictions, strict=True):
        known = {"origin": getattr(example, "origin", ""), "slice": getattr(example, "slice", None)}
        yield known | _label(task, example, prediction)


def _label(task: Task, example: Any, prediction: Prediction) -> dict[str, Any]:
    match example:
        case TextExample(label=bool() | None):
            return {}
        case TextExample(label=int(number)) if number < len(task.labels):
            return {"label": task.labels[number]}
        case TextExample(label=tuple(flags)) if len(flags) == len(task.labels):
            return {"labels": [n for n, flag in zip(task.labels, flags, strict=True) if flag]}
        case TextExample(label=float(value)):
            return {"value": value}
        case ChoiceExample(label=int(number)):
            return {"index": number, "choices": list(example.choices)}
        case SentenceExample(tags=tuple(tags)):
            return {"tags": list(tags)}
        case QuestionExample():
            return _question(example, prediction)
    return {}


def _question(example: QuestionExample, prediction: Mapping[str, Any]) -> dict[str, Any]:
    spans = [(start, start + len(text)) for text, start in example.answers[:1]]
    if prediction.get("answer"):
        spans.append((int(prediction["start"]), int(prediction["end"])))
    if prediction.get("answer") and spans[0][1] + 4 * AROUND < spans[-1][0]:
        spans = spans[-1:]  # too far apart for one excerpt
    low = max(0, min((start for start, _ in spans), default=0) - AROUND)
    high = max((end for _, end in spans), default=AROUND) + AROUND
    excerpt = {"context": example.context[low : min(high, low + 8 * AROUND)], "offset": low}
    excerpt |= {"length": len(example.context)}
    return {"answers": [list(answer) for answer in example.answers]} | excerpt

"""The forms of inputs and predictions of each task, as pydantic models.

The OpenAPI schema and the checks of requests and responses come from these models.
"""

import dataclasses
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from flaxbert.errors import ConfigError
from flaxbert.tasks.base import Task
from flaxbert.tasks.classification import Classification
from flaxbert.tasks.multi_label import MultiLabel
from flaxbert.tasks.multiple_choice import MultipleChoice
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.regression import Regression
from flaxbert.tasks.text_task import TextTask
from flaxbert.tasks.token_classification import TokenClassification

MOST_ANSWERS = 20
"""The largest `top_k`."""

MOST_CHOICES = 20
MOST_WORDS = 2000


class Strict(BaseModel):
    """A model of JSON that accepts no other keys, and converts no values."""

    model_config = ConfigDict(extra="forbid", strict=True)


@dataclasses.dataclass(frozen=True)
class Form:
    """The JSON of one task.

    Attributes:
      kind: the name of the examples on the page: text, pair, question, sentence or choices.
      fields: the fields of the page; if there are several, also the keys of an input.
      input: the type of an input.
      prediction: the type of a prediction.
      to_input: converts a valid input to one of `Predictor.predict`.
      samples: lists of inputs for `Predictor.compile`.
      has_top_k: whether requests may ask for several answers.
    """

    kind: str
    fields: Sequence[str]
    input: Any
    prediction: Any
    to_input: Callable[[Any], Any]
    samples: Sequence[Sequence[Any]]
    has_top_k: bool = False


def form_of(task: Task, *, characters: int) -> Form:
    """Return the form of a task.

    Args:
      task: the task with its labels and options.
      characters: the longest text.

    Raises:
      ConfigError: if the task does not predict for texts.
    """
    text = Annotated[str, StringConstraints(max_length=characters)]
    if isinstance(task, TextTask):
        return _text_form(task, text)
    if isinstance(task, QuestionAnswering):
        return _question_form(task, text)
    if isinstance(task, TokenClassification):
        return _sentence_form(task, text)
    if isinstance(task, MultipleChoice):
        return _choice_form(task, text)
    raise ConfigError(
        f"{type(task).__name__}: has no predictions for single texts, so it cannot be served. "
        "Serve a model that was fine-tuned for another task."
    )


def model(name: str, about: str, **fields: Any) -> Any:
    """Return a model; a field is a type, or (type, default)."""
    given: dict[str, Any] = {
        key: value if isinstance(value, tuple) else (value, ...) for key, value in fields.items()
    }
    return create_model(name, __base__=Strict, __doc__=about, **given)


def list_of(item: Any, **limits: Any) -> Any:
    """Return the type of a list; items of types that are made at run time confuse mypy."""
    return Annotated[types.GenericAlias(list, (item,)), Field(**limits)]


def described(kind: Any, about: str, **limits: Any) -> Any:
    """Return a type with its description and limits, such as `ge=0`."""
    return Annotated[kind, Field(description=about, **limits)]


def integer(about: str, **limits: Any) -> Any:
    """Return the type of an integer in a request, which JSON may also write as 13.0."""

    def whole(value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return Annotated[int, Field(description=about, **limits), BeforeValidator(whole)]


def _label(task: Task) -> Any:
    """Return the type of a label's name."""
    return Literal[tuple(task.labels)] if task.labels else str


VISIBLE = r"[^\s\u001c-\u001f\u0085\ufeff]"
"""A character that no kind of regular expression takes for white space: Python's, which finds the
words, those of pydantic, and those of JSON Schema differ in some."""

PROBABILITY = Annotated[float, Field(ge=0, le=1)]


# --- texts and pairs -----------------------------------------------------------------------------


def _text_form(task: TextTask, text: Any) -> Form:
    options, paired = task.options, task.options.pair is not None
    answer = _text_answer(task)
    echoed: dict[str, Any] = {"text": str} | ({"pair": str} if paired else {})
    prediction = model("Prediction", "The prediction for a text.", **echoed, **answer)
    long = "a " * 2 * task.data.max_length if options.long_texts == "windows" else "a"
    if not paired:
        kind = described(text, "a text")
        return Form("text", ["text"], kind, prediction, str, [["a"], [long]])
    pair = model(
        "Pair",
        "Two texts.",
        text=described(text, "the first text"),
        pair=described(text, "the second text"),
    )

    def to_input(item: Any) -> dict[str, Any]:
        return {options.text: item.text, options.pair: item.pair}

    samples = [[("a", "a")], [("a", long)]]
    return Form("pair", ["text", "pair"], pair, prediction, to_input, samples)


def _text_answer(task: TextTask) -> dict[str, Any]:
    """Return the fields of a prediction that a task on texts adds to the texts."""
    probabilities = described(
        types.GenericAlias(dict, (_label(task), PROBABILITY)), "the probability of each label"
    )
    if isinstance(task, Classification):
        label = described(_label(task), "the most probable label")
        return {"label": label, "probability": probabilities}
    if isinstance(task, MultiLabel):
        labels = list_of(_label(task), description="labels that reach their thresholds")
        return {"labels": labels, "probability": probabilities}
    if isinstance(task, Regression):
        return {"value": described(float, "the predicted number")}
    raise ConfigError(
        f"{type(task).__name__}: the form of its predictions is not known to the server, which "
        "serves the tasks that come with flaxbert."
    )


# --- questions -----------------------------------------------------------------------------------


def _question_form(task: QuestionAnswering, text: Any) -> Form:
    question = model(
        "Question",
        "A question about a text.",
        question=described(text, "the question"),
        context=described(text, "the text that holds the answer"),
    )
    place = described(int, "counted in characters of the context", ge=0)
    score = described(
        float | None,
        "sum of a start and an end logit, comparable within a question; null without any span",
    )
    fields = {"score": score, "start": place, "end": place, "answer": str}
    answer = model("Answer", "A span of the context.", **fields)
    prediction = model(
        "Prediction",
        "The best answer; it may be empty if the model was trained with unanswerable questions.",
        **fields,
        answers=(list_of(answer, description="the best answers, if `top_k` is above 1"), []),
    )

    def to_input(item: Any) -> tuple[str, str]:
        return item.question, item.context

    names, samples = ["question", "context"], [[("a", "a")]]
    return Form("question", names, question, prediction, to_input, samples, has_top_k=True)


# --- sentences -----------------------------------------------------------------------------------


def _sentence_form(task: TokenClassification, text: Any) -> Form:
    word = Annotated[text, StringConstraints(min_length=1)]
    words = list_of(word, min_length=1, max_length=MOST_WORDS)
    sentence = Annotated[text, StringConstraints(pattern=VISIBLE)]
    kind = described(sentence | words, "a sentence, or the list of its words")
    place = described(int, "counted in characters; words count as joined by spaces", ge=0)
    chance = described(
        PROBABILITY | None, "of a tag; null for words without tokens, such as control characters"
    )
    entity = model(
        "Entity",
        "Words of one entity.",
        type=str,
        text=str,
        start=place,
        end=place,
        probability=described(PROBABILITY | None, "the lowest of its words"),
    )
    prediction = model(
        "Prediction",
        "The tags of a sentence.",
        tokens=described(list[str], "the words"),
        tags=list_of(_label(task), description="a tag for each word"),
        probability=list_of(chance, description="the probability of each of these tags"),
        entities=(list_of(entity, description="the entities, if tags mark any"), []),
    )
    return Form("sentence", ["text"], kind, prediction, lambda item: item, [["a"]])


# --- choices -------------------------------------------------------------------------------------


def _choice_form(task: MultipleChoice, text: Any) -> Form:
    options, columns = task.options, task.options.choices
    most = len(columns) if len(columns) > 1 else MOST_CHOICES
    choices = list_of(text, min_length=2, max_length=most)
    fields = {"question": described(text, "the question, or the text to continue")}
    if options.prefix is not None:
        fields["prefix"] = described(text, "words that begin every choice")
    question = model("Question", "A question with its choices.", **fields, choices=choices)
    prediction = model(
        "Prediction",
        "The most probable choice.",
        question=str,
        choice=str,
        index=described(int, "its index in the choices", ge=0),
        probability=list_of(PROBABILITY, description="the probability of each choice"),
    )

    def to_input(item: Any) -> dict[str, Any]:
        listed = {columns[0]: item.choices}
        if len(columns) > 1:
            texts = [*item.choices, *[""] * (len(columns) - len(item.choices))]
            listed = dict(zip(columns, texts, strict=True))
        prefix = {} if options.prefix is None else {options.prefix: item.prefix}
        return {options.question: item.question} | prefix | listed

    sample = to_input(question(**dict.fromkeys(fields, "a"), choices=["a", "a"]))
    return Form("choices", [*fields, "choices"], question, prediction, to_input, [[sample]])

"""Multiple choice: which of several answers fits a question or continues a text (SWAG, ARC).

BERT paper, section 4.4: [CLS] question [SEP] choice [SEP] for each choice; pooler and a dense layer
give one score each, and a softmax over the choices of the question. Questions may have different
numbers of choices. A question is one feature of several sequences, possibly in different rows.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from flaxbert.config import DataConfig, option
from flaxbert.data.checks import Example
from flaxbert.data.encoding import encode
from flaxbert.data.features import Features
from flaxbert.data.table import Reading, Record, Table, shown, unprinted
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError
from flaxbert.metrics import classification as metrics
from flaxbert.models.heads import MakeHead, MultipleChoiceHead, Outputs
from flaxbert.tasks.base import Task, TaskOptions
from flaxbert.tasks.label_names import as_int, refuse_from_one
from flaxbert.tasks.losses import group_log_softmax, group_sum, weighted_sum
from flaxbert.types import Batch, Losses, Metrics, Prediction, TaskOutputs


@dataclasses.dataclass
class MultipleChoiceOptions(TaskOptions):
    """Columns."""

    question: str = option(
        "question", "column of the question or the text to continue", column=True
    )
    prefix: str | None = option(
        None, "column of words that begin every choice (SWAG's sent2)", column=True
    )
    choices: tuple[str, ...] = option(
        ("choices",),
        "column with a list of choices, or one column per choice (the last may be empty)",
        column=True,
    )
    label: str = option(
        "label", "column of the correct choice: its number from 0, or its name", column=True
    )

    def check(self, data: DataConfig) -> None:
        """Check that choices are named."""
        if not self.choices:
            raise ConfigError(
                "options.choices is empty: name the column of choices, or one column per choice"
            )


@dataclasses.dataclass(frozen=True)
class ChoiceExample(Example):
    """A question with its choices; `label` is the index of the right one, None if unlabeled."""

    question: str
    choices: tuple[str, ...]
    label: int | None
    slice: str | None
    origin: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The question, and the choices in alphabetical order."""
        return (self.question, *sorted(self.choices))

    @property
    def target(self) -> str | None:
        """The right choice."""
        return None if self.label is None else self.choices[self.label]


@dataclasses.dataclass(frozen=True)
class MultipleChoice(Task):
    """A softmax over the choices of a question."""

    options_type: ClassVar[type] = MultipleChoiceOptions

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: MultipleChoiceOptions, *, labeled: bool
    ) -> Reading[ChoiceExample]:
        """Read questions with their choices."""
        columns = dict.fromkeys(options.choices, "options.choices")
        columns[options.question] = "options.question"
        if options.prefix is not None:
            columns[options.prefix] = "options.prefix"
        if labeled:
            columns[options.label] = "options.label"
        table.require(columns, slices=data.slices if labeled else None)
        if labeled:
            _check_numbers(table, options)

        def question(row: Record) -> ChoiceExample:
            choices, names = _choices(row, options)
            prefix = "" if options.prefix is None else f"{row.text(options.prefix)} "
            return ChoiceExample(
                question=row.text(options.question),
                choices=tuple(f"{prefix}{choice}" for choice in choices),
                label=_label(row, names, options) if labeled else None,
                slice=row.slice(data.slices) if labeled else None,
                origin=row.origin,
            )

        return table.read(question, data.on_bad_row)

    def featurize(
        self, examples: Sequence[ChoiceExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Tokenize [CLS] question [SEP] choice [SEP]; the longer text is truncated."""
        example_index = [n for n, example in enumerate(examples) for _ in example.choices]
        choices = [choice for example in examples for choice in example.choices]
        encoded = encode(
            tokenizer,
            [examples[n].question for n in example_index],
            choices,
            max_length=self.data.max_length,
        )
        truncated = [example_index[n] for n in encoded.truncated]
        right = [int(n == e.label) for e in examples for n in range(len(e.choices))]
        return Features.build(
            encoded.per_token,
            lengths=encoded.lengths,
            example_index=example_index,
            feature_index=example_index,
            per_sequence={"right": right} if labeled else {},
            truncated=list(dict.fromkeys(truncated)),
        )

    @property
    def make_head(self) -> MakeHead:
        """Return the head: pooler and one score."""
        return MultipleChoiceHead

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the cross-entropy over the choices: logits [R, K, 1], right [R, K]."""
        log_probs = group_log_softmax(outputs["logits"][..., 0], batch)
        # Every choice has the loss of its question, and a weight of one over their number.
        losses = group_sum(-log_probs * batch.extra["right"], batch)
        return {"loss": weighted_sum(losses, batch.weight)}

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return the probability of each choice [R, K]."""
        log_probs = group_log_softmax(outputs["logits"][..., 0], batch)
        return TaskOutputs(per_sequence={"probability": jnp.exp(log_probs)})

    def decode(
        self, examples: Sequence[ChoiceExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """Return the most probable choice, and every choice's probability."""
        records = []
        for n, example in enumerate(examples):
            probabilities = predictions.per_sequence["probability"][features.sequences(n)]
            best = int(np.argmax(probabilities))
            records.append(
                {
                    "question": example.question,
                    "choice": example.choices[best],
                    "index": best,
                    "probability": [float(p) for p in probabilities],
                }
            )
        return records

    def score(self, examples: Sequence[ChoiceExample], records: Sequence[Prediction]) -> Metrics:
        """Return the accuracy with its 95 % interval."""
        pairs = zip(examples, records, strict=True)
        hits = sum(example.label == record["index"] for example, record in pairs)
        return metrics.accuracy_with_interval(hits, len(examples))

    def table_row(self, example: ChoiceExample, record: Prediction) -> dict[str, str]:
        """Return the question, the right choice, and the predicted one."""
        gold = "" if example.label is None else example.choices[example.label]
        return {"question": example.question, "right": gold, "predicted": record["choice"]}


def _check_numbers(table: Table, options: MultipleChoiceOptions) -> None:
    """Refuse numbers that are counted from 1, where choices have no names."""
    numbers, most = set[int](), 0
    for row in table.rows:
        with contextlib.suppress(DataError):  # reading reports it
            names = _choices(row, options)[1]
            value = str(as_int(row.values.get(options.label)))
            if names != [str(n) for n in range(len(names))] or not value.isdecimal():
                return
            numbers.add(int(value))
            most = max(most, len(names))
    refuse_from_one(numbers, [f"choice {n + 1}" for n in range(most)], table.source)


def _choices(row: Record, options: MultipleChoiceOptions) -> tuple[list[str], list[str]]:
    """Return texts and names of the choices; ARC's form names them A, B, ..., else 0, 1, ..."""
    columns = options.choices
    choices: Any
    names: Any = None
    if len(columns) > 1:
        choices = [row.values.get(column) for column in columns]
        while choices and choices[-1] in (None, ""):  # a question with fewer choices than others
            choices.pop()
    else:
        choices = unprinted(row.values.get(columns[0]))
        if isinstance(choices, dict):
            choices, names = choices.get("text"), choices.get("label")
    if not isinstance(choices, list | tuple) or not all(isinstance(c, str) for c in choices):
        raise DataError(
            f"{row.origin}: {', '.join(columns)} is {shown(choices)}; expected a list of texts."
        )
    if len(choices) < 2:
        raise DataError(f"{row.origin}: {len(choices)} choices; at least two are needed.")
    if names is None:
        names = range(len(choices))
    if not isinstance(names, list | tuple | range) or len(names) != len(choices):
        raise DataError(
            f"{row.origin}: {len(choices)} choices, but their names are {shown(names)}."
        )
    distinct = [str(name) for name in map(as_int, names) if isinstance(name, str | int)]
    if len(set(distinct)) < len(choices):
        raise DataError(
            f"{row.origin}: the names of the choices are {shown(names)}; expected a different text "
            "or number for each."
        )
    return list(choices), distinct


def _label(row: Record, names: Sequence[str], options: MultipleChoiceOptions) -> int:
    value = as_int(row.values.get(options.label))
    if isinstance(value, bool) or str(value) not in names:
        raise DataError(
            f"{row.origin}: {options.label} is {shown(value)}; expected one of {', '.join(names)}."
        )
    return names.index(str(value))

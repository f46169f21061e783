"""Extractive question answering, SQuAD v1.1: the answer is a span of the given text.

BERT paper, section 4.2: [CLS] question [SEP] context [SEP]; each token gets a start and an end
score; the loss is the mean of the two cross-entropies over the positions of the feature. A context
that is too long becomes several overlapping windows, each a feature.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data import windows
from flaxbert.data.features import Features
from flaxbert.data.sources import Row, Table
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError
from flaxbert.losses import position_cross_entropy, weighted_sum
from flaxbert.metrics import squad
from flaxbert.models.heads import MakeHead, Outputs, SpanHead
from flaxbert.tasks.base import DeviceBatch, Metrics, Predictions, Record

SPECIAL_TOKENS = 3  # [CLS] question [SEP] context [SEP]


@dataclasses.dataclass
class Options:
    """How spans are decoded."""

    n_best: int = option(20, "starts and ends of each window that are combined")
    max_answer_length: int = option(30, "longest answer in tokens")


@dataclasses.dataclass(frozen=True)
class Example:
    """One question on one context; `answers` are (text, first character), empty if unlabelled."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    slice: str | None
    origin: str


@dataclasses.dataclass(frozen=True)
class QuestionAnswering:
    """Span extraction over overlapping windows."""

    options_type: ClassVar[type] = Options

    data: DataConfig
    options: Options

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: Options,
        train: Table | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Check that windows can advance."""
        room = data.max_length - SPECIAL_TOKENS - data.overlap
        if room < 1:
            raise ConfigError(
                f"data.overlap={data.overlap} leaves no room in data.max_length="
                f"{data.max_length}: overlap + question + {SPECIAL_TOKENS} must stay below it"
            )
        for name in ("n_best", "max_answer_length"):
            if getattr(options, name) < 1:
                raise ConfigError(f"options.{name}={getattr(options, name)}: at least 1")
        return cls(data, options)

    def examples(self, table: Table, *, labelled: bool) -> list[Example]:
        """Rows in the hub's SQuAD form -> examples."""
        columns = {"question": "data.train", "context": "data.train"}
        if labelled:
            columns["answers"] = "data.train"
            if self.data.slices:
                columns[self.data.slices] = "data.slices"
        table.require(columns)
        return [self._example(row, n, labelled) for n, row in enumerate(table.rows)]

    def _example(self, row: Row, number: int, labelled: bool) -> Example:
        return Example(
            id=str(row.values.get("id", number)),
            question=row.text("question").strip(),
            context=row.text("context"),
            answers=_answers(row) if labelled else (),
            slice=row.slice(self.data.slices) if labelled else None,
            origin=row.origin,
        )

    def featurize(
        self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool
    ) -> Features:
        """Windows of `max_length` tokens; neighbours of one example share `overlap` tokens.

        A window without the whole answer has [CLS] as its span, as in the original BERT. Token
        arrays `char_start` and `char_end` are a context token's place in the text (-1 elsewhere),
        and `max_context` marks the window that sees most of the token's surroundings.
        """
        for example in examples:
            self._check_question(example, tokenizer)
        encoded = tokenizer(
            [example.question for example in examples],
            [example.context for example in examples],
            truncation="only_second",
            max_length=self.data.max_length,
            stride=self.data.overlap,  # transformers' name for the overlap
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        owner = encoded["overflow_to_sample_mapping"]
        starts: list[list[int]] = []
        ends: list[list[int]] = []
        spans: dict[str, list[int]] = {"start": [], "end": []}
        for window, example in enumerate(owner):
            inside = [sequence == 1 for sequence in encoded.sequence_ids(window)]
            offsets = encoded["offset_mapping"][window]
            starts.append([o[0] if here else -1 for o, here in zip(offsets, inside, strict=True)])
            ends.append([o[1] if here else -1 for o, here in zip(offsets, inside, strict=True)])
            if labelled:
                start, end = windows.span(examples[example].answers[0], starts[-1], ends[-1])
                spans["start"].append(start)
                spans["end"].append(end)
        return Features.build(
            {
                "input_ids": encoded["input_ids"],
                "token_type_ids": encoded["token_type_ids"],
                "char_start": starts,
                "char_end": ends,
                "max_context": windows.max_context(owner, starts, self.data.overlap),
            },
            example=owner,
            positions=spans if labelled else {},
        )

    def _check_question(self, example: Example, tokenizer: Tokenizer) -> None:
        # Cheap bound first: a token is at least one character, so short questions always fit.
        room = self.data.max_length - SPECIAL_TOKENS - self.data.overlap
        if len(example.question) >= room:
            length = len(tokenizer(example.question, add_special_tokens=False)["input_ids"])
            if length >= room:
                raise DataError(
                    f"{example.origin}: the question has {length} tokens; with data.max_length="
                    f"{self.data.max_length} and data.overlap={self.data.overlap} at most "
                    f"{room - 1} fit. Raise max_length, lower overlap, or shorten the question."
                )

    @property
    def make_head(self) -> MakeHead:
        """Start and end scores."""
        return SpanHead

    def loss(self, outputs: Outputs, batch: DeviceBatch) -> tuple[Array, Array]:
        """Cross-entropy over the feature's own positions, mean of start and end."""
        start, end = (
            position_cross_entropy(outputs[f"{side}_logits"], batch[side], batch["segment_ids"])
            for side in ("start", "end")
        )
        return weighted_sum((start + end) / 2, batch["weight"])

    def predict(self, outputs: Outputs, batch: DeviceBatch) -> dict[str, dict[str, Array]]:
        """Both scores of every token, [R, T]."""
        names = ("start_logits", "end_logits")
        return {"slots": {}, "tokens": {name: outputs[name] for name in names}}

    def decode(
        self, examples: Sequence[Example], features: Features, predictions: Predictions
    ) -> list[Record]:
        """The span with the highest sum of start and end score over all windows of an example."""
        best: list[tuple[float, int, int]] = [(-np.inf, 0, 0)] * len(examples)
        for feature, example in enumerate(features.example):
            here = slice(features.starts[feature], features.starts[feature + 1])
            found = self._best_span(
                predictions.tokens["start_logits"][here],
                predictions.tokens["end_logits"][here],
                {name: values[here] for name, values in features.tokens.items()},
            )
            best[example] = max(best[example], found, key=lambda span: span[0])
        return [
            {
                "id": example.id,
                "question": example.question,
                "answer": example.context[start:end],
                "start": start,
                "end": end,
                "score": score if np.isfinite(score) else None,
            }
            for example, (score, start, end) in zip(examples, best, strict=True)
        ]

    def _best_span(
        self, start: np.ndarray, end: np.ndarray, tokens: Mapping[str, np.ndarray]
    ) -> tuple[float, int, int]:
        """(score, first character, end character) of a window's best span; -inf if it has none."""
        n_best = self.options.n_best
        starts = np.argsort(-start, kind="stable")[:n_best]
        ends = np.argsort(-end, kind="stable")[:n_best]
        length = ends[None, :] - starts[:, None] + 1
        valid = (length >= 1) & (length <= self.options.max_answer_length)
        valid &= (tokens["max_context"][starts] == 1)[:, None]
        valid &= (tokens["char_start"][ends] >= 0)[None, :]
        scores = np.where(valid, start[starts][:, None] + end[ends][None, :], -np.inf)
        row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
        first, last = int(tokens["char_start"][starts[row]]), int(tokens["char_end"][ends[column]])
        return float(scores[row, column]), first, last

    def score(self, examples: Sequence[Example], records: Sequence[Record]) -> Metrics:
        """Exact match and F1, 0 to 100."""
        references = [[text for text, _ in example.answers] for example in examples]
        return squad.score([record["answer"] for record in records], references)

    def hf_config(self) -> dict[str, Any]:
        """Nothing: the head has no labels."""
        return {}

    def show(self, example: Example, record: Record) -> dict[str, str]:
        """A line of the table of predictions."""
        gold = example.answers[0][0] if example.answers else ""
        return {"question": example.question, "answer": gold, "predicted": record["answer"]}


def _answers(row: Row) -> tuple[tuple[str, int], ...]:
    """All reference answers, checked against the context."""
    answers = row.values.get("answers") or {}
    try:
        pairs = tuple(zip(answers["text"], answers["answer_start"], strict=True))
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{row.origin}: answers is {answers!r}; expected "
            "{'text': [...], 'answer_start': [...]} of equal lengths."
        ) from None
    if not pairs:
        raise DataError(
            f"{row.origin}: no answer. SQuAD v1.1 has answerable questions only; remove the row."
        )
    context = row.values["context"]
    for text, start in pairs:
        if not isinstance(text, str) or not text or not isinstance(start, int) or start < 0:
            raise DataError(
                f"{row.origin}: answer {text!r} at {start!r}; expected a text that is not empty "
                "and the number of its first character."
            )
        if context[start : start + len(text)] != text:
            near = context.find(text)
            mend = f"it stands at {near}" if near >= 0 else "the context does not contain it"
            raise DataError(f"{row.origin}: answer {text!r} is not at character {start}; {mend}.")
    return pairs

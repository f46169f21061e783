"""Extractive question answering: the answer is a span of the given text (SQuAD v1.1 and v2.0).

BERT paper, sections 4.2 and 4.3: [CLS] question [SEP] context [SEP]; each token gets a start and an
end score; the loss is the mean of the two cross-entropies over the positions of the feature. A
context that is too long becomes several overlapping windows, each a feature. A question without an
answer (`options.unanswerable`) has its span at [CLS]; the answer is empty where the score of that
exceeds the best span's by a threshold, which is fitted on held-out training data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from flaxbert.config import DataConfig, option
from flaxbert.data import spans, windows
from flaxbert.data.batching import Resample
from flaxbert.data.encoding import encode
from flaxbert.data.features import Features
from flaxbert.data.table import Reading, Table, shown
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import ConfigError, DataError
from flaxbert.metrics import squad
from flaxbert.models.heads import MakeHead, Outputs, SpanHead
from flaxbert.tasks.base import Task, TaskOptions, refuse_too_long
from flaxbert.tasks.losses import position_cross_entropy, weighted_sum
from flaxbert.tasks.questions import QuestionExample, read_questions
from flaxbert.tasks.spans import candidates
from flaxbert.types import Batch, Losses, Metrics, Prediction, TaskOutputs


@dataclasses.dataclass
class QuestionAnsweringOptions(TaskOptions):
    """Options for unanswerable questions and the decoding of spans."""

    unanswerable: bool = option(False, "some questions have no answer in their text (SQuAD v2.0)")
    n_best: int = option(20, "best starts and best ends of each window to combine")
    max_answer_length: int = option(30, "maximum length of an answer in tokens")

    def check(self, data: DataConfig) -> None:
        """Check lengths, and that `data.threshold_split` has a threshold to fit."""
        windows.check(data.max_length, data.overlap)
        for name in ("n_best", "max_answer_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"options.{name}={getattr(self, name)}: expected at least 1")
        if data.threshold_split and not self.unanswerable:
            raise ConfigError(
                "data.threshold_split fits the no-answer threshold: it needs "
                "options.unanswerable=true"
            )


@dataclasses.dataclass(frozen=True)
class QuestionAnswering(Task):
    """Span extraction over overlapping windows."""

    head_type: ClassVar[str] = "ForQuestionAnswering"
    options_type: ClassVar[type] = QuestionAnsweringOptions
    not_for_loss: ClassVar[Sequence[str]] = ("char_start", "char_end", "max_context")
    answer_key: ClassVar[str | None] = "answer"

    null_threshold: float = 0.0
    """The answer is empty where the score of [CLS] exceeds the best span's by more than this."""

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: QuestionAnsweringOptions, *, labeled: bool
    ) -> Reading[QuestionExample]:
        """Read questions in the hub's SQuAD form."""
        return read_questions(table, data, unanswerable=options.unanswerable, labeled=labeled)

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: QuestionAnsweringOptions,
        train: Reading[QuestionExample] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Check the options; the threshold is the checkpoint's if it has one."""
        options.check(data)
        fitted = hf_config.get("flaxbert", {}) if train is None else {}
        return cls(data, options, null_threshold=fitted.get("null_threshold", 0.0))

    def featurize(
        self, examples: Sequence[QuestionExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Tokenize into windows of `max_length` tokens; neighbors share `overlap` tokens.

        The target of a window without the complete answer is [CLS], as in the original BERT. If no
        window has it, the target of all is -1, which counts in no loss. Values per token:
        `char_start` and `char_end`, the characters of a context token in the text (-1 elsewhere),
        and `max_context`, 1 in the window that has most context around the token.
        """
        questions, data = [example.question for example in examples], self.data
        lengths = {"max_length": data.max_length, "overlap": data.overlap}
        too_long = windows.too_long(questions, "the question", tokenizer, **lengths)
        dropped = refuse_too_long(examples, too_long, data.on_bad_row)
        examples = [example for i, example in enumerate(examples) if i not in dropped]
        contexts = [example.context for example in examples]
        encoded = encode(
            tokenizer,
            [example.question for example in examples],
            contexts,
            truncation="only_second",
            max_length=data.max_length,
            overlap=data.overlap,
            characters=True,
        )
        placed = windows.Windows.of(encoded, contexts)
        answers = windows.Answers({}, {}, [])
        if labeled:
            given = [(example.answers, example.origin) for example in examples]
            answers = windows.find(given, placed, self.options.max_answer_length)
        return Features.build(
            encoded.per_token | {"max_context": placed.max_context(data.overlap)},
            lengths=encoded.lengths,
            example_index=encoded.example_index,
            token_indices=answers.targets,
            unreachable=answers.unreachable,
            dropped=dropped,
            notes=answers.notes,
        )

    @property
    def make_head(self) -> MakeHead:
        """Return the head: start and end scores."""
        return SpanHead

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the cross-entropy over the tokens of the window, the mean of start and end."""
        start, end = (
            position_cross_entropy(outputs[f"{side}_logits"], batch.extra[side], batch.segment_ids)
            for side in ("start", "end")
        )
        weight = batch.weight * (batch.extra["start"] >= batch.cls_position)  # see windows.NOWHERE
        return {"loss": weighted_sum((start + end) / 2, weight)}

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return the best starts and ends [R, K, n], and the score of [CLS] [R, K]."""
        allowed = {"start": batch.extra["max_context"] > 0, "end": batch.extra["char_start"] >= 0}
        null = jnp.zeros(batch.cls_position.shape)
        slots = {}
        for side, places in allowed.items():
            logits = outputs[f"{side}_logits"]
            slots[f"{side}_score"], slots[f"{side}_place"] = candidates(
                logits, places, batch.segment_ids, batch.cls_position, self.options.n_best
            )
            null += jnp.take_along_axis(logits, batch.cls_position, axis=1)
        return TaskOutputs(per_sequence=slots | {"null_score": null})

    def decode(
        self, examples: Sequence[QuestionExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """Return the span with the highest sum of start and end score over all windows.

        `null_odds` is the lowest score of [CLS] over the windows minus that of the span, as in
        google-research/bert's run_squad.py.
        """
        best: list[tuple[float, int, int]] = [(-np.inf, 0, 0)] * len(examples)
        null = np.full(len(examples), np.inf)
        for window, example in enumerate(features.example_index):
            scores = {name: values[window] for name, values in predictions.per_sequence.items()}
            score, first, last = spans.best_span(scores, self.options.max_answer_length)
            null[example] = min(null[example], scores["null_score"])
            if score > best[example][0]:
                best[example] = (score, *spans.characters(features, window, first, last))
        return [
            self._record(example, span, float(odds))
            for example, span, odds in zip(examples, best, null, strict=True)
        ]

    def _record(
        self, example: QuestionExample, span: tuple[float, int, int], null: float
    ) -> Prediction:
        score, (start, end) = span[0], windows.trim(example.context, *span[1:])
        text = example.context[start:end]
        record: Prediction = {"id": example.id, "question": example.question, "answer": text}
        record |= {"start": start, "end": end, "score": score if np.isfinite(score) else None}
        if self.options.unanswerable:
            # Without any span the empty answer is certain; JSON has no infinity.
            odds = null - score if np.isfinite(score) else float(np.finfo(np.float32).max)
            record |= {"span": text, "null_odds": odds}
            if odds > self.null_threshold:
                record |= {"answer": "", "start": 0, "end": 0}
        return record

    def record_of(self, item: Any, origin: str) -> dict[str, Any]:
        """Return (question, context) as a record."""
        if isinstance(item, list | tuple) and [type(text) for text in item] == [str, str]:
            return {"question": item[0], "context": item[1]}
        if isinstance(item, Mapping):
            return dict(item)
        raise DataError(
            f"{origin}: {shown(item)}; expected (question, context), or a dict with these keys."
        )

    def answers(
        self,
        examples: Sequence[QuestionExample],
        features: Features,
        outputs: TaskOutputs,
        predictions: Sequence[Prediction],
        *,
        top_k: int,
    ) -> list[Prediction]:
        """Return `score`, `start`, `end` and `answer`; with `top_k`, `answers` has the best ones.

        `start` and `end` are characters of the context. A score is the sum of a start and an end
        logit, to be compared with others of the same question.
        """
        if top_k < 1:
            raise ConfigError(f"top_k={top_k}: expected at least 1")
        keys = ("score", "start", "end", "answer")
        best = [{key: prediction[key] for key in keys} for prediction in predictions]
        if top_k == 1:
            return best
        contexts = [example.context for example in examples]
        sizes = {"longest": self.options.max_answer_length, "count": top_k + self.options.n_best}
        ranked = spans.ranked(contexts, features, outputs.per_sequence, **sizes)
        for prediction, context, scores in zip(best, contexts, ranked, strict=True):
            prediction["answers"] = spans.best(context, scores, top_k)
        return best

    def score(self, examples: Sequence[QuestionExample], records: Sequence[Prediction]) -> Metrics:
        """Return exact match and F1, 0 to 100, as the official script for the data set does."""
        references = [[text for text, _ in example.answers] for example in examples]
        answers = [record["answer"] for record in records]
        if not self.options.unanswerable:
            return squad.score(answers, references)
        raw, odds = [r["span"] for r in records], [r["null_odds"] for r in records]
        ideal = squad.score_v2(raw, references, odds)
        best = {name: value for name, value in ideal.items() if name.startswith("best_")}
        return squad.score_v2(answers, references) | best

    def nothing_to_learn(self, features: Features, resample: Resample | None = None) -> str | None:
        """Return the reason if no window counts in the loss."""
        if (features.token_indices["start"] >= 0).any():
            return None
        return "no window contains a complete answer; raise data.max_length or data.overlap"

    def group_key(self, example: QuestionExample) -> str:
        """Return the context: its questions are held out together."""
        return example.context

    def calibrate(self, examples: Sequence[QuestionExample], records: Sequence[Prediction]) -> Self:
        """Fit the no-answer threshold to the best F1 on held-out questions."""
        references = [[text for text, _ in example.answers] for example in examples]
        raw, odds = [r["span"] for r in records], [r["null_odds"] for r in records]
        scores = squad.question_scores_v2(squad.f1_v2, raw, references)
        _, threshold = squad.best_threshold(scores, [bool(golds) for golds in references], odds)
        return dataclasses.replace(self, null_threshold=threshold)

    @property
    def stored_thresholds(self) -> dict[str, Any]:
        """The threshold, as the checkpoint and the export store it."""
        return {"null_threshold": self.null_threshold} if self.options.unanswerable else {}

    def hf_config(self) -> dict[str, Any]:
        """Return the threshold; the head has no labels."""
        return {"flaxbert": self.stored_thresholds} if self.stored_thresholds else {}

    def table_row(self, example: QuestionExample, record: Prediction) -> dict[str, str]:
        """Return the question, its answer, and the predicted one."""
        gold = example.answers[0][0] if example.answers else ""
        return {"question": example.question, "answer": gold, "predicted": record["answer"]}

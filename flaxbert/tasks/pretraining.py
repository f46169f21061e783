"""BERT's two pre-training tasks on plain text: masked words and next sentence prediction.

BERT paper, section 3.1. The loss is the mean over masked words plus the mean over sequences. New
masks are drawn for every sequence and epoch; evaluation uses one draw. Training that starts from a
checkpoint is continued pre-training, and the export is a checkpoint to fine-tune.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data import documents, feature_cache, masking
from flaxbert.data.batching import Resample
from flaxbert.data.features import Features
from flaxbert.data.shuffle import uniform
from flaxbert.data.table import Reading, Table
from flaxbert.data.tokenization import Tokenizer, mask_id
from flaxbert.errors import ConfigError, DataError
from flaxbert.models.heads import MakeHead, MaskedLMHead, Outputs, PreTrainingHead
from flaxbert.tasks.base import Task, TaskOptions
from flaxbert.tasks.corpora import DocumentExample, read_documents
from flaxbert.tasks.losses import cross_entropy, weighted_sum
from flaxbert.types import Batch, Losses, Metrics, Prediction, TaskOutputs

DOCUMENT = "file"
"""The default column of the document, which plain text has and tables may lack."""


@dataclasses.dataclass
class PreTrainingOptions(TaskOptions):
    """Texts and the two tasks."""

    text: str = option("text", "column of the text", column=True)
    document: str | None = option(
        DOCUMENT,
        "column that names the document of a row; without it, each row is a document",
        column=True,
    )
    sentences: str = option("split", "split (paragraphs into sentences), or line (one per line)")
    next_sentence: bool = option(True, "also train next-sentence prediction, not only masked words")
    mask_rate: float = option(0.15, "share of tokens to predict")
    whole_words: bool = option(False, "mask whole words, not single word pieces")
    seed: int = option(0, "seed of masks and pairs")

    def check(self, data: DataConfig) -> None:
        """Check the values."""
        if self.sentences not in ("split", "line"):
            raise ConfigError(f"options.sentences={self.sentences!r}: expected one of split, line")
        if not 0 < self.mask_rate < 1:
            raise ConfigError(f"options.mask_rate={self.mask_rate!r}: between 0 and 1")


@dataclasses.dataclass(frozen=True)
class PreTraining(Task):
    """Masked language model and next sentence prediction."""

    options_type: ClassVar[type] = PreTrainingOptions
    lower_is_better: ClassVar[Sequence[str]] = ("perplexity",)
    not_for_loss: ClassVar[Sequence[str]] = ("kind",)

    @property
    def loss_names(self) -> Sequence[str]:
        """Names of the losses: masked words, and next sentences if enabled."""
        return ("mlm_loss", "nsp_loss") if self.options.next_sentence else ("mlm_loss",)

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: PreTrainingOptions, *, labeled: bool
    ) -> Reading[DocumentExample]:
        """Read documents, in the order of their first records."""
        return read_documents(
            table, data, text=options.text, document=options.document, optional=DOCUMENT
        )

    def featurize(
        self, examples: Sequence[DocumentExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Tokenize [CLS] text [SEP], or [CLS] text [SEP] text [SEP], up to `max_length` tokens.

        Values per token: `label`, the true ids; `kind`, see masking.py; `masked`, which like
        `input_ids` is drawn in each epoch. Value per sequence: `follows`, 0 if the second text
        follows the first, else 1, as in transformers.
        """
        options = self.options
        room = self.data.max_length - (3 if options.next_sentence else 2)
        lines = options.sentences == "line"
        directory = feature_cache.scratch(self.data.feature_cache)
        texts = documents.tokenize(
            (example.paragraphs for example in examples),
            tokenizer,
            lines=lines,
            longest=room // 2,
            directory=directory,
        )
        pairs = documents.make_pairs(
            texts, room=room, seed=options.seed, next_sentence=options.next_sentence
        )
        special = tokenizer.cls_token_id, tokenizer.sep_token_id
        try:
            arrays = documents.joined(pairs, texts, *special, directory)
        except ValueError:
            raise DataError(
                f"{examples[0].origin}: one document, but next sentence prediction needs texts "
                "from several. Give more files (--config.data.train='books/*.txt'), or set "
                "--config.options.next_sentence=false."
            ) from None
        lengths, follows = arrays.pop("lengths"), arrays.pop("follows")
        if not len(lengths):
            raise DataError(f"{examples[0].origin}: no document holds any text.")
        notes = []
        if options.next_sentence and labeled:
            count = len(follows)
            following = count - int(follows.sum())
            notes.append(documents.check_following(following, count, examples[0].origin))
        example_index, total = arrays.pop("example_index"), len(arrays["input_ids"])
        return Features.build(
            # A single zero stands for all of `masked`.
            arrays
            | {
                "label": arrays["input_ids"],
                "masked": np.broadcast_to(np.zeros(1, np.int32), total),
            },
            lengths=lengths,
            example_index=example_index,
            per_sequence={"follows": follows},
            notes=notes,
        )

    def resampler(self, tokenizer: Tokenizer) -> Resample:
        """Return the function that draws new masks for sequences in each epoch."""
        options, mask, size = self.options, mask_id(tokenizer), tokenizer.vocab_size

        def resample(
            features: Features, sequences: np.ndarray, epoch: int
        ) -> dict[str, np.ndarray]:
            places, lengths = features.places_of(sequences), features.lengths[sequences]
            input_ids, masked = masking.mask(
                features.per_token["label"][places],
                features.per_token["kind"][places],
                lengths,
                uniform(3, lengths, options.seed, epoch, sequences),
                rate=options.mask_rate,
                whole_words=options.whole_words,
                mask_id=mask,
                vocab_size=size,
            )
            return {"input_ids": input_ids, "masked": masked}

        return resample

    @property
    def make_head(self) -> MakeHead:
        """Return the function that builds the head: masked words, and next sentences if enabled."""
        head = PreTrainingHead if self.options.next_sentence else MaskedLMHead
        return lambda config, rngs: head(config, self.options.mask_rate, rngs)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the cross-entropy of masked words, and of next sentences if enabled."""
        losses, masked, _ = _words(outputs, batch)
        sums = {"mlm_loss": weighted_sum(losses, masked)}
        if "nsp_logits" in outputs:
            follows = cross_entropy(outputs["nsp_logits"], batch.extra["follows"])
            sums["nsp_loss"] = weighted_sum(follows, batch.weight)
        return sums

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return, per sequence [R, K]: masked words, correct ones, loss; correct `follows`."""
        losses, masked, right = _words(outputs, batch)
        segments = jnp.take_along_axis(batch.segment_ids, outputs["masked_positions"], axis=1)
        numbers = jnp.arange(1, batch.weight.shape[1] + 1)
        inside = (segments[:, :, None] == numbers) * masked[:, :, None]  # [R, P, K]
        sums = {"masked": jnp.sum(inside, axis=1)}
        sums["right"] = jnp.sum(inside * right[:, :, None], axis=1)
        sums["mlm_loss"] = jnp.sum(inside * losses[:, :, None], axis=1)
        if "nsp_logits" in outputs:
            guess = jnp.argmax(outputs["nsp_logits"], axis=-1)
            sums["next_right"] = (guess == batch.extra["follows"]).astype(jnp.float32)
        return TaskOutputs(per_sequence=sums)

    def decode(
        self, examples: Sequence[DocumentExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """Return the sums over the sequences of each document."""
        totals = {
            name: np.bincount(features.example_index, values, len(examples))
            for name, values in predictions.per_sequence.items()
        }
        totals["sequences"] = np.bincount(features.example_index, minlength=len(examples))
        return [
            {"document": example.name, **{name: float(v[n]) for name, v in totals.items()}}
            for n, example in enumerate(examples)
        ]

    def score(self, examples: Sequence[DocumentExample], records: Sequence[Prediction]) -> Metrics:
        """Return perplexity and accuracy of masked words, and accuracy of next sentences."""
        names = ("masked", "right", "mlm_loss", "next_right", "sequences")
        total = {name: sum(record.get(name, 0.0) for record in records) for name in names}
        masked, sequences = max(1.0, total["masked"]), max(1.0, total["sequences"])
        metrics = {"perplexity": _perplexity(total["mlm_loss"] / masked)}
        metrics["mlm_accuracy"] = total["right"] / masked
        if self.options.next_sentence:
            metrics["nsp_accuracy"] = total["next_right"] / sequences
        return metrics

    def nothing_to_learn(self, features: Features, resample: Resample | None = None) -> str | None:
        """Return the reason if no word of any sequence can be masked."""
        assert resample is not None
        sequences = np.arange(len(features.lengths))
        parts = (sequences[start : start + 1000] for start in range(0, len(sequences), 1000))
        if any(resample(features, part, 0)["masked"].any() for part in parts):
            return None
        return "no word can be masked: all tokens are special, or words have too many pieces"

    def table_row(self, example: DocumentExample, record: Prediction) -> dict[str, str]:
        """Return the document with its masked words and the share of correct ones."""
        masked = max(1.0, record["masked"])
        return {
            "document": example.name,
            "masked": f"{record['masked']:.0f}",
            "right": f"{record['right'] / masked:.3f}",
            "perplexity": f"{_perplexity(record['mlm_loss'] / masked):.2f}",
        }


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf  # math.exp raises where it overflows


def _words(outputs: Outputs, batch: Batch) -> tuple[Array, Array, Array]:
    """Return loss, weight (1 if masked) and whether the best word is correct, [R, P] each."""
    positions = outputs["masked_positions"]
    masked = jnp.take_along_axis(batch.extra["masked"], positions, axis=1).astype(jnp.float32)
    if "mlm_logits" in outputs:
        logits, label = outputs["mlm_logits"], jnp.take_along_axis(batch.label, positions, axis=1)
        losses, right = cross_entropy(logits, label), jnp.argmax(logits, axis=-1) == label
    else:  # the scores of a large vocabulary are not stored
        losses, right = outputs["mlm_losses"], outputs["mlm_right"]
    return losses, masked, right.astype(jnp.float32)

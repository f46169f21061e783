"""Token classification: a tag for every word, such as named entities or parts of speech.

BERT paper, section 5.3: dropout and one dense layer on every token; a word is tagged at its first
piece, and the others are ignored. A sentence that is too long becomes overlapping windows; each
word counts, in the loss and in the prediction, in the window with most context around it. So a
prediction has one tag for every word of a sentence of any length.
"""

import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from flaxbert.config import DataConfig, option
from flaxbert.data import tag_schemes, windows
from flaxbert.data.batching import Resample
from flaxbert.data.encoding import encode
from flaxbert.data.features import Features, Note
from flaxbert.data.table import Reading, Table, shown
from flaxbert.data.tokenization import Tokenizer, expect_words
from flaxbert.errors import DataError
from flaxbert.metrics import entities
from flaxbert.models.heads import MakeHead, Outputs, TokenClassificationHead
from flaxbert.tasks import label_names as names
from flaxbert.tasks import sentences
from flaxbert.tasks.classes import ClassTask, OneClassOptions
from flaxbert.tasks.losses import weighted_sum
from flaxbert.tasks.sentences import TEXT, SentenceExample, entities_of, words_of
from flaxbert.tasks.tags import read_tags, require_words
from flaxbert.types import Batch, Losses, Metrics, Prediction, TaskOutputs

log = logging.getLogger("flaxbert")


@dataclasses.dataclass
class TokenClassificationOptions(OneClassOptions):
    """Columns and tags."""

    tokens: str = option("tokens", "column of the list of words", column=True)
    tags: str = option("tags", "column of the list of tags, names or integers", column=True)
    labels: tuple[str, ...] = option((), "tag names in order (default: those in the training data)")

    def check(self, data: DataConfig) -> None:
        """Check that windows can advance."""
        super().check(data)
        windows.check(data.max_length, data.overlap)


@dataclasses.dataclass(frozen=True)
class TokenClassification(ClassTask):
    """A tag for each word, with cross-entropy at its first piece."""

    head_type: ClassVar[str] = "ForTokenClassification"
    options_type: ClassVar[type] = TokenClassificationOptions
    not_for_loss: ClassVar[Sequence[str]] = ("word",)
    answer_key: ClassVar[str | None] = "tags"

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: TokenClassificationOptions, *, labeled: bool
    ) -> Reading[SentenceExample]:
        """Read sentences; tags of other schemes than IOB2 are converted, and that is logged.

        Raises:
          DataError: for prose, or for tags that are malformed.
        """
        slices = data.slices if labeled else None
        require_words(table, {options.tokens: "options.tokens"}, slices=slices)
        if not labeled:
            return table.read(
                lambda row: sentences.unlabeled_sentence(row, options.tokens), data.on_bad_row
            )
        columns = options.tokens, options.tags, options.labels
        tagged, scheme = read_tags(table, *columns, data.on_bad_row)
        if scheme not in ("BIO", "plain"):
            log.info(f"{table.source}: tags in {scheme}, converted to IOB2")
        return tagged.map(
            lambda item: sentences.labeled_sentence(item, data.slices), data.on_bad_row
        )

    @classmethod
    def choose_labels(
        cls,
        data: DataConfig,
        options: TokenClassificationOptions,
        train: Reading[SentenceExample] | None,
        hf_config: Mapping[str, Any],
    ) -> names.Labels:
        """Return the tags. Entity tags are in IOB2, B- and I- of each type."""
        types_alone = tag_schemes.is_io(options.labels)
        given = tag_schemes.both_tags(options.labels) if types_alone else options.labels
        seen = None
        if train is not None and not options.labels:
            seen = {tag for example in train for tag in example.tags or ()}
            types = {tag[2:] for tag in seen if tag[:2] in ("B-", "I-")}
            seen |= {f"{prefix}-{kind}" for kind in types for prefix in "BI"}
        return names.resolve(given, None, seen, hf_config)

    def label_counts(self, train: Reading[SentenceExample]) -> np.ndarray:
        """Return the number of words with each tag."""
        counts = collections.Counter(tag for one in self.resolve(train) for tag in one.tags or ())
        return np.array([counts[name] for name in self.labels])

    def resolve(self, examples: Reading[SentenceExample]) -> Reading[SentenceExample]:
        """Replace tags that are indices by their names.

        Raises:
          DataError: for a tag that is none of the labels, or if the model's own tags are of
            another scheme.
        """
        scheme = tag_schemes.detect_scheme(example.tags or () for example in examples)
        other = None if self.options.labels else tag_schemes.not_iob2(self.labels)
        if other and scheme != "plain":
            raise DataError(
                f"{examples.source}: cannot be scored: the model's tags, such as {shown(other)}, "
                "are not in IOB2. Use --mode=predict, or train with "
                "--config.model.reinit_head=true."
            )
        return examples.map(self._named, self.data.on_bad_row)

    def _named(self, example: SentenceExample) -> SentenceExample:
        labels, origin = self.labels, example.origin
        places = [names.to_index(tag, labels, None, origin) for tag in example.tags or ()]
        return dataclasses.replace(example, tags=tuple(labels[place] for place in places))

    def featurize(
        self, examples: Sequence[SentenceExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Tokenize into windows of `max_length` tokens; neighbors share `overlap` tokens.

        Values per token: `word`, the index of the word (-1 at special tokens); `first`, 1 at a
        word's first piece in the window where it counts; `label`.
        """
        expect_words(tokenizer)
        encoded = encode(
            tokenizer,
            [list(example.tokens) for example in examples],
            split=True,
            truncation="only_first",
            max_length=self.data.max_length,
            overlap=self.data.overlap,
            words=True,
        )
        words = encoded.per_token["word"]
        pieces, example = windows.first_pieces(encoded, self.data.overlap)
        first, label = np.zeros(len(words), np.int32), np.zeros(len(words), np.int32)
        first[pieces] = 1
        if labeled:
            number = {name: place for place, name in enumerate(self.labels)}
            tags = (examples[n].tags for n in example.tolist())
            pairs = zip(tags, words[pieces].tolist(), strict=True)
            label[pieces] = [number[tags[word]] if tags else 0 for tags, word in pairs]
        notes = []
        lost = sum(len(example.tokens) for example in examples) - len(pieces)
        if lost:
            inside = ", or inside the entity around them" if self.marks_entities else ""
            what = f"{lost} words without any visible character are tagged {self.outside}{inside}"
            notes.append(Note(logging.INFO, what))
        return Features.build(
            encoded.per_token | {"first": first} | ({"label": label} if labeled else {}),
            lengths=encoded.lengths,
            example_index=encoded.example_index,
            notes=notes,
        )

    @property
    def make_head(self) -> MakeHead:
        """Return the function that builds the dense layer on every token."""
        count = len(self.labels)
        return lambda config, rngs: TokenClassificationHead(config, count, rngs)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the cross-entropy at first pieces: logits [R, T, C], label [R, T]."""
        losses = self.losses(outputs["logits"], batch.label)
        first, by_label = batch.extra["first"].astype(jnp.float32), self.label_weight(batch.label)
        return {"loss": weighted_sum(losses, first if by_label is None else first * by_label)}

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """Return the best tag of every token, and its probability, [R, T] each."""
        logits = outputs["logits"].astype(jnp.float32)
        probability = jnp.max(jax.nn.softmax(logits), axis=-1)
        return TaskOutputs(
            per_token={"tag": jnp.argmax(logits, axis=-1), "probability": probability}
        )

    def decode(
        self, examples: Sequence[SentenceExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """Return a tag for each word, with its probability (None for a word without any token)."""
        return sentences.decode(examples, features, predictions, self.labels, self.outside)

    @property
    def marks_entities(self) -> bool:
        return tag_schemes.mark_entities(self.labels)

    @property
    def outside(self) -> str:
        return "O" if "O" in self.labels else self.labels[0]

    def nothing_to_learn(self, features: Features, resample: Resample | None = None) -> str | None:
        """Return the reason if no word has a token that can be tagged."""
        return None if features.per_token["first"].any() else "no word has a visible character"

    def score(self, examples: Sequence[SentenceExample], records: Sequence[Prediction]) -> Metrics:
        """Return entity scores (see metrics/entities.py), or accuracy if tags mark no entities.

        Without examples, all metrics that there may be are 0, including those of every type.
        """
        gold = [example.tags or () for example in examples]
        scores = entities.score([record["tags"] for record in records], gold)
        if not examples:
            scores = dict.fromkeys(entities.score([self.labels], [self.labels]), 0.0)
        return scores if self.marks_entities else {"accuracy": scores["token_accuracy"]}

    def record_of(self, item: Any, origin: str) -> dict[str, Any]:
        """Return a sentence, split into words and marks, or a list of words as a record."""
        if isinstance(item, str):
            return {self.options.tokens: [word for word, _, _ in words_of(item)], TEXT: item}
        if isinstance(item, list | tuple) and all(isinstance(word, str) for word in item):
            return {self.options.tokens: list(item)}
        if isinstance(item, Mapping):
            return dict(item)
        raise DataError(f"{origin}: {shown(item)}; expected a sentence, or a list of words.")

    def answers(
        self,
        examples: Sequence[SentenceExample],
        features: Features,
        outputs: TaskOutputs,
        predictions: Sequence[Prediction],
        *,
        top_k: int,
    ) -> list[Prediction]:
        """Return a prediction with its `entities`, if tags mark any.

        An entity has `type`, `text`, `start` and `end`, in characters of the sentence, where a list
        of words counts as joined by spaces, and `probability`, the lowest of its words'.
        """
        predictions = super().answers(examples, features, outputs, predictions, top_k=top_k)
        if not self.marks_entities:
            return predictions
        return [
            prediction | {"entities": entities_of(example, prediction)}
            for example, prediction in zip(examples, predictions, strict=True)
        ]

    def table_row(self, example: SentenceExample, record: Prediction) -> dict[str, str]:
        """Return the sentence, its entities or tags, and the predicted ones."""
        return {
            "text": " ".join(example.tokens),
            "tags": self._marked(example.tokens, example.tags or ()),
            "predicted": self._marked(example.tokens, record["tags"]),
        }

    def _marked(self, tokens: Sequence[str], tags: Sequence[str]) -> str:
        if not self.marks_entities:
            return " ".join(tags)
        spans = entities.spans(tags, strict=False)
        return "; ".join(f"{' '.join(tokens[s.first : s.last + 1])} ({s.type})" for s in spans)

"""Token classification: a tag for every word, such as named entities or parts of speech.

BERT paper, section 5.3: dropout and one dense layer on every token; a word is tagged at its first
piece, the others take no part. A sentence that is too long becomes overlapping windows; each word
counts, in the loss and in the prediction, in the window that shows most around it. So a prediction
has one tag for every word, whatever the length.
"""

import dataclasses
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from flaxbert.config import DataConfig, option
from flaxbert.data import tag_schemes, windows
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table, shown
from flaxbert.data.tokenization import Tokenizer, expect_words
from flaxbert.errors import DataError
from flaxbert.metrics import entities
from flaxbert.models.heads import MakeHead, Outputs, TokenClassificationHead
from flaxbert.tasks import label_names as names
from flaxbert.tasks.losses import cross_entropy, weighted_sum
from flaxbert.tasks.tags import read_tags, read_words, require_words
from flaxbert.types import Batch, Losses, Metrics, Prediction, TaskOutputs

log = logging.getLogger("flaxbert")


@dataclasses.dataclass
class TokenClassificationOptions:
    """Columns and tags."""

    tokens: str = option("tokens", "column of the list of words", column=True)
    tags: str = option("tags", "column of the list of tags: names, or integers", column=True)
    labels: tuple[str, ...] = option((), "tag names in order (default: from the training data)")


@dataclasses.dataclass(frozen=True)
class SentenceExample:
    """The words of a sentence; `tags` has one a word, None if unlabeled."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None
    slice: str | None
    origin: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The sentence."""
        return (" ".join(self.tokens),)

    @property
    def target(self) -> Hashable:
        """Its tags."""
        return self.tags

    @property
    def labels(self) -> tuple[str, ...]:
        """Its tags too."""
        return self.tags or ()


@dataclasses.dataclass(frozen=True)
class TokenClassification:
    """A tag a word, with cross-entropy at the first piece of each."""

    options_type: ClassVar[type] = TokenClassificationOptions
    loss_names: ClassVar[Sequence[str]] = ("loss",)
    lower_is_better: ClassVar[Sequence[str]] = ()

    data: DataConfig
    options: TokenClassificationOptions
    labels: tuple[str, ...]

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: TokenClassificationOptions,
        train: Table | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Choose the tags. Entity tags are in IOB2, B- and I- of each type."""
        windows.check(data)
        given = (
            tag_schemes.both_tags(options.labels)
            if tag_schemes.is_io(options.labels)
            else options.labels
        )
        seen = None
        if train is not None and not options.labels:
            tagged, _ = read_tags(
                train, options.tokens, options.tags, options.labels, data.on_bad_row
            )
            seen = {tag for _, tags in tagged for tag in tags}
            types = {tag[2:] for tag in seen if tag[:2] in ("B-", "I-")}
            seen |= {f"{prefix}-{kind}" for kind in types for prefix in "BI"}
        return cls(data, options, names.resolve(given, None, seen, hf_config))

    def examples(self, table: Table, *, labeled: bool) -> list[SentenceExample]:
        """Rows -> examples; tags of other schemes than IOB2 are converted, and that is told.

        Raises:
          DataError: for labels of a model whose own tags are of another scheme, or prose.
        """
        slices = self.data.slices if labeled else None
        require_words(table, {self.options.tokens: "options.tokens"}, slices=slices)
        if not labeled:
            return table.read(lambda row: self._example(row, None), self.data.on_bad_row)
        tagged, scheme = read_tags(
            table, self.options.tokens, self.options.tags, self.options.labels, self.data.on_bad_row
        )
        if scheme != "plain" and not self.options.labels and (tag := self._not_iob2):
            raise DataError(
                f"{table.source}: not to be scored: the model's tags, such as {shown(tag)}, are "
                "not in IOB2. Use --mode=predict, or train with --config.model.reinit_head=true."
            )
        if scheme not in ("BIO", "plain"):
            log.info(f"{table.source}: tags in {scheme}, converted to IOB2")
        own = {id(row): tags for row, tags in tagged}
        rows = dataclasses.replace(table, rows=[row for row, _ in tagged])  # told of in `table` too
        return rows.read(lambda row: self._example(row, own[id(row)]), self.data.on_bad_row)

    def _example(self, row: Record, tags: list[str] | None) -> SentenceExample:
        tokens = read_words(row, self.options.tokens)
        tags = tags and [
            self.labels[names.to_index(t, self.labels, None, row.origin)] for t in tags
        ]
        return SentenceExample(
            tokens=tuple(tokens),
            tags=None if tags is None else tuple(tags),
            slice=None if tags is None else row.slice(self.data.slices),
            origin=row.origin,
        )

    def featurize(
        self, examples: Sequence[SentenceExample], tokenizer: Tokenizer, *, labeled: bool
    ) -> Features:
        """Windows of `max_length` tokens; neighbours of one sentence share `overlap` tokens.

        Token arrays: `word`, the number of the word that a piece belongs to (-1 at special
        tokens); `first`, 1 at a word's first piece in the window that it counts in; `label`.
        """
        expect_words(tokenizer)
        encoded = tokenizer(
            [list(example.tokens) for example in examples],
            is_split_into_words=True,
            truncation="only_first",
            max_length=self.data.max_length,
            stride=self.data.overlap,  # transformers' name for the overlap
            return_overflowing_tokens=True,
            return_token_type_ids=True,
        )
        owner = encoded["overflow_to_sample_mapping"]
        words = [
            [-1 if word is None else word for word in encoded.word_ids(window)]
            for window in range(len(owner))
        ]
        marks = windows.max_context(owner, words, self.data.overlap)
        first, labels, seen = [], [], set()
        for window, example in enumerate(owner):
            first.append([0] * len(words[window]))
            labels.append([0] * len(words[window]))
            for place, (word, marked) in enumerate(zip(words[window], marks[window], strict=True)):
                # Of a word's pieces the first is the first that is marked: marks never go back.
                if word < 0 or not marked or (example, word) in seen:
                    continue
                seen.add((example, word))
                first[-1][place] = 1
                if labeled and (tags := examples[example].tags):
                    labels[-1][place] = self.labels.index(tags[word])
        lost = sum(len(example.tokens) for example in examples) - len(seen)
        if lost:
            inside = ", or inside the entity around them" if self._entities else ""
            log.info(
                f"{lost} words without any visible character are tagged {self._outside}{inside}"
            )
        return Features.build(
            {
                "input_ids": encoded["input_ids"],
                "token_type_ids": encoded["token_type_ids"],
                "word": words,
                "first": first,
                **({"label": labels} if labeled else {}),
            },
            example_index=owner,
        )

    @property
    def make_head(self) -> MakeHead:
        """Scores for every token."""
        count = len(self.labels)
        return lambda config, rngs: TokenClassificationHead(config, count, rngs)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Cross-entropy at first pieces: logits [R, T, C] against label [R, T]."""
        losses = cross_entropy(outputs["logits"], batch.label)
        return {"loss": weighted_sum(losses, batch.extra["first"].astype(jnp.float32))}

    def predict(self, outputs: Outputs, batch: Batch) -> TaskOutputs:
        """The best tag of every token, [R, T]."""
        return TaskOutputs(per_token={"tag": jnp.argmax(outputs["logits"], axis=-1)})

    def decode(
        self, examples: Sequence[SentenceExample], features: Features, predictions: TaskOutputs
    ) -> list[Prediction]:
        """One tag a word."""
        tags: list[list[str | None]] = [[None] * len(example.tokens) for example in examples]
        owner = np.repeat(features.example_index, features.lengths)
        for place in np.flatnonzero(features.per_token["first"]):
            tag = self.labels[int(predictions.per_token["tag"][place])]
            tags[owner[place]][features.per_token["word"][place]] = tag
        return [
            {"tokens": list(example.tokens), "tags": self._filled(each)}
            for example, each in zip(examples, tags, strict=True)
        ]

    def _filled(self, tags: Sequence[str | None]) -> list[str]:
        """Tags for words without any piece (None) too: an entity goes on over them."""
        result: list[str] = []
        for place, tag in enumerate(tags):
            after = next((each for each in tags[place:] if each is not None), self._outside)
            around = after[:2] in ("I-", "I") and result[-1:] in ([after], [f"B{after[1:]}"])
            result.append(tag or (after if around else self._outside))
        return result

    @property
    def _entities(self) -> bool:
        """Whether tags mark entities; parts of speech do not."""
        return any(label[:2] in ("B-", "I-", "B", "I") for label in self.labels)

    @property
    def _not_iob2(self) -> str | None:
        """A tag of another scheme: a type alone, a letter of BIOES, or I- of a type without B-."""
        if tag_schemes.is_io(self.labels):
            return next(tag for tag in self.labels if tag != "O")
        odd = (tag for tag in self.labels if tag[0] != "I" or f"B{tag[1:]}" not in self.labels)
        return next(
            (tag for tag in odd if tag[0] != "B" and tag_schemes.TYPED.fullmatch(tag)), None
        )

    @property
    def _outside(self) -> str:
        return "O" if "O" in self.labels else self.labels[0]

    def score(self, examples: Sequence[SentenceExample], records: Sequence[Prediction]) -> Metrics:
        """Entity scores (see metrics/entities.py), or accuracy where tags mark no entities.

        Without examples all that there can be, at 0: those of every type too.
        """
        gold = [example.tags or () for example in examples]
        found = entities.score([record["tags"] for record in records], gold)
        if not examples:
            found = dict.fromkeys(entities.score([self.labels], [self.labels]), 0.0)
        return found if self._entities else {"accuracy": found["token_accuracy"]}

    def hf_config(self) -> dict[str, Any]:
        """Label maps, as transformers' pipelines read them."""
        return names.hf_label_maps(self.labels)

    def table_row(self, example: SentenceExample, record: Prediction) -> dict[str, str]:
        """A line of the table of predictions."""
        return {
            "text": " ".join(example.tokens),
            "tags": self._marked(example.tokens, example.tags or ()),
            "predicted": self._marked(example.tokens, record["tags"]),
        }

    def _marked(self, tokens: Sequence[str], tags: Sequence[str]) -> str:
        if not self._entities:
            return " ".join(tags)
        spans = entities.spans(tags, strict=False)
        return "; ".join(f"{' '.join(tokens[s.first : s.last + 1])} ({s.type})" for s in spans)

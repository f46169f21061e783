"""Multi-label classification: a text has any number of labels, such as emotions or topics.

Pooler and dense layer as for one label (BERT paper, section 4.1), a sigmoid for each label; the
loss is binary cross-entropy, mean over labels. A class weight is that of the texts with the label,
relative to those without it; balanced weights give both the same sum. A label is given where its
probability reaches its threshold: 0.5, or fitted to each label on held-out training data
(`data.threshold_split`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data.table import Reading, Record, Table
from flaxbert.errors import ConfigError
from flaxbert.metrics import multi_label as metrics
from flaxbert.models.heads import MakeHead, SequenceClassificationHead
from flaxbert.tasks import classes, label_sets
from flaxbert.tasks import label_names as names
from flaxbert.tasks.classes import ClassOptions
from flaxbert.tasks.label_sets import LabelCell, LabelSetOptions
from flaxbert.tasks.losses import binary_cross_entropy
from flaxbert.tasks.text_task import TextTask
from flaxbert.tasks.texts import TextExample
from flaxbert.types import Metrics, Prediction


@dataclasses.dataclass
class MultiLabelOptions(ClassOptions, LabelSetOptions):
    """Columns and labels."""

    labels: tuple[str, ...] = option(
        (), "label names in order (default: those in the training data)"
    )

    def check(self, data: DataConfig) -> None:
        """Check that labels have one source."""
        super().check(data)
        if self.labels and self.label_columns:
            raise ConfigError("options.labels and options.label_columns: one or the other")


@dataclasses.dataclass(frozen=True)
class MultiLabel(TextTask):
    """Multi-label classification with binary cross-entropy."""

    options_type: ClassVar[type] = MultiLabelOptions
    problem_type: ClassVar[str | None] = "multi_label_classification"
    answer_key: ClassVar[str | None] = "labels"

    thresholds: tuple[float, ...] = ()
    start: float = 0.0
    """The initial bias of a new output layer: the log-odds that a text has a label."""
    class_weights: tuple[float, ...] = ()

    @classmethod
    def read(
        cls, table: Table, data: DataConfig, options: MultiLabelOptions, *, labeled: bool
    ) -> Reading[TextExample]:
        """Read texts and the cells of their labels."""
        if labeled and not options.label_columns:
            names.refuse_flag_columns(table, options.label)
        return super().read(table, data, options, labeled=labeled)

    @classmethod
    def read_label(cls, record: Record, options: MultiLabelOptions) -> LabelCell:
        """Read the labels of a record as they stand in its cell."""
        return label_sets.read_cell(record, options)

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: MultiLabelOptions,
        train: Reading[TextExample] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Choose labels and class weights; thresholds are the checkpoint's if it has any."""
        options.check(data)
        chosen, seen, given = options.labels or options.label_columns, None, list[list[Any]]()
        known = None
        if train is not None:
            known = train.label_names.get(options.label)
            stored = names.checkpoint_labels(hf_config)
            order = chosen or known or stored
            lists = label_sets.label_lists(train, options, order, data.on_bad_row)
            given = [example.label for example in lists]
            seen = {str(names.single(value, stored)) for values in given for value in values}
        labels = names.resolve(chosen, known, seen, hf_config)
        fitted = hf_config.get("flaxbert", {}).get("thresholds", {}) if train is None else {}
        thresholds = tuple(fitted.get(name, 0.5) for name in labels)
        task = cls(data, options, labels, thresholds)
        balanced = None if train is None else lambda: task._balanced(train)
        weights = classes.choose_weights(options, labels, hf_config, balanced)
        with_label = sum(len(set(map(str, values))) for values in given)
        start = _log_odds(with_label, len(given) * len(labels) - with_label)
        if weights and train is not None:
            counts = task._counts(train)
            start = _log_odds(float(counts @ weights), len(given) * len(labels) - counts.sum())
        return dataclasses.replace(task, start=start, class_weights=weights)

    def _counts(self, train: Reading[TextExample]) -> np.ndarray:
        """Return the number of texts with each label."""
        _, flags = self._flagged(train)
        return np.sum([example.label for example in flags], axis=0)

    def _balanced(self, train: Reading[TextExample]) -> tuple[float, ...]:
        """Return, for each label, the texts without it / the texts with it."""
        counts = self._counts(train)
        return tuple(((len(train) - counts) / np.maximum(counts, 1)).tolist())

    def resolve(self, examples: Reading[TextExample]) -> Reading[TextExample]:
        """Turn labels into a tuple of 0 and 1, one for each label of the task."""
        every, flags = self._flagged(examples)
        known = examples.label_names.get(self.options.label)
        names.log_integer_labels(every, self.labels, known, examples.source)
        given = {str(names.single(value, self.labels)) for value in every}
        return flags.with_issues(label_sets.check_separators(given, self.options, examples.source))

    def _flagged(self, examples: Reading[TextExample]) -> tuple[list[Any], Reading[TextExample]]:
        """Return all labels as they are spelled, and the examples with flags."""
        on_bad_row, known = self.data.on_bad_row, examples.label_names.get(self.options.label)
        lists = label_sets.label_lists(examples, self.options, self.labels, on_bad_row)
        every = [value for example in lists for value in example.label]
        names.refuse_counted_from_one(every, self.labels, known, examples.source)

        def flagged(example: TextExample) -> TextExample:
            given = {
                names.to_index(value, self.labels, known, example.origin) for value in example.label
            }
            return example.with_label(tuple(int(i in given) for i in range(len(self.labels))))

        return every, lists.map(flagged, on_bad_row)

    def label_weight(self, label: Array) -> Array | None:
        """Return the mean weight of a text's labels; None without class weights."""
        return jnp.mean(self._weights(label), axis=-1) if self.class_weights else None

    def _weights(self, label: Array) -> Array:
        return jnp.where(label > 0, jnp.asarray(self.class_weights, jnp.float32), 1.0)

    @property
    def make_head(self) -> MakeHead:
        """Return the function that builds the pooler and the dense layer."""
        count = len(self.labels)
        return lambda config, rngs: SequenceClassificationHead(
            config, count, rngs, bias_init=self.start
        )

    def losses(self, logits: Array, label: Array) -> Array:
        """Return the binary cross-entropy, the (weighted) mean over labels."""
        losses = binary_cross_entropy(logits, label, gamma=self.options.focal_gamma)
        if not self.class_weights:
            return jnp.mean(losses, axis=-1)
        weights = self._weights(label)
        return jnp.sum(weights * losses, axis=-1) / jnp.sum(weights, axis=-1)

    def activation(self, logits: Array) -> Array:
        """Return the probability of each label [R, K, C]."""
        return jax.nn.sigmoid(logits)

    def answer(self, output: np.ndarray) -> Prediction:
        """Return the labels that reach their thresholds, and every label's probability."""
        probability = {name: float(p) for name, p in zip(self.labels, output, strict=True)}
        thresholds = zip(self.labels, self.thresholds, strict=True)
        # Compared as Python's floats: numpy would round the threshold.
        labels = [name for name, least in thresholds if probability[name] >= least]
        return {"labels": labels, "probability": probability}

    def score(self, examples: Sequence[TextExample], records: Sequence[Prediction]) -> Metrics:
        """Return micro and macro F1, micro precision and recall, and the share of correct sets."""
        return metrics.score(self._flags(records), self._gold(examples))

    def _flags(self, records: Sequence[Prediction]) -> np.ndarray:
        given = [[name in record["labels"] for name in self.labels] for record in records]
        return np.array(given, bool).reshape(-1, len(self.labels))

    def _gold(self, examples: Sequence[TextExample]) -> np.ndarray:
        given = [example.label for example in examples]
        return np.array(given, bool).reshape(-1, len(self.labels))

    def group_key(self, example: TextExample) -> str:
        """Return the text: equal texts are held out together."""
        return example.text

    def calibrate(self, examples: Sequence[TextExample], records: Sequence[Prediction]) -> Self:
        """Fit each label's threshold to the best F1 on held-out examples."""
        rows = [[r["probability"][name] for name in self.labels] for r in records]
        fitted = metrics.best_thresholds(np.array(rows), self._gold(examples))
        return dataclasses.replace(self, thresholds=tuple(fitted))

    @property
    def stored_thresholds(self) -> dict[str, Any]:
        """The thresholds, as the checkpoint and the export store them."""
        return {"thresholds": dict(zip(self.labels, self.thresholds, strict=True))}

    def hf_config(self) -> dict[str, Any]:
        """Return label maps, the thresholds, and the class weights if they come from the data."""
        weights = classes.stored_weights(self.options, self.class_weights)
        return super().hf_config() | {"flaxbert": self.stored_thresholds | weights}

    def table_row(self, example: TextExample, record: Prediction) -> dict[str, str]:
        """Return the text, its labels, and the predicted ones."""
        gold = [n for n, given in zip(self.labels, example.label or (), strict=False) if given]
        predicted = ", ".join(record["labels"])
        return {"text": example.text, "labels": ", ".join(gold), "predicted": predicted}


def _log_odds(with_label: float, without: float) -> float:
    """Return the log-odds that a text has a label, averaged (Lin et al. 2017, section 3.3).

    From 0, the first hundred steps would only lower all logits together. With many rare labels that
    saturates the pooler, and no gradient reaches the encoder any more.
    """
    return math.log(with_label / without) if with_label > 0 and without > 0 else 0.0

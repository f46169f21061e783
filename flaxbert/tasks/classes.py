"""What tasks with classes share: class weights, label smoothing, and the focal loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxbert.config import DataConfig, option
from flaxbert.data.table import Reading
from flaxbert.errors import ConfigError
from flaxbert.tasks.base import Task, TaskOptions
from flaxbert.tasks.label_names import hf_label_maps
from flaxbert.tasks.losses import class_loss


@dataclasses.dataclass
class ClassOptions(TaskOptions):
    """Class weights and the focal loss."""

    class_weights: tuple[float, ...] = option(
        (), "weight of each label's examples in the loss, in the order of the labels"
    )
    balanced_class_weights: bool = option(
        False, "weight labels inversely to their frequency in the training data"
    )
    focal_gamma: float = option(
        0.0,
        "exponent of the focal loss, which lowers the loss of labels that are already probable; 2 "
        "is usual (0: cross-entropy)",
    )

    def check(self, data: DataConfig) -> None:
        """Check the numbers."""
        super().check(data)
        if not self.focal_gamma >= 0:
            raise ConfigError(f"options.focal_gamma={self.focal_gamma!r}: expected at least 0")
        if self.class_weights and self.balanced_class_weights:
            raise ConfigError(
                "options.class_weights and options.balanced_class_weights: one or the other"
            )


@dataclasses.dataclass
class OneClassOptions(ClassOptions):
    """The same and label smoothing, for tasks where one of the labels is right."""

    label_smoothing: float = option(
        0.0, "share of the target probability that is spread over all labels, such as 0.1"
    )

    def check(self, data: DataConfig) -> None:
        """Check the numbers."""
        super().check(data)
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"options.label_smoothing={self.label_smoothing!r}: expected at least 0 and less "
                "than 1"
            )


def choose_weights(
    options: ClassOptions,
    labels: Sequence[str],
    hf_config: Mapping[str, Any],
    balanced: Callable[[], Sequence[float]] | None,
) -> tuple[float, ...]:
    """Return the weight of each label in the loss; () if all weigh the same.

    Args:
      options: the options of the task.
      labels: the label names.
      hf_config: the checkpoint's config.json, which holds balanced weights; see `stored_weights`.
      balanced: returns the balanced weights of the training data; None in evaluation and
        prediction.

    Raises:
      ConfigError: for weights that do not fit the labels.
    """
    if options.balanced_class_weights:
        stored = hf_config.get("flaxbert", {}).get("class_weights", ())
        return tuple(stored if balanced is None else balanced())
    weights = tuple(options.class_weights)
    if weights and (len(weights) != len(labels) or min(weights) < 0 or not any(weights)):
        raise ConfigError(
            f"options.class_weights={weights!r}: a number from 0 for each of {list(labels)}"
        )
    return weights


@dataclasses.dataclass(frozen=True)
class ClassTask(Task):
    """The base class of tasks where one of the labels is right, with cross-entropy."""

    class_weights: tuple[float, ...] = ()

    @classmethod
    def create(
        cls,
        data: DataConfig,
        options: Any,
        train: Reading[Any] | None,
        hf_config: Mapping[str, Any],
    ) -> Self:
        """Choose labels and class weights."""
        task = super().create(data, options, train, hf_config)
        balanced = None if train is None else lambda: balanced_weights(task.label_counts(train))
        weights = choose_weights(options, task.labels, hf_config, balanced)
        return dataclasses.replace(task, class_weights=weights)

    def label_counts(self, train: Reading[Any]) -> np.ndarray:
        """Return how often each label occurs in the training data, as read."""
        raise NotImplementedError

    def losses(self, logits: Array, label: Array) -> Array:
        """Return the cross-entropy, with label smoothing and focal factor if they are set."""
        options = self.options
        return class_loss(
            logits, label, smoothing=options.label_smoothing, gamma=options.focal_gamma
        )

    def label_weight(self, label: Array) -> Array | None:
        """Return the class weight: an example counts as that many copies."""
        weights = self.class_weights
        return jnp.asarray(weights, jnp.float32)[label] if weights else None

    def hf_config(self) -> dict[str, Any]:
        """Return label maps, and the class weights if they come from the data."""
        stored = stored_weights(self.options, self.class_weights)
        return hf_label_maps(self.labels) | ({"flaxbert": stored} if stored else {})


def balanced_weights(counts: np.ndarray) -> tuple[float, ...]:
    """Return scikit-learn's "balanced" weights: examples / (classes * examples of the class)."""
    return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())


def stored_weights(options: ClassOptions, weights: Sequence[float]) -> dict[str, Any]:
    """Return the weights for the exported config.json, if they come from the data."""
    return {"class_weights": list(weights)} if options.balanced_class_weights else {}

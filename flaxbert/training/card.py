"""The model card of a run: what it needs to know of the data."""

import functools
from collections.abc import Callable, Mapping

from flaxbert.config import Config
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pretrained.model_card import Facts, model_card
from flaxbert.training.data import TrainingData


def card_of(
    pipeline: Pipeline, data: TrainingData, config: Config, commits: Mapping[str, str]
) -> Callable[[Mapping[str, float]], str]:
    """Return the function that makes the text of the model card from the results."""
    facts = Facts(labels=pipeline.task.labels)
    if data.eval is not None:
        cut = data.eval.batches.features.truncated_count
        facts = Facts(facts.labels, len(data.eval.examples), cut)
    return functools.partial(
        model_card, pipeline.model, config.to_dict(), commits=commits, facts=facts
    )

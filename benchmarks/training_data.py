"""The training data of a configuration, as benchmarks open it."""

from flaxbert.config import Config, validate
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks import TASKS
from flaxbert.training.data import Sources, read_sources


def open_training_data(config: Config) -> tuple[Pipeline, Sources]:
    """Return the pipeline and the sources of a configuration, without `data.eval`.

    Raises:
      UserError: for a configuration or data that the user can fix.
    """
    config.data.eval = None
    validate(config, TASKS)
    sources = read_sources(config.task, config.data, config.options)
    sections = config.task, config.model, config.data, config.options
    return Pipeline.build(*sections, train=sources.train.examples), sources

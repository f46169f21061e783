"""The predictor: a trained model that predicts for texts and is evaluated on data sets."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxbert.config import Config, DataConfig, ModelConfig, validate
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.models.families import read_config
from flaxbert.pipeline import stored
from flaxbert.pipeline.datasets import Dataset, read_examples, read_table
from flaxbert.pipeline.evaluator import Evaluation, Evaluator
from flaxbert.pipeline.loader import Loader
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.pipeline.predict_step import PredictStep, StepOutputs, make_predict_step
from flaxbert.pipeline.request_shapes import RequestShapes, without_tokens
from flaxbert.pretrained import formats, mapping, source
from flaxbert.runtime import devices, memory, multihost, notebook, program_cache, sharding
from flaxbert.runtime.compilation import start_compiling
from flaxbert.tasks import TASKS
from flaxbert.types import Batch, Metrics, Params, Prediction

log = logging.getLogger("flaxbert")

INPUTS = "inputs"
"""The name of a program's inputs in messages, such as `inputs:3`."""


class Predictor:
    """A trained model with its task: texts in, predictions out.

    Programs are compiled once per shape. The number of rows is rounded up to a power of two, so
    that requests of all sizes share few of them; the row length is `data.max_length`. A server
    calls `compile` first, which also prepares shorter rows.

    Attributes:
      config: the task, lengths and options in use.
      pipeline: task, tokenizer and model.
      params: parameters on the devices.
      digests: digests of the parameters, by part of the model, if there are several hosts.
    """

    def __init__(self, config: Config, pipeline: Pipeline, params: Params):
        """Create a predictor.

        Args:
          config: the configuration that the pipeline was built from.
          pipeline: task, tokenizer and model.
          params: parameters on the host, with the task's output layer.
        """
        self.config, self.pipeline = config, pipeline
        self.digests = mapping.digests(params) if multihost.is_multihost() else {}
        with memory.explain_exhaustion("placing the parameters", memory.PARAMETERS):
            self.params = sharding.shard_params(params, pipeline.mesh)
        step = make_predict_step(pipeline.model, pipeline.task, pipeline.mesh, labeled=False)
        self._jitted: Any = step  # compiles whatever shape it receives
        self._step = step
        self._shapes: RequestShapes | None = None

    @classmethod
    def from_config(
        cls, config: Config, workdir: Path | None = None, given: Collection[str] = ()
    ) -> "Predictor":
        """Load the model of a run, or `model.init` if there is no run.

        Args:
          config: lengths, options and data.
          workdir: the workdir of a run, whose lengths and options are used; it may hold no run.
          given: keys of `config` that flags set; see `stored.as_trained`.

        Raises:
          ConfigError: for a configuration that contradicts itself or the run.
          WeightsError, HubError: if the checkpoint does not hold a model of the task.
        """
        program_cache.enable()
        has_run = workdir is not None and stored.holds_run(workdir)
        if has_run and workdir is not None:
            config = stored.as_trained(config, workdir, given)
        validate(config, TASKS)
        config = config.with_dtype(devices.resolve_dtype(config.model.dtype))
        devices.log_use(config.model.dtype)
        if not has_run:
            stored.warn_about_differences(config)
        init = str(workdir) if has_run else config.model.init
        sections = config.task, config.model, config.data, config.options
        pipeline = Pipeline.build(*sections, init=init, fsdp=config.train.fsdp)
        params = pipeline.load_params(seed=config.train.seed, trained=True)
        return cls(config, pipeline, params)

    # --- for programs ----------------------------------------------------------------------------

    def predict(self, inputs: Iterable[Any], *, top_k: int = 1) -> list[Prediction]:
        """Predict for texts; the first call of each shape compiles.

        Args:
          inputs: one per prediction, in the task's form: a text; (text, second text);
            (question, context); a sentence, or the list of its words; or a dict with the columns of
            a data file.
          top_k: the number of answers per input; more than 1 only for question answering.

        Returns:
          A dict of JSON types for each input. Its keys depend on the task: see
          docs/architecture.md.

        Raises:
          DataError: for an input of another form, or one that is too long; the message has its
            number, from 1.
        """
        examples, features = self.tokenize(inputs)
        return self.answer(examples, features, top_k=top_k)

    def tokenize(self, inputs: Iterable[Any]) -> tuple[Sequence[Any], Features]:
        """Return the examples of inputs, and their features; see `predict`.

        Raises:
          DataError: for an input of another form, or one that is too long.
        """
        if isinstance(inputs, str | bytes | Mapping):
            raise DataError(
                "inputs: expected a list. To predict for one input, put it in a list: [input]."
            )
        task = self.pipeline.task
        records = [
            Record(task.record_of(item, f"{INPUTS}:{number}"), f"{INPUTS}:{number}")
            for number, item in enumerate(inputs, start=1)
        ]
        if not records:
            return [], Features.build({"input_ids": []})
        strict = dataclasses.replace(self.config.data, on_bad_row="error", slices=None)
        reading = read_examples(
            self.config.task, Table(INPUTS, records), strict, self.config.options, labeled=False
        )
        examples, features = self.pipeline.featurize(reading, INPUTS, labeled=False)
        for reason in features.dropped.values():  # data.on_bad_row=skip is for files
            raise DataError(reason)
        return examples, features

    def answer(
        self, examples: Sequence[Any], features: Features, *, top_k: int = 1
    ) -> list[Prediction]:
        """Return the predictions for tokenized inputs; see `predict`."""
        if not len(features):
            return []
        if self._shapes is not None:
            batches = self._shapes.cheapest(features)
        else:
            size = self.config.train.eval_batch_size
            batches = self.pipeline.batches(features, batch_size=size, power_of_two_buckets=True)
        data = Dataset(examples, batches, labeled=False)
        outputs = Evaluator(self.pipeline, data, step=self._step, quiet=True).outputs(self.params)
        task = self.pipeline.task
        predictions = task.decode(examples, features, outputs)
        return task.answers(examples, features, outputs, predictions, top_k=top_k)

    def compile(self, samples: Iterable[Sequence[Any]], *, batch_size: int) -> int:
        """Compile for all shapes of requests, and use only these from now on.

        Besides rows of `data.max_length` there are shorter ones, in which short texts cost less.

        Args:
          samples: lists of inputs, one of each kind that requests may hold: texts of one window,
            and texts of several if `options.long_texts` is windows.
          batch_size: the largest number of sequences that are computed at once.

        Returns:
          The number of programs.
        """
        shapes = RequestShapes(self.pipeline, batch_size)
        # Batches with features of several sequences have one more array.
        kinds = {part.grouped: part for _, part in map(self.tokenize, samples)}
        pending: dict[tuple[bool, int], Callable[[], PredictStep]] = {}
        for grouped, features in kinds.items():
            for length in shapes.row_lengths:
                plan = shapes.batches(without_tokens(features, length), length)
                empty = Loader(plan, self.pipeline.mesh, ahead=0).empty
                rows = shapes.rows(length)
                pending[grouped, length] = start_compiling(self._jitted, self.params, rows, empty)
        steps = {key: finish() for key, finish in pending.items()}
        known = {(*key, rows) for key in steps for rows in shapes.rows(key[1])}

        def step(params: Params, batch: Batch) -> StepOutputs:
            rows, length = batch.input_ids.shape
            key = batch.group is not None, length
            return (steps[key] if (*key, rows) in known else self._jitted)(params, batch)

        self._step, self._shapes = step, shapes
        return len(known)

    def evaluate(self, source: str | Path) -> Metrics:
        """Return the metrics on a labeled file or hub data set, without those of the clock.

        Args:
          source: a path, a pattern of paths, or a hub data set, like `data.eval`.

        Raises:
          DataError, HubError: if it cannot be read.
        """
        config = dataclasses.replace(self.config.data, eval=str(source), max_examples=None)
        dataset, _ = self.read(config, "eval")
        evaluation = self.run(dataset)
        return {
            name: value
            for name, value in evaluation.metrics.items()
            if not name.startswith("perf/")
        }

    # --- for commands ----------------------------------------------------------------------------

    def read(self, data: DataConfig, key: str) -> tuple[Dataset, Table]:
        """Read and tokenize `data.eval` (with labels) or `data.predict` (without).

        Without `data.eval`, this is the part of `data.train` that training held out
        (`data.eval_split`).
        """
        table, labeled = read_table(data, key), key == "eval"
        examples = read_examples(
            self.config.task, table, data, self.config.options, labeled=labeled
        )
        size = self.config.train.eval_batch_size
        dataset = self.pipeline.tokenize_in_order(
            table,
            examples,
            batch_size=size,
            labeled=labeled,
            held_out=data.eval_split if labeled and not data.eval else 0.0,
            most=data.max_examples,
        )
        return dataset, table

    def stream(self, data: Dataset) -> Iterator[Prediction]:
        """Yield the predictions for a data set as batches finish; see `Evaluator.stream`."""
        return Evaluator(self.pipeline, data).stream(self.params)

    def run(self, data: Dataset) -> Evaluation:
        """Predict for a data set, and score it if it has labels."""
        return Evaluator(self.pipeline, data).run(self.params)


@notebook.session()
def load(
    directory: str | Path,
    *,
    task: str | None = None,
    options: Any = None,
    max_length: int | None = None,
    dtype: str = "float32",
) -> Predictor:
    """Load a trained model for prediction and evaluation.

    Args:
      directory: the workdir of a finished run, its export, any Hugging Face directory or hub id
        of a model with an output layer; or the URL of a directory, such as gs://BUCKET/run.
      task: one of TASKS; by default the run's, or the one that fits the output layer.
      options: the task's; by default the run's.
      max_length: the longest text in tokens; by default the run's, or the number of the model's
        positions, at most 512.
      dtype: type of the arithmetic, float32 or bfloat16.

    Raises:
      ConfigError: if no task fits the output layer, or the model has fewer positions.
      WeightsError, HubError: if there is no such model, or the run has not finished.
    """
    init = str(directory)
    path = source.local(init)
    workdir = stored.workdir_of(path)
    if stored.holds_run(workdir) and (workdir / "config.json").is_file():
        config = stored.config_of(workdir)
        init = init if path.is_dir() else str(workdir)  # an unfinished run has no export
        if task is not None:
            config.task = task
        if options is not None:
            config.options = options
    else:
        config = _config_of_model(init, task, options)
    # The revision is of the pre-trained model that a run started from.
    config.model = dataclasses.replace(config.model, init=init, revision=None, dtype=dtype)
    if max_length is not None:
        overlap = min(config.data.overlap, max_length // 4)
        # The run's rows may be too short for longer texts.
        config.data = dataclasses.replace(
            config.data, max_length=max_length, overlap=overlap, row_length=None
        )
    return Predictor.from_config(config)


LONGEST = 512
"""The default of `max_length` for models with more positions."""


def _config_of_model(init: str, task: str | None, options: Any) -> Config:
    """Return a configuration for a model without the configuration of a run."""
    hf_config = formats.read_config(source.resolve(init))
    if task is None:
        fitting = [name for name, kind in TASKS.items() if kind.fits(hf_config)]
        if len(fitting) != 1:
            named = (hf_config.get("architectures") or ["no architecture"])[0]
            raise ConfigError(
                f"{init}: config.json names {named}, which fits "
                f"{'several tasks' if fitting else 'no task'} that can predict. Give one: "
                f"task={' or '.join(map(repr, fitting or TASKS))}."
            )
        (task,) = fitting
    longest = min(LONGEST, read_config(hf_config).max_positions)
    data = DataConfig(max_length=longest, overlap=longest // 4)
    return Config(task=task, model=ModelConfig(init=init), data=data, options=options)

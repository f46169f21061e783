"""The pipeline: what training, evaluation, prediction and serving share."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxbert import hub
from flaxbert.config import DataConfig, ModelConfig
from flaxbert.data import checks, coverage, feature_cache
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.data.table import Reading, Table
from flaxbert.data.tokenization import Tokenizer, doubled_word, id_count, load_tokenizer
from flaxbert.errors import ConfigError, WeightsError
from flaxbert.messages.language import tr
from flaxbert.models.families import read_config
from flaxbert.models.layers import EncoderConfig
from flaxbert.models.model import Model
from flaxbert.pipeline.costs import shape_costs
from flaxbert.pipeline.datasets import Dataset, limited, split_for_evaluation
from flaxbert.pipeline.featurizing import features_of
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.export import export
from flaxbert.pretrained.load import other_head
from flaxbert.pretrained.source import resolve
from flaxbert.runtime import devices, sharding
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import HasUnits, Task
from flaxbert.types import Params

log = logging.getLogger("flaxbert")

MIN_MEAN_SEGMENT = 8
"""Lower bound of the mean length of the sequences in a row of a request, which fixes K there."""


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A task with the tokenizer and the model that it uses, without weights."""

    task_name: str
    task: Task
    tokenizer: Tokenizer
    model: Model
    mesh: sharding.Mesh
    data: DataConfig
    directory: Path
    """The directory of the checkpoint."""
    hf_config: Mapping[str, Any]
    """The config.json of the checkpoint."""

    @classmethod
    def build(
        cls,
        task_name: str,
        model: ModelConfig,
        data: DataConfig,
        options: Any = None,
        *,
        init: str | None = None,
        train: Reading[Any] | None = None,
        fsdp: int = 1,
        reduce_dtype: str = "float32",
    ) -> "Pipeline":
        """Find the checkpoint, and build tokenizer, task and model for it.

        Args:
          task_name: one of TASKS.
          model: how the encoder is built.
          data: lengths, columns and packing.
          options: the task's; None for its defaults.
          init: replaces `model.init`, for example by the workdir of a run.
          train: the training examples as read, from which labels may come; None in evaluation
            and prediction.
          fsdp: devices that share one copy of the parameters (`train.fsdp`).
          reduce_dtype: type in which devices sum gradients (`train.reduce_dtype`).

        Raises:
          ConfigError: for options that do not fit each other, the checkpoint or the devices.
          DataError: for labels that are malformed.
          HubError: if the checkpoint cannot be fetched.
          WeightsError: if it is not one that the task can use.
        """
        given, init = init in (None, model.init), init or model.init
        directory = resolve(init, model.revision if given else None)
        hf_config = formats.read_config(directory)
        if train is None:
            _require_problem_type(directory, hf_config, task_name)
        tokenizer = load_tokenizer(directory)
        encoder = _encoder_config(hf_config, model, data, init)
        encoder = _with_vocabulary(encoder, tokenizer, directory, resize=model.resize_vocab)
        encoder = dataclasses.replace(encoder, reduce_dtype=reduce_dtype)
        known = hf_config
        if model.reinit_head and train is not None:  # the old output layer's labels go with it
            known = {key: value for key, value in hf_config.items() if key != "id2label"}
        options = options or TASKS[task_name].options_type()
        task = TASKS[task_name].create(data, options, train, known)
        built = Model.create(encoder, task.make_head)
        mesh = sharding.make_mesh(fsdp=fsdp)
        sharding.param_shardings(built.shapes, mesh)  # raises for sizes that cannot be divided
        return cls(task_name, task, tokenizer, built, mesh, data, directory, hf_config)

    @property
    def commit(self) -> str | None:
        """The commit of a checkpoint from the hub."""
        return hub.commit_of(self.directory)

    @property
    def row_length(self) -> int:
        """Tokens of a row (T), unless it is chosen for the lengths of a data set."""
        return self.data.row_length or self.data.max_length

    def with_attention(self, way: str) -> "Pipeline":
        """Return the pipeline with another way to compute attention; see `attention.attend`."""
        encoder = dataclasses.replace(self.model.config, attention=way)
        return dataclasses.replace(self, model=Model.create(encoder, self.model.make_head))

    # --- data ------------------------------------------------------------------------------------

    def tokenize(
        self,
        examples: Sequence[Any],
        source: str,
        *,
        batch_size: int,
        labeled: bool,
        malformed: int = 0,
        seed: int | None = None,
        epochs: float = 1.0,
        accumulation_steps: int = 1,
        like: Batches | None = None,
        stored: bool = True,
        shared: bool = False,
    ) -> Dataset:
        """Tokenize examples and plan their batches; log truncated texts and unknown words.

        Args:
          examples: examples of the task.
          source: their name in messages.
          batch_size: features per step.
          labeled: whether the examples have labels.
          malformed: the number of records of the source that were left out.
          seed: shuffles each epoch; None keeps the order.
          epochs: passes over the data.
          accumulation_steps: number of micro-batches of a step.
          like: batches whose shapes are used where they fit; see `Batches.shaped_like`.
          stored: whether to use the cache (`data.feature_cache`).
          shared: whether all hosts call this for the same data set, so that they share the work.

        Raises:
          DataError: for an example that is too long, unless such examples are skipped.
          WeightsError: for a token that the model has no embedding for.
        """
        examples, features = self.featurize(
            examples, source, labeled=labeled, stored=stored, shared=shared
        )
        batches = self.batches(
            features,
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
            accumulation_steps=accumulation_steps,
            like=like,
        )
        counts = {"examples": str(len(examples)), "features": str(len(features))}
        message = tr("{source}: {examples} examples, {features} features", source=source, **counts)
        if features.truncated:
            message += tr(
                "; {cut} of them cut to data.max_length={length} tokens",
                cut=str(features.truncated_count),
                length=str(self.data.max_length),
            )
        log.info(message)
        unknown = coverage.unknown(features, self.tokenizer)
        if unknown.lost or unknown.share >= 0.001:
            level = logging.WARNING if unknown.serious or unknown.lost else logging.INFO
            log.log(level, f"{source}: {unknown.describe(examples)}")
        return Dataset(examples, batches, labeled, malformed + len(features.dropped))

    def tokenize_in_order(
        self,
        table: Table,
        examples: Reading[Any],
        *,
        batch_size: int,
        labeled: bool,
        held_out: float = 0.0,
        most: int | None = None,
        like: Batches | None = None,
        stored: bool = True,
        shared: bool = False,
    ) -> Dataset:
        """Tokenize the examples of a table to evaluate them or to predict for them.

        Args:
          table: the source of the examples.
          examples: as `read_examples` returns them.
          batch_size: features per step.
          labeled: whether the examples have labels.
          held_out: the share of labeled examples that training held out (`data.eval_split`), if
            the table is that of the training data; 0 takes all.
          most: the largest number of examples (`data.max_examples`); None takes all.
          like: see `tokenize`, as for `stored` and `shared`.
          stored: whether to use the cache.
          shared: whether all hosts share the work.

        Raises:
          DataError, WeightsError: see `tokenize`; also for a label that is none of the task's.
        """
        if labeled:
            examples = self.task.resolve(examples)
        checks.log_issues(examples.issues)
        if held_out:
            _, examples = split_for_evaluation(examples, held_out)
        examples = limited(examples, most)
        return self.tokenize(
            examples,
            table.source,
            batch_size=batch_size,
            labeled=labeled,
            malformed=table.malformed + examples.malformed,
            like=like,
            stored=stored,
            shared=shared,
        )

    def batches(
        self,
        features: Features,
        *,
        batch_size: int,
        seed: int | None = None,
        epochs: float = 1.0,
        accumulation_steps: int = 1,
        power_of_two_buckets: bool = False,
        like: Batches | None = None,
    ) -> Batches:
        """Plan the batches of features; see `tokenize` and `Batches`."""
        steps_per_epoch = math.ceil(len(features) / batch_size)
        limit = self.row_length // MIN_MEAN_SEGMENT if power_of_two_buckets else self.row_length
        batches = Batches(
            features,
            batch_size=batch_size,
            row_length=self.row_length,
            segments=max(1, limit) if self.data.packing else 1,
            data_parallelism=sharding.data_parallelism(self.mesh),
            microbatches=accumulation_steps,
            steps=math.ceil(steps_per_epoch * epochs),
            seed=seed,
            resample=self.task.resampler(self.tokenizer),
            costs=shape_costs(self.model.config, self.mesh),
            power_of_two_buckets=power_of_two_buckets,
            # Only training shuffles.
            left_out=() if seed is None else self.task.not_for_loss,
        )
        if like is not None:
            return batches.shaped_like(like)
        # Requests share programs, so their rows have one length.
        return batches if power_of_two_buckets else self._with_row_length(batches)

    def in_microbatches(self, batches: Batches, number: int) -> Batches:
        """Return the batches of a data set, planned for another number of micro-batches."""
        if batches.microbatches == number:
            return batches
        planned = dataclasses.replace(batches, microbatches=number, row_length=self.row_length)
        return self._with_row_length(planned)

    def _with_row_length(self, batches: Batches) -> Batches:
        """Return batches of rows of `data.row_length`, or of the length that costs least."""
        fixed = self.data.row_length is not None
        return batches if fixed else batches.with_cheapest_row_length()

    def featurize(
        self,
        examples: Sequence[Any],
        source: str,
        *,
        labeled: bool,
        stored: bool = False,
        shared: bool = False,
    ) -> tuple[Sequence[Any], Features]:
        """Tokenize examples, without a plan of batches.

        Args:
          examples: examples of the task.
          source: their name in messages.
          labeled: whether the examples have labels.
          stored: whether to use the cache (`data.feature_cache`).
          shared: whether all hosts call this for the same data set, so that they share the work.

        Returns:
          The examples that fit, and their features; the others are in `Features.dropped`.

        Raises:
          DataError, WeightsError: see `tokenize`.
        """
        cache = feature_cache.directory(self.data.feature_cache) if stored else None
        features = features_of(
            self.task,
            examples,
            self.tokenizer,
            cache,
            labeled=labeled,
            shared=source if shared else None,
        )
        checks.log_issues(checks.too_long_issues(source, features.dropped))
        for note in features.notes:
            log.log(note.level, note.text)
        kept = examples
        if features.dropped:
            kept = [example for n, example in enumerate(examples) if n not in features.dropped]
        highest = int(features.per_token["input_ids"].max(initial=0))
        if highest >= self.model.config.vocab_size:
            raise WeightsError(
                f"{self.directory}: the tokenizer gives the id {highest}, but the model has "
                f"embeddings only for ids below {self.model.config.vocab_size}; they are not of "
                "the same model."
            )
        return kept, features

    # --- weights ---------------------------------------------------------------------------------

    def load_params(
        self,
        *,
        seed: int = 0,
        reinit_head: bool = False,
        reinit_layers: int = 0,
        trained: bool = False,
    ) -> Params:
        """Read the weights (numpy arrays), and log what was loaded and what is new.

        Args:
          seed: seed of new parameters.
          reinit_head: whether the output layer is new even if the checkpoint has one.
          reinit_layers: number of top layers that are new; see `Model.with_new_layers`.
          trained: whether the checkpoint must have the task's output layer.

        Raises:
          WeightsError: see `mapping.load`; with `trained` also for another task's output layer.
          ConfigError: if the encoder has fewer layers than are to be new.
        """
        params, report = self.read_params(
            seed=seed, reinit_head=reinit_head, reinit_layers=reinit_layers, trained=trained
        )
        self.log_loaded(report, reinit_layers)
        return params

    def log_loaded(self, report: mapping.LoadReport, reinit_layers: int = 0) -> None:
        """Log what was loaded and what is new; see `read_params`."""
        log.info(report.describe())
        if reinit_layers:
            pooler = " and the pooler" if "pooler" in self.model.shapes["head"] else ""
            log.info(f"the top {reinit_layers} layers{pooler} are initialized anew")
        if (
            self.hf_config.get("model_type") == "albert"
            and self.model.head_type == "ForPreTraining"
        ):
            log.warning(
                "ALBERT's second output was trained to tell the order of two texts; here it learns "
                "whether one text follows another, and is evaluated on that. To leave it out: "
                "--config.options.next_sentence=false."
            )

    def read_params(
        self,
        *,
        seed: int = 0,
        reinit_head: bool = False,
        reinit_layers: int = 0,
        trained: bool = False,
    ) -> tuple[Params, mapping.LoadReport]:
        """Read the weights and the report on them; see `load_params`."""
        if reinit_layers and reinit_layers > (layers := self.model.layers):
            raise ConfigError(
                f"model.reinit_layers={reinit_layers}, but {self.directory} has {layers} layers "
                "with their own weights; initialize at most as many."
            )
        other = other_head(self.hf_config, self.model.head_type)
        if other and trained:
            raise WeightsError(
                f"{self.directory}: config.json says {other}, whose output layer is not that of "
                f"--config.task={self.task_name}; choose the task that it was trained for, or "
                "train first."
            )
        if other:
            log.info(f"{self.directory}: the output layer of {other} is another task's; left out")
        units = self.task if isinstance(self.task, HasUnits) and self.task.units else None
        model = self.model
        if units:  # bfloat16 would round the labels' mean, such as 1950, in the output layer's bias
            exact = dataclasses.replace(model.config, param_dtype="float32")
            model = Model.create(exact, model.make_head)
        params, report = mapping.load(
            model,
            self.directory,
            seed=seed,
            reinit_head=bool(other) or (reinit_head and not trained),
            checkpoint_config=read_config(self.hf_config),
        )
        if trained and report.fresh:
            raise WeightsError(
                f"{self.directory}: has no trained output layer (no {', '.join(report.fresh)}); "
                "train first, or give the --workdir of a finished run."
            )
        if reinit_layers:
            new = self.model.with_new_layers(params, reinit_layers, seed)
            params = jax.tree.map(np.asarray, new)
        if units and not report.fresh:
            params = units.from_units(params)
        if units:
            params = jax.tree.map(
                lambda array, shape: array.astype(shape.dtype), params, self.model.shapes
            )
        return params, report

    def export(
        self, params: Params | None, directory: Path, task: Task | None = None, card: str = ""
    ) -> None:
        """Write a Hugging Face directory: config, weights, tokenizer and model card.

        Args:
          params: parameters on the host; None leaves the weights out.
          directory: replaced if it exists.
          task: the task with fitted thresholds; by default the pipeline's.
          card: the text of its README.md.

        Raises:
          WorkdirError: if it cannot be written.
        """
        task = task or self.task
        arrays = None if params is None else jax.tree.map(np.asarray, params)
        if arrays is not None and isinstance(task, HasUnits):
            arrays = task.to_units(arrays)
        export(
            directory,
            model=self.model,
            params=arrays,
            tokenizer=self.tokenizer,
            hf_config=self.hf_config,
            task_config=task.hf_config(),
            card=card,
        )


def _require_problem_type(directory: Path, hf_config: Mapping[str, Any], task_name: str) -> None:
    """Check that the output layer was not trained for another task that has the same layer."""
    trained_for, ours = hf_config.get("problem_type"), TASKS[task_name].problem_type
    for other, task in TASKS.items():
        if trained_for is not None and task.problem_type == trained_for and ours is not None:
            if ours == trained_for:
                return
            raise WeightsError(
                f"{directory}: config.json's problem_type is {trained_for!r}, so its output layer "
                f"is not that of --config.task={task_name}; use --config.task={other}."
            )


def _encoder_config(
    hf_config: Mapping[str, Any], model: ModelConfig, data: DataConfig, init: str
) -> EncoderConfig:
    """Return the encoder's sizes and rates; check that they hold texts of `data.max_length`."""
    encoder = read_config(
        hf_config,
        dtype=devices.resolve_dtype(model.dtype),
        param_dtype=model.param_dtype,
        remat=model.remat,
        attention=model.attention,
    )
    if model.max_position_embeddings is not None:
        positions = model.max_position_embeddings + encoder.position_offset
        encoder = dataclasses.replace(encoder, max_position_embeddings=positions)
    if model.dropout is not None:
        encoder = encoder.with_dropout(model.dropout)
    if data.max_length > encoder.max_positions:
        raise ConfigError(
            f"data.max_length={data.max_length}, but {init} has {encoder.max_positions} "
            "positions; lower max_length, or repeat the table with "
            f"--config.model.max_position_embeddings={data.max_length}"
        )
    return encoder


def _with_vocabulary(
    encoder: EncoderConfig, tokenizer: Tokenizer, directory: Path, *, resize: bool
) -> EncoderConfig:
    """Return the encoder's config with an embedding for each token of the tokenizer.

    Raises:
      WeightsError: if the checkpoint has fewer, unless `resize` is set.
    """
    ids = id_count(tokenizer)
    if ids <= encoder.vocab_size:
        return encoder
    if doubled := doubled_word(directory):
        raise WeightsError(
            f"{doubled}, so tokens have ids up to {ids - 1}, but config.json's vocab_size is "
            f"{encoder.vocab_size}. Remove the line if the model was trained without it; set "
            f"vocab_size to {ids} if its table of embeddings has that many rows."
        )
    if not resize:
        raise WeightsError(
            f"{directory}: the tokenizer has ids up to {ids - 1}, config.json's vocab_size is "
            f"{encoder.vocab_size}; they are not of the same model. If tokens were added to it: "
            "--config.model.resize_vocab=true."
        )
    return dataclasses.replace(encoder, vocab_size=ids)

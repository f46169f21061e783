"""From a configuration to everything a run works with: model, task, tokenizer, data sets."""

import dataclasses
import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxbert import hub
from flaxbert.config import Config
from flaxbert.data import checks, coverage
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.data.shuffle import permutation
from flaxbert.data.table import Reading, Table
from flaxbert.data.tokenization import Tokenizer, doubled_word, id_count, load_tokenizer, save
from flaxbert.errors import ConfigError, WeightsError, WorkdirError
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pretrained import formats, mapping
from flaxbert.pretrained.load import other_head
from flaxbert.pretrained.source import resolve
from flaxbert.runtime import sharding
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import HasThresholds, HasUnits, Task
from flaxbert.types import Params

log = logging.getLogger("flaxbert")

SHORTEST_SEGMENT = 8
"""Tokens that a packed segment has at least, on average: fixes K, the slots of a row."""


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """What training, evaluation and prediction share."""

    config: Config
    directory: Path
    hf_config: Mapping[str, Any]
    tokenizer: Tokenizer
    task: Task
    model: Model
    mesh: Any

    @property
    def commit(self) -> str | None:
        """Of a model of the hub."""
        return hub.commit_of(self.directory)

    @property
    def row_length(self) -> int:
        """Tokens of a row (T)."""
        return self.config.data.row_length or self.config.data.max_length

    @property
    def segments(self) -> int:
        """Slots of a row (K)."""
        return max(1, self.row_length // SHORTEST_SEGMENT) if self.config.data.packing else 1

    def load_params(self, *, trained: bool = False) -> Params:
        """Read the weights (numpy arrays), and log what was loaded and what is new.

        Args:
          trained: the checkpoint must hold the task's output layer too.

        Raises:
          WeightsError: see `weights.load`; with `trained` also for another task's output layer.
        """
        params, report = self.read_params(trained=trained)
        log.info(report.describe())
        if self.hf_config.get("model_type") == "albert" and self.model.kind == "ForPreTraining":
            log.warning(
                "ALBERT's second output was made to tell the order of two texts; here it learns "
                "whether one text follows another, and is evaluated on that. To leave it out: "
                "--config.options.next_sentence=false."
            )
        return params

    def read_params(self, *, trained: bool = False) -> tuple[Params, mapping.LoadReport]:
        """Read the weights without a report in the log; see `load_params`."""
        config = self.config
        other = other_head(self.hf_config, self.model.kind)
        if other and trained:
            raise WeightsError(
                f"{self.directory}: config.json says {other}, whose output layer is not that of "
                f"--config.task={config.task}; choose the task that it was trained for, or train "
                "first."
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
            seed=config.train.seed,
            reinit_head=bool(other) or (config.model.reinit_head and not trained),
            stored=read_config(self.hf_config),
        )
        if trained and report.fresh:
            raise WeightsError(
                f"{self.directory}: has no trained output layer (no {', '.join(report.fresh)}); "
                "train first, or give the --workdir of a finished run."
            )
        if units and not report.fresh:
            params = units.from_units(params)
        if units:
            params = jax.tree.map(
                lambda array, shape: array.astype(shape.dtype), params, self.model.shapes
            )
        return params, report

    def hold_out(self, examples: list[Any]) -> tuple[list[Any], list[Any]]:
        """Training examples, and those kept out (`data.threshold_split`) to fit thresholds on.

        Examples made from one document, such as the questions on a paragraph, stay together.

        Raises:
          ConfigError: if the task has nothing to fit, or one part would be empty.
        """
        share = self.config.data.threshold_split
        if not share:
            return examples, []
        if not isinstance(self.task, HasThresholds):
            raise ConfigError(
                f"data.threshold_split={share}: the task {self.config.task!r} has no thresholds to "
                "fit"
            )
        documents = list(dict.fromkeys(map(self.task.group_key, examples)))
        order = permutation(len(documents), self.config.train.seed, 0)
        held = {documents[i] for i in order[: max(1, round(share * len(documents)))]}
        kept = [each for each in examples if self.task.group_key(each) not in held]
        if not kept:
            raise ConfigError(f"data.threshold_split={share} leaves nothing to train on")
        return kept, [each for each in examples if self.task.group_key(each) in held]

    def featurize(
        self, examples: list[Any], table: Table, *, labeled: bool
    ) -> tuple[list[Any], Features]:
        """Tokenize; `data.on_bad_row=skip` leaves out what is too long, and logs it.

        Raises:
          DataError: for what is too long, if it is not to be left out.
          WeightsError: for a token that the model has no embedding for.
        """
        features = self.task.featurize(examples, self.tokenizer, labeled=labeled)
        checks.log_issues(checks.too_long_issues(table.source, features.dropped))
        examples = [example for i, example in enumerate(examples) if i not in features.dropped]
        highest = int(features.tokens["input_ids"].max(initial=0))
        if highest >= self.model.config.vocab_size:
            raise WeightsError(
                f"{self.directory}: the tokenizer gives the id {highest}, but the model has "
                f"embeddings only for ids below {self.model.config.vocab_size}; they are not of "
                "the same model."
            )
        return examples, features

    def dataset(
        self,
        examples: list[Any],
        table: Table,
        *,
        batch_size: int,
        labeled: bool,
        training: bool,
    ) -> Dataset:
        """Tokenise examples and plan their batches.

        Args:
          examples: of the task.
          table: where they are from; told of those that are left out (`data.on_bad_row=skip`).
          batch_size: features a step.
          labeled: whether labels are required.
          training: shuffle each epoch.
        """
        examples, features = self.featurize(examples, table, labeled=labeled)
        batches = Batches(
            features,
            batch_size=batch_size,
            row_length=self.row_length,
            segments=self.segments,
            shards=sharding.data_parallelism(self.mesh),
            parts=self.config.train.accumulation_steps if training else 1,
            steps=math.ceil(len(features) / batch_size),
            seed=self.config.train.seed if training else None,
        )
        message = f"{table.source}: {len(examples)} examples, {len(features)} features"
        if features.truncated:
            message += (
                f"; {features.truncated} of them cut to data.max_length="
                f"{self.config.data.max_length} tokens"
            )
        log.info(message)
        unknown = coverage.unknown(features, self.tokenizer)
        if unknown.lost or unknown.share >= 0.001:
            level = logging.WARNING if unknown.serious or unknown.lost else logging.INFO
            log.log(level, f"{table.source}: {unknown.describe(examples)}")
        return Dataset(examples, batches, labeled)

    def export(
        self, params: Params | None, directory: Path, task: Task | None = None, card: str = ""
    ) -> None:
        """Write a Hugging Face directory (config, weights, tokenizer, model card) in one go.

        Args:
          params: on the mesh; None leaves the weights out.
          directory: replaced if it exists.
          task: the one with fitted thresholds, if there are any.
          card: its README.md.

        Raises:
          WorkdirError: if it cannot be written.
        """
        try:
            self._export(params, directory.resolve(), task or self.task, card)
        except Exception as error:  # safetensors and tokenizers raise types of their own
            raise WorkdirError(
                f"{directory}: could not be written ({error}). The checkpoints are whole: make "
                "room or mend the place, and run the same command again."
            ) from error

    def _export(self, params: Params | None, directory: Path, task: Task, card: str) -> None:
        partial = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if params is not None:
            arrays = jax.tree.map(np.asarray, params)
            if isinstance(task, HasUnits):
                arrays = task.to_units(arrays)
            mapping.save(self.model, arrays, partial)
        # By it transformers' pipelines cut texts; the table may have been changed since.
        self.tokenizer.model_max_length = self.model.config.positions
        save(self.tokenizer, partial)
        dropped = (
            *("_name_or_path", "transformers_version", "torch_dtype"),
            *("id2label", "label2id", "problem_type", "flaxbert"),
        )
        kept = {key: value for key, value in self.hf_config.items() if key not in dropped}
        hf_config = kept | {
            "architectures": [self.model.architecture],
            "model_type": self.model.config.model_type,
            "vocab_size": self.model.config.vocab_size,
            "max_position_embeddings": self.model.config.max_position_embeddings,
            "dtype": self.config.model.param_dtype,
            **task.hf_config(),
        }
        text = json.dumps(hf_config, indent=2, ensure_ascii=False) + "\n"
        (partial / "config.json").write_text(text, encoding="utf-8")
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")
        old = directory.with_name(f".{directory.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():  # a directory is not replaced in one go: out of the way, then gone
            os.replace(directory, old)
        os.replace(partial, directory)
        shutil.rmtree(old, ignore_errors=True)


def read_examples(config: Config, table: Table, *, labeled: bool) -> Reading[Any]:
    """Read the examples of a table, with labels as they stand there."""
    kind = TASKS[config.task]
    options = config.options or kind.options_type()
    options.check(config.data)
    return kind.read(table, config.data, options, labeled=labeled)


def prepare(config: Config, init: str, train: Reading[Any] | None) -> Pipeline:
    """Resolve the checkpoint, and build tokenizer, task and model (no weights yet).

    Args:
      config: validated.
      init: a specification as `config.model.init`.
      train: the training examples as `read_examples` returns them, from which labels may come;
        None in evaluation and prediction.

    Raises:
      ConfigError, DataError, WeightsError, HubError: see the parts.
    """
    directory = resolve(init, config.model.revision if init == config.model.init else None)
    hf_config = formats.read_config(directory)
    model_config = read_config(
        hf_config,
        dtype=config.model.dtype,
        param_dtype=config.model.param_dtype,
        remat=config.model.remat,
    )
    if config.model.max_position_embeddings is not None:
        model_config = dataclasses.replace(
            model_config,
            max_position_embeddings=config.model.max_position_embeddings
            + model_config.first_position,
        )
    if config.model.dropout is not None:
        model_config = model_config.with_dropout(config.model.dropout)
    if config.data.max_length > model_config.positions:
        raise ConfigError(
            f"data.max_length={config.data.max_length}, but {init} knows "
            f"{model_config.positions} positions; lower max_length, or repeat the table with "
            f"--config.model.max_position_embeddings={config.data.max_length}"
        )
    problem = hf_config.get("problem_type")
    for task_name, kind in TASKS.items():
        trained_for = train is None and problem is not None and kind.problem_type == problem
        if trained_for and TASKS[config.task].problem_type not in (None, problem):
            raise WeightsError(
                f"{directory}: config.json's problem_type is {problem!r}, so its output layer is "
                f"not that of --config.task={config.task}; use --config.task={task_name}."
            )
    tokenizer = load_tokenizer(directory)
    ids = id_count(tokenizer)
    if ids > model_config.vocab_size:
        doubled = doubled_word(directory)
        if doubled:
            raise WeightsError(
                f"{doubled}, so tokens have ids up to {ids - 1}, but config.json's vocab_size is "
                f"{model_config.vocab_size}. Remove the line if the model was trained without it; "
                f"set vocab_size to {ids} if its table of embeddings has that many rows."
            )
        if not config.model.resize_vocab:
            raise WeightsError(
                f"{directory}: the tokenizer has ids up to {ids - 1}, config.json's vocab_size "
                f"is {model_config.vocab_size}; they are not of the same model. If tokens were "
                "added to it: --config.model.resize_vocab=true."
            )
        model_config = dataclasses.replace(model_config, vocab_size=ids)
    options = config.options or TASKS[config.task].options_type()
    known = hf_config
    if config.model.reinit_head and train is not None:  # the old output layer's labels go with it
        known = {key: value for key, value in hf_config.items() if key != "id2label"}
    task = TASKS[config.task].create(config.data, options, train, known)
    model = Model.create(model_config, task.make_head)
    return Pipeline(config, directory, hf_config, tokenizer, task, model, sharding.make_mesh())

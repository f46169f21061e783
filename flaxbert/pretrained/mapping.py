"""Reading and writing weights: each family has one table of names, used in both directions.

Reading is strict. Every parameter of the model must be in the checkpoint with the right shape,
except those of an output layer that it lacks as a whole, and every tensor of the checkpoint must be
known. One message reports all problems, and nothing is re-initialized silently.
"""

import collections
import dataclasses
import hashlib
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from flaxbert.errors import WeightsError, some
from flaxbert.models.families.base import Family
from flaxbert.models.layers import EncoderConfig
from flaxbert.models.model import Model
from flaxbert.pretrained import formats, unsupported
from flaxbert.types import Params

log = logging.getLogger("flaxbert")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of the checkpoint or the model, and how `load` treated it."""

    source: str | None
    """Name in the checkpoint; None if it is not there."""
    name: str
    """Name in transformers."""
    path: str | None
    """Path in the model; None if the model has no such parameter."""
    shape: tuple[int, ...]
    dtype: str
    status: str
    """One of

    * loaded, or resized;
    * tied: a second, equal copy;
    * unused: of another output layer;
    * ignored: not a parameter;
    * new: of an output layer that the checkpoint lacks;
    * problem.
    """
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """A report of what `load` did with each tensor."""

    source: str
    entries: tuple[Entry, ...]

    def named(self, status: str) -> tuple[str, ...]:
        """Return the transformers names of the tensors with a status."""
        return tuple(entry.name for entry in self.entries if entry.status == status)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Tensors that became parameters, by their transformers names."""
        return (*self.named("loaded"), *self.named("resized"))

    @property
    def unused(self) -> tuple[str, ...]:
        """Tensors of output layers that this model does not have, by their source names."""
        return tuple(str(entry.source) for entry in self.entries if entry.status == "unused")

    @property
    def fresh(self) -> tuple[str, ...]:
        """Output-layer parameters that the checkpoint lacks, initialized from the seed."""
        return self.named("new")

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers of parameters that were loaded, and of those that are new."""
        kinds = {"loaded": "loaded", "resized": "loaded", "new": "new"}
        sizes = {"loaded": 0, "new": 0}
        for entry in self.entries:
            if entry.status in kinds:
                sizes[kinds[entry.status]] += math.prod(entry.shape)
        return sizes

    def describe(self) -> str:
        """Return the report as one line for the log."""
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        if resized := self.named("resized"):
            text += f"; resized, as configured: {some(resized)}"
        if self.fresh:
            text += f"; new output layer, initialized from the seed: {some(self.fresh)}"
        if self.unused:
            text += f"; unused, of other output layers: {some(self.unused)}"
        return text


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a nested dict as {"a/b/0/c": leaf}, keyed by the paths of the parameters."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def hf_names(model: Model) -> dict[str, str]:
    """Return {path: name in transformers} of every parameter, in the order of the tree."""
    family, head_type = model.family, model.head_type
    return {path: family.name(path, head_type, model.config) for path in flatten(model.shapes)}


def canonical(name: str, family: Family) -> str:
    """Return a tensor's name with the encoder's prefix and with `weight` and `bias`."""
    name = re.sub(r"(LayerNorm|layer_norm)\.gamma$", r"\1.weight", name)
    name = re.sub(r"(LayerNorm|layer_norm)\.beta$", r"\1.bias", name)
    return f"{family.prefix}.{name}" if name.startswith(family.encoder_prefixes) else name


WORD_TABLES = ("encoder/embeddings/word/embedding", "head/decoder/embedding", "head/word_bias")
POSITION_TABLE = "encoder/embeddings/position/embedding"


def resized(
    array: np.ndarray, path: str, model: EncoderConfig, checkpoint: EncoderConfig
) -> np.ndarray:
    """Return a table of words or positions with the model's number of rows; others as they are.

    A smaller table keeps the first rows. New words get the mean of all rows (Hewitt 2021), which
    hardly changes the probabilities of the others. New positions repeat the table (Beltagy et al.
    2020, arXiv:2004.05150, section 5) without the rows before position 0.
    """
    if path in WORD_TABLES and len(array) == checkpoint.vocab_size != model.vocab_size:
        added = model.vocab_size - len(array)
        mean = array.astype(np.float32).mean(0, keepdims=True).astype(array.dtype)
        return np.concatenate([array, np.repeat(mean, added, 0)]) if added > 0 else array[:added]
    rows = model.max_position_embeddings
    if path == POSITION_TABLE and len(array) == checkpoint.max_position_embeddings != rows:
        offset = model.position_offset
        repeated = [offset + n % (len(array) - offset) for n in range(rows - offset)]
        return array[[*range(offset), *repeated]]
    return array


WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
"""Name parts added by torch.compile, FSDP, activation checkpointing and DataParallel."""

WRAPPED_SHARE = 0.9
"""A first part that at least this share of the names has in common may be a wrapper's."""


def _unwrapped(
    sources: Sequence[str], family: Family, known: Collection[str], directory: Path
) -> dict[str, str]:
    """Return {name in the checkpoint: the same name without the parts that wrappers added}.

    A first part that nearly all names share, such as Lightning's `model.`, is removed if more
    names are then known to the family.
    """

    def is_known(name: str) -> bool:
        name = canonical(name, family)
        return name in known or name.startswith(tuple(family.head_prefixes))

    names = {source: WRAPPERS.sub("", source) for source in sources}
    while names:
        counts = collections.Counter(name.partition(".")[0] for name in names.values())
        ((first_part, count),) = counts.most_common(1)
        shorter = {source: name.removeprefix(f"{first_part}.") for source, name in names.items()}
        better = sum(map(is_known, shorter.values())) > sum(map(is_known, names.values()))
        deeper = not any(map(is_known, names.values())) and shorter != names
        if count < WRAPPED_SHARE * len(names) or not (better or deeper):
            break
        names = shorter
    changed = [source for source, name in names.items() if source != name]
    if not any(map(is_known, names.values())):
        return dict(zip(sources, sources, strict=True))
    if changed:
        log.info(
            f"{directory}: removed the name parts that a wrapper added from {len(changed)} of "
            f"{len(names)} tensors; for example, {changed[0]} is read as {names[changed[0]]}"
        )
    return names


def match_tensors(
    model: Model,
    directory: Path,
    *,
    reinit_head: bool = False,
    checkpoint_config: EncoderConfig | None = None,
) -> tuple[dict[str, np.ndarray], list[Entry]]:
    """Match every tensor of a checkpoint with a parameter of the model.

    Args:
      model: the model that the parameters are for.
      directory: a checkpoint in one of the formats of `formats`.
      reinit_head: leave out the tensors of the output layer; see `load`.
      checkpoint_config: the checkpoint's own sizes; see `load`.

    Returns:
      The parameters that fit, by path, in the model's dtypes, and an entry for every tensor of the
      checkpoint and of the model.

    Raises:
      WeightsError: if the files cannot be read.
    """
    tensors = list(formats.read_tensors(directory))
    sources = [source for source, _ in tensors]
    if reason := unsupported.unusual_tensors(sources):
        raise WeightsError(f"{directory}: {reason}.")
    matcher = _Matcher(model, reinit_head, checkpoint_config)
    names = _unwrapped(sources, model.family, matcher.known_names, directory)
    tensors.reverse()
    while tensors:  # so that none is in memory twice, in the checkpoint's form and the model's
        source, array = tensors.pop()
        matcher.add(source, canonical(names[source], model.family), array)
    matcher.add_tied_copies()
    matcher.add_untied_biases()
    matcher.add_missing()
    return matcher.params, matcher.entries


class _Matcher:
    """The tensors of one checkpoint, matched with the parameters of one model step by step."""

    def __init__(
        self, model: Model, reinit_head: bool, checkpoint_config: EncoderConfig | None
    ) -> None:
        family = model.family
        self.model = model
        self.reinit_head = reinit_head
        self.checkpoint_config = checkpoint_config
        self.shapes = flatten(model.shapes)
        self.names = hf_names(model)
        self.paths = {name: path for path, name in self.names.items()}
        # A model with its own decoder, or without one, has nothing that could be tied.
        self.tied = (
            {} if reinit_head else {a: b for a, b in family.tied.items() if a not in self.paths}
        )
        self.ignored = {f"{family.prefix}.{name}" for name in family.ignored}
        self.known_names = {*self.paths, *family.tied, *self.ignored}
        self.params: dict[str, np.ndarray] = {}
        self.entries: list[Entry] = []
        self.tied_copies: list[tuple[str, str, np.ndarray]] = []
        self.unused: dict[str, np.ndarray] = {}

    def add(self, source: str, name: str, array: np.ndarray) -> None:
        """Match a tensor; a copy of a tied one waits for `add_tied_copies`."""
        path, tied_path = self.paths.get(name), self.paths.get(self.tied.get(name, ""))
        entry = Entry(source, name, path, array.shape, str(array.dtype), "loaded")
        if self.checkpoint_config is not None:
            array = resized(
                array, path or tied_path or "", self.model.config, self.checkpoint_config
            )
        if name in self.ignored:
            self.entries.append(dataclasses.replace(entry, status="ignored"))
        elif path is None and tied_path is not None and self.model.head.uses_word_embeddings:
            self.tied_copies.append((source, name, array))
        elif path is None or self._is_reinitialized(path, name):
            self._add_unused(entry, array)
        elif path in self.params:
            problem = f"twice, under two spellings: {source}"
            self.entries.append(dataclasses.replace(entry, status="problem", problem=problem))
        else:
            self.params[path], problem = _convert(source, array, path, self.shapes[path])
            loaded = "loaded" if array.shape == entry.shape else "resized"
            status = "problem" if problem else loaded
            self.entries.append(dataclasses.replace(entry, status=status, problem=problem))

    def _is_reinitialized(self, path: str, name: str) -> bool:
        """Return whether a parameter is of an output layer to be replaced; a pooler is kept."""
        of_head = path.startswith("head/") and not name.startswith(f"{self.model.family.prefix}.")
        return self.reinit_head and of_head

    def _add_unused(self, entry: Entry, array: np.ndarray) -> None:
        """Record a tensor without parameter: a problem unless it is of an output layer."""
        expected = entry.name.startswith(tuple(self.model.family.head_prefixes))
        problem = "" if expected else f"unexpected: {entry.source} {list(array.shape)}"
        status = "unused" if expected else "problem"
        self.unused[entry.name] = array
        self.entries.append(dataclasses.replace(entry, path=None, status=status, problem=problem))

    def add_tied_copies(self) -> None:
        """Compare each second copy of a tied tensor with the first, or load it as the only one."""
        for source, name, array in self.tied_copies:
            first_name = self.tied[name]
            path = self.paths[first_name]
            only = path not in self.params
            param, problem = _convert(source, array, path, self.shapes[path])
            if not problem and not np.array_equal(self.params.setdefault(path, param), param):
                problem = (
                    f"not tied: {name} differs from {first_name} (a model with untied weights has "
                    '"tie_word_embeddings": false in config.json)'
                )
            status = "problem" if problem else "loaded" if only else "tied"
            name = first_name if only else name
            entry = Entry(source, name, path, array.shape, str(array.dtype), status, problem)
            self.entries.append(entry)

    def add_untied_biases(self) -> None:
        """Load the bias of an untied decoder, which transformers 4 stores under its other name."""
        if self.reinit_head:
            return
        for path, name in self.names.items():
            other = self.model.family.tied.get(name)
            if path in self.params or other not in self.unused:
                continue
            array = self.unused[other]
            self.params[path], problem = _convert(name, array, path, self.shapes[path])
            index = next(i for i, entry in enumerate(self.entries) if entry.name == other)
            status = "problem" if problem else "loaded"
            self.entries[index] = dataclasses.replace(
                self.entries[index], path=path, status=status, problem=problem
            )

    def add_missing(self) -> None:
        """Record the parameters that the checkpoint lacks: an output layer's are new."""
        for path, name in self.names.items():
            if path in self.params:
                continue
            want = self.shapes[path]
            shape = want.shape[::-1] if path.endswith("kernel") else want.shape
            prefixes = [p for p in self.model.family.head_prefixes if name.startswith(p)]
            incomplete = any(
                self.names[other].startswith(prefix) for other in self.params for prefix in prefixes
            )
            wrong = incomplete or not path.startswith("head/")
            problem = f"missing: {name} {list(shape)}" if wrong else ""
            status = "problem" if wrong else "new"
            self.entries.append(Entry(None, name, path, shape, str(want.dtype), status, problem))


def _convert(
    source: str, array: np.ndarray, path: str, want: jax.ShapeDtypeStruct
) -> tuple[np.ndarray, str]:
    """Return a tensor as the parameter at `path`, and what is wrong with it ("": nothing)."""
    is_kernel = path.endswith("kernel")
    shape = array.shape
    array = array.T if is_kernel else array
    problem = ""
    if array.shape != want.shape:
        expected = want.shape[::-1] if is_kernel else want.shape
        problem = f"mis-shaped: {source} is {list(shape)}, the model has {list(expected)}"
    elif array.dtype.kind not in "fV":  # V: bfloat16 of ml_dtypes
        problem = f"not floating point: {source} is {array.dtype}"
    elif not np.isfinite(array.astype(np.float32)).all():
        problem = f"not finite: {source} holds NaN or infinity"
    return array.astype(want.dtype), problem


def load(
    model: Model,
    directory: Path,
    *,
    seed: int,
    reinit_head: bool = False,
    checkpoint_config: EncoderConfig | None = None,
) -> tuple[Params, LoadReport]:
    """Read a checkpoint into the parameters of `model`.

    Args:
      model: the model that the parameters are for.
      directory: a checkpoint in one of the formats of `formats`.
      seed: initializes an output layer that the checkpoint lacks.
      reinit_head: initialize the output layer even if the checkpoint has one, as is needed when the
        number of labels differs. A pooler is kept, because it is pre-trained.
      checkpoint_config: the checkpoint's own sizes, if the model's may differ; see `resized`.

    Returns:
      The parameters as numpy arrays in `param_dtype`, and the report.

    Raises:
      WeightsError: one message that names all missing, unexpected and mis-shaped tensors.
    """
    loaded, entries = match_tensors(
        model, directory, reinit_head=reinit_head, checkpoint_config=checkpoint_config
    )
    problems = [entry.problem for entry in entries if entry.problem]
    if problems:
        raise WeightsError(f"{directory}: {_problem_list(problems)}")
    report = LoadReport(str(directory), tuple(entries))
    if report.fresh:
        head = flatten({"head": model.init_head(seed)})
        loaded |= {path: np.asarray(value) for path, value in head.items() if path not in loaded}
    order = flatten(model.shapes)
    params = jax.tree.unflatten(jax.tree.structure(model.shapes), [loaded[path] for path in order])
    return params, report


MAX_LISTED = 16
"""Problems of one kind that a message lists; of more, it gives three examples."""


def _problem_list(problems: Sequence[str]) -> str:
    """Return the message about all problems, with advice where they have one likely cause."""
    by_kind: dict[str, list[str]] = collections.defaultdict(list)
    for problem in problems:
        by_kind[problem.partition(":")[0]].append(problem)
    lines = []
    for kind, members in by_kind.items():
        if len(members) <= MAX_LISTED:
            lines += members
        else:  # many of one kind have one cause
            texts = [problem.removeprefix(f"{kind}: ") for problem in members]
            lines.append(f"{kind}, {len(members)} tensors: {some(texts, 3)}")
    if list(by_kind) == ["unexpected"]:
        lines.append(
            "(everything else fits: delete these from the file if they are not the model's, such "
            "as a loss or a metric of the training code; else correct config.json)"
        )
    if any("mis-shaped: classifier" in problem for problem in problems):
        lines.append(
            "(a classifier for other labels? --config.model.reinit_head=true starts a new one)"
        )
    return f"{len(problems)} problems with the checkpoint's tensors:\n  " + "\n  ".join(lines)


def digests(params: Params) -> dict[str, str]:
    """Return {part: SHA-256 in hexadecimal} of the parameters of encoder and head."""
    result = {}
    for part in params:
        digest = hashlib.sha256()
        for path, array in flatten({part: params[part]}).items():
            digest.update(f"{path} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        result[part] = digest.hexdigest()
    return result


def save(model: Model, params: Params, directory: Path) -> None:
    """Write `params` as `model.safetensors`, in the names and the layout of transformers."""
    names, family = hf_names(model), model.family
    tensors = {}
    for path, array in flatten(params).items():
        array = np.asarray(array)
        array = array.T if path.endswith("kernel") else array
        name = names[path]
        if model.head.is_bare:
            name = name.removeprefix(f"{family.prefix}.")
        tensors[name] = np.ascontiguousarray(array)
        # transformers 4 reads the bias of an untied decoder only under its other name.
        other_name = family.tied.get(name)
        if other_name is not None and other_name not in names.values():
            tensors[other_name] = tensors[name].copy()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

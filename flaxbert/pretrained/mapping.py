"""Weights between a checkpoint and our parameter tree: one table a family, both directions.

Reading is strict. Every tensor of the model must be in the checkpoint with the right shape, except
those of an output layer that it never had; every tensor in it must be known. All that is wrong is
told in one report, and nothing is re-initialised in silence.
"""

import collections
import dataclasses
import hashlib
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    """What becomes of one tensor."""

    source: str | None
    """Its name in the checkpoint; None if it is not there."""
    name: str
    """Transformers' name."""
    path: str | None
    """Ours; None if the model has no such parameter."""
    shape: tuple[int, ...]
    dtype: str
    status: str
    """loaded; resized; tied (a second copy, equal); unused (of another output layer); ignored (no
    parameter); new (of an output layer that the checkpoint never had); or problem."""
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What `load` did with each tensor."""

    source: str
    entries: tuple[Entry, ...]

    def named(self, status: str) -> tuple[str, ...]:
        """Transformers' names of the tensors of a status."""
        return tuple(each.name for each in self.entries if each.status == status)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Tensors that became parameters."""
        return (*self.named("loaded"), *self.named("resized"))

    @property
    def unused(self) -> tuple[str, ...]:
        """Tensors of the checkpoint's own output layers, which this model does not have."""
        return tuple(str(each.source) for each in self.entries if each.status == "unused")

    @property
    def fresh(self) -> tuple[str, ...]:
        """Output-layer tensors that the checkpoint does not hold, initialised from the seed."""
        return self.named("new")

    def describe(self) -> str:
        """One paragraph for the log."""
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        if resized := self.named("resized"):
            text += f"; resized, as asked: {some(resized)}"
        if self.fresh:
            text += f"; new output layer, initialized from the seed: {some(self.fresh)}"
        if self.unused:
            text += f"; unused, of other output layers: {some(self.unused)}"
        return text


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """A nested dict as {"a/b/0/c": leaf}: how this project writes a parameter's path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def hf_names(model: Model) -> dict[str, str]:
    """{our path: Hugging Face name} of every parameter, in our tree's order."""
    return {
        path: model.family.name(path, model.kind, model.config) for path in flatten(model.shapes)
    }


def canonical(name: str, family: Family) -> str:
    """One spelling for all that checkpoints use: with the encoder's prefix, `weight` and `bias`."""
    name = re.sub(r"(LayerNorm|layer_norm)\.gamma$", r"\1.weight", name)
    name = re.sub(r"(LayerNorm|layer_norm)\.beta$", r"\1.bias", name)
    return f"{family.prefix}.{name}" if name.startswith(family.tops) else name


WORDS = ("encoder/embeddings/word/embedding", "head/decoder/embedding", "head/word_bias")
SCORE_WORDS = ("ForMaskedLM", "ForPreTraining")  # output layers
POSITIONS = "encoder/embeddings/position/embedding"


def resized(
    array: np.ndarray, path: str, model: EncoderConfig, stored: EncoderConfig
) -> np.ndarray:
    """A table of words or positions with the rows that the model has, if it is one.

    Fewer rows: the first. More words: the mean of all (Hewitt 2021: a new word then changes no
    other's probability much). More positions: the table again (Beltagy et al. 2020,
    arXiv:2004.05150, section 5), but for rows before a text's first.
    """
    if path in WORDS and len(array) == stored.vocab_size != model.vocab_size:
        more = model.vocab_size - len(array)
        mean = array.astype(np.float32).mean(0, keepdims=True).astype(array.dtype)
        return np.concatenate([array, np.repeat(mean, more, 0)]) if more > 0 else array[:more]
    rows = model.max_position_embeddings
    if path == POSITIONS and len(array) == stored.max_position_embeddings != rows:
        first = model.first_position
        again = [first + n % (len(array) - first) for n in range(rows - first)]
        return array[[*range(first), *again]]
    return array


WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
"""What torch.compile, FSDP, activation checkpointing and DataParallel put into tensors' names."""

WRAPPED = 0.9
"""Share of the tensors from which a common first part of their names is a wrapper's."""


def _unwrapped(
    sources: Sequence[str], family: Family, known: Collection[str], directory: Path
) -> dict[str, str]:
    """{name in the checkpoint: the same without the parts that wrappers of the model add}.

    A first part that nearly all names have, such as Lightning's `model.`, is a wrapper's if more
    of them are names of the family without it.
    """

    def fits(name: str) -> bool:
        name = canonical(name, family)
        return name in known or name.startswith(tuple(family.parts))

    names = {source: WRAPPERS.sub("", source) for source in sources}
    while names:
        firsts = collections.Counter(name.partition(".")[0] for name in names.values())
        ((first, count),) = firsts.most_common(1)
        shorter = {source: name.removeprefix(f"{first}.") for source, name in names.items()}
        better = sum(map(fits, shorter.values())) > sum(map(fits, names.values()))
        deeper = not any(map(fits, names.values())) and shorter != names
        if count < WRAPPED * len(names) or not (better or deeper):
            break
        names = shorter
    changed = [source for source, name in names.items() if source != name]
    if not any(map(fits, names.values())):
        return dict(zip(sources, sources, strict=True))
    if changed:
        log.info(
            f"{directory}: {len(changed)} of {len(names)} tensors are read without the parts of "
            f"their names that a wrapper adds, such as {changed[0]} as {names[changed[0]]}"
        )
    return names


def examine(
    model: Model,
    directory: Path,
    *,
    reinit_head: bool = False,
    stored: EncoderConfig | None = None,
) -> tuple[dict[str, np.ndarray], list[Entry]]:
    """Compare a checkpoint with a model, tensor by tensor.

    Args:
      model: what the parameters are for.
      directory: a checkpoint in a format of `formats`.
      reinit_head: leave out the checkpoint's output layer; a pooler is kept, it is pre-trained.
      stored: the checkpoint's own sizes, where the model was asked to have others.

    Returns:
      The arrays that fit, by our path, in the model's dtypes, and an entry for every tensor of the
      checkpoint and of the model.

    Raises:
      WeightsError: if the files cannot be read.
    """
    family, names, shapes = model.family, hf_names(model), flatten(model.shapes)
    paths = {name: path for path, name in names.items()}
    # Where the model has a table of its own, or none at all, there is nothing to be tied to.
    tied = {} if reinit_head else {a: b for a, b in family.tied.items() if a not in paths}
    ignored = {f"{family.prefix}.{name}" for name in family.ignored}
    tensors = list(formats.read_tensors(directory))
    sources = [source for source, _ in tensors]
    if reason := unsupported.unusual_tensors(sources):
        raise WeightsError(f"{directory}: {reason}.")
    unwrapped = _unwrapped(sources, family, {*paths, *family.tied, *ignored}, directory)
    found: dict[str, np.ndarray] = {}
    entries: list[Entry] = []
    again: list[tuple[str, str, np.ndarray]] = []
    unused: dict[str, np.ndarray] = {}
    for source, array in tensors:
        name = canonical(unwrapped[source], family)
        path, twin = paths.get(name), paths.get(tied.get(name, ""))
        entry = Entry(source, name, path, array.shape, str(array.dtype), "loaded")
        if stored is not None:
            array = resized(array, path or twin or "", model.config, stored)
        renewed = reinit_head and path is not None and path.startswith("head/")
        if name in ignored:
            entries.append(dataclasses.replace(entry, status="ignored"))
        elif path is None and twin is not None and model.kind in SCORE_WORDS:
            again.append((source, name, array))
        elif path is None or (renewed and not name.startswith(f"{family.prefix}.")):
            known = name.startswith(tuple(family.parts))
            status = "unused" if known else "problem"
            unused[name] = array
            problem = "" if known else f"unexpected: {source} {list(array.shape)}"
            entries.append(dataclasses.replace(entry, path=None, status=status, problem=problem))
        elif path in found:
            problem = f"twice, under two spellings: {source}"
            entries.append(dataclasses.replace(entry, status="problem", problem=problem))
        else:
            found[path], problem = _fitted(source, array, path, shapes[path])
            kept = "loaded" if array.shape == entry.shape else "resized"
            status = "problem" if problem else kept
            entries.append(dataclasses.replace(entry, status=status, problem=problem))
    for source, name, array in again:
        path = paths[tied[name]]
        first = path not in found  # this copy is the only one
        fitted, problem = _fitted(source, array, path, shapes[path])
        if not problem and not np.array_equal(found.setdefault(path, fitted), fitted):
            problem = (
                f"not tied: {name} differs from {tied[name]} (a model that ties no weights has "
                '"tie_word_embeddings": false in config.json)'
            )
        status = "problem" if problem else "loaded" if first else "tied"
        name = tied[name] if first else name
        entries.append(Entry(source, name, path, array.shape, str(array.dtype), status, problem))
    for path, name in names.items():
        # transformers 4 stores the bias that an untied decoder shares under its other name alone.
        if path not in found and (other := family.tied.get(name)) in unused and not reinit_head:
            found[path], problem = _fitted(name, unused[other], path, shapes[path])
            place = next(n for n, entry in enumerate(entries) if entry.name == other)
            status = "problem" if problem else "loaded"
            entries[place] = dataclasses.replace(
                entries[place], path=path, status=status, problem=problem
            )
    for path in names:
        if path not in found:
            entries.append(_absent(path, names, found, shapes[path], family))
    return found, entries


def _fitted(source: str, array: np.ndarray, path: str, want: Any) -> tuple[np.ndarray, str]:
    """The array as our parameter, and what is wrong with it."""
    kernel = path.endswith("kernel")
    have = array.shape
    array = array.T if kernel else array
    problem = ""
    if array.shape != want.shape:
        wanted = want.shape[::-1] if kernel else want.shape
        problem = f"mis-shaped: {source} is {list(have)}, the model has {list(wanted)}"
    elif array.dtype.kind not in "fV":  # V: bfloat16 of ml_dtypes
        problem = f"not floating point: {source} is {array.dtype}"
    elif not np.isfinite(array.astype(np.float32)).all():
        problem = f"not finite: {source} holds NaN or infinity"
    return array.astype(want.dtype), problem


def _absent(
    path: str, names: Mapping[str, str], found: Mapping[str, Any], want: Any, family: Family
) -> Entry:
    name = names[path]
    shape = want.shape[::-1] if path.endswith("kernel") else want.shape
    parts = [part for part in family.parts if name.startswith(part)]
    half_there = any(names[other].startswith(part) for other in found for part in parts)
    wrong = half_there or not path.startswith("head/")
    problem = f"missing: {name} {list(shape)}" if wrong else ""
    return Entry(None, name, path, shape, str(want.dtype), "problem" if wrong else "new", problem)


def load(
    model: Model,
    directory: Path,
    *,
    seed: int,
    reinit_head: bool = False,
    stored: EncoderConfig | None = None,
) -> tuple[Params, LoadReport]:
    """Read a checkpoint into the parameters of `model`.

    Args:
      model: what the parameters are for.
      directory: a checkpoint in a format of `formats`.
      seed: initialises an output layer that the checkpoint does not hold.
      reinit_head: initialise the output layer even where the checkpoint holds one (needed when its
        shape differs, as with another number of labels); a pooler is kept, it is pre-trained.
      stored: the checkpoint's own sizes, where the model was asked to have others; see `resized`.

    Returns:
      The parameters as numpy arrays in `param_dtype`, and the report.

    Raises:
      WeightsError: one message naming all missing, unexpected and mis-shaped tensors.
    """
    found, entries = examine(model, directory, reinit_head=reinit_head, stored=stored)
    problems = [entry.problem for entry in entries if entry.problem]
    if problems:
        lines = list(_by_kind(problems))
        if all(problem.startswith("unexpected") for problem in problems):
            lines.append(
                "(all else fits: delete these from the file if they are not the model's, such as "
                "a loss or a metric of the training code; else correct config.json)"
            )
        if any("mis-shaped: classifier" in problem for problem in problems):
            lines.append(
                "(a classifier for other labels? --config.model.reinit_head=true starts a new one)"
            )
        raise WeightsError(
            f"{directory}: {len(problems)} problems with the checkpoint's tensors:\n  "
            + "\n  ".join(lines)
        )
    report = LoadReport(str(directory), tuple(entries))
    if report.fresh:
        head = flatten({"head": model.init_head(seed)})
        found |= {path: np.asarray(value) for path, value in head.items() if path not in found}
    order = flatten(model.shapes)
    params = jax.tree.unflatten(jax.tree.structure(model.shapes), [found[path] for path in order])
    return params, report


LISTED = 16
"""Problems of one kind that are listed; of more, the first few stand for all."""


def _by_kind(problems: Sequence[str]) -> Iterator[str]:
    """Problems for a message: many of one kind have one cause, and the first few show it."""
    kinds: dict[str, list[str]] = collections.defaultdict(list)
    for problem in problems:
        kinds[problem.partition(":")[0]].append(problem)
    for kind, several in kinds.items():
        if len(several) <= LISTED:
            yield from several
        else:
            texts = [problem.removeprefix(f"{kind}: ") for problem in several]
            yield f"{kind}, {len(several)} tensors: {some(texts, 3)}"


def digests(params: Params) -> dict[str, str]:
    """Return the SHA-256 of the tensors of each part, encoder and head, in hexadecimal."""
    result = {}
    for part in params:
        digest = hashlib.sha256()
        for path, array in flatten({part: params[part]}).items():
            digest.update(f"{path} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        result[part] = digest.hexdigest()
    return result


def save(model: Model, params: Params, directory: Path) -> None:
    """Write `params` as `model.safetensors`, in transformers' names and layout."""
    names, family = hf_names(model), model.family
    tensors = {}
    for path, array in flatten(params).items():
        array = np.asarray(array)
        array = array.T if path.endswith("kernel") else array
        name = names[path]
        if model.kind == "Model":  # the bare encoder is stored without its prefix
            name = name.removeprefix(f"{family.prefix}.")
        tensors[name] = np.ascontiguousarray(array)
        # The bias of an untied decoder: transformers 4 reads it under its other name alone.
        twin = family.tied.get(name)
        if twin is not None and twin not in names.values():
            tensors[twin] = tensors[name].copy()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

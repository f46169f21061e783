"""Text for pre-training that is larger than memory has the features that it has in memory."""

import dataclasses
import errno
import os
import random
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest

from flaxbert.config import DataConfig, ModelConfig
from flaxbert.data import checks, documents, feature_cache, features, growing, readers
from flaxbert.data.features import fingerprint_of
from flaxbert.data.readers import text
from flaxbert.data.table import Reading, Record, Table
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.errors import DataError
from flaxbert.pipeline.feature_key import feature_key
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks.corpora import DocumentExample, StoredTexts
from flaxbert.tasks.pretraining import PreTraining, PreTrainingOptions

WORDS = "the king queen zoo ink book red car bad food river bridge ¿Quién él — a is".split()


def write_corpus(directory: Path, paragraphs: int = 60) -> str:
    """Write four books, and return their pattern."""
    chance = random.Random(0)
    for number in range(4):
        book = []
        for _ in range(paragraphs):
            sentences = [
                " ".join(chance.choices(WORDS, k=chance.randint(1, 25))).capitalize()
                + chance.choice(".!?")
                for _ in range(chance.randint(1, 9))
            ]
            book.append(chance.choice(["\n", " "]).join(sentences))
        (directory / f"{number}.txt").write_text("\n\n".join(book) + "\n", encoding="utf-8")
    return "*.txt"


def read(pattern: str, cache: Path, **options: Any) -> tuple[PreTraining, Reading[DocumentExample]]:
    data = DataConfig(max_length=48, feature_cache=str(cache))
    task = PreTraining.create(data, PreTrainingOptions(**options), None, {})
    return task, task.examples(readers.read(pattern, data, split="train"), labeled=True)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything in files, in blocks that end inside documents."""
    monkeypatch.setattr(growing, "IN_MEMORY", 2**14)
    monkeypatch.setattr(documents, "BLOCK", 64)
    monkeypatch.setattr(features, "BLOCK", 1000)
    monkeypatch.setattr(text, "BLOCK", 8)


# --- the same features ---------------------------------------------------------------------------

# Made by the code that held whole corpora in memory (commit e36628a): {(tokenizer, options):
# sequences, fingerprint of the features}.
EXPECTED = {
    ("tiny", ()): (
        886, "97bf073dfbaecbb211198402b4b002419f41a04d72eeddb541d617ad9178852c"),
    ("tiny", (("next_sentence", False),)): (
        679, "6c0d559c6235442114722bcbf50c541560918a288101fb524e3e206f920ee8ce"),
    ("tiny", (("document", None),)): (
        985, "5090c58147a65519049b000c4e5bfaa2a85e2b6351ce5d34285f7592d4c07cc7"),
    ("tiny", (("document", None), ("sentences", "line"), ("seed", 3))): (
        930, "eecaf10b7525ddea3f3f3a5d8fa3511dc0a18ac313ec5357c826332c192fe7a5"),
    ("roberta", ()): (
        1855, "9b9ee23e84453572f1f752baf266d4d2254671a30ff5ec40948f37aacf286d0c"),
    ("roberta", (("document", None), ("sentences", "line"), ("seed", 3))): (
        1854, "42481be427a75cf4be5f858e111f248a0a11a6d584056c3a1a6cf391237f3e9d"),
}  # fmt: skip

# The same for the texts of the documents.
TEXTS = {
    4: "0b868ad9aacab7ea951f305a88cb32b02996d79415e2285858cd6fcff72c65cd",
    240: "def3ea9b2197952a95c147533cafa7568e7fccc983d53f0a477920d80206f089",
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("name", "options"), EXPECTED)
def test_features_do_not_depend_on_what_is_in_memory(
    name: str, options: Any, stored: bool, tokenizer: Any, tmp_path: Path,
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if stored:
        request.getfixturevalue("small_blocks")
    monkeypatch.chdir(tmp_path)  # the names of files are in the fingerprints
    if name != "tiny":
        tokenizer = load_tokenizer(kinds.write_tokenizer(name, tmp_path / "tokenizer"))
    task, examples = read(write_corpus(tmp_path), tmp_path / "cache", **dict(options))
    made = task.featurize(examples, tokenizer, labeled=True)
    assert (len(made), made.fingerprint()) == EXPECTED[name, options]
    assert fingerprint_of(examples) == TEXTS[len(examples)]
    assert isinstance(made.per_token["input_ids"].base, np.memmap) == stored
    resample = task.resampler(tokenizer)
    some, epoch = np.array([5, 600, 2]), 3
    monkeypatch.undo()  # now in memory
    whole = features.Features.build(
        {n: np.array(values) for n, values in made.per_token.items()},
        lengths=np.array(made.lengths),
    )
    for one, other in zip(
        resample(made, some, epoch).values(), resample(whole, some, epoch).values(), strict=True
    ):
        assert np.array_equal(one, other)


# --- memory --------------------------------------------------------------------------------------


def make_all(pattern: str, cache: Path, tokenizer: Any, **options: Any) -> int:
    """Do with a corpus what a run does before it plans batches; return the number of sequences."""
    task, examples = read(pattern, cache, **options)
    assert feature_key(task, examples, tokenizer, labeled=True)
    made = task.featurize(examples, tokenizer, labeled=True)
    task.resampler(tokenizer)(made, np.arange(64), 1)
    made.fingerprint()
    fingerprint_of(examples)
    assert not list(checks.check_examples(examples))
    list(checks.compare_splits(examples, examples[:2]))
    return len(made)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("next_sentence", [True, False])
def test_memory_does_not_grow_with_the_text(
    next_sentence: bool, tokenizer: Any, tmp_path: Path
) -> None:
    sequences, peaks = [], []
    cache = tmp_path / "cache"
    make_all(str(tmp_path / write_corpus(tmp_path, 10)), cache, tokenizer)  # caches of functions
    for paragraphs in (50, 200):
        pattern = str(tmp_path / write_corpus(tmp_path, paragraphs))
        tracemalloc.start()
        sequences.append(make_all(pattern, cache, tokenizer, next_sentence=next_sentence))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The text is about 200 bytes a sequence, the tokens 800.
    assert (peaks[1] - peaks[0]) / (sequences[1] - sequences[0]) < 64


# --- documents -----------------------------------------------------------------------------------


def table(*rows: tuple[Any, ...]) -> Table:
    values = [dict(zip(("text", "file", "language"), row, strict=True)) for row in rows]
    return Table("x", [Record(row, f"x:{n}") for n, row in enumerate(values, 1)])


def as_tuples(examples: Any) -> list[tuple[Any, ...]]:
    return [(e.name, tuple(e.paragraphs), e.slice, e.origin) for e in examples]


def test_documents_are_made_whenever_they_are_read() -> None:
    rows = [("a", "1", "en"), ("b", "2", "es"), (7, "2", "es"), ("c", "1", "es"), ("d", None, "en")]
    data = DataConfig(slices="language", on_bad_row="skip")
    task = PreTraining.create(data, PreTrainingOptions(), None, {})
    examples = task.examples(table(*rows), labeled=True)
    expected = [
        ("1", ("a", "c"), "en", "x:1"),
        ("2", ("b",), "es", "x:2"),
        ("x:5", ("d",), "en", "x:5"),
    ]
    assert as_tuples(examples) == as_tuples(examples) == expected
    assert as_tuples(examples[1:]) == expected[1:]
    assert as_tuples([examples[-1]]) == expected[-1:]
    with pytest.raises(IndexError):
        examples[3]
    assert examples.malformed == 1


@pytest.mark.parametrize("place", range(4))
def test_a_malformed_record_is_part_of_no_document(place: int) -> None:
    rows: list[tuple[Any, ...]] = [("a", "1", None), ("b", "1", None), ("c", "2", None)]
    rows.insert(place, (None, "1", None))
    task = PreTraining.create(DataConfig(on_bad_row="skip"), PreTrainingOptions(), None, {})
    examples = task.examples(table(*rows), labeled=True)
    assert [tuple(example.paragraphs) for example in examples] == [("a", "b"), ("c",)]


def test_stored_texts_are_equal_if_their_texts_are() -> None:
    rows = [Record({"text": value}, "x") for value in ("a", "bc", "ab", "c", "a", "bc", "\ud800")]

    def texts(*numbers: int) -> StoredTexts:
        return StoredTexts(rows, numbers, "text")

    assert texts(0, 1) == texts(4, 5)
    assert hash(texts(0, 1)) == hash(texts(4, 5))
    different = [texts(0, 1), texts(1, 0), texts(2, 3), texts(0), texts(), texts(6)]
    assert len(set(different)) == len({each.digest for each in different}) == 6
    assert texts(0, 1) != ("a", "bc")
    assert tuple(texts(0, 1, 3)[1:]) == ("bc", "c")


def test_equal_documents_are_reported(tmp_path: Path) -> None:
    for name, content in (("a", "one\n\ntwo"), ("b", "one\n\n\ntwo\n"), ("c", "one\ntwo")):
        (tmp_path / f"{name}.txt").write_text(content)
    _, examples = read(f"{tmp_path}/*.txt", tmp_path)
    (issue,) = checks.compare_splits(examples, [])
    assert (issue.kind, issue.place) == ("duplicate", f"{tmp_path}/b.txt:1")
    kinds_of = [issue.kind for issue in checks.compare_splits(examples[:1], examples[1:])]
    assert kinds_of == ["leak"]


# --- interrupted, and without room ---------------------------------------------------------------


@pytest.fixture
def pipeline(one_layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(feature_cache, "LEAST_TOKENS", 0)
    data = DataConfig(max_length=48, feature_cache=str(tmp_path / "cache"))
    model = ModelConfig(init=str(one_layer))
    return Pipeline.build("pretraining", model, data, PreTrainingOptions())


def tokenized(pipeline: Pipeline, directory: Path, rows: Any = None) -> Any:
    if rows is None:
        pattern = str(directory / write_corpus(directory))
        rows = readers.read(pattern, pipeline.data, split="train")
    examples = pipeline.task.examples(rows, labeled=True)
    return pipeline.tokenize(examples, "books", batch_size=8, labeled=True)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("place", "name"), [(documents, "_joined"), (documents, "encode"), (np, "save")]
)
def test_what_an_interrupted_run_wrote_is_gone_and_never_read(
    place: Any, name: str, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    function: Callable[..., Any] = getattr(place, name)

    def interrupt(*arguments: Any, **settings: Any) -> Any:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return function(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenized(pipeline, tmp_path)
    assert os.listdir(tmp_path / "cache") == []
    again = tokenized(pipeline, tmp_path)
    (entry,) = (tmp_path / "cache").iterdir()
    assert feature_cache.load(entry) is not None
    assert (
        again.batches.features.fingerprint()
        == tokenized(pipeline, tmp_path).batches.features.fingerprint()
    )


class Full:
    """A file on a full disk."""

    def write(self, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None: ...


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("full_from_the_start", [True, False])
def test_a_full_disk_is_an_error_that_names_the_directory(
    full_from_the_start: bool, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "IN_MEMORY", 2**14)
    pattern = str(tmp_path / write_corpus(tmp_path))
    rows = None if full_from_the_start else readers.read(pattern, pipeline.data, split="train")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(DataError) as caught:
        tokenized(pipeline, tmp_path, rows)
    assert str(caught.value).startswith(f"{tmp_path / 'cache'}: cannot store the temporary files ")
    assert "No space left on device" in str(caught.value)
    assert os.listdir(tmp_path / "cache") == []


@pytest.mark.usefixtures("small_blocks")
def test_text_is_read_without_a_cache_too(pipeline: Pipeline, tmp_path: Path) -> None:
    cached = tokenized(pipeline, tmp_path).batches.features
    off = dataclasses.replace(pipeline.data, feature_cache=None)
    off_task = dataclasses.replace(pipeline.task, data=off)
    uncached = tokenized(dataclasses.replace(pipeline, data=off, task=off_task), tmp_path)
    assert uncached.batches.features.fingerprint() == cached.fingerprint()
    assert len(os.listdir(tmp_path / "cache")) == 1


@pytest.mark.usefixtures("small_blocks")
def test_entries_hold_true_ids_and_inputs_once(pipeline: Pipeline, tmp_path: Path) -> None:
    made = tokenized(pipeline, tmp_path).batches.features
    assert made.per_token["label"] is made.per_token["input_ids"]
    (entry,) = (tmp_path / "cache").iterdir()
    # Four bytes a token: ids, types, kinds, masks. A sequence has about 40 tokens.
    size = sum(file.stat().st_size for file in entry.glob("*.npy"))
    assert size < (16 + 1) * made.lengths.sum()

"""Shared fixtures: eight CPU devices, and a tiny checkpoint in the Hugging Face layout."""

import gc
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# JAX makes objects by the million while it traces. Collecting cycles after every 700 of them takes
# up to a tenth of the time of the tests.
gc.set_threshold(20_000, 20, 100)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLAXBERT_LANG"] = "en"  # whatever the locale of the person who runs them
# Compiling is what takes the time here. Both processes of pytest-xdist and the commands that tests
# start share their programs: what one has compiled, the others load.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    PROGRAMS = tempfile.TemporaryDirectory(prefix="flaxbert-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Nor do they use the tokenized data sets of the person who runs them.
TOKENIZED = tempfile.TemporaryDirectory(prefix="flaxbert-tests-")
os.environ["XDG_CACHE_HOME"] = TOKENIZED.name

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # every test that trains, trains sharded
jax.config.update("jax_disable_most_optimizations", True)  # less to compile
if (0, 10) <= jax.__version_info__ < (0, 11):
    # Its older way to make code for CPUs compiles in three fifths of the time. Later versions do
    # not know this flag, and XLA ends a process that passes one it does not know.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = flags.strip()

from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import MakeHead, PoolerHead
from flaxbert.models.model import Model
from flaxbert.pretrained import mapping

ROOT = Path(__file__).parents[1]
LONGEST = ("equivalence", "quickstart", "startup", "preemption", "workdir", "attention_tpu",
           "trainer", "predictor", "parity", "bfloat16", "configs", "tasks_by_family", "families",
           "monitors", "dropout", "loader", "regression", "adding_a_task", "fuzz")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first; otherwise one process waits for the other at the end."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(order)))


# Odd sizes: no two dimensions are equal, so a transposition cannot hide.
SIZES = dict(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=64,
    type_vocab_size=2,
)

WORDS = """the a an of in is was who what where when not and it film food great bad fine awful
table red blue car paris london city river bridge king queen book read good very she he they
visited built by old new""".split()


def vocabulary() -> list[str]:
    """Special tokens, some words, and every letter, alone and as a continuation."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*letters, *(f"##{letter}" for letter in letters), *".,?!'-:;()", *WORDS]
    return special + list(dict.fromkeys(pieces))


def write_checkpoint(
    directory: Path, make_head: MakeHead = PoolerHead, *, seed: int = 0, **changes: object
) -> Path:
    """Write a tiny BERT: config.json, model.safetensors, vocab.txt, tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    sizes = SIZES | {"vocab_size": len(words)} | changes
    model = Model.create(BertConfig(**sizes), make_head)  # type: ignore[arg-type]
    # Ten times BERT's initial spread: with 0.02 a tiny model's outputs barely depend on its input.
    params = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, model.init(seed))
    mapping.save(model, params, directory)
    config = {"model_type": "bert", "architectures": [model.architecture], **sizes}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return directory


@pytest.fixture(autouse=True)
def logger() -> Iterator[None]:
    """The command line sets the logger up for its process: not for the tests that follow."""
    log = logging.getLogger("flaxbert")
    level, handlers, propagate = log.level, log.handlers, log.propagate
    hook = sys.unraisablehook
    yield
    log.setLevel(level)
    log.handlers, log.propagate = handlers, propagate
    sys.unraisablehook = hook


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny pre-trained BERT (encoder and pooler, no task head)."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one layer: half the time to compile, where depth makes no difference."""
    return write_checkpoint(tmp_path_factory.mktemp("one-layer"), num_hidden_layers=1)


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Train and predict on one device, which compiles faster than on eight."""
    from flaxbert.runtime import sharding

    make_mesh = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda **_: make_mesh(jax.devices()[:1]))
        yield


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path):
    """The tiny checkpoint's tokenizer."""
    from flaxbert.data.tokenization import load_tokenizer

    return load_tokenizer(checkpoint)

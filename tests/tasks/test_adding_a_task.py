"""The task that docs/adding_a_task.md adds: its code, taken from there, trains and scores."""

import importlib.util
import json
import math
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from conftest import ROOT
from toy import FILLERS, make_batch, write_lines

import flaxbert
from flaxbert.commands import args
from flaxbert.config import DataConfig
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import Task, score_with_slices

GUIDE = (ROOT / "docs" / "adding_a_task.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(
    re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
)
"""{path: the block that stands under it}."""
TASK_FILE, ENTRY, CONFIG_FILE = BLOCKS
MODULE = TASK_FILE.removesuffix(".py").replace("/", ".")


@pytest.fixture(scope="module", autouse=True)
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The task's name, while its file can be imported and stands in TASKS."""
    path = tmp_path_factory.mktemp("tasks") / Path(TASK_FILE).name
    path.write_text(BLOCKS[TASK_FILE], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    (imported,) = re.findall(rf"^\+from {MODULE} import (\w+)$", BLOCKS[ENTRY], re.MULTILINE)
    ((name, given),) = re.findall(r'^\+    "(\w+)": (\w+),$', BLOCKS[ENTRY], re.MULTILINE)
    assert given == imported
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, MODULE, module)
        spec.loader.exec_module(module)
        patch.setitem(TASKS, name, getattr(module, given))
        yield name


def test_the_guide_has_a_new_task_its_entry_and_its_config(added: str) -> None:
    assert (Path(TASK_FILE).parent, ENTRY) == (Path("flaxbert/tasks"), "flaxbert/tasks/__init__.py")
    assert Path(CONFIG_FILE).parent == Path("configs")
    for path in (TASK_FILE, CONFIG_FILE):
        assert not (ROOT / path).exists()
    context = [line for line in BLOCKS[ENTRY].splitlines() if line[:1] == " " and line != " ..."]
    assert context
    there = (ROOT / ENTRY).read_text(encoding="utf-8").splitlines()
    assert all(line[1:] in there for line in context)
    assert f'"{added}"' not in "\n".join(there)


def test_a_new_task_costs_at_most_sixty_lines() -> None:
    lines = [line for line in BLOCKS[TASK_FILE].splitlines() if line.strip()]
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100


# --- a run -------------------------------------------------------------------------------------

WORDS = ("awful", "bad", "fine", "good", "great")  # one to five stars


def write_stars(path: Path, count: int, *, seed: int) -> Path:
    choose = random.Random(seed)
    rows = []
    for n in range(count):
        words = choose.choices(FILLERS, k=choose.randint(1, 4))
        words.insert(choose.randrange(len(words)), WORDS[n % 5])
        rows.append({"text": " ".join(words), "stars": n % 5 + 1, "lang": "es" if n % 2 else "en"})
    return write_lines(path, rows)


@pytest.fixture(scope="module")
def workdir(one_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stars")
    config = directory / Path(CONFIG_FILE).name
    config.write_text(BLOCKS[CONFIG_FILE], encoding="utf-8")
    given = {
        "model.init": one_layer,
        "model.dropout": 0.0,
        "data.train": write_stars(directory / "train.jsonl", 80, seed=0),
        "data.eval": write_stars(directory / "eval.jsonl", 40, seed=1),
        "data.slices": "lang",
        "data.max_length": 16,
        "train.epochs": 10.0,
        "train.batch_size": 8,
        "train.eval_every": 0,
        "optim.learning_rate": 1e-2,
        "optim.weight_decay": 0.0,
    }
    arguments = [f"--config.{key}={value}" for key, value in given.items()]
    run = args.parse(["run", f"--config={config}", f"--workdir={directory}/run", *arguments], "")
    flaxbert.train(run.config, run.workdir)
    return run.workdir


def test_the_new_task_trains_and_learns(workdir: Path) -> None:
    results = json.loads((workdir / "results.json").read_text())
    assert results["step"] == 100
    # Always to say 3 is (2 + 1 + 0 + 1 + 2) / 5 = 1.2 off.
    assert results["absolute_error"] < 0.6
    assert results["accuracy"] <= results["within_one"]
    assert results["absolute_error"] == pytest.approx(
        (results["absolute_error/en"] + results["absolute_error/es"]) / 2
    )


def test_the_new_task_exports_what_evaluation_and_others_read(workdir: Path) -> None:
    config = json.loads((workdir / "export" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {str(n): f"above {n + 1}" for n in range(4)}
    _, params = flaxbert.from_pretrained(str(workdir / "export"))
    assert params["head"]["classifier"]["kernel"].shape[-1] == 4
    lines = (workdir / "eval_predictions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 40
    assert all(1 <= record["level"] <= 5 and 1 <= record["mean"] <= 5 for record in records)


# --- its parts ---------------------------------------------------------------------------------


def create(added: str, **options: Any) -> Task:
    kind = TASKS[added]
    return kind.create(DataConfig(), kind.options_type(**options), None, {})


def rows(*stars: Any) -> Table:
    return Table(
        "x.tsv",
        [Record({"text": "film", "stars": s}, f"x.tsv:{n}") for n, s in enumerate(stars, 2)],
    )


def test_its_loss_by_hand(added: str) -> None:
    # Three stars: above 1 and above 2, not above 3 or 4. The second slot is empty.
    logits = jnp.array([[[1.0, 2.0, 3.0, -1.0], [9.0, 9.0, 9.0, 9.0]]])
    batch = make_batch(label=jnp.array([[3, 0]]), weight=jnp.array([[1.0, 0.0]]))
    (loss,) = create(added).loss({"logits": logits}, batch).values()
    expected = sum(math.log1p(math.exp(x)) for x in (-1.0, -2.0, 3.0, -1.0))
    assert float(loss.total) == pytest.approx(expected)
    assert loss.weight == 1


def test_its_scores_by_hand(added: str) -> None:
    task = create(added)
    examples = task.examples(rows(1, "2", 5, 5), labeled=True)
    records = [{"level": level} for level in (1, 3, 2, 5)]
    assert score_with_slices(task, examples, records) == {
        "absolute_error": (0 + 1 + 3 + 0) / 4,
        "accuracy": 2 / 4,
        "within_one": 3 / 4,
    }
    assert task.score([], []).keys() == {"absolute_error", "accuracy", "within_one"}


@pytest.mark.parametrize("stars", [0, 6, "6", 2.5, True, None, "good"])
def test_a_level_off_its_scale_is_named_with_its_line(stars: Any, added: str) -> None:
    with pytest.raises(DataError) as caught:
        create(added).examples(rows(1, stars), labeled=True)
    assert f"x.tsv:3: stars is {stars!r}; expected 1 to 5" in str(caught.value)


def test_of_errors_the_lowest_is_kept(added: str) -> None:
    assert TASKS[added].lower_is_better == ("absolute_error",)


def test_a_scale_has_two_levels_or_more(added: str) -> None:
    assert len(create(added, levels=2).examples(rows(2), labeled=True)) == 1
    with pytest.raises(ConfigError, match=r"options\.levels=1: at least 2"):
        create(added, levels=1)

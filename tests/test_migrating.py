"""docs/migrating.md: its keys, defaults, commands, names and code are those of the library.

What it says of other libraries was read in their sources. Here it is checked for form alone, except
for FlaxBert's parameters, whose names are written down below.
"""

import ast
import dataclasses
import importlib
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, SIZES, write_checkpoint

from flaxbert.commands import args, config_file, convert
from flaxbert.config import Config, fields, validate
from flaxbert.errors import ConfigError
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import SequenceClassificationHead
from flaxbert.models.model import Model
from flaxbert.pretrained.load import from_pretrained, head_of
from flaxbert.pretrained.mapping import flatten, hf_names
from flaxbert.tasks import TASKS

GUIDE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")

FLAGS_HEADER = ["theirs", "default", "here", "default", "remark"]
OUTPUTS_HEADER = ["class", "there", "here"]
TREE_HEADER = ["FlaxBert", "flaxbert"]
NOTHING = "-"


@dataclasses.dataclass(frozen=True)
class DocTable:
    """A table, and the line of text before it."""

    before: str
    header: list[str]
    rows: list[list[str]]


def tables(text: str) -> Iterator[DocTable]:
    before, lines = "", text.splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith("|"):
            before = line or before
            continue
        rows = [line]
        while lines and lines[0].startswith("|"):
            rows.append(lines.pop(0))
        header, _, *cells = ([c.strip() for c in row.strip("|").split("|")] for row in rows)
        yield DocTable(before, header, list(cells))


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for named, code in found if named == language]


RUN = "python -m flaxbert.run"


def commands(text: str, command: str) -> list[list[str]]:
    """Arguments of every `command` of the shell blocks."""
    lines = "\n".join(blocks(text, "")).replace("\\\n", " ").splitlines()
    start = command.split()
    return [
        words[len(start) :] for line in lines if (words := shlex.split(line))[: len(start)] == start
    ]


def ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


# --- flags ---------------------------------------------------------------------------------------


def defaults(name: str) -> dict[str, Any]:
    """{what may be set: its value} of a config file, or of the dataclasses."""
    config = Config() if name == "flaxbert/config.py" else config_file.load_config(f"{ROOT}/{name}")
    if name != "flaxbert/config.py":
        validate(config, TASKS)
    bare = args.parse(["run", f"--config={ROOT}/configs/squad.py", "--workdir=x"], "")
    flags = {"--mode": bare.mode, "--distributed": bare.distributed}
    return {key: value for key, _, value in fields(config)} | flags


def literal(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def row_problems(row: list[str], known: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a row of flags."""
    if len(row) != len(FLAGS_HEADER):
        yield f"{row}: {len(row)} cells"
        return
    theirs, their_default, ours, default, remark = row
    if not theirs or not their_default or (theirs == NOTHING) != (their_default == NOTHING):
        yield f"{row}: a flag and its default, or neither"
    if ours == NOTHING:
        if default != NOTHING or theirs == NOTHING:
            yield f"{row}: a default of nothing"
        return
    keys, values = ticked(ours), ticked(default)
    if ours == "`--workdir`" and default == "required":
        return
    if " ".join(f"`{key}`" for key in keys) != ours or len(keys) != len(values):
        yield f"{row}: a default for each key"
        return
    for key, value in zip(keys, values, strict=True):
        if key not in known:
            yield f"{key}: there is no such key"
        elif not (value == known[key] or same(literal(value), known[key])):  # "none" may be a word
            yield f"{key}: {literal(value)!r} here, {known[key]!r} in truth"
    for key in re.findall(r"\b(?:model|data|train|optim|options)\.\w+(?!\w*\.)", remark):
        if key not in known and not key.endswith((".py", ".json")):
            yield f"{key}: there is no such key"


def flag_problems(table: DocTable) -> list[str]:
    named = re.fullmatch(r"Defaults here: `([^`]+)`\.", table.before)
    if named is None:
        return [f"{table.rows[0]}: no line before the table says whose defaults these are"]
    known = defaults(named.group(1))
    return [problem for row in table.rows for problem in row_problems(row, known)]


FLAG_TABLES = [table for table in tables(GUIDE) if table.header == FLAGS_HEADER]


def test_every_task_and_origin_has_its_table() -> None:
    configs = " ".join(table.before for table in FLAG_TABLES)
    for name in ("config.py", "squad.py", "glue.py", "ner.py", "multiple_choice.py", "pretrain.py"):
        assert f"/{name}" in configs
    assert len(FLAG_TABLES) == 10
    headers = [table.header for table in tables(GUIDE)]
    assert headers.count(OUTPUTS_HEADER) == headers.count(TREE_HEADER) == 1


@pytest.mark.parametrize("table", FLAG_TABLES, ids=lambda table: table.rows[0][0].strip("`-"))
def test_keys_and_defaults_are_the_real_ones(table: DocTable) -> None:
    assert flag_problems(table) == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("| `--x` | `1` | `data.max_length` | `128` | |", "128 here, 384 in truth"),
        ("| `--x` | `1` | `data.length` | `384` | |", "data.length: there is no such key"),
        ("| `--x` | `1` | `options.mask_rate` | `0.15` | |", "options.mask_rate: there is no"),
        ("| `--x` | `1` | `optim.eps` | `1e-8` | |", "1e-08 here, 1e-06 in truth"),
        ("| `--x` | `1` | `optim.warmup` | `0` | |", "0 here, 0.1 in truth"),
        ("| `--x` | `1` | `data.packing` | `none` | |", "None here, True in truth"),
        ("| `--x` | `1` | `data.train` `data.eval` | `rajpurkar/squad` | |", "for each key"),
        ("| `--x` | `1` | `--mode` | `eval` | |", "'eval' here, 'train' in truth"),
        ("| `--x` | `1` | - | `7` | |", "a default of nothing"),
        ("| `--x` | `1` | overlap | `128` | |", "a default for each key"),
        ("| `--x` | - | - | - | |", "a flag and its default, or neither"),
        ("| `--x` | `1` | - | - | see `data.stride` |", None),  # words about what is not there
        ("| `--x` | `1` | `data.overlap` | `128` | see `data.stride` |", "data.stride: there is"),
        ("| `--x` | `1` | `data.overlap` | `128` |", "4 cells"),
    ],
)
def test_a_wrong_row_is_caught(wrong: str, problem: str | None) -> None:
    header = "| theirs | default | here | default | remark |\n|---|---|---|---|---|\n"
    (table,) = tables(f"Defaults here: `configs/squad.py`.\n\n{header}{wrong}\n")
    problems = flag_problems(table)
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]


def test_a_table_without_a_config_is_caught() -> None:
    (table,) = tables("Some words.\n\n|" + "|".join(FLAGS_HEADER) + "|\n|---|\n| a | b | - | - | |")
    assert "whose defaults" in flag_problems(table)[0]


def test_keys_in_the_text_exist() -> None:
    known = {
        f"options.{f.name}" for t in TASKS.values() for f in dataclasses.fields(t.options_type)
    }
    known |= {key for key, _, _ in fields(Config())}
    found = re.findall(r"(?<![\w/.])(?:model|data|train|optim|options)\.[a-z]\w+", GUIDE)
    methods = {"model.save_pretrained", "model.to_bf16", "model.shapes", "model.safetensors"}
    assert {key for key in found if not key.endswith(".json")} - known <= methods


# --- commands ------------------------------------------------------------------------------------


def test_there_is_a_command_for_each_script_origin() -> None:
    configs = [a.rpartition("/")[2] for words in commands(GUIDE, RUN) for a in words[:1]]
    assert configs == ["squad.py", "glue.py:mrpc", "squad.py", "pretrain.py"]


@pytest.mark.parametrize("words", commands(GUIDE, RUN), ids=lambda words: words[0])
def test_commands_parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    validate(args.parse(["run", *words], "").config, TASKS)


@pytest.mark.parametrize("wrong", ["--config.data.stride=1", "--config.train.epochs=many", "--do"])
def test_a_wrong_command_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (words, *_) = commands(GUIDE, RUN)
    with pytest.raises(ConfigError):
        args.parse(["run", *words, wrong], "")


def test_flags_of_convert_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert.main(["--help"])
    help_text = capsys.readouterr().out
    given = [word for words in commands(GUIDE, "flaxbert convert") for word in words]
    flags = {word.partition("=")[0] for word in given if word.startswith("--")}
    assert flags == {"--inspect", "--certify"}
    assert "--architecture=" in GUIDE
    for flag in flags | {"--architecture"}:
        assert f"{flag} " in help_text


def test_configs_and_pages_that_are_named_exist() -> None:
    for name in re.findall(r"configs/\w+\.py|tests/\w+\.py|flaxbert/\w+\.py", GUIDE):
        assert (ROOT / name).is_file(), name
    for page, cls_position in re.findall(r"\]\(([\w.]*)#?([\w-]*)\)", GUIDE):
        path = ROOT / "docs" / (page or "migrating.md")
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
        assert not cls_position or cls_position in slugs


# --- FlaxBert ------------------------------------------------------------------------------------

# As transformers 4.55.4 names the parameters of a FlaxBert model.
NORM, DENSE, TABLE = ("scale", "bias"), ("kernel", "bias"), ("embedding",)
LAYER = {
    "attention/self/query": DENSE,
    "attention/self/key": DENSE,
    "attention/self/value": DENSE,
    "attention/output/dense": DENSE,
    "attention/output/LayerNorm": NORM,
    "intermediate/dense": DENSE,
    "output/dense": DENSE,
    "output/LayerNorm": NORM,
}
ENCODER = {
    "embeddings/word_embeddings": TABLE,
    "embeddings/position_embeddings": TABLE,
    "embeddings/token_type_embeddings": TABLE,
    "embeddings/LayerNorm": NORM,
    **{f"encoder/layer/{i}/{module}": leaves for i in range(2) for module, leaves in LAYER.items()},
}
POOLER, CLASSIFIER = {"bert/pooler/dense": DENSE}, {"classifier": DENSE}
WORDS = {
    "cls/predictions/transform/dense": DENSE,
    "cls/predictions/transform/LayerNorm": NORM,
    "cls/predictions": ("bias",),
}
NEXT = {"cls/seq_relationship": DENSE}
OUTPUT_LAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "Model": POOLER,
    "ForSequenceClassification": POOLER | CLASSIFIER,
    "ForMultipleChoice": POOLER | CLASSIFIER,
    "ForNextSentencePrediction": POOLER | NEXT,
    "ForTokenClassification": CLASSIFIER,
    "ForQuestionAnswering": {"qa_outputs": DENSE},
    "ForMaskedLM": WORDS,
    "ForPreTraining": POOLER | WORDS | NEXT,
}


def flaxbert_paths(kind: str) -> list[str]:
    modules = {f"bert/{name}": leaves for name, leaves in ENCODER.items()} | OUTPUT_LAYERS[kind]
    return [f"{module}/{leaf}" for module, leaves in modules.items() for leaf in leaves]


def make_model(kind: str) -> Model:
    config = {**SIZES, "vocab_size": 50, "num_labels": 5, "architectures": [f"Bert{kind}"]}
    return Model.create(read_config(config), head_of(config))


def renamed(path: str, modules: Mapping[str, str]) -> str:
    """Our path of one of FlaxBert's, by the document's table."""
    for theirs, ours in modules.items():
        pattern = re.escape(theirs).replace(r"\{i\}", r"(\d+)")
        if match := re.fullmatch(rf"{pattern}(/\w+)?", path):
            number = match.group(1) if "{i}" in theirs else ""
            return ours.replace("{i}", number) + (match.groups()[-1] or "")
    raise KeyError(path)


def tree_table() -> dict[str, str]:
    (table,) = (table for table in tables(GUIDE) if table.header == TREE_HEADER)
    pairs = [[ticked(cell) for cell in row] for row in table.rows]
    assert all(len(theirs) == len(ours) == 1 for theirs, ours in pairs)
    return {theirs[0]: ours[0] for theirs, ours in pairs}


def test_the_families_output_layers_are_all_there() -> None:
    assert OUTPUT_LAYERS.keys() == FAMILIES["bert"].heads.keys()


def tree_problems(kind: str, modules: dict[str, str]) -> list[str]:
    if kind == "ForNextSentencePrediction":  # the exception that the text names
        modules = modules | {"cls/seq_relationship": "head/classifier"}
    names, problems = hf_names(make_model(kind)), []
    leaves = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
    found = {renamed(path, modules): path for path in flaxbert_paths(kind)}
    if found.keys() != names.keys():
        problems.append(f"{kind}: {sorted(found.keys() ^ names.keys())}")
    for ours, theirs in found.items():
        module, _, leaf = theirs.rpartition("/")
        expected = f"{module}/{leaves.get(leaf, leaf)}".replace("/", ".")
        if names.get(ours) != expected:
            problems.append(f"{theirs}: {ours} is {names.get(ours)}")
    return problems


@pytest.mark.parametrize("kind", OUTPUT_LAYERS)
def test_the_table_of_the_tree_is_that_of_the_weights(kind: str) -> None:
    assert tree_problems(kind, tree_table()) == []


def test_swapped_rows_of_the_tree_are_caught() -> None:
    modules = tree_table()
    a, b = (f"bert/encoder/layer/{{i}}/attention/self/{name}" for name in ("query", "key"))
    modules[a], modules[b] = modules[b], modules[a]
    assert len(tree_problems("Model", modules)) == 8  # two leaves, two layers, both ways
    modules["bert/pooler/dense"] = "head/pool/dense"
    assert "head/pool/dense/bias" in tree_problems("Model", modules)[0]


@pytest.mark.parametrize("kind", OUTPUT_LAYERS)
def test_the_table_of_outputs_has_names_and_shapes(kind: str) -> None:
    (table,) = (table for table in tables(GUIDE) if table.header == OUTPUTS_HEADER)
    ((_, _, here),) = (row for row in table.rows if row[0] == f"`FlaxBert{kind}`")
    model = make_model(kind)
    batch = {"input_ids": jnp.ones((3, 7), jnp.int32)}
    outputs = jax.eval_shape(lambda params: model(params, batch), model.shapes)
    sizes = {"R": 3, "T": 7, "P": 7, "K": 1, "C": 5, "V": 50, "D": SIZES["hidden_size"]}
    named = dict(re.findall(r"`(\w+)` \[([\w, ]+)\]", here))
    shapes = {
        name: tuple(sizes.get(letter) or int(letter) for letter in letters.split(", "))
        for name, letters in named.items()
    }
    hidden = {"hidden_states": (3, 7, SIZES["hidden_size"])}
    assert {name: each.shape for name, each in outputs.items()} == shapes | hidden


# --- code ----------------------------------------------------------------------------------------

SNIPPETS = blocks(GUIDE, "python")


def name_problems(code: str) -> list[str]:
    """Names of flaxbert that a snippet uses and the library lacks."""
    problems, tree = [], ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flaxbert"):
            module = importlib.import_module(str(node.module))
            lacking = [each.name for each in node.names if not hasattr(module, each.name)]
            problems += [f"{node.module}.{name}" for name in lacking]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = importlib.import_module("flaxbert") if node.value.id == "flaxbert" else None
            if package is not None and not hasattr(package, node.attr):
                problems.append(f"flaxbert.{node.attr}")
    return problems


@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_names_in_the_code_exist(code: str) -> None:
    compile(code, "migrating.md", "exec")
    assert name_problems(code) == []
    assert "flaxbert" in code


def test_a_name_that_is_not_there_is_caught() -> None:
    code = (
        "import flaxbert\nfrom flaxbert.pretrained.mapping import nothing\nflaxbert.opened('x')\n"
    )
    assert name_problems(code) == ["flaxbert.pretrained.mapping.nothing", "flaxbert.opened"]


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "migrating.md", "exec"), names)
    return names


def test_the_call_gives_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(
        tmp_path / "old_model",
        lambda config, rngs: SequenceClassificationHead(config, 2, rngs),
        num_hidden_layers=1,
    )
    monkeypatch.chdir(tmp_path)
    assert run(SNIPPETS[0])["logits"].shape == (2, 2)


@pytest.mark.parametrize("kind", OUTPUT_LAYERS)
def test_the_code_turns_a_flaxbert_tree_into_ours(kind: str) -> None:
    from_flaxbert = run(SNIPPETS[1])["from_flaxbert"]
    model = make_model(kind)
    modules = tree_table()
    if kind == "ForNextSentencePrediction":
        modules["cls/seq_relationship"] = "head/classifier"
    shapes, theirs = flatten(model.shapes), {}
    for number, path in enumerate(flaxbert_paths(kind)):
        *inner, leaf = path.split("/")
        node = theirs
        for key in inner:
            node = node.setdefault(key, {})
        node[leaf] = np.full(shapes[renamed(path, modules)].shape, number, np.float32)
    if kind == "Model":
        theirs = theirs["bert"]
    ours = from_flaxbert(model, theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(model.shapes)
    for number, path in enumerate(flaxbert_paths(kind)):
        found = flatten(ours)[renamed(path, modules)]
        assert found.shape == shapes[renamed(path, modules)].shape
        assert (found == number).all()


def test_a_msgpack_of_flaxbert_is_read_as_it_is(tmp_path: Path) -> None:
    from flax.serialization import msgpack_serialize

    write_checkpoint(tmp_path)
    model, params = from_pretrained(str(tmp_path))
    theirs: dict[str, Any] = {}
    for path in flaxbert_paths("Model"):
        *inner, leaf = path.removeprefix("bert/").split("/")
        node = theirs
        for key in inner:
            node = node.setdefault(key, {})
        node[leaf] = np.asarray(flatten(params)[renamed(path, tree_table())])
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack_serialize(theirs))
    _, again = from_pretrained(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    ours = run(SNIPPETS[1])["from_flaxbert"](model, theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, jax.tree.map(np.asarray, params))

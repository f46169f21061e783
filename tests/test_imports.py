"""The arrows between modules and the sizes of files: what keeps the library readable in a day."""

import ast
import functools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flaxbert"
FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it: `from a import b` gives a.b."""
    package = (PACKAGE.name, *file.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            stem = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def attributes(file: Path) -> set[str]:
    """Dotted names that a file uses without importing them, such as jax.sharding.Mesh."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}


def reaches(names: set[str], *modules: str) -> set[str]:
    """Those of `names` that are one of `modules` or lie inside it."""
    return {name for name in names if any(f"{name}.".startswith(f"{m}.") for m in modules)}


def below(folder: str) -> list[str]:
    return [name for name in FILES if name.startswith(f"{folder}/")]


def test_the_walk_sees_imports_of_every_form() -> None:
    # Without this, a mistake in `imports` would make every test below pass.
    assert "flaxbert.models.layers.EncoderConfig" in imports(FILES["models/heads.py"])
    assert "huggingface_hub.snapshot_download" in imports(
        FILES["pretrained/source.py"]
    )  # in a function
    assert "orbax.checkpoint" in imports(FILES["runtime/checkpoint.py"])
    assert reaches({"flaxbert.training.step.x", "flaxbert.steps"}, "flaxbert.training.step") == {
        "flaxbert.training.step.x"
    }


LAYERS = (
    "commands",
    "server",
    "planning",
    "training",
    "report",
    "exports",
    "pipeline",
    "pretrained",
    "tasks",
    "runtime",
    "data",
    "models",
    "messages",
    "metrics",
)
"""From top to bottom: each layer imports only what stands below it."""

GROUND = {
    "flaxbert.config",
    "flaxbert.errors",
    "flaxbert.hub",
    "flaxbert.packaged",
    "flaxbert.types",
}
"""What every layer may import."""


def test_every_folder_is_a_layer() -> None:
    folders = {file.name for file in PACKAGE.iterdir() if file.is_dir() and any(file.glob("*.py"))}
    assert folders == set(LAYERS)
    assert len([name for name in FILES if "/" not in name]) <= 8


@pytest.mark.parametrize("name", [name for name in FILES if "/" in name])
def test_no_import_runs_upward(name: str) -> None:
    layer = LAYERS.index(name.partition("/")[0])
    allowed = [f"flaxbert.{folder}" for folder in LAYERS[layer:]]
    names = reaches(imports(FILES[name]), "flaxbert")
    assert names == reaches(names, *allowed, *GROUND)


@pytest.mark.parametrize("name", ["config.py", "errors.py", "hub.py", "packaged.py", "types.py"])
def test_the_ground_imports_no_layer(name: str) -> None:
    names = reaches(imports(FILES[name]), "flaxbert")
    assert names == reaches(names, *GROUND)


@pytest.mark.parametrize("name", below("models"))
def test_models_know_no_config_and_no_optimizer(name: str) -> None:
    assert not reaches(imports(FILES[name]), "flaxbert.config", "optax")


@pytest.mark.parametrize("name", below("tasks"))
def test_tasks_know_no_machine(name: str) -> None:
    assert not reaches(imports(FILES[name]), "flaxbert.runtime", "optax", "orbax", "jax.sharding")


@pytest.mark.parametrize("name", [*below("data"), *below("metrics")])
def test_data_and_metrics_know_no_jax_and_no_model(name: str) -> None:
    assert not reaches(imports(FILES[name]), "jax", "flax", "flaxbert.models")


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        (("absl", "ml_collections"), {"commands/config_file.py"}),
        (("argparse",), {"commands/help_text.py"}),
        (
            ("jax.sharding", "jax.experimental.multihost_utils"),
            {"runtime/sharding.py", "runtime/multihost.py"},
        ),
        (("fcntl", "filelock"), {"runtime/workdir.py"}),
        (("orbax",), {"runtime/checkpoint.py"}),
        (("fsspec",), {"data/remote.py", "data/stores.py"}),
        (("safetensors",), {"pretrained/mapping.py", "pretrained/formats.py"}),
        (("torch", "tensorflow"), {"pretrained/formats.py", "pretrained/parity.py"}),
        (("transformers",), {"data/tokenization.py", "pretrained/parity.py"}),
        (("datasets", "pyarrow"), {"data/readers/__init__.py", "data/readers/parquet.py"}),
        (("onnx",), {"exports/onnx_graph.py"}),
        (("onnxruntime",), {"exports/runtime.py", "exports/export.py"}),
        (("tensorboardX",), {"runtime/trackers/tensorboard.py"}),
        (("uvicorn",), {"server/serving.py", "server/limits.py"}),
        (("fastapi", "starlette"), {"server/app.py", "server/errors.py"}),
        (("prometheus_client",), {"server/metrics.py"}),
        (("wandb",), {"runtime/trackers/wandb.py"}),
        (("mlflow",), {"runtime/trackers/mlflow.py"}),
        (("trackio",), {"runtime/trackers/trackio.py"}),
        (("IPython",), {"runtime/notebook.py"}),
    ],
)
def test_only_its_own_module_knows_a_library(modules: tuple[str, ...], allowed: set[str]) -> None:
    users = {
        name for name, file in FILES.items() if reaches(imports(file) | attributes(file), *modules)
    }
    assert users <= allowed
    assert users, "nobody imports it: is the rule still about something?"


def test_scipy_stats_is_imported_where_it_is_needed() -> None:
    """It takes a second, and most commands do not need it."""
    for name, file in FILES.items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "scipy.stats" not in ast.unparse(node), name


def test_there_is_no_drawer_for_everything() -> None:
    assert not {Path(name).stem for name in FILES} & {"util", "utils", "common", "helpers", "misc"}


def test_nothing_imports_the_command_line() -> None:
    users = {
        name for name, file in FILES.items() if reaches(imports(file), "flaxbert.commands.args")
    }
    commands = {"completion", "doctor", "lint", "plan", "verify_resume"}
    assert users == {"__main__.py", "run.py", *(f"commands/{name}.py" for name in commands)}
    runners = {name for name, file in FILES.items() if reaches(imports(file), "flaxbert.run")}
    assert runners == {"__main__.py"}


# --- sizes -------------------------------------------------------------------------------------


def docstring_lines(tree: ast.AST) -> Iterator[int]:
    """Lines of bare strings: docstrings, and those that describe a field below it."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def code_lines(file: Path) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
             tokenize.ENCODING, tokenize.ENDMARKER}  # fmt: skip
    with tokenize.open(file) as text:
        tokens = [t for t in tokenize.generate_tokens(text.readline) if t.type not in blank]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - set(docstring_lines(ast.parse(file.read_text()))))


def test_code_lines_are_counted_without_words_about_them(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        '"""Two\n\nlines."""\n\n# a comment\nx = 1  # code\n"""About x."""\ny = """a\nb"""\n'
    )
    assert code_lines(file) == 3  # x, and the two lines of y


# From the design: what a newcomer reads in one sitting.
BUDGETS = {
    **dict.fromkeys(below("models"), 300),
    **dict.fromkeys(below("tasks"), 200),
    "training/trainer.py": 200,
    "run.py": 100,
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_file_stays_within_its_budget(name: str) -> None:
    assert code_lines(FILES[name]) <= BUDGETS[name]


LONGEST_FUNCTION = 60


@pytest.mark.parametrize(
    "name",
    [
        *below("server"),
        *below("planning"),
        *below("training"),
        *below("report"),
        *below("pipeline"),
    ],
)
def test_functions_of_the_middle_are_short(name: str) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(FILES[name].read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    lines = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {name: count for name, count in lines.items() if count > LONGEST_FUNCTION} == {}


# --- what a program imports is silent ----------------------------------------------------------

COMMANDS = ("commands", "run.py", "__main__.py")


@pytest.mark.parametrize("name", [n for n in FILES if n.partition("/")[0] not in COMMANDS])
def test_only_commands_print(name: str) -> None:
    calls = [
        node.func.id
        for node in ast.walk(ast.parse(FILES[name].read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert "print" not in calls


# --- language ----------------------------------------------------------------------------------

ROOT = PACKAGE.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*.py"), *FILES.values()]
PRIVATE_WORDS = re.compile(r"\b(mend|mended|is told|are told|tells|belie|sound checkpoint)\b", re.I)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_pages_and_code_use_the_usual_words(file: Path) -> None:
    assert PRIVATE_WORDS.findall(file.read_text(encoding="utf-8")) == []

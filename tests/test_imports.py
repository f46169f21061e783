"""The arrows between modules and the sizes of files: what keeps the library readable in a day."""

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flaxbert"
FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}


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
        FILES["models/source.py"]
    )  # in a function
    assert "orbax.checkpoint" in imports(FILES["checkpoint.py"])
    assert reaches({"flaxbert.step.x", "flaxbert.steps"}, "flaxbert.step") == {"flaxbert.step.x"}


@pytest.mark.parametrize("name", below("models"))
def test_models_know_no_task_data_config_or_optimizer(name: str) -> None:
    own = ("flaxbert.models", "flaxbert.errors", "flaxbert.hub")
    names = reaches(imports(FILES[name]), "flaxbert", "optax")
    assert names == reaches(names, *own)


@pytest.mark.parametrize("name", below("tasks"))
def test_tasks_know_no_mesh_step_or_loop(name: str) -> None:
    hidden = ("train", "step", "sharding", "optim", "state", "checkpoint", "evaluate", "setup",
              "modes", "run", "cli", "writer", "progress")  # fmt: skip
    modules = [f"flaxbert.{module}" for module in hidden]
    assert not reaches(imports(FILES[name]), *modules, "optax", "orbax", "jax.sharding")


@pytest.mark.parametrize("name", [*below("data"), *below("metrics")])
def test_data_and_metrics_know_no_jax_model_or_task(name: str) -> None:
    assert not reaches(imports(FILES[name]), "jax", "flax", "flaxbert.models", "flaxbert.tasks")


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        (("absl", "ml_collections", "argparse"), {"run.py", "cli.py", "convert.py"}),
        (("jax.sharding", "jax.experimental.multihost_utils"), {"sharding.py"}),
        (("orbax",), {"checkpoint.py"}),
        (("safetensors",), {"models/weights.py", "models/formats.py"}),
        (("torch", "tensorflow"), {"models/formats.py", "parity.py"}),
        (("transformers",), {"data/tokenization.py", "parity.py"}),
        (("datasets", "pyarrow"), {"data/sources.py"}),
        (("tensorboardX",), {"writer.py"}),
    ],
)
def test_only_its_own_module_knows_a_library(modules: tuple[str, ...], allowed: set[str]) -> None:
    users = {
        name for name, file in FILES.items() if reaches(imports(file) | attributes(file), *modules)
    }
    assert users <= allowed
    assert users, "nobody imports it: is the rule still about something?"


def test_there_is_no_drawer_for_everything() -> None:
    assert not {Path(name).stem for name in FILES} & {"util", "utils", "common", "helpers", "misc"}


def test_nothing_imports_the_command_line() -> None:
    users = {name for name, file in FILES.items() if reaches(imports(file), "flaxbert.cli")}
    assert users == {"run.py", "lint.py", "verify_resume.py"}
    assert not any(reaches(imports(file), "flaxbert.run") for file in FILES.values())


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
    "train.py": 200,
    "run.py": 100,
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_file_stays_within_its_budget(name: str) -> None:
    assert code_lines(FILES[name]) <= BUDGETS[name]

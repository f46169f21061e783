"""Write the reference of keys and of the Python interface, from the code and its docstrings.

python docs/make_reference.py            write reference_config.md and reference_api.md
python docs/make_reference.py --check    fail if one of them is not up to date
"""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flaxbert
from flaxbert import errors
from flaxbert.commands.completion import FLAGS
from flaxbert.config import Config, fields
from flaxbert.models.model import Model
from flaxbert.pipeline.stored import BOUND, SPEED
from flaxbert.runtime.workdir import MAY_CHANGE_ON_RESUME
from flaxbert.tasks import TASKS

DOCS = Path(__file__).resolve().parent

ORIGIN = "<!-- Made by docs/make_reference.py from the code. Edit the docstrings. -->"

# --- keys ----------------------------------------------------------------------------------------

SECTIONS = {
    "": "The task",
    "model": "The model",
    "data": "The data",
    "train": "Training",
    "optim": "The optimizer",
}

ALWAYS = "train, eval, predict"

USED_BY = {
    "optim": "train",
    "train": "train",
    "train.eval_batch_size": ALWAYS,
    "model.dropout": "train",
    "model.param_dtype": "eval, predict",
    "model.remat": "train",
    "model.reinit_head": "train",
    "model.reinit_layers": "train",
    "data.train": "train; eval with data.eval_split",
    "data.eval": "train, eval",
    "data.eval_split": "train, eval",
    "data.max_examples": "train, eval",
    "data.predict": "train, for a few examples; predict",
    "data.slices": "train, eval",
    "data.teacher": "train",
    "data.threshold_split": "train",
    "data.weight": "train",
}
"""The commands that use a key, or all keys of a section, if not all three do."""

CONFIG_INTRO = """\
A config file returns a `Config`, and `--config.KEY=VALUE` sets a key on the command line, such as
`--config.train.epochs=5`. Every run also has the options of its task, `options.KEY`.
`flaxbert train --config=NAME --help` prints the keys of a configuration with its values.

The column *used by* has the commands that use a key. {others} take the same keys. The column
*later* says which value holds after training:

* *fixed*: `eval` and `predict` use the value that the run was trained with.
* *column*: the same, but a flag may give another value, since other files may have other names.
* *flag*: the same, and a flag may give another value, since no prediction depends on it.
* *resume*: may change when an interrupted run is resumed, because no number depends on it.

An empty cell means that a run is resumed with the same value, and that `eval` and `predict` use the
value of their own configuration. See [Modes](architecture.md#modes) for the details."""


def config_page() -> str:
    """Return the page of all keys."""
    others = " and ".join(
        f"`{name}`" for name, flags in FLAGS.items() if "config" in flags and name not in ALWAYS
    )
    parts = ["# Every key of a configuration", CONFIG_INTRO.format(others=others)]
    keys = list(fields(Config()))
    for section, title in SECTIONS.items():
        heading = f"## {title}: `{section}`" if section else f"## {title}"
        rows = [row(*key) for key in keys if section == key[0].rpartition(".")[0]]
        parts += [heading, table(rows)]
    for name, task in TASKS.items():
        options = Config(task=name, options=task.options_type())
        rows = [row(*key) for key in fields(options) if key[0].startswith("options.")]
        parts += [f"## Options of `task={name}`", table(rows)]
    return "\n\n".join([*parts, ORIGIN]) + "\n"


def table(rows: list[str]) -> str:
    """Return a table of keys."""
    head = ["| key | default | meaning | used by | later |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def row(name: str, field: dataclasses.Field[Any], value: Any) -> str:
    """Return the row of a key."""
    text = plain(field.metadata["help"]).replace("docs/trackers.md", "[trackers](trackers.md)")
    used = USED_BY.get(name, USED_BY.get(name.partition(".")[0], ALWAYS))
    cells = [
        f"`{name}`",
        f"`{shown(value)}`" if shown(value) else "",
        text,
        used,
        later(name, field),
    ]
    return f"| {' | '.join(cells)} |"


def shown(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def later(name: str, field: dataclasses.Field[Any]) -> str:
    """Return whether a key may have another value after training."""
    if field.metadata["column"]:
        return "column"
    if name in BOUND or name.startswith("options."):
        return "fixed"
    if name in SPEED:
        return "flag"
    return "resume" if name in MAY_CHANGE_ON_RESUME else ""


def plain(text: str) -> str:
    """Return a text with the signs of Markdown escaped, except in code."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([\\|\[\]*<])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


# --- the Python interface ------------------------------------------------------------------------

API_INTRO = """\
All public names are in the package `flaxbert`. They are imported when they are first used, so
`import flaxbert` is fast and needs no accelerator. The notation [R, T] gives the axes of an array:
R rows of a batch, T tokens of a row, D the hidden size."""

ORDER = (
    *("load_config", "train", "load", "from_pretrained"),
    *("Trained", "Predictor", "Model", "UserError"),
    *("Config", "ModelConfig", "DataConfig", "TrainConfig", "OptimConfig"),
)
"""What is read first comes first. `Model` is what `from_pretrained` returns."""


def api_page() -> str:
    """Return the page of the Python interface."""
    objects = {name: getattr(flaxbert, name) for name in flaxbert.__all__} | {"Model": Model}
    if objects.keys() != set(ORDER):
        raise ValueError(f"ORDER must also have {objects.keys() ^ set(ORDER)}, or not have them")
    parts = ["# The Python interface", API_INTRO]
    for name in ORDER:
        describe = described_class if inspect.isclass(objects[name]) else described_function
        parts += describe(name, objects[name])
    return "\n\n".join([*parts, ORIGIN]) + "\n"


def described_function(name: str, function: Any, level: str = "##") -> Iterator[str]:
    """Yield heading, signature and docstring of a function or method."""
    yield f"{level} `{name}`"
    yield f"```python\n{signature(function)}\n```"
    yield document(inspect.getdoc(function) or "")


def described_class(name: str, kind: type) -> Iterator[str]:
    """Yield the description of a class and of its public methods."""
    yield f"## `{name}`"
    yield document(inspect.getdoc(kind) or "")
    if kind.__module__ == "flaxbert.config":
        yield "Its fields are the keys of [the configuration](reference_config.md)."
    elif dataclasses.is_dataclass(kind):
        yield "\n".join(described_fields(kind))
    if issubclass(kind, errors.RunStopped):
        yield from described_errors(kind)
    for method, member in vars(kind).items():
        if isinstance(member, property):
            yield f"### `{name}.{method}`"
            yield document(inspect.getdoc(member) or "")
        elif callable(getattr(kind, method)) and (method == "__call__" or method[0] != "_"):
            yield from described_function(f"{name}.{method}", getattr(kind, method), "###")


def described_fields(kind: Any) -> Iterator[str]:
    """Yield an item for each field of a dataclass, with the string below it."""
    texts = field_texts(kind)
    for field in dataclasses.fields(kind):
        type_ = re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", texts[field.name][0])
        text = f": {plain(texts[field.name][1])}" if texts[field.name][1] else ""
        yield f"* `{field.name}: {type_}`{text}"


def field_texts(kind: type) -> Mapping[str, tuple[str, str]]:
    """Return {field: (type, the string below it or "")} of the source of a dataclass."""
    (body,) = (node.body for node in ast.parse(source(kind)).body if isinstance(node, ast.ClassDef))
    texts = {}
    for node, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = inspect.cleandoc(str(below.value.value)).replace("\n", " ")
            texts[node.target.id] = unparsed(node.annotation), text
    return texts


def described_errors(kind: type) -> Iterator[str]:
    """Yield a table of an error's kinds, with the exit codes of commands."""
    yield "Its kinds are in `flaxbert.errors`:"
    rows = [
        f"| `{error.__name__}` | {error.exit_code} | {summary(error)} |"
        for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, kind) and error is not kind
    ]
    yield "\n".join(["| error | exit code | meaning |", "|---|---|---|", *rows])


def summary(kind: type) -> str:
    """Return the first paragraph of a docstring as a line."""
    return plain((inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " "))


def signature(function: Any) -> str:
    """Return the signature of a function as it is in the source, one parameter a line if long."""
    (node,) = ast.parse(source(function)).body
    assert isinstance(node, ast.FunctionDef)
    parts = parameters(node.args)
    if parts[0] in ("self", "cls"):
        del parts[0]
    result = f" -> {unparsed(node.returns)}" if node.returns else ""
    line = f"{node.name}({', '.join(parts)}){result}"
    if len(line) <= 80:
        return line
    inside = "".join(f"    {part},\n" for part in parts)
    return f"{node.name}(\n{inside}){result}"


def parameters(arguments: ast.arguments) -> list[str]:
    """Return the parameters of a signature as texts, each with its default."""
    first = len(arguments.args) - len(arguments.defaults)
    defaults = [*[None] * first, *arguments.defaults]
    parts = [parameter(*pair) for pair in zip(arguments.args, defaults, strict=True)]
    if arguments.kwonlyargs:
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        parts += ["*", *(parameter(*pair) for pair in pairs)]
    return parts


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    """Return a parameter, with its type and its default if it has them."""
    kind = f": {unparsed(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{kind}" + (f" = {unparsed(default)}" if default else "")


def unparsed(node: ast.expr) -> str:
    """Return an expression as text; a type that is named in quotes has none."""
    text = ast.unparse(node).replace("'", '"')
    return text.strip('"') if text.strip('"') in ORDER else text


def source(thing: Any) -> str:
    """Return the source of a class or function, without decorators and indentation."""
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    return re.sub(r"\A(?:@.*\n)+", "", text)


def document(text: str) -> str:
    """Return a docstring in Google's style as Markdown."""
    parts = []
    for part in re.split(r"\n\n(?=\S)|(?<=:)\n(?=  )", text):
        if re.fullmatch(r"(?:Args|Attributes|Raises|Returns|Yields):", part):
            parts.append(f"**{part}**".replace("Args", "Arguments"))
        elif part.startswith("  "):
            parts.append(items(textwrap.dedent(part)))
        else:
            parts.append(part)
    return linked("\n\n".join(parts))


def items(text: str) -> str:
    """Return `name: text` entries, whose further lines are indented, as a list."""
    entries = [entry.replace("\n", " ") for entry in re.split(r"\n(?! )", text)]
    entries = [re.sub(r"\s+", " ", entry) for entry in entries]
    if not all(re.match(r"[\w, *]+: ", entry) for entry in entries):
        return text  # of a result, in sentences
    return "\n".join(re.sub(r"^([\w, *]+): ", r"* `\1`: ", entry) for entry in entries)


def linked(text: str) -> str:
    """Return a text with links to the pages and files that it names."""
    text = text.replace("flaxbert/config.py", "[the configuration](reference_config.md)")
    return re.sub(r"docs/(\w+)\.md", r"[docs/\1.md](\1.md)", text)


# --- files ---------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """Return {path: content} of both pages."""
    return {DOCS / "reference_config.md": config_page(), DOCS / "reference_api.md": api_page()}


def stale() -> list[str]:
    """Return the names of pages that are missing or not up to date."""
    return [
        path.name
        for path, content in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check compare them; return the exit code."""
    if arguments == ["--check"]:
        for name in (names := stale()):
            print(f"{name} is not up to date. Run python docs/make_reference.py.", file=sys.stderr)
        return bool(names)
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

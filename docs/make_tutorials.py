"""Make a page and a notebook of each tutorial.

    python docs/make_tutorials.py            write them
    python docs/make_tutorials.py --check    fail if one of them is not up to date

A tutorial is a script, docs/LANGUAGE/tutorials/NAME.py, in the percent format of Jupytext: a line
`# %%` begins a cell of code, `# %% [markdown]` a cell of text in comments. Only the script is
edited. The page is NAME.md next to it, the notebook is notebooks/LANGUAGE/NAME.ipynb, without
outputs. The lines of a cell with the tag "install" are shell commands behind `# !`.
"""

import dataclasses
import json
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

REPOSITORY = "flaxbert/flaxbert"
"""Owner and name at GitHub, from where Colab and Kaggle open the notebooks."""

BRANCH = "main"

BADGES = """\
[![{colab}](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{address})
[![{kaggle}](https://kaggle.com/static/images/open-in-kaggle.svg)]\
(https://kaggle.com/kernels/welcome?src=https://github.com/{address})"""

BADGE_TEXTS = {
    "en": {"colab": "Open in Colab", "kaggle": "Open in Kaggle"},
    "es": {"colab": "Abrir en Colab", "kaggle": "Abrir en Kaggle"},
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a tutorial; `kind` is markdown, code or install."""

    kind: str
    text: str


def read(script: str) -> list[Cell]:
    """Return the cells of a script in the percent format.

    Raises:
      ValueError: if there is something before the first cell, or a line of a text or of an
        installation is no comment.
    """
    before, *parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    if before.strip():
        raise ValueError(f"begin with a line `# %% [markdown]`, not with {before.strip()!r}")
    return [_cell(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


def _cell(head: str, body: str) -> Cell:
    """Return the cell of its first line, behind `# %%`, and the lines below."""
    body = body.strip("\n")
    if "[markdown]" in head:
        return Cell("markdown", _uncommented(body, r"#(?: (.*))?"))
    if '"install"' in head:
        return Cell("install", _uncommented(body, r"# !(.*)"))
    return Cell("code", re.sub(r"  # noqa.*$", "", body, flags=re.MULTILINE))  # for linters


def _uncommented(body: str, pattern: str) -> str:
    lines = [(line, re.fullmatch(pattern, line)) for line in body.splitlines()]
    for line, match in lines:
        if match is None:
            raise ValueError(f"expected a line that matches {pattern!r}, not {line!r}")
    return "\n".join(match[1] or "" for _, match in lines if match)


def page(cells: list[Cell], script: Path) -> str:
    """Return the page of a tutorial, with the badges below its title."""
    languages = {"code": "python", "install": "bash"}
    title, *texts = (
        f"```{languages[cell.kind]}\n{cell.text}\n```" if cell.kind in languages else cell.text
        for cell in cells
    )
    origin = f"<!-- Made by docs/make_tutorials.py. Edit {script.name}. -->"
    return "\n\n".join([_with_badges(title, script), *texts, origin]) + "\n"


def notebook(cells: list[Cell], script: Path) -> str:
    """Return the notebook of a tutorial, as JSON (format 4.5), without outputs."""
    result = []
    for number, cell in enumerate(cells):
        text = cell.text
        if cell.kind == "markdown":
            text = _absolute(_with_badges(text, script) if number == 0 else text, script)
        if cell.kind == "install":
            text = re.sub("^", "!", text, flags=re.MULTILINE)
        kind = "markdown" if cell.kind == "markdown" else "code"
        fields = {"execution_count": None, "outputs": []} if kind == "code" else {}
        tags = {"tags": ["install"]} if cell.kind == "install" else {}
        result.append(
            {"cell_type": kind, "id": f"cell-{number}", "metadata": tags, **fields}
            | {"source": text.splitlines(keepends=True)}
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": result, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _with_badges(text: str, script: Path) -> str:
    """Return the first text with the badges below its first line, the title."""
    title, _, rest = text.partition("\n")
    place = notebook_of(script).relative_to(ROOT).as_posix()
    badges = BADGES.format(
        address=f"{REPOSITORY}/blob/{BRANCH}/{place}", **BADGE_TEXTS[language_of(script)]
    )
    return f"{title}\n\n{badges}\n{rest}"


def _absolute(text: str, script: Path) -> str:
    """Return a text with addresses for relative links: Colab has only the notebook."""

    def replaced(match: re.Match[str]) -> str:
        mark, name, target = match.groups()
        path = posixpath.normpath(f"{script.parent.relative_to(ROOT).as_posix()}/{target}")
        blob = f"https://github.com/{REPOSITORY}/blob/{BRANCH}"
        raw = f"https://raw.githubusercontent.com/{REPOSITORY}/{BRANCH}"
        return f"{mark}[{name}]({raw if mark else blob}/{path})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)", replaced, text)


def language_of(script: Path) -> str:
    """Return the language of a tutorial, en or es."""
    return script.parents[1].name


def notebook_of(script: Path) -> Path:
    """Return the path of a tutorial's notebook."""
    return ROOT / "notebooks" / language_of(script) / f"{script.stem}.ipynb"


def outputs() -> Iterator[tuple[Path, str]]:
    """Yield (path, content) of all pages and notebooks."""
    for script in sorted(ROOT.glob("docs/*/tutorials/*.py")):
        cells = read(script.read_text(encoding="utf-8"))
        yield script.with_suffix(".md"), page(cells, script)
        yield notebook_of(script), notebook(cells, script)


def stale() -> list[str]:
    """Return the paths of pages and notebooks that are missing or not up to date."""
    return [
        path.relative_to(ROOT).as_posix()
        for path, content in outputs()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    ]


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them; return the exit code."""
    if arguments == ["--check"]:
        for name in (names := stale()):
            print(f"{name} is not up to date. Run python docs/make_tutorials.py.", file=sys.stderr)
        return bool(names)
    for path, content in outputs():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

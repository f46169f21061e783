"""Tutorials: their notebooks and pages are those of the scripts; slow: each notebook runs."""

import json
import os
from pathlib import Path

import documents
import pytest
from conftest import ROOT

tutorials = documents.script("docs/make_tutorials.py")
SCRIPTS = sorted(ROOT.glob("docs/*/tutorials/*.py"))
FIRST = ROOT / "docs/en/tutorials/x.py"
FIVE_MINUTES = 2 * 300
"""Seconds of processor time on a machine with two cores."""

SCRIPT = """\
# %% [markdown]
# # Title
#
# Text with ![a picture](../pictures/p.svg) and [a link](../tokens.md#ids).

# %% tags=["install"]
# !pip install flaxbert

# %%
def f() -> int:
    return 1


f()  # noqa: B018
"""


def name(script: Path) -> str:
    return script.relative_to(ROOT).as_posix()


def test_a_script_is_read_cell_by_cell() -> None:
    title, install, code = tutorials.read(SCRIPT)
    assert title.kind == "markdown"
    assert title.text.startswith("# Title\n\nText with")
    assert (install.kind, install.text) == ("install", "pip install flaxbert")
    assert code.text == "def f() -> int:\n    return 1\n\n\nf()"


def test_a_notebook_installs_and_has_addresses_for_relative_links() -> None:
    notebook = json.loads(tutorials.notebook(tutorials.read(SCRIPT), FIRST))
    title, install, code = ("".join(cell["source"]) for cell in notebook["cells"])
    assert "colab.research.google.com/github/flaxbert/flaxbert/blob/main/notebooks/en/x" in title
    assert "flaxbert/main/docs/en/pictures/p.svg)" in title
    assert "flaxbert/blob/main/docs/en/tokens.md#ids)" in title
    assert install == "!pip install flaxbert"
    assert code.endswith("f()")
    assert all(not cell.get("outputs") for cell in notebook["cells"])


def test_a_page_shows_the_installation_and_the_code() -> None:
    page = tutorials.page(tutorials.read(SCRIPT), FIRST)
    assert documents.fences(page)[0] == ("bash", "pip install flaxbert\n")
    assert documents.fences(page)[1][0] == "python"
    assert page.startswith("# Title\n\n[![Open in Colab]")


@pytest.mark.parametrize("script", ["x = 1\n# %%\n", "# %% [markdown]\nno comment\n"])
def test_a_malformed_script_is_an_error(script: str) -> None:
    with pytest.raises(ValueError, match=r"begin with|expected a line"):
        tutorials.read(script)


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_a_tutorial_begins_with_its_title_and_ends_with_a_check(script: Path) -> None:
    first, *_, last = tutorials.read(script.read_text(encoding="utf-8"))
    assert first.text.startswith("# ")
    assert last.text.startswith("assert ")


@pytest.mark.slow  # needs jupytext
@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_cells_are_those_of_jupytext(script: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason='needs pip install -e ".[docs]"')
    theirs = [cell for cell in jupytext.read(script).cells if cell.source.strip()]
    ours = tutorials.read(script.read_text(encoding="utf-8"))
    kinds = [cell.kind == "markdown" for cell in ours]
    assert kinds == [cell.cell_type == "markdown" for cell in theirs]
    for our, their in zip(ours, theirs, strict=True):
        if our.kind == "markdown":
            assert our.text == their.source


@pytest.mark.slow  # trains in another process
@pytest.mark.filterwarnings("ignore")  # of the libraries that run notebooks
@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_a_notebook_runs_offline_and_prints_its_score(script: Path, tmp_path: Path) -> None:
    """Run a notebook in an empty directory; its last cell asserts that the score is good."""
    nbclient = pytest.importorskip("nbclient", reason='needs pip install -e ".[notebook]"')
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(tutorials.notebook_of(script), as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "tags" not in cell.metadata]
    place = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=3600, resources=place)
    before = os.times()
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"})
    after = os.times()  # of the processor, which other programs on the machine do not change
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < FIVE_MINUTES
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "report: " in printed  # print(results)

"""docs/architecture.md: its files, folders, links and diagram are those of the repository."""

import re
from types import ModuleType

import documents
import pytest
from conftest import ROOT
from test_imports import LAYERS

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def diagram() -> ModuleType:
    return documents.script("docs/make_diagram.py")


def test_the_diagram_is_up_to_date(diagram: ModuleType) -> None:
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == diagram.draw()


def test_layers_are_in_the_order_of_the_import_test(diagram: ModuleType) -> None:
    assert tuple(diagram.LAYERS) == LAYERS
    picture = PAGE.partition("```\n")[2].partition("```")[0]
    assert tuple(re.findall(r"^(\w+)/ ", picture, re.MULTILINE)) == LAYERS
    assert tuple(re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE)) == LAYERS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.(?:py|md))`", PAGE))))
def test_files_that_are_named_exist(name: str) -> None:
    folders = [ROOT, ROOT / "flaxbert", *(ROOT / "flaxbert" / layer for layer in LAYERS)]
    folders.append(ROOT / "flaxbert" / "models")
    assert any((folder / name).is_file() for folder in folders)


def test_every_module_of_the_layers_is_named() -> None:
    table = PAGE.partition("| folder |")[2].partition("\n\n")[0]
    rows = {row[2]: row for row in re.finditer(r"^(\| `(\w+)/` \|.*)$", table, re.MULTILINE)}
    for layer in LAYERS[:-1]:  # metrics/ is described as a whole
        files = {file.name for file in (ROOT / "flaxbert" / layer).glob("*.py")}
        tasks = {"classification.py", "multi_label.py", "multiple_choice.py", "regression.py",
                 "pretraining.py", "question_answering.py", "token_classification.py"}  # fmt: skip
        lacking = {
            name for name in files - {"__init__.py"} - tasks if f"`{name}`" not in rows[layer][1]
        }
        assert not lacking, f"{layer}/: {lacking}"


def test_links_lead_to_a_heading_or_a_file() -> None:
    slugs = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    for page, heading in re.findall(r"\]\(([\w./]*)#?([\w-]*)\)", PAGE):
        assert not page or (ROOT / "docs" / page).is_file()
        assert page or heading in slugs

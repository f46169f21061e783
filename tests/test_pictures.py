"""docs/pictures: the written pictures, their texts in both languages, and the numbers in them."""

import importlib
import string
import sys
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest
from conftest import ROOT

from flaxbert.data.packing import pack

SVG = "{http://www.w3.org/2000/svg}"


def module(name: str) -> ModuleType:
    """Import a module of docs/pictures, which is no package."""
    folder = str(ROOT / "docs" / "pictures")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


draw, canvas, records = module("draw"), module("canvas"), module("records")
PICTURES = sorted(draw.PICTURES)


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_no_picture_is_left_over() -> None:
    for language in draw.LANGUAGES:
        files = {file.stem for file in (ROOT / "docs" / language / "pictures").iterdir()}
        assert files == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_both_languages_have_the_same_texts(name: str) -> None:
    english, spanish = draw.PICTURES[name].TEXTS["en"], draw.PICTURES[name].TEXTS["es"]
    assert list(english) == list(spanish)
    for key, text in english.items():
        assert placeholders(text) == placeholders(spanish[key]), key


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_can_be_read(name: str, language: str) -> None:
    root = ET.parse(ROOT / "docs" / language / "pictures" / f"{name}.svg").getroot()
    assert root.get("lang") == language
    assert root.get("width") == str(canvas.WIDTH)
    assert float(root.get("height", "inf")) <= 460
    assert all(root.findtext(f"{SVG}{tag}") for tag in ("title", "desc"))
    texts = root.findall(f"{SVG}text")
    assert len(texts) > 6
    assert all(float(text.get("font-size", 0)) >= canvas.SMALL for text in texts)


def test_a_text_that_is_not_drawn_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = draw.PICTURES["masking"].TEXTS
    monkeypatch.setitem(texts, "es", texts["es"] | {"extra": "nada"})
    with pytest.raises(ValueError, match="extra"):
        draw.picture("masking", "es")


def test_a_text_that_overflows_its_box_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = draw.PICTURES["masking"].TEXTS
    monkeypatch.setitem(texts, "en", texts["en"] | {"word": "sparkling water"})
    with pytest.raises(ValueError, match=r"sparkling water.*its box"):
        draw.picture("masking", "en")


def test_a_character_of_unknown_width_is_an_error() -> None:
    assert canvas.measure("ñ", 15) == canvas.measure("n", 15)
    with pytest.raises(ValueError, match="no width"):
        canvas.measure("λ", 15)


def test_numbers_are_written_as_in_each_language() -> None:
    assert records.number(22713216, "en") == "22,713,216"
    assert records.number(22713216, "es") == "22\u00a0713\u00a0216"
    assert records.number(1155, "es") == "1155"
    assert records.number(0.5, "es", 2) == "0.50"  # as runs print it


@pytest.mark.parametrize(
    ("name", "layers", "width"), [("MiniLM-L6", 6, 384), ("BERT-base", 12, 768)]
)
def test_parameters_are_those_of_the_models(name: str, layers: int, width: int) -> None:
    inner, norm = 4 * width, 2 * width
    embeddings = (30522 + 512 + 2) * width + norm
    attention, mlp = 4 * (width * width + width), 2 * width * inner + inner + width
    assert records.facts()["parameters"][name] == {
        "encoder": embeddings + layers * (attention + mlp + 2 * norm),
        "pooler": width * width + width,
        "classifier": 3 * width + 3,
    }


def test_sentences_are_packed_as_in_training() -> None:
    record = records.facts()["packing"]
    lengths = record["lengths"]
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    rows = pack([lengths[n] for n in order], record["row_length"], len(lengths))
    assert max(rows) + 1 == len(record["rows"])
    assert sorted(n for row in record["rows"] for n in row) == sorted(order)


def test_pictures_are_up_to_date() -> None:
    assert draw.main(["--check"]) == 0


def test_check_fails_for_a_file_that_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(draw, "PICTURES", {"masking": draw.PICTURES["masking"]})
    monkeypatch.setattr(draw.PICTURES["masking"], "RULE", 170)
    assert draw.main(["--check"]) == 1
    assert "masking.svg: is not up to date" in capsys.readouterr().err

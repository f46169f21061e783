"""The language of what people read, and the completeness of the translation."""

import ast
import string
from pathlib import Path

import pytest

import flaxbert
from flaxbert.errors import ConfigError
from flaxbert.messages.language import VARIABLE, amount, language, percent, plural, tr
from flaxbert.messages.spanish import SPANISH

PACKAGE = Path(flaxbert.__file__).parent


@pytest.fixture
def spanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "es")


def literals(file: Path) -> list[ast.expr]:
    """The texts that a file gives to `tr` and `plural`."""
    texts, content = [], file.read_text(encoding="utf-8")
    if "from flaxbert.messages.language import" not in content:
        return []
    for node in ast.walk(ast.parse(content)):
        match node:
            case ast.Call(func=ast.Name(id="tr"), args=[text]):
                texts.append(text)
            case ast.Call(func=ast.Name(id="plural"), args=[_, one, many]):
                texts += [one, many]
    return texts


@pytest.fixture(scope="module")
def used() -> set[object]:
    """All English texts in the code."""
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "language.py"]
    nodes = [node for file in files for node in literals(file)]
    assert all(isinstance(node, ast.Constant) for node in nodes), "a text is not a literal"
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return {*texts, "{low} to {high}"}  # that of `span`


def test_every_text_is_translated_and_every_translation_used(used: set[object]) -> None:
    assert len(used) > 300
    assert used - SPANISH.keys() == set()
    assert SPANISH.keys() - used == set()


def test_translations_have_the_fields_of_their_texts() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert [text for text in SPANISH if fields(text) != fields(SPANISH[text])] == []


def test_translations_are_written_as_spanish_is() -> None:
    for text in SPANISH.values():
        assert text.count("¿") == text.count("?")
        assert text.count("¡") == text.replace("!r}", "").count("!")
        assert text == text.strip() or text[0] in ",;"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({VARIABLE: "es", "LC_ALL": "en_US.UTF-8"}, "es"),
        ({VARIABLE: "en", "LANG": "es_MX.UTF-8"}, "en"),
        ({"LC_ALL": "es_ES.UTF-8", "LC_MESSAGES": "en_US", "LANG": "de_DE"}, "es"),
        ({"LC_MESSAGES": "es", "LANG": "en_US.UTF-8"}, "es"),
        ({"LC_ALL": "", "LANG": "es_AR"}, "es"),
        ({"LC_ALL": "C.UTF-8", "LANG": "es_AR"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_variable_goes_before_the_locale(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_an_unknown_language_is_an_error_that_lists_the_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "fr")
    with pytest.raises(ConfigError, match=r"FLAXBERT_LANG=fr: .* one of en, es"):
        tr("train")


def test_plural_forms_read_right_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(count: int) -> str:
        return plural(count, "1 step", "{n} steps")

    assert [steps(n) for n in (0, 1, 2, 1234)] == ["0 steps", "1 step", "2 steps", "1,234 steps"]
    monkeypatch.setenv(VARIABLE, "es")
    assert [steps(n) for n in (0, 1, 2, 1234)] == ["0 pasos", "1 paso", "2 pasos", "1234 pasos"]


def test_numbers_are_unambiguous_in_every_country(spanish: None) -> None:
    assert [amount(n) for n in (999, 1234, 22_713_216)] == ["999", "1234", "22\xa0713\xa0216"]
    shares = [percent(share) for share in (0.0, 0.002, 0.824, 0.998, 1.0)]
    assert shares == ["0 %", "0.2 %", "82 %", "99.8 %", "100 %"]
